"""How the slaves of a simulation ended, for whoever closes one or stops the daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.cli.exits import BY_FORCE, Exit
from supervisor.cli.output import note, table

if TYPE_CHECKING:
    from creamas_sc.reports import StopReport

__all__ = ["endings", "endings_as_data", "judge"]


def endings_as_data(name: str, receipt: StopReport) -> dict[str, Any]:
    """What programs are told."""
    return {
        "name": name,
        "graceful": receipt.graceful,
        "saved": receipt.saved,
        "errors": list(receipt.errors),
        "slaves": list(receipt),
    }


def endings(name: str, receipt: StopReport) -> list[str]:
    """What readers are told."""
    head = ("SLAVE", "PID", "ENDED BY", "EXIT", "SECONDS")
    rows = [
        (s.address, s.pid, s.ended_by, _exit(s.exit_code, s.signal), f"{s.seconds:.2f}")
        for s in receipt
    ]
    return [*(table(head, rows) if rows else ()), f"{name} was closed"]


def _exit(code: int | None, signal: int | None) -> object:
    return code if signal is None else f"signal {signal}"


def judge(receipt: StopReport) -> Exit:
    """Whether all went well; says what did not."""
    code = Exit.DONE
    for slave in receipt:
        if slave.ended_by in BY_FORCE:
            note(f"{slave.address} did not end in time and was killed (--timeout gives it more)")
            code = Exit.FAILED
    for text in (*receipt.errors, *(text for slave in receipt for text in slave.errors)):
        note(f"closing raised: {text.splitlines()[0] if text else text}")
        code = Exit.FAILED
    return code
