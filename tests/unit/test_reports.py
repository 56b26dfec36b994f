"""Receipts travel: equal, and of the same types."""

from __future__ import annotations

from creamas_sc.reports import SlaveReceipt, StopReport
from creamas_sc.supervisor_client.spec import pack, unpack
from creamas_sc.wire.codec import Codec

SLAVES = [
    SlaveReceipt("tcp://localhost:1/0", 7, 0, None, 0.25, True, "request"),
    SlaveReceipt("tcp://localhost:2/0", 8, None, 9, 1.5, False, "kill", ("ValueError: x\n...",)),
]


def test_a_receipt_arrives_as_it_was() -> None:
    receipt = StopReport(SLAVES, saved={"n": (1, 2)}, errors=["OSError: the disk is full"])
    codec = Codec()
    for report in (
        unpack(pack(receipt)),
        codec.decode(codec.encode(receipt)),
        codec.decode(codec.encode([receipt]))[0],
    ):
        assert type(report) is StopReport
        assert report == receipt == SLAVES
        assert [type(slave) for slave in report] == [SlaveReceipt, SlaveReceipt]
        assert type(report[1].errors) is tuple
        assert report.saved == {"n": (1, 2)}
        assert report.errors == ("OSError: the disk is full",)
        assert not report.graceful


def test_an_empty_one() -> None:
    report = unpack(pack(StopReport()))
    assert (type(report), list(report), report.saved, report.errors) == (StopReport, [], None, ())
    assert report.graceful
