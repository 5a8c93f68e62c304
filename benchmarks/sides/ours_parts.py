"""Stage 3 under the launcher with its parts timed, from outside: the calls into the roles are wrapped.

deepspeed sides/ours_parts.py RESULT --config ... key=value
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlhf.train.policy.roles import Roles
from rlhf.train.ppo import train_ppo
from rlhf.train.run.metrics import MetricsLog
from rlhf.train.run.run import Run, launch

sys.path.insert(0, str(Path(__file__).parent))
from parts import Parts


def replace_everywhere(name: str, change: Callable[[Any], Any]) -> None:
    """Puts `change(original)` in place of `name` in every module of this project that imported it."""
    modules = [module for key, module in sys.modules.items() if key.startswith("rlhf.") and hasattr(module, name)]
    changed = {id(getattr(module, name)): change(getattr(module, name)) for module in modules}
    assert changed, f"nothing is called {name}"
    for module in modules:
        setattr(module, name, changed[id(getattr(module, name))])


def watch_roles(parts: Parts, roles: Roles) -> Roles:
    """The roles with their calls timed."""
    calls = {
        "actor": {"logprobs": "policy_forward", "backward": "backward"},
        "critic": {"infer": "value", "forward": "value_forward", "backward": "backward"},
        "reference": {"logprobs": "reference"},
        "reward": {"forward": "reward"},
    }
    for role, methods in calls.items():
        for method, name in methods.items():
            model = getattr(roles, role)
            setattr(model, method, parts.timed(name, getattr(model, method)))
    return roles


def main() -> int:
    local = [word for word in sys.argv[1:] if word.startswith("--local_rank")]
    result, *rest = [word for word in sys.argv[1:] if word not in local]
    parts = Parts()
    replace_everywhere("draw_answers", lambda function: parts.timed("generate", function))
    replace_everywhere("build_roles", lambda build: lambda *words: watch_roles(parts, build(*words)))
    Roles.step = parts.timed("optimizer", Roles.step)  # type: ignore[method-assign]
    log = MetricsLog.log

    def marked(self: MetricsLog, step: int, values: Any) -> None:
        log(self, step, values)
        parts.mark()

    MetricsLog.log = marked  # type: ignore[method-assign]

    def measured(run: Run) -> None:
        train_ppo(run)
        Path(result).write_text(json.dumps({"parts": parts.rows}))

    return launch("ppo", [*local, *rest], measured)


if __name__ == "__main__":
    sys.exit(main())
