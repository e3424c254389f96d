"""Resident memory of this process."""

from pathlib import Path


def resident_peak_mib() -> float:
    """The most that was resident since the program began, in MiB. (`ru_maxrss` of a child also knows what its parent held when it forked.)"""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
