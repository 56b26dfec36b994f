"""The wire protocol: two ends that exchange bytes by hand, without any I/O."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import msgpack
import pytest

from creamas_sc import errors
from creamas_sc.errors import (
    AgentError,
    AgentErrors,
    CallRefused,
    ConnectionLost,
    CreamasError,
    DeadlineExceeded,
    DecodeError,
    EncodeError,
    ProtocolError,
    SlaveLost,
)
from creamas_sc.wire import limits
from creamas_sc.wire.codec import Codec, Payload
from creamas_sc.wire.frames import Frame, Kind, encode_frame
from creamas_sc.wire.limits import PeerFloods, ServingLimits
from creamas_sc.wire.protocol import MAX_KNOWN_HEADERS, WireProtocol, known_header, request_header

CODEC = Codec()
EMPTY = Payload(b"")


class Output:
    """Collects what is sent."""

    def __init__(self) -> None:
        self.size = 0
        self.drained = True
        self.data = b""
        self.lazily = False

    def put(self, buffers: Sequence[Any], *, lazily: bool = False) -> None:
        self.data += b"".join(map(bytes, buffers))
        self.lazily = lazily


class Slot:
    """Where an answer is left."""

    def __init__(self) -> None:
        self.answer: Frame | None = None
        self.settled = 0

    def set(self) -> None:
        self.settled += 1


class Served:
    """A call that is being served."""

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Ends:
    """Two ends: near calls, and far serves."""

    def __init__(self) -> None:
        self.sent, self.returned = Output(), Output()
        self.near = WireProtocol(self.sent, CODEC, "far")
        self.far = WireProtocol(self.returned, CODEC, "near")

    def start(self, method: str = "any", remaining: float | None = None) -> tuple[Slot, int]:
        slot = Slot()
        return slot, self.near.start_call(slot, 3, method, CODEC.encode(method), remaining)

    def deliver(self) -> list[Frame]:
        """Give far what near has sent; return the requests and events."""
        self.far.receive_data(self.sent.data)
        self.sent.data = b""
        found = []
        while (frame := self.far.next_frame()) is not None:
            found.append(frame)
        return found

    def deliver_back(self) -> None:
        """Give near what far has sent."""
        self.near.receive_data(self.returned.data)
        self.returned.data = b""
        assert self.near.next_frame() is None

    def error_of(self, error: Exception) -> BaseException:
        """What ``error`` of the callee is for the caller."""
        slot, number = self.start()
        self.deliver()
        self.far.fail(number, error)
        self.deliver_back()
        try:
            self.near.result(slot.answer)
        except Exception as caught:
            return caught
        raise AssertionError("it did not fail")


@pytest.fixture
def ends() -> Ends:
    return Ends()


# ---- calls


def test_a_call_and_its_answer(ends: Ends) -> None:
    slot, number = ends.start("evaluate", 2.5)
    (frame,) = ends.deliver()
    assert request_header(frame.meta) == (3, "evaluate", 2.5)
    assert CODEC.decode(Payload(frame.body, frame.parts)) == "evaluate"
    ends.far.reply(frame.call_id, CODEC.encode("answer"))
    ends.deliver_back()
    assert slot.settled == 1
    assert CODEC.decode(ends.near.result(slot.answer)) == "answer"
    assert number not in ends.near.pending


def test_answers_come_in_any_order_and_each_settles_its_call_once(ends: Ends) -> None:
    slots = [ends.start(str(n)) for n in range(3)]
    ends.deliver()
    for _, number in [slots[2], slots[0], slots[2], slots[1], slots[0]]:
        ends.far.reply(number, CODEC.encode(number))
    ends.deliver_back()
    assert [slot.settled for slot, _ in slots] == [1, 1, 1]
    assert ends.near.settled == 3
    for slot, number in slots:
        assert CODEC.decode(ends.near.result(slot.answer)) == number


def test_an_answer_to_a_call_that_was_forgotten_is_ignored(ends: Ends) -> None:
    slot, number = ends.start()
    ends.deliver()
    ends.near.forget(number)
    ends.far.reply(number, EMPTY)
    ends.deliver_back()
    assert slot.settled == 0


def test_call_ids_start_over(ends: Ends) -> None:
    ends.near._last_id = 2**32 - 3
    assert [ends.start()[1] for _ in range(4)] == [2**32 - 2, 2**32 - 1, 0, 1]


def test_a_call_that_is_too_large_is_not_sent(ends: Ends) -> None:
    with pytest.raises(EncodeError, match="over the limit"):
        ends.near.start_call(Slot(), 1, "any", Payload(bytes(2**28 + 1)), None)
    assert not ends.near.pending
    assert not ends.sent.data


def test_the_end_settles_all_calls(ends: Ends) -> None:
    slot, _ = ends.start()
    ends.near.end()
    assert slot.settled == 1
    with pytest.raises(ConnectionLost, match="the connection to far was lost") as caught:
        ends.near.result(slot.answer)
    assert caught.value.may_have_run
    with pytest.raises(ConnectionLost, match="no connection to far") as caught:
        ends.start()
    assert not caught.value.may_have_run
    ends.sent.data = b""
    ends.near.post("news", EMPTY)
    ends.near.cancel(1)
    ends.near.reply(1, EMPTY)
    ends.near.fail(1, CallRefused("no"))
    assert not ends.sent.data


def test_headers_come_back_as_they_were(ends: Ends) -> None:
    asked = [
        (n, f"method {m}", s) for n in (*range(3), "a", None) for m in (0, 1) for s in (None, 2)
    ]
    for _ in range(2):
        for target, method, remaining in asked:
            ends.near.start_call(Slot(), target, method, EMPTY, remaining)
        assert [request_header(frame.meta) for frame in ends.deliver()] == asked


def test_remembered_headers_are_bounded(ends: Ends) -> None:
    for n in range(MAX_KNOWN_HEADERS + 10):
        ends.near.start_call(Slot(), n, "any", EMPTY, None)
        (frame,) = ends.deliver()
        assert known_header(frame.meta) == (n, "any", None)
    assert known_header.cache_info().currsize == MAX_KNOWN_HEADERS


# ---- cancellation


def test_a_cancel_reaches_the_call_that_is_served(ends: Ends) -> None:
    served = Served()
    _, number = ends.start()
    ends.deliver()
    ends.far.in_flight[number] = served.cancel
    ends.near.cancel(number + 1)
    ends.deliver()
    assert not served.cancelled
    ends.near.cancel(number)
    ends.deliver()
    assert served.cancelled


@pytest.mark.parametrize(
    ("answer", "confirmed"),
    [
        (None, False),
        (Frame(Kind.REPLY, 1), True),
        (CallRefused("no"), True),
        (DeadlineExceeded("late", acknowledged=True), True),
        (DeadlineExceeded("late", acknowledged=False), False),
        (Frame(Kind.FAILURE, 1, b"", b"\xc1"), False),
    ],
)
def test_which_answers_confirm_a_cancellation(ends: Ends, answer: Any, confirmed: bool) -> None:
    if isinstance(answer, Exception):
        slot, number = ends.start()
        ends.deliver()
        ends.far.fail(number, answer)
        ends.deliver_back()
        answer = slot.answer
    assert ends.near.confirms(answer) == confirmed


# ---- errors


def _agent_error(number: int) -> AgentError:
    return AgentError(
        address=f"tcp://localhost:1/{number}",
        type_name="ValueError",
        message="bad",
        traceback_text="T",
    )


ERRORS: list[Exception] = [
    *(
        cls("what went wrong")
        for cls in errors.WIRE_CODES.values()
        if cls not in (AgentError, SlaveLost, DeadlineExceeded, EncodeError)
    ),
    _agent_error(3),
    SlaveLost("gone", address="a", pid=3, exit_code=None, signal=9, may_have_run=False),
    DeadlineExceeded("late", acknowledged=True, may_have_run=False, addresses=["a", "b"]),
    EncodeError("cannot", type_name="x.Y", path="args[0]"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_each_error_crosses_with_its_fields(ends: Ends, error: CreamasError) -> None:
    caught = ends.error_of(error)
    assert type(caught) is type(error)
    assert str(caught) == str(error)
    names = {*error.fields, "may_have_run"}
    assert {n: getattr(caught, n) for n in names} == {n: getattr(error, n) for n in names}


def test_a_group_keeps_its_failures_and_results(ends: Ends) -> None:
    failures = {e.address: e for e in (_agent_error(1), _agent_error(2))}
    caught = ends.error_of(AgentErrors("two failed", failures, [1, (2,)]))
    assert isinstance(caught, AgentErrors)
    assert list(caught.failures) == list(failures)
    assert caught.results == [1, (2,)]
    assert [str(e) for e in caught.exceptions] == [str(e) for e in failures.values()]


def test_results_that_cannot_travel_are_reported(ends: Ends) -> None:
    caught = ends.error_of(AgentErrors("one failed", {"a": _agent_error(1)}, [object()]))
    assert isinstance(caught, EncodeError)
    assert "object" in str(caught)


def test_an_error_that_is_a_bug_is_logged(ends: Ends, caplog: pytest.LogCaptureFixture) -> None:
    assert "TypeError" in str(ends.error_of(TypeError("a slip")))
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.levelno == logging.ERROR


@pytest.mark.parametrize("body", [b"", b"\xc1", msgpack.packb({"code": "no such"})])
def test_a_malformed_failure(ends: Ends, body: bytes) -> None:
    with pytest.raises(DecodeError):
        ends.near.result(Frame(Kind.FAILURE, 1, b"", body))


# ---- events


def test_an_event_waits_for_an_answer_only_if_one_is_due(ends: Ends) -> None:
    ends.near.post("first", EMPTY)
    assert not ends.sent.lazily
    ends.near.post("second", EMPTY, with_answer=True)
    assert not ends.sent.lazily
    ends.near.in_flight[1] = Served().cancel
    ends.near.post("third", EMPTY, with_answer=True)
    assert ends.sent.lazily
    ends.near.post("fourth", EMPTY)
    assert not ends.sent.lazily
    names = [ends.far.event_name(frame) for frame in ends.deliver()]
    assert names == ["first", "second", "third", "fourth"]


# ---- a peer that breaks the protocol


@pytest.mark.parametrize(
    "meta",
    [
        b"\xc1",
        msgpack.packb((1, "act")),
        msgpack.packb((1, 2, None)),
        msgpack.packb((1, "echo", "soon")),
        msgpack.packb((1, "echo", -1.0)),
        msgpack.packb((1, "echo", float("nan"))),
    ],
)
def test_malformed_requests(meta: bytes) -> None:
    with pytest.raises(ProtocolError, match="malformed request"):
        request_header(meta)


def test_malformed_events(ends: Ends) -> None:
    with pytest.raises(ProtocolError, match="malformed event"):
        ends.near.event_name(Frame(Kind.EVENT, 0, b"\xff\xfe"))


def test_a_hello_in_the_middle(ends: Ends) -> None:
    ends.near.receive_data(b"".join(map(bytes, encode_frame(Kind.HELLO, 0))))
    with pytest.raises(ProtocolError, match="unexpected HELLO"):
        ends.near.next_frame()


# ---- limits


@pytest.fixture
def output() -> Output:
    return Output()


def test_a_peer_that_reads_is_served_up_to_a_count(output: Output) -> None:
    serving = ServingLimits(output, 3, None)
    assert serving.admit("any", EMPTY, 2)
    with pytest.raises(CallRefused, match="any: 3 calls are in flight"):
        serving.admit("any", EMPTY, 3)


def test_calls_of_a_peer_that_does_not_read_wait_up_to_a_size(output: Output) -> None:
    serving = ServingLimits(output, 3, 1000)
    output.drained = False
    call = Payload(b"x" * 400, [b"y" * 200])
    assert not serving.admit("any", call, 0)
    assert serving.waiting_bytes == 600
    with pytest.raises(CallRefused, match="any: 600 bytes of calls are waiting"):
        serving.admit("any", call, 0)
    serving.stop_wait(call)
    assert not serving.admit("any", call, 0)


def test_refusals_in_a_row_end_the_connection_of_a_peer_that_does_not_read(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_UNREAD_REFUSALS", 2)
    serving = ServingLimits(output, 0, None)
    for drained in (True, True, True, False, False, True, False, False):
        output.drained = drained
        with pytest.raises(CallRefused):
            serving.admit("any", EMPTY, 0)
    with pytest.raises(PeerFloods):
        serving.admit("any", EMPTY, 0)


def test_answers_for_which_there_is_no_room(output: Output) -> None:
    serving = ServingLimits(output, 1, 10_000)
    serving.check_answer("any", Payload(b"x" * 10_000), "peer")
    output.size = 5000
    serving.check_answer("any", Payload(b"x" * 5000), "peer")
    output.size = 10_000
    serving.check_answer("any", Payload(b"x" * 4096), "peer")
    with pytest.raises(EncodeError, match="any, 5001 bytes, was dropped: 10000 bytes of answers"):
        serving.check_answer("any", Payload(b"x" * 5001), "peer")
