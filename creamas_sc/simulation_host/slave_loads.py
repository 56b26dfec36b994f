"""How the slaves of a simulation are, and what their processes use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from creamas_sc.mp.slave_pool import SlavePool
from creamas_sc.restarts.slave import Slave

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# In /proc/PID/stat, counted after the command's name; see proc_pid_stat(5).
_UTIME, _STIME, _RSS = 11, 12, 21


def slave_loads(slaves: SlavePool) -> list[dict[str, Any]]:
    """A dict for each slave, as `creamas_sc.simulation_api` says."""
    return [_load(slave, slave.slot in slaves.driver.coming) for slave in slaves.members]


def _load(slave: Slave, coming: bool) -> dict[str, Any]:
    gone = slave.gone.is_set()
    cpu, memory = (None, None) if gone else process_load(slave.pid)
    return {
        "address": slave.address,
        "pid": slave.pid,
        "state": "restarting" if coming else "lost" if gone else "running",
        "agents": slave.agents,
        "restarts": slave.incarnation,
        "cpu_seconds": cpu,
        "memory_bytes": memory,
        "step_seconds": slave.step_seconds,
    }


def process_load(pid: int) -> tuple[float, int] | tuple[None, None]:
    """CPU seconds so far and resident memory in bytes of a process; None if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None, None
    fields = text.rpartition(b")")[2].split()
    seconds = (int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS
    return seconds, int(fields[_RSS]) * _PAGE_BYTES
