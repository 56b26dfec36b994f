"""A multi-environment that nobody refers to any more is closed, and its ports are free again."""

from __future__ import annotations

import gc
import os
import threading
import warnings
from pathlib import Path
from typing import Any, ClassVar

import pytest

from creamas_sc import Environment, MultiEnvironment, MultiEnvManager, run
from creamas_sc.mp import EnvManager
from creamas_sc.rpc.addresses import split_address
from tests.support.agents import Echo
from tests.support.forks import exit_code_of
from tests.support.processes import open_pidfds, wait_gone

BOUND_SECONDS = 10.0
LOST = "was not closed: use with"


class Saves(MultiEnvironment):
    """Notes that it saved."""

    saved: ClassVar[list[str]] = []

    def save_info(self, folder: str | None, *args: Any, **kwargs: Any) -> Any:
        self.saved.append(self.name)


def started(
    name: str, ports: list[int], mgr_cls: type | None = MultiEnvManager
) -> MultiEnvironment:
    menv = Saves(("localhost", ports[0]), Environment, mgr_cls, name=name)
    start(menv, ports)
    return menv


def start(menv: MultiEnvironment, ports: list[int]) -> None:
    slaves = [("localhost", port) for port in ports[1:]]
    run(menv.spawn_slaves(slaves, Environment, EnvManager))
    run(menv.spawn(Echo))
    assert run(menv.trigger_all()) == [((), {})]


def collect_elsewhere() -> None:
    thread = threading.Thread(target=gc.collect)
    thread.start()
    thread.join()


@pytest.mark.parametrize("mgr_cls", [pytest.param(None, marks=pytest.mark.slow), MultiEnvManager])
def test_a_cell_that_runs_again(mgr_cls: type | None) -> None:
    Saves.saved.clear()
    menv = started("0", [0, 0, 0], mgr_cls)
    ports = [split_address(addr)[1] for addr in (f"{menv.env.base_url}0", *menv.addrs)]
    pids = [slave.pid for slave in menv._slaves.members]
    for number in range(1, 3):
        with pytest.warns(ResourceWarning, match=LOST):
            menv = Saves(("localhost", ports[0]), Environment, mgr_cls, name=str(number))
        start(menv, ports)
        assert Saves.saved == [str(n) for n in range(number)]
        for pid in pids:
            assert not Path(f"/proc/{pid}").exists()
        pids = [slave.pid for slave in menv._slaves.members]
    menv.close()
    assert Saves.saved == ["0", "1", "2"]


def test_one_in_a_cycle_that_another_thread_collects() -> None:
    Saves.saved.clear()
    menv = started("cyclic", [0, 0])
    slaves = open_pidfds(slave.pid for slave in menv._slaves.members)
    menv.itself = menv  # type: ignore[attr-defined]
    del menv
    with pytest.warns(ResourceWarning, match=LOST):
        collect_elsewhere()
    assert wait_gone(slaves, BOUND_SECONDS) == []
    assert Saves.saved == ["cyclic"]


def test_a_forked_process_closes_nothing_of_its_parents() -> None:
    menv = started("parent", [0, 0])
    pid = os.fork()
    if pid == 0:
        warnings.simplefilter("ignore")
        del menv
        os._exit(gc.collect() and 0)
    assert exit_code_of(pid) == 0
    assert run(menv.trigger_all()) == [((), {})]
    menv.close()


def test_one_without_slaves_or_that_is_closed_is_lost_silently() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MultiEnvironment(("localhost", 0), Environment)
        menv = started("closed", [0, 0])
        menv.close()
        del menv
        gc.collect()
