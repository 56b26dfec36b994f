"""Replaces the parts of tractor that open ports, look for other trees, and start processes.

tractor starts a child with an executable, listens on a TCP port, and waits for the child to
connect to it. Here the zygote forks the child, and both have one end of a socketpair::

    Simulation.start                                the zygote
      `- tractor: start_actor                           |
           `- _new_proc, a task of tractor's nursery    |
                |-- fork ------------------------------>|-- fork --> child: run_actor
                |-- _handle: tractor's side of the socketpair <---------> tractor's side there
                |-- wait for the handshake, send the settings
                |-- start_actor returns (portal, disconnected)
                `-- stay until the child's end, forced if it must be

`_new_proc` owns the process and our end of the socketpair: however it ends, both are gone. It
ends if start_actor is cancelled, tractor's nursery ends (``_join_procs``), the connection breaks
(``disconnected``), or the process dies (``exited``). Of the last two, one follows the other soon.

In the handshake `_stream_handler` puts the channel into ``_peers`` and sets the event that it finds
in ``_peer_connected``. tractor does not see a child that dies before that, so the wait for this
event is a race with ``exited``. A child that breaks the protocol only ends its own `_handle`:
without the ``except`` there, the root would end, with all simulations.

What is replaced is listed at the end, with the reasons.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from signal import SIGKILL, SIGTERM
from types import SimpleNamespace
from typing import Any, NoReturn

import trio

from creamas_sc.runtime.nurseries import first_of
from supervisor import timeouts
from supervisor.actors.escalation import StopStage, escalate
from supervisor.actors.tractor_adapter.compat import EventWithTruth, tractor
from supervisor.tree.zygote_client import Process, ZygoteClient

# In place of tractor's host and port.
NO_ADDRESS = ("nowhere", 0)


class DiedEarly(Exception):
    """A child ended before tractor had shaken hands with it."""


# Where this process's children come from; set once, by `use_zygote`.
_zygote: ZygoteClient

# What the next start_actor of this task is to fork: tractor hands nothing on to `_new_proc`, but
# runs it in a copy of that task's context.
next_process: ContextVar[Process] = ContextVar("next_process")


def use_zygote(zygote: ZygoteClient) -> None:
    """Set where this process's children come from."""
    global _zygote
    _zygote = zygote


@asynccontextmanager
async def _get_no_registry(*_: Any) -> AsyncIterator[Any]:
    """Stand in for the portal to a registrar."""

    async def run_from_ns(*_: Any, **__: Any) -> None:
        await trio.lowlevel.checkpoint()

    yield SimpleNamespace(run_from_ns=run_from_ns)


def _connect_to_no_root(*_: Any) -> NoReturn:
    raise ConnectionRefusedError("there is no other root")


async def _serve_nothing(
    actor: Any, handler_nursery: trio.Nursery, *, task_status: Any, **_: Any
) -> None:
    """Wait to be cancelled, as tractor's server would, with no port."""
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
    process = next_process.get()
    uid = subactor.uid
    disconnected = trio.Event()
    # Before the fork: a fast child would shake hands before anybody waits for it.
    root._peer_connected[uid] = EventWithTruth(connected := trio.Event())
    try:
        stream = await _fork(process, uid[1])
    except BaseException:
        del root._peer_connected[uid]
        raise
    root._service_n.start_soon(_handle, root, stream, disconnected)
    try:
        await first_of(connected, process.exited)
        if process.exited.is_set() or not root._peers.get(uid):
            await _until_dead(process)
        portal = tractor.Portal(root._peers[uid][-1])
        await _send_settings(process, portal, subactor, bind_addr, runtime_vars)
        actor_nursery._children[uid] = (subactor, process, portal)
        task_status.started((portal, disconnected))
        # A start that was cancelled by now does not know the child, so it must be ended here.
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.CancelScope(shield=True):
            await first_of(process.exited, actor_nursery._join_procs, disconnected)
            with trio.move_on_after(timeouts.CANCEL_SECONDS):
                await process.exited.wait()
    finally:
        root._peer_connected.pop(uid, None)
        actor_nursery._children.pop(uid, None)
        with trio.CancelScope(shield=True):
            await _force(process)
            # `_handle` reads what the child sent last, and then closes the stream.
            with trio.move_on_after(timeouts.DRAIN_SECONDS):
                await disconnected.wait()
            await trio.aclose_forcefully(stream)


async def _fork(process: Process, uid: str) -> trio.SocketStream:
    """Have the child forked with one end of a socketpair; the stream of the other end."""
    ours, theirs = socket.socketpair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    with theirs:
        try:
            await _zygote.fork(process, uid, theirs.fileno())
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
    return stream


async def _handle(root: Any, stream: trio.SocketStream, disconnected: trio.Event) -> None:
    """Run tractor's side of one connection; an error there ends only that child."""
    try:
        await root._stream_handler(stream)
    except Exception:
        tractor.log.get_logger(__name__).exception("connection ended")
    finally:
        await trio.aclose_forcefully(stream)
        disconnected.set()


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
    """Wait for the end of a process whose connection has ended, by force if it does not come."""
    with trio.CancelScope(shield=True):
        with trio.move_on_after(timeouts.DRAIN_SECONDS):
            await process.exited.wait()
        await _force(process)
    raise DiedEarly


async def _force(process: Process) -> None:
    """End a process that is still there, by signals."""

    async def act(stage: StopStage) -> None:
        process.kill(SIGTERM if stage is StopStage.TERM else SIGKILL)

    await escalate(process.exited, act, first=StopStage.TERM)


# Before any actor runs:
tractor._spawn.new_proc = _new_proc  # the zygote forks; start_actor looks it up here
tractor._actor.Actor._serve_forever = _serve_nothing  # no port is opened
tractor._actor.Actor.accept_addr = property(lambda _: NO_ADDRESS)
tractor._actor.get_arbiter = _get_no_registry
tractor._mp_fixup_main._mp_figure_out_main = dict  # a child never runs our __main__
tractor._root._connect_chan = _connect_to_no_root
tractor._ipc.Channel.connect = _connect_by_descriptor
