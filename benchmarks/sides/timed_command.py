"""A command of `rlhf` with its wall time and the peak memory of its process: timed_command.py RESULT WORD ...

Status 1 of `data check` is a verdict on the file and no failure.
"""

import json
import sys
import time
from pathlib import Path

from memory import status_mib

import rlhf.cli


def main() -> int:
    result, *words = sys.argv[1:]
    started = time.perf_counter()
    try:
        status = rlhf.cli.main(words)
    except SystemExit as left:
        status = left.code
    seconds = time.perf_counter() - started
    Path(result).write_text(json.dumps({"time_s": seconds, "memory_mib": status_mib("VmHWM")}))
    return 0 if status in (None, 0, 1) else 1


if __name__ == "__main__":
    sys.exit(main())
