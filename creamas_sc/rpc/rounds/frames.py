"""The frames that the environments of a step send each other between two rounds.

Each environment sends each other one a frame, and has ended the round when it has everybody's. Only
where one alone has made anything, it sends none in the next round: all know that it waits. A frame
is one or more events of their connection. The name says ``step:content:next``: which step, for whom
its sender has made calls or answers in the round (`NOBODY`, `YOU`, `OTHERS`), and what follows
(`FRAME`, `MORE`, `IDLE_IF_ALONE`, `BUSY_IF_ALONE`). The payload is a list of columns::

    open        how many activities are under way; None where the environment leaves the step,
                with a second column that says whether that is because the step's time is up
    numbers, values                                      of answers
    orders, numbers, targets, methods, args, kwargs      of calls
    numbers, errors                                      of calls that failed

Instead of methods that are all the same, there is one. Columns at the end may be missing.

Where the frame is too large, or something in it cannot be encoded, it goes in parts, so that a call
or an answer fails for its caller alone. A call that is given up is cancelled at once, by an event
of its own: the peer may not end its round before.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

from creamas_sc.errors import DecodeError, to_wire
from creamas_sc.rpc.rounds.calls import Request
from creamas_sc.rpc.socket_stream import TrioWaiter
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.packing import LARGE_BYTES, Undecodable

# Of the events of rounds; what follows is the step's number.
ROUND_EVENT = "round"
# A call is given up; what follows is the step's number and the call's.
CANCEL_EVENT = "cancel call"

# For whom calls or answers were made in a round: for the receiver of a frame alone, or for others.
NOBODY, YOU, OTHERS = range(3)
# What follows an event: its sender's frame of the next round; more of the same frame; or the former
# unless nobody else has made anything in this round. Then all know that its sender has nothing to
# do in the next round: it sends no frame then, and is idle or busy still.
FRAME, MORE, IDLE_IF_ALONE, BUSY_IF_ALONE = range(4)

# The frame of an environment that leaves a step; and of one that does as the step's time is up.
LEAVES, TIME_UP = (Codec().encode([None, time_is_up]) for time_is_up in (False, True))
# Those of one that has made nothing for the peer, with nothing and something under way.
IDLE, BUSY = Payload(b"0"), Payload(b"1")
NOTHING = Payload(b"")

Failed: TypeAlias = tuple[int, BaseException]
# The step, for whom it brings calls or answers, what follows, the payload.
_Event: TypeAlias = tuple[int, int, int, Payload]


class Piece(NamedTuple):
    """Calls, answers and failures that go in one event."""

    calls: Sequence[Request] = ()
    answers: Sequence[tuple[int, Any]] = ()
    failures: Sequence[Failed] = ()

    def __bool__(self) -> bool:
        return bool(self.calls or self.answers or self.failures)

    def halves(self) -> list[Piece]:
        """Two pieces with half of it each; none if it is a single call, answer or failure."""
        if len(self.calls) + len(self.answers) + len(self.failures) < 2:
            return []
        calls, answers, failures = self
        if max(map(len, self)) < 2:
            return [Piece(calls), Piece((), answers), Piece((), (), failures)]
        first = Piece(*(each[: len(each) // 2] for each in self))  # type: ignore[arg-type]
        return [first, Piece(*(each[len(each) // 2 :] for each in self))]  # type: ignore[arg-type]


class Frames:
    """The events of rounds that have arrived at an environment, by peer, before they are read."""

    def __init__(self) -> None:
        self.step = 0
        self.changed = TrioWaiter()
        # What the names of the step's events say.
        self._meanings: dict[str, tuple[int, int]] = {}
        # Peers without which the step goes on.
        self._gone: set[str] = set()
        self._by_url: dict[str, deque[_Event]] = defaultdict(deque)

    def take(self, url: str, name: str, payload: Payload) -> int | None:
        """Keep an event that has arrived.

        Returns:
            The number of its step, if the peer goes on with that alone.
        """
        meaning = self._meanings.get(name)
        if meaning is None or url in self._gone:
            step, content, following = map(int, name.split(":")[1:])
            if step < self.step or (step == self.step and url in self._gone):
                return step if not _leaves(payload) else None
            meaning = content, following
            if step == self.step:
                self._meanings[name] = meaning
        else:
            step = self.step
        self._by_url[url].append((step, *meaning, payload))
        self.changed.set()
        return None

    def note_end(self) -> None:
        """A connection has ended."""
        self.changed.set()

    def begin(self, step: int) -> list[tuple[str, int]]:
        """A step begins: what came for earlier ones is dropped.

        Returns:
            The peers that sent it, with the number of the step that they go on with.
        """
        self.step = step
        self._gone = set()
        self._meanings = {}
        dropped = [(url, event) for url in list(self._by_url) for event in self._drop(url, step)]
        return [(url, event[0]) for url, event in dropped if not _leaves(event[3])]

    def lose(self, url: str) -> None:
        """The step goes on without a peer; what that has sent for later steps stays."""
        self._gone.add(url)
        self._drop(url, self.step + 1)

    def _drop(self, url: str, step: int) -> list[_Event]:
        """Drop and return what a peer has sent for steps before ``step``.

        Not all of that is ahead of the rest: a peer that goes on with the next step says once more
        that it has left this one when something comes that is late.
        """
        events = self._by_url.pop(url, ())
        kept = deque(event for event in events if event[0] >= step)
        if kept:
            self._by_url[url] = kept
        return [event for event in events if event[0] < step]

    def next(self, url: str) -> tuple[int, Payload, int] | None:
        """The next event of a peer: what follows it, its payload, and for whom it brings."""
        events = self._by_url.get(url)
        for event in events or ():
            # One that goes on with the next step may say late that it has left this one.
            if event[0] == self.step:
                assert events is not None
                events.remove(event)
                _, content, following, payload = event
                return following, payload, content
        return None

    def bring_content(self, step: int) -> bool:
        """Whether calls or answers have arrived."""
        return any(
            events and events[0][0] == step and events[0][1] for events in self._by_url.values()
        )


def _leaves(payload: Payload) -> bool:
    return payload.body in (LEAVES.body, TIME_UP.body)


def event_name(step: int, content: int = NOBODY, following: int = FRAME) -> str:
    """What an event of a step is called."""
    return f"{ROUND_EVENT}:{step}:{content}:{following}"


def columns(open_: int, piece: Piece) -> list[Any]:
    """What a piece is sent as."""
    calls, answers, failures = piece
    frame: list[Any] = [open_, [number for number, _ in answers], _items([v for _, v in answers])]
    if calls:
        orders, numbers, _, targets, methods, args, kwargs = map(list, zip(*calls, strict=True))
        method = methods[0] if len(set(methods)) == 1 else methods
        frame += orders, numbers, targets, method, _arguments(args), kwargs if any(kwargs) else None
    if failures:
        frame += _NO_COLUMNS[len(frame) : -2]
        frame += [number for number, _ in failures], [to_wire(error) for _, error in failures]
    return frame


# Those that may be missing at the end of a frame.
_NO_COLUMNS: list[Any] = [0, *([] for _ in range(7)), None, [], []]


def read_columns(frame: list[Any]) -> list[Any]:
    """What `columns` has made, whole."""
    return frame + _NO_COLUMNS[len(frame) :]


def _arguments(column: list[Sequence[Any]]) -> list[list[Any]]:
    large = bytes in set(map(type, chain.from_iterable(column)))
    return list(map(_items if large else list, column))


class Large:
    """Large bytes among the items of a column: as the state of an object they go out of band."""

    __slots__ = ("value",)

    def __init__(self, value: bytes) -> None:
        self.value = value

    def _wire_state_(self) -> dict[str, bytes]:
        return {"value": self.value}

    @classmethod
    def _from_wire_state_(cls, state: dict[str, bytes]) -> bytes:
        return state["value"]


def _items(values: Sequence[Any]) -> list[Any]:
    """The values as a list, with large bytes in a form that is not copied."""
    if bytes not in map(type, values):
        return list(values)
    return [Large(v) if type(v) is bytes and len(v) >= LARGE_BYTES else v for v in values]


def without_undecodable(frame: list[Any]) -> tuple[list[Any], list[Failed], list[Failed]]:
    """Take out of a frame, decoded leniently, what could not be decoded.

    Returns:
        The rest, what the calls in it that are left out fail with, and the answers.
    """
    open_, numbers, values, *calls, methods, args, kwargs, failed, errors = read_columns(frame)
    methods = [methods] * len(args) if type(methods) is str else methods
    kwargs = kwargs or [{}] * len(args)
    calls_failed: list[Failed] = []
    answers_failed: list[Failed] = []
    kept_calls, kept_answers = [], []
    for call in zip(*calls, methods, args, kwargs, strict=True):
        bad = Undecodable.within([*call[4:]])
        if bad is None:
            kept_calls.append(call)
        else:
            calls_failed.append((call[1], _decode_error(bad)))
    for answer in zip(numbers, values, strict=True):
        bad = Undecodable.within(answer[1])
        if bad is None:
            kept_answers.append(answer)
        else:
            answers_failed.append((answer[0], _decode_error(bad)))
    kept = [[call[at] for call in kept_calls] for at in range(6)]
    answers = [[answer[at] for answer in kept_answers] for at in range(2)]
    return [open_, *answers, *kept, failed, errors], calls_failed, answers_failed


def _decode_error(bad: Undecodable) -> DecodeError:
    return bad.error if isinstance(bad.error, DecodeError) else DecodeError(str(bad.error))
