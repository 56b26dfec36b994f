"""Where the time goes: ``python -m tests.benchmarks.profile w1 | w3 | w5``.

W1: the parts of a start, from its own marks, and what its script imports. W3 and W5: py-spy samples
the master and a slave while the workload goes round; self time by module, of the time that each is
on a processor. Get py-spy with ``uv run --with py-spy``, or ``pip install py-spy``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

from tests.benchmarks.__main__ import ROOT, load, prepare
from tests.benchmarks.society import Society, society
from tests.benchmarks.starts import w1
from tests.benchmarks.workloads import Sizes

SECONDS = 5
SAMPLES_A_SECOND = 200
SHOWN = 12
STARTS = 5
CALLS = 50
PACKAGES = ("trio", "anyio", "msgpack", "numpy", "outcome", "asyncio")

Round = Callable[[], Awaitable[object]]


def profile_start(slaves: int) -> None:
    """W1: between one mark and the next, medians of a few starts; then the script's imports."""
    found: dict[str, list[float]] = {}

    def report(metric: str, value: float, unit: str, **params: object) -> None:
        found.setdefault(metric.removeprefix("start from "), []).append(value)

    for _ in range(STARTS):
        w1("trio", report, Sizes(cold=(slaves,)))
    left = sorted(((statistics.median(values), mark) for mark, values in found.items()))[::-1]
    whole = left[0][0]
    print(f"W1, {slaves} slaves: {whole * 1e3:.0f} ms, of which")
    for (seconds, mark), (after, name) in zip(left, [*left[1:], (0.0, "answered")], strict=True):
        part = seconds - after
        print(f"{part / whole:6.0%} {part * 1e3:6.1f} ms  from {mark} to {name}")
    print("imports of the script, by -X importtime, which adds to them:")
    _show(import_shares(_import_times()), "us")


def _import_times() -> str:
    code = "import creamas_sc.mp, tests.benchmarks.society, trio"
    command = [sys.executable, "-X", "importtime", "-c", code]
    done = subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.PIPE, text=True)
    return done.stderr


def import_shares(text: str) -> Counter[str]:
    """Microseconds of importing, by package, of what ``-X importtime`` printed."""
    shares: Counter[str] = Counter()
    for line in text.splitlines():
        own, _, name = line.removeprefix("import time:").split("|")
        if own.strip().isdecimal():
            package = name.strip().partition(".")[0]
            known = package in ("creamas_sc", "tests", *PACKAGES)
            shares[package if known else "standard library and others"] += int(own)
    return shares


def profile_steps() -> None:
    """W3: a large society and a small one; the master and a slave."""
    for agents in (10_000, 100):
        system = society("trio", 2)
        system.run(_steps, system, agents)


async def _steps(system: Society, agents: int) -> None:
    await system.start()
    await system.spawn("Counter", agents)
    pids = {"the master": os.getpid(), "a slave": (await system.slave_pids())[0]}
    await sample(f"W3, {agents:,} agents", pids, system.trigger_all)
    await system.stop()


def profile_calls() -> None:
    """W5: many callers at once, and one alone; the callers' slave and the other."""
    for callers in (100, 1):
        system = society("trio", 2)
        system.run(_calls, system, callers)


async def _calls(system: Society, callers: int) -> None:
    await system.start()
    await system.setup_calls(callers, False)
    first, other = await system.slave_pids()
    pids = {"the callers' slave": first, "the other slave": other}
    calls = CALLS if callers > 1 else 20 * CALLS
    await sample(f"W5, callers: {callers}", pids, partial(system.run_calls, calls))
    await system.stop()


async def sample(title: str, pids: Mapping[str, int], once: Round) -> None:
    """Go round and round while py-spy watches, then print what it saw."""
    await once()
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder, str(pid)) for name, pid in pids.items()}
        before = {name: _cpu(pid) for name, pid in pids.items()}
        began, rounds = time.perf_counter(), 0
        spies = [_spy(pid, files[name]) for name, pid in pids.items()]
        while any(spy.poll() is None for spy in spies):
            await once()
            rounds += 1
        if any(spy.returncode for spy in spies):
            raise SystemExit("py-spy may not look into the processes, or does not know this Python")
        took = time.perf_counter() - began
        for name, file in files.items():
            own, kernel = (b - a for a, b in zip(before[name], _cpu(pids[name]), strict=True))
            print(
                f"{title}, {name}: {rounds} rounds of {took / rounds * 1e3:.3g} ms; on a processor "
                f"{(own + kernel) / took:.0%} of the time, in the kernel {kernel / took:.0%}"
            )
            functions = self_times(file.read_text())
            _show(by_file(functions), "samples")
            _show(functions, "samples")


def _spy(pid: int, file: Path) -> subprocess.Popen[bytes]:
    command = [py_spy(), "record", "--pid", str(pid), "--format", "raw", "--function"]
    # It would stop the process for each sample otherwise, and what is measured with it.
    command += [
        "--nonblocking",
        "--rate",
        str(SAMPLES_A_SECOND),
        "--duration",
        str(SECONDS),
        "--output",
        str(file),
    ]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def py_spy() -> str:
    """Where it is.

    Raises:
        SystemExit: Nowhere.
    """
    found = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if found is None:
        raise SystemExit("py-spy is not installed: uv run --with py-spy ..., or pip install py-spy")
    return found


def _cpu(pid: int) -> tuple[float, float]:
    """Seconds so far, of the process's own and of the kernel's work for it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    return int(fields[11]) / ticks, int(fields[12]) / ticks


def self_times(folded: str) -> Counter[str]:
    """Samples by function, of stacks as "outer;inner (file) count"."""
    shares: Counter[str] = Counter()
    for line in folded.splitlines():
        stack, _, count = line.rpartition(" ")
        shares[stack.rpartition(";")[2]] += int(count)
    return shares


def by_file(functions: Mapping[str, int]) -> Counter[str]:
    """The same by file."""
    shares: Counter[str] = Counter()
    for function, count in functions.items():
        shares[function.rpartition("(")[2].rstrip(")").partition(":")[0]] += count
    return shares


def _show(shares: Counter[str], unit: str) -> None:
    whole = sum(shares.values())
    print(f"  {whole} {unit}")
    for name, value in shares.most_common(SHOWN):
        print(f"  {value / whole:6.1%}  {name}")


PROFILES: dict[str, Callable[[], None]] = {
    "w1": lambda: profile_start(4),
    "w3": profile_steps,
    "w5": profile_calls,
}


def main() -> None:
    """Profile and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.profile")
    parser.add_argument("workload", choices=sorted(PROFILES))
    args = parser.parse_args()
    prepare()
    print(load())
    PROFILES[args.workload]()


if __name__ == "__main__":
    main()
