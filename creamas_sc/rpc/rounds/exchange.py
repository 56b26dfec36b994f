"""The exchange between two rounds: what was made goes to the peers, what they made comes here.

See `creamas_sc.rpc.rounds.frames` for what is sent. The step is over in the round in which nobody
has anything under way or has sent anything, which all see at once. Where a peer is lost, those who
go on may disagree about that: then each says that it leaves.
"""

from __future__ import annotations

from collections import defaultdict
from copy import copy
from itertools import repeat
from operator import attrgetter
from sys import intern
from typing import TYPE_CHECKING, Any

from creamas_sc.errors import (
    ConnectionLost,
    CreamasError,
    DecodeError,
    EncodeError,
    from_wire,
)
from creamas_sc.rpc.addresses import is_number
from creamas_sc.rpc.rounds.activity import Activity
from creamas_sc.rpc.rounds.calls import Call, Request
from creamas_sc.rpc.rounds.frames import (
    BUSY,
    BUSY_IF_ALONE,
    CANCEL_EVENT,
    FRAME,
    IDLE,
    IDLE_IF_ALONE,
    LEAVES,
    MORE,
    NOBODY,
    NOTHING,
    OTHERS,
    TIME_UP,
    YOU,
    Failed,
    Piece,
    read_columns,
    without_undecodable,
)
from creamas_sc.rpc.rounds.order import sort_key
from creamas_sc.rpc.rounds.plan import Plan
from creamas_sc.rpc.rounds.sending import Sending
from creamas_sc.rpc.socket_stream import TrioWaiter
from creamas_sc.wire.codec import Payload

if TYPE_CHECKING:
    from creamas_sc.rpc.network import Network

_request = attrgetter("request")
_NO_KWARGS: dict[str, Any] = {}


class Exchange:
    """Of one environment with the others of a step.

    Attributes:
        received: After `exchange`: calls to serve and calls that are answered, in order.
        irregular: Whether a peer was lost: others may have seen more of it, and go on longer.
        limited: Whether the step's time is limited, here and so everywhere.
        time_is_up: Whether it is up, here or for a peer.
    """

    def __init__(self, network: Network, plan: Plan) -> None:
        self.received: list[Call | Request] = []
        network.steps.begin(plan.step)
        self._frames = network.steps.frames
        self._network = network
        self._plan = plan
        self._here = network.base_url
        self._peers = dict.fromkeys(url for url in plan.peers if url != self._here)
        self._connected = False
        # Whether peers have something to do in the next round.
        self._urgent = False
        # Who has made something in this round, None for this environment, and what follows that.
        self._makers: list[tuple[str | None, int]] = []
        # Who sends no frame in this round, None for this environment, and whether it is idle.
        self._silent: tuple[str | None, bool] | None = None
        self._sending = Sending(network, plan.step)
        self.places: dict[str, tuple[str | None, int]] = {}
        # Made in this round, by URL; None is this environment.
        self._calls: dict[str | None, list[Request]] = defaultdict(list)
        self._answers: dict[str, list[tuple[int, Any]]] = defaultdict(list)
        self._failures: dict[str, list[Failed]] = defaultdict(list)
        # Calls that are not answered, by number.
        self._pending: dict[int, Call] = {}
        self._answered: list[Call] = []
        self._last_number = 0
        self.irregular = self.limited = self.time_is_up = False

    @property
    def changed(self) -> TrioWaiter:
        """Set when an event of a peer arrives, or a peer is lost; a new one can be put there."""
        return self._frames.changed

    @changed.setter
    def changed(self, waiter: TrioWaiter) -> None:
        self._frames.changed = waiter

    async def _connect(self) -> None:
        """Connect to the peers; those that cannot be reached are lost."""
        for url, error in (await self._network.steps.connect(self._peers)).items():
            await self._lose(url, error)
        self._connected = True

    def leave(self, over: bool) -> None:
        """Tell the peers that this environment does not go on, unless they know: it is over."""
        if not over or self.irregular:
            for url in self._peers:
                self._sending.post(url, TIME_UP if self.time_is_up else LEAVES)
            self.urge()
        if self.time_is_up:
            self._network.steps.timed_out = self._plan.step
        self._network.steps.begin(self._plan.step + 1)

    # ---- what is made in a round

    def place(self, address: str) -> tuple[str | None, int] | None:
        """Where an agent is, None for this environment, and its number there.

        None if it is in no environment of the step.
        """
        end = address.rfind("/") + 1
        url: str | None = address[:end]
        if url == self._here:
            url = None
        elif url not in self._peers:
            return None
        number = address[end:]
        # -1 is no agent's.
        place = self.places[address] = url, int(number) if is_number(number) else -1
        return place

    def reaches(self, url: str | None) -> bool:
        """Whether an environment still takes part; None for this one."""
        return url is None or url in self._peers

    def add_call(
        self,
        activity: Activity,
        place: tuple[str | None, int],
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Call:
        """Have a call sent at the end of the round."""
        order = activity.order
        if order is None:
            order = activity.order = activity.agent.number
        number = self._last_number = self._last_number + 1
        url, target = place
        request = order, number, None, target, method, args, kwargs
        self._calls[url].append(request)
        call = self._pending[number] = Call(activity, url, request)
        return call

    def abandon(self, call: Call) -> None:
        """The caller does not wait for the answer any more: a peer is told so at once."""
        call.activity = None
        number = call.request[1]
        if self.withdraw(call) or self._pending.pop(number, None) is None or call.url is None:
            return
        link = self._network.endpoint.link(call.url)
        if link is not None:
            link.post(f"{CANCEL_EVENT}:{self._plan.step}:{number}", NOTHING)

    def withdraw(self, call: Call) -> bool:
        """Take back a call that was made in this round; whether it was."""
        made = self._calls.get(call.url, [])
        left = [request for request in made if request is not call.request]
        if len(left) == len(made):
            return False
        del self._pending[call.request[1]]
        if left:
            self._calls[call.url] = left
        else:
            del self._calls[call.url]
        return True

    def add_answer(self, request: Request, value: Any) -> None:
        """Answer a call at the end of the round."""
        url, number = request[2], request[1]
        if url is not None:
            if url in self._peers:
                self._answers[url].append((number, value))
            return
        if self._network.checks_local:
            codec = self._network.codec
            try:
                value = codec.decode(codec.encode(value, f"the reply of {request[4]}"))
            except (EncodeError, DecodeError) as error:
                self._settle(number, None, error)
                return
        self._settle(number, value)

    def add_failure(self, request: Request, error: BaseException) -> None:
        """Answer a call with an error at the end of the round."""
        url, number = request[2], request[1]
        if url is None:
            self._settle(number, None, error)
        elif url in self._peers:
            self._failures[url].append((number, error))

    def has_content(self) -> bool:
        """Whether there is anything to exchange, as far as is known here."""
        return self._has_made() or self._frames.bring_content(self._plan.step)

    def _has_made(self) -> bool:
        return any((self._answered, self._calls, self._answers, self._failures))

    # ---- the exchange

    async def exchange(self, open_: int) -> bool:
        """Send what was made, and receive what the peers have made; whether the step is over.

        That is decided by what everybody has sent, so that all see it in the same round.

        Args:
            open_: How many activities are under way.
        """
        if not self._connected:
            await self._connect()
        answered, self._answered = self._answered, []
        calls = self._calls.pop(None, [])
        self._urgent, self._makers = False, []
        silent, idle = self._silent or ("", True)
        over = idle if silent is None else self._send_all(open_, here=bool(calls or answered))
        if self._network.checks_local:
            calls = self._through_codec(calls)
        for url in list(self._peers):
            if url == silent:
                over = over and idle
                continue
            while (event := self._frames.next(url)) is None:
                if not self._network.endpoint.link(url):
                    await self._lose(url)
                    break
                await self._wait()
            else:
                over = await self._read(url, event, calls) and over
        self._silent = None
        if len(self._makers) == 1:
            url_, following = self._makers[0]
            if following in (IDLE_IF_ALONE, BUSY_IF_ALONE):
                self._silent = url_, following == IDLE_IF_ALONE
        answered += self._answered  # what has come, and what could not be sent
        self._answered = []
        self.received = [*_sorted(calls, None), *_sorted(answered, _request)]
        if over or (self._urgent and self.received):
            self.urge()
        return over

    async def _wait(self) -> None:
        self.urge()
        self.changed = TrioWaiter()
        await self.changed.wait()

    def _through_codec(self, calls: list[Request]) -> list[Request]:
        """Have local calls carry only what could travel."""
        codec, left = self._network.codec, []
        for request in calls:
            *place, args, kwargs = request
            try:
                left.append((*place, *codec.decode(codec.encode((args, kwargs)))))
            except (EncodeError, DecodeError) as error:
                self.add_failure(request, error)
        return left

    def _settle(self, number: int, value: Any, error: BaseException | None = None) -> None:
        """Take the answer to a call of this environment, if it is waited for."""
        call = self._pending.pop(number, None)
        if call is not None:
            call.value, call.error = value, error
            self._answered.append(call)

    async def _lose(self, url: str, error: CreamasError | None = None) -> None:
        """A peer is gone, or goes on without this step: its unanswered calls fail."""
        self.irregular = True
        del self._peers[url]
        self._frames.lose(url)
        self.places.clear()
        for made in (self._calls, self._answers, self._failures):
            made.pop(url, None)
        lost = [call for call in self._pending.values() if call.url == url]
        if lost:
            explained: Exception = error or ConnectionLost(f"{url} is gone", address=url)
            if isinstance(explained, ConnectionLost):
                explained = await self._network.explain(f"{url}{lost[0].request[3]}", explained)
            for call in lost:
                self._settle(call.request[1], None, copy(explained))

    # ---- frames

    def _send_all(self, open_: int, here: bool) -> bool:
        """Send each peer its frame of the round; whether nothing is under way here.

        Args:
            here: Whether there are calls or answers for this environment itself.
        """
        made: dict[str, list[Payload]] = {}
        for url in self._peers:
            calls, answers = self._calls.pop(url, ()), self._answers.pop(url, ())
            piece = Piece(calls, answers, self._failures.pop(url, ()))
            if piece:
                made[url], failed = self._sending.encode(piece, open_)
                for number, error in failed:
                    self._settle(number, None, error)
        self._urgent = bool(made)
        content = OTHERS if here or made else NOBODY
        for_one = YOU if len(made) == 1 and not here else content
        following = FRAME
        if made and not (here or self._answered or self.irregular):
            following = BUSY_IF_ALONE if open_ else IDLE_IF_ALONE
        if content:
            self._makers.append((None, following))
        for url in self._peers:
            if url not in made:
                self._sending.post(url, BUSY if open_ else IDLE, content, following)
                continue
            *pieces, last = made[url]
            for piece_ in pieces:
                self._sending.post(url, piece_, for_one, MORE)
            self._sending.post(url, last, for_one, following)
        return not (open_ or content)

    def urge(self) -> None:
        """Have all that was sent leave now; see `Sending.urge`."""
        self._sending.urge(self._peers)

    async def _read(self, url: str, event: tuple[int, Payload, int], calls: list[Any]) -> bool:
        """Read a peer's frame; whether nothing is under way there."""
        codec, over = self._network.codec, True
        while True:
            following, payload, content = event
            self._urgent = self._urgent or content == OTHERS
            if content and following != MORE:
                self._makers.append((url, following))
            if payload.body in (IDLE.body, BUSY.body):
                return over and not content and payload.body == IDLE.body
            try:
                frame = codec.decode(payload)
            except DecodeError:
                frame, calls_failed, failed = without_undecodable(codec.decode_leniently(payload))
                self._failures[url] += calls_failed
                for number, error in failed:
                    self._settle(number, None, error)
            if frame[0] is None and frame[1] and self.limited:
                self.time_is_up = True
                return False
            if frame[0] is None:
                gone = ConnectionLost(f"the step was cut short at {url}", address=url)
                await self._lose(url, gone)
                return True
            over = over and not content and not frame[0]
            self._take(url, frame, calls)
            if following != MORE:
                return over
            while (piece := self._frames.next(url)) is None:
                if not self._network.endpoint.link(url):
                    await self._lose(url)
                    return True
                await self._wait()
            event = piece

    def _take(self, url: str, frame: list[Any], calls: list[Any]) -> None:
        columns = read_columns(frame)
        _, answered, values, orders, numbers, targets, methods, args, kwargs, *failures = columns
        for number, value in zip(answered, values, strict=True):
            self._settle(number, value)
        for number, error in zip(*failures, strict=True):
            self._settle(number, None, from_wire(error))
        # Interned, as a class looks names up: many times faster.
        names = repeat(intern(methods)) if type(methods) is str else map(intern, methods)
        urls, kwargs = repeat(url), kwargs or repeat(_NO_KWARGS)
        calls += zip(orders, numbers, urls, targets, names, args, kwargs, strict=False)


def _sorted(calls: list[Any], key: Any) -> list[Any]:
    if len(calls) > 1:
        try:
            calls.sort(key=key)
        except TypeError:  # some callers were made by other agents
            key = key or tuple
            calls.sort(key=lambda call: (sort_key(key(call)[0]), key(call)[1]))
    return calls
