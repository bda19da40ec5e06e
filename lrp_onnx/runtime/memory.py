"""The memory of this process and of the machine."""

from __future__ import annotations

from pathlib import Path

UNKNOWN_FREE = 4e9
"""Bytes that count as free where the system does not say."""


def memory_now(processes: Path = Path("/proc")) -> tuple[float, float]:
    """(bytes that this process uses, bytes that are free).

    Read from Linux's ``/proc``; elsewhere 0 and `UNKNOWN_FREE`.
    """
    in_use = _field(processes / "self" / "status", "VmRSS:")
    free = _field(processes / "meminfo", "MemAvailable:")
    return in_use or 0.0, UNKNOWN_FREE if free is None else free


def _field(file: Path, name: str) -> float | None:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith(name)), None)
