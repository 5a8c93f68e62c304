"""Peak resident memory of this process above what it held when its imports were done (Linux)."""

from pathlib import Path


def _status(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    raise KeyError(key)


class PeakMemory:
    """Starts counting when it is made."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        self._before = _status("VmRSS")

    def peak_mib(self) -> float:
        return _status("VmHWM") - self._before
