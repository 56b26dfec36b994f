"""Replaces the parts of tractor that open ports, look for other trees, and start processes."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any, NoReturn, Protocol

import trio

from supervisor.actors.tractor_adapter.compat import tractor
from supervisor.actors.tractor_adapter.shims import EventWithTruth
from supervisor.timeouts import CANCEL_SECONDS, KILL_SECONDS, LAST_WORDS_SECONDS, TERM_SECONDS
from supervisor.tree.zygote_client import Process

# What stands where tractor wants a host and port.
NO_ADDRESS = ("nowhere", 0)


class Forker(Protocol):
    """Where processes come from."""

    async def fork(self, name: str, uid: str, fd: int, inherit: Sequence[int]) -> Process:
        """Start a process that runs `run_actor` over ``fd``, with copies of ``inherit``."""


class Died(Exception):
    """A child ended before tractor had shaken hands with it."""

    def __init__(self, process: Process) -> None:
        super().__init__(process.describe_end())
        self.process = process


_forker: Forker | None = None

# tractor hands nothing on to its `new_proc`, but runs it in a copy of the caller's context.
_inherit: ContextVar[Sequence[int]] = ContextVar("inherit", default=())


@contextmanager
def inheriting(descriptors: Sequence[int]) -> Iterator[None]:
    """Have the actors that are started within the block inherit ``descriptors``."""
    token = _inherit.set(descriptors)
    try:
        yield
    finally:
        _inherit.reset(token)


def use_forker(forker: Forker | None) -> None:
    """Name the source of this process's children."""
    global _forker
    _forker = forker


class _NoRegistry:
    """Stands in for the portal to a registrar."""

    async def run_from_ns(self, namespace: str, function: str, **_: Any) -> None:
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def _get_no_registry(*_: Any) -> AsyncIterator[_NoRegistry]:
    yield _NoRegistry()


def _connect_to_no_root(*_: Any) -> NoReturn:
    raise ConnectionRefusedError("there is no other root")


async def _serve_nothing(
    actor: Any, handler_nursery: trio.Nursery, *, task_status: Any, **_: Any
) -> None:
    """Be there until cancelled, as tractor's server would, with no port."""
    actor._server_down = trio.Event()
    try:
        async with trio.open_nursery() as nursery:
            task_status.started(nursery)
            await trio.sleep_forever()
    finally:
        actor._server_down.set()


async def _connect_by_descriptor(channel: Any, address: Any = None, **_: Any) -> Any:
    """Connect a channel whose address is ``("fd", n)``: a socket this process inherited."""
    _, fd = address or channel._destaddr
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=fd)))
    return channel.set_msg_transport(stream)


async def _new_proc(
    name: str,
    actor_nursery: Any,
    subactor: Any,
    errors: Any,
    bind_addr: tuple[str, int],
    parent_addr: tuple[str, int],
    runtime_vars: dict[str, Any],
    *,
    infect_asyncio: bool = False,
    task_status: Any = trio.TASK_STATUS_IGNORED,
) -> None:
    """Have a child forked, bring tractor up over a socketpair, and stay until it is over.

    tractor runs this as a task of its nursery for each `start_actor`.
    """
    subactor._spawn_method = "trio"  # what the child reads from us depends on it
    root = tractor._state.current_actor()
    uid = subactor.uid
    # Before the fork: a fast child would shake hands before anybody waits for it.
    root._peer_connected[uid] = EventWithTruth(connected := trio.Event())
    handled = trio.Event()
    process, stream = await _fork(name, uid, root)
    root._service_n.start_soon(_handle, root, stream, handled)
    try:
        portal = await _meet(process, connected, root._peers, uid)
        await _send_settings(process, portal, subactor, bind_addr, runtime_vars)
        actor_nursery._children[uid] = (subactor, process, portal)
        task_status.started((process, portal, handled))
        # A start that was cancelled by now was not told: nobody else would ever end the child.
        await trio.lowlevel.checkpoint_if_cancelled()
        await _outlive(process, actor_nursery._join_procs, handled)
    finally:
        root._peer_connected.pop(uid, None)
        actor_nursery._children.pop(uid, None)
        with trio.CancelScope(shield=True):
            await _force(process)
            # What it sent last is read on, by `_handle`, which then closes the stream.
            with trio.move_on_after(LAST_WORDS_SECONDS):
                await handled.wait()
            await trio.aclose_forcefully(stream)


async def _fork(name: str, uid: tuple[str, str], root: Any) -> tuple[Process, trio.SocketStream]:
    assert _forker is not None
    ours, theirs = socket.socketpair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    with theirs:
        try:
            process = await _forker.fork(name, uid[1], theirs.fileno(), _inherit.get())
        except BaseException:
            del root._peer_connected[uid]
            await trio.aclose_forcefully(stream)
            raise
    return process, stream


async def _handle(root: Any, stream: trio.SocketStream, handled: trio.Event) -> None:
    """Run tractor's side of one connection; whatever breaks there ends that child alone."""
    try:
        await root._stream_handler(stream)
    except Exception:
        tractor.log.get_logger(__name__).exception("connection ended")
    finally:
        await trio.aclose_forcefully(stream)
        handled.set()


async def _meet(process: Process, connected: trio.Event, peers: Any, uid: tuple[str, str]) -> Any:
    """Wait until the child has shaken hands.

    Raises:
        Died: It ended before.
    """
    await first_of(connected, process.exited)
    if process.exited.is_set() or not peers.get(uid):
        await _until_dead(process)
    return tractor.Portal(peers[uid][-1])


async def _send_settings(
    process: Process,
    portal: Any,
    subactor: Any,
    bind_addr: tuple[str, int],
    runtime_vars: dict[str, Any],
) -> None:
    """Send the first message to a child, as tractor's own `Actor` expects it."""
    settings = {
        "_parent_main_data": {},
        "enable_modules": subactor.enable_modules,
        "_arb_addr": subactor._arb_addr,
        "bind_host": bind_addr[0],
        "bind_port": bind_addr[1],
        "_runtime_vars": runtime_vars,
    }
    try:
        await portal.channel.send(settings)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        await _until_dead(process)


async def _until_dead(process: Process) -> NoReturn:
    """Its connection has ended, so its life has, or is made to."""
    with trio.CancelScope(shield=True):
        with trio.move_on_after(LAST_WORDS_SECONDS):
            await process.exited.wait()
        await _force(process)
    raise Died(process)


async def _outlive(process: Process, joining: trio.Event, handled: trio.Event) -> None:
    """Wait for the child's end.

    Past its nursery's end, or its connection's, it has the time of tractor's cancellation.
    """
    with trio.CancelScope(shield=True):
        await first_of(process.exited, joining, handled)
        with trio.move_on_after(CANCEL_SECONDS):
            await process.exited.wait()


async def _force(process: Process) -> None:
    """The ladder's lower end, for whoever is still there when its task is over."""
    for act, seconds in ((process.terminate, TERM_SECONDS), (process.kill, KILL_SECONDS)):
        if not process.exited.is_set():
            act()
            with trio.move_on_after(seconds):
                await process.exited.wait()


async def first_of(*events: trio.Event) -> None:
    """Wait until one of ``events`` is set."""
    async with trio.open_nursery() as nursery:

        async def wait(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        for event in events:
            nursery.start_soon(wait, event)


def replace() -> None:
    """Put all replacements in place; before any actor runs."""
    tractor._spawn.new_proc = _new_proc
    tractor._actor.Actor._serve_forever = _serve_nothing
    tractor._actor.Actor.accept_addr = property(lambda _: NO_ADDRESS)
    tractor._actor.get_arbiter = _get_no_registry
    tractor._mp_fixup_main._mp_figure_out_main = dict
    tractor._root._connect_chan = _connect_to_no_root
    tractor._ipc.Channel.connect = _connect_by_descriptor


replace()
