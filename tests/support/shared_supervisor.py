"""A supervisor that tests share: most tests need slaves, few need a separate process tree.

Starting a tree (keeper, zygote, supervisor) costs about four times as much as the two slaves that a
test starts in it. So each pytest worker keeps one tree in a background thread, and each
`MultiEnvironment` of a test gets a `SharedSupervisor`, which has its own slots in that tree. Slaves
may be killed, stopped or restarted as usual. A test that kills, stops or counts the keeper, zygote
or supervisor must start another tree.

    test (its own trio loop)                     background thread
    MultiEnvironment -> SharedSupervisor  --->   PrivateSupervisor -> keeper -> zygote ...
           on_exit   <-------------------------  exits, sorted by slot prefix
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trio
from anyio.abc import TaskStatus

from creamas_sc.runtime.process_load import ProcessLoad
from creamas_sc.supervisor_client.connection import (
    OnExit,
    PrivateSupervisor,
    Supervisor,
    supervisor_factory,
)
from creamas_sc.supervisor_client.messages import (
    ActorExit,
    ActorOrder,
    Code,
    NodeInfo,
    NodeSettings,
    StartedActor,
    StopResult,
)
from tests.support import processes

__all__ = ["SharedSupervisor", "own_children", "sharing_supervisor", "uses_shared_supervisor"]

GRACE_SECONDS = 1.0
START_SECONDS = 20.0
# What slaves import with the classes of a test's module: it would take each longer than its start.
PRELOADED = ("pytest", "trio.testing")


class _Tree:
    """The process tree, and the thread whose loop talks to it."""

    def __init__(self) -> None:
        self.on_exit: dict[str, OnExit] = {}
        self.supervisor = PrivateSupervisor(self._note_exit, preload=PRELOADED)
        self._started = threading.Event()
        self._nursery: trio.Nursery
        self._token: trio.lowlevel.TrioToken
        self._thread = threading.Thread(target=trio.run, args=(self._main,))

    def start(self) -> None:
        """Start the thread and the tree."""
        self._thread.start()
        assert self._started.wait(START_SECONDS)

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as self._nursery:
            await self._nursery.start(self.supervisor.run)
            self._started.set()

    def stop(self) -> None:
        """End the tree and the thread."""
        self._token.run_sync_soon(self._nursery.start_soon, self.supervisor.aclose)
        self._thread.join()

    @property
    def keeper_pid(self) -> int:
        assert self.supervisor._tree is not None
        return self.supervisor._tree.keeper.pid

    def _note_exit(self, event: ActorExit) -> None:
        prefix, _, slot = event["slot"].partition("/")
        if prefix in self.on_exit:
            self.on_exit[prefix]({**event, "slot": slot})

    async def call(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Await ``function(*args)`` in the tree's thread; cancellation is passed on."""
        token, done, scope = trio.lowlevel.current_trio_token(), trio.Event(), trio.CancelScope()
        outcome: list[Any] = []

        async def run() -> None:
            try:
                with scope:
                    outcome.append(await function(*args))
            except Exception as error:  # raised again in the caller's thread
                outcome.append(error)
            finally:
                token.run_sync_soon(done.set)

        self._token.run_sync_soon(self._nursery.start_soon, run)
        try:
            await done.wait()
        except trio.Cancelled:
            self._token.run_sync_soon(scope.cancel)
            with trio.CancelScope(shield=True):
                await done.wait()
            raise
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[0]


class SharedSupervisor:
    """One `MultiEnvironment`'s part of the shared tree; a `Supervisor`."""

    _tree: ClassVar[_Tree | None] = None
    _numbers = itertools.count(1)

    def __init__(self, on_exit: OnExit) -> None:
        assert SharedSupervisor._tree is not None, "use the fixture `shared_supervisor`"
        self._shared = SharedSupervisor._tree
        self._on_exit = on_exit
        self._prefix = str(next(self._numbers))
        self._slots: set[str] = set()
        self._closing = trio.Event()
        self._gone = trio.Event()

    async def run(self, *, task_status: TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
        """Pass on the ends of slaves until `aclose` or cancellation; then end what is left."""
        token = trio.lowlevel.current_trio_token()
        self._shared.on_exit[self._prefix] = lambda event: token.run_sync_soon(self._on_exit, event)
        task_status.started()
        try:
            await self._closing.wait()
        finally:
            try:
                with trio.CancelScope(shield=True):
                    await self.stop(None, GRACE_SECONDS, b"")
            finally:
                del self._shared.on_exit[self._prefix]
                self._gone.set()

    async def start(
        self, orders: Sequence[ActorOrder], code: Code | None = None
    ) -> list[StartedActor]:
        """Start actors in slots of this part."""
        mine = [{**order, "slot": f"{self._prefix}/{order['slot']}"} for order in orders]
        # A start that fails frees the slots of all its actors, also of one that is restarted.
        self._slots -= {order["slot"] for order in orders}
        started = await self._shared.call(self._shared.supervisor.start, mine, code)
        self._slots |= {order["slot"] for order in orders}
        return self._strip(started)

    async def stop(
        self, slots: Sequence[str] | None, grace: float, payload: bytes
    ) -> list[StopResult]:
        """Stop actors of this part."""
        chosen = sorted(self._slots) if slots is None else list(slots)
        mine = [f"{self._prefix}/{slot}" for slot in chosen]
        if not mine:
            return []
        stopped = await self._shared.call(self._shared.supervisor.stop, mine, grace, payload)
        self._slots -= set(chosen)
        return self._strip(stopped)

    async def loads(self, slots: Sequence[str]) -> dict[str, ProcessLoad]:
        """What actors of this part take."""
        mine = [f"{self._prefix}/{slot}" for slot in slots]
        loads = await self._shared.call(self._shared.supervisor.loads, mine)
        return {slot.partition("/")[2]: load for slot, load in loads.items()}

    async def listen_for_nodes(self, settings: NodeSettings) -> tuple[str, int]:
        """Refuse: tests with nodes have supervisors of their own."""
        raise NotImplementedError

    async def nodes(self) -> list[NodeInfo]:
        """None."""
        return []

    async def wait_nodes(self, count: int, timeout: float) -> list[NodeInfo]:
        """None."""
        return []

    async def aclose(self) -> None:
        """End this part; returns when none of its actors is left."""
        self._closing.set()
        with trio.CancelScope(shield=True):
            await self._gone.wait()

    @staticmethod
    def _strip(event: list[Any]) -> list[Any]:
        return [{**each, "slot": each["slot"].partition("/")[2]} for each in event]


@contextmanager
def sharing_supervisor(runtime_folder: Path) -> Iterator[None]:
    """Keep a tree for the block, in a thread with its own loop.

    Args:
        runtime_folder: Where the tree is recorded; tests look for their own trees elsewhere.
    """
    tree = _Tree()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(runtime_folder))
        tree.start()
    SharedSupervisor._tree = tree
    try:
        yield
    finally:
        SharedSupervisor._tree = None
        tree.stop()


@contextmanager
def uses_shared_supervisor() -> Iterator[None]:
    """Give a `MultiEnvironment` that is made in the block its part of the shared tree."""
    factory: Callable[[OnExit], Supervisor] = SharedSupervisor
    token = supervisor_factory.set(factory)
    try:
        yield
    finally:
        supervisor_factory.reset(token)


def own_children() -> list[int]:
    """Pids of this process's children, without the keeper of the shared tree.

    A tree that is slow to end, on a busy machine, has its keeper killed; the others then become
    this process's children, and do not count once they have ended.
    """
    tree = SharedSupervisor._tree
    shared = None if tree is None else tree.keeper_pid
    return [
        pid
        for pid in processes.children(os.getpid())
        # A keeper leads its session; its starter must reap it.
        if pid != shared and (os.getsid(pid) == pid or not processes.reap_orphan(pid))
    ]
