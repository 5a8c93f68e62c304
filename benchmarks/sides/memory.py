"""Peak resident memory of this process above what it held when its imports were done (Linux).

Not `ru_maxrss`: a process starts with that of the one that started it.
"""

from contextlib import suppress
from pathlib import Path


def status_mib(key: str) -> float:
    """A size of this process, such as VmHWM, the largest resident set so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    raise KeyError(key)


class PeakMemory:
    """Starts counting when it is made."""

    def __init__(self) -> None:
        with suppress(OSError):  # where that is not allowed, the peak of the imports counts too
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        self._before = status_mib("VmRSS")

    def peak_mib(self) -> float:
        return status_mib("VmHWM") - self._before
