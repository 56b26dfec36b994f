"""Reports travel: equal, and of the same types."""

from __future__ import annotations

from creamas_sc.reports import SlaveReceipt, StopReport
from creamas_sc.supervisor_client.spec import pack, unpack
from creamas_sc.wire.codec import Codec

SLAVES = [
    SlaveReceipt("tcp://localhost:1/0", 7, 0, None, 0.25, True, "request"),
    SlaveReceipt("tcp://localhost:2/0", 8, None, 9, 1.5, False, "kill", ("ValueError: x\n...",)),
]


def test_a_report_arrives_as_it_was() -> None:
    report = StopReport(SLAVES, saved={"n": (1, 2)}, errors=["OSError: the disk is full"])
    codec = Codec()
    for got in (
        unpack(pack(report)),
        codec.decode(codec.encode(report)),
        codec.decode(codec.encode([report]))[0],
    ):
        assert type(got) is StopReport
        assert got == report == SLAVES
        assert [type(slave) for slave in got] == [SlaveReceipt, SlaveReceipt]
        assert type(got[1].errors) is tuple
        assert got.saved == {"n": (1, 2)}
        assert got.errors == ("OSError: the disk is full",)
        assert not got.graceful


def test_an_empty_one() -> None:
    got = unpack(pack(StopReport()))
    assert (type(got), list(got), got.saved, got.errors) == (StopReport, [], None, ())
    assert got.graceful
