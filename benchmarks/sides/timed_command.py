"""A command of `rlhf` with its wall time and the peak memory of its process: timed_command.py RESULT WORD ...

Status 1 of `data check` is a verdict on the file and no failure.
"""

import json
import resource
import sys
import time
from pathlib import Path

import rlhf.cli


def main() -> int:
    result, *words = sys.argv[1:]
    started = time.perf_counter()
    try:
        status = rlhf.cli.main(words)
    except SystemExit as left:
        status = left.code
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Path(result).write_text(json.dumps({"time_s": seconds, "memory_mib": peak}))
    return 0 if status in (None, 0, 1) else 1


if __name__ == "__main__":
    sys.exit(main())
