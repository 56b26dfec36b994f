"""The record of a simulation while it runs: step after step, each in one transaction.

    slaves                      this process                                 a thread
    ------                      ------------                                 --------
    acts, then `observe`
      columns, artifacts --->   take_observed, note_artifact
      answer to the step --->   `take` goes on: metrics, rows of all    -->  RunFile.write
                                tables, waits for the commit            <--  committed
                                returns the results

When `take` returns, the step is on the disk, and nothing of it is kept here. The wait is bounded by
WRITE_SECONDS and shielded: a step that was taken is recorded, even if its caller is cancelled.

What cannot be written, because the disk is full say, raises a `RecordError` that holds the results,
and is kept: before the next step is taken it is written, or that step is refused. So no step is
missing, and one at most is kept. If the file is gone, or the writing hangs, that is raised once,
and the simulation goes on without a record.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import trio

from creamas_sc.errors import (
    AgentErrors,
    BadValue,
    CheckpointError,
    CreamasError,
    RecordError,
    SlaveLost,
    agent_errors,
    from_wire,
)
from creamas_sc.reports import StepReport
from creamas_sc.results import rows
from creamas_sc.results.columns import to_json
from creamas_sc.results.describing import artifact_row, code_fingerprint, machine, versions
from creamas_sc.results.metrics import measure
from creamas_sc.results.observing import Asked, Observed
from creamas_sc.results.record import Record
from creamas_sc.results.run_file import Batch, RecordGone, RunFile, now
from creamas_sc.results.subject import Subject
from creamas_sc.rpc.rounds.order import Order

log = logging.getLogger(__name__)

T = TypeVar("T")

# How long writing a step may take: disks of networks stall for a while.
WRITE_SECONDS: Final = 60.0
CLOSE_SECONDS: Final = 10.0


class Recording:
    """Records one run.

    Args:
        record: What, and where.
        subject: Of what.

    Attributes:
        record: As given.
        stopped: Nothing is recorded any more: it is closed, or cannot be written.
    """

    def __init__(self, record: Record, subject: Subject) -> None:
        self.stopped = False
        self.record, self._subject = record, subject
        self._checkpoint_at: float | None = None  # of the last one
        self._file: RunFile | None = None
        self._seconds = WRITE_SECONDS
        self._step = 0
        self._in_step = False
        self._reported: StepReport | None = None
        self._described = False
        self._artifacts: list[Any] = []
        self._artifact_count = 0
        self._events: list[tuple[Any, ...]] = []
        # By the environments' base URLs.
        self._observed: dict[str, Observed] = {}
        self._numbers: dict[str, Sequence[Order]] = {}
        self._agents = rows.AgentRows()
        self._left: Batch | None = None
        # Also makes one write wait for another.
        self._limiter = trio.CapacityLimiter(1)

    @property
    def path(self) -> str | None:
        """The file, once there is one."""
        return None if self._file is None else str(self._file.path.absolute())

    async def open(self) -> None:
        """Create the file; once.

        Raises:
            BadValue: There can be none in the folder.
        """
        if self._file is not None:
            return
        folder, run = os.fspath(self.record.folder), self._run()
        run |= {"id": uuid.uuid4().hex, "began": now()}
        given_up = False

        def create() -> RunFile:
            file = RunFile.create(folder, run)
            if given_up:
                file.close()
            return file

        try:
            self._file = await self._in_thread(create)
        except trio.TooSlowError:
            given_up = True
            text = f"the folder {folder} did not answer for {self._seconds:g} s"
            raise BadValue(f"nothing can be recorded: {text}") from None

    # ---- what comes between and in steps

    def note_artifact(self, artifact: Any) -> None:
        """An artifact was published."""
        if not self.stopped:
            self._artifacts.append(artifact)

    def note_event(self, event: str, details: Mapping[str, Any]) -> None:
        """Something has happened that may have changed results."""
        if not self.stopped:
            self._events.append((now(), event, to_json(dict(details))))

    def take_observed(self, url: str, observed: Observed) -> None:
        """What was observed in the environment at ``url`` has arrived.

        A slave that was late with a step, or whose step was cancelled, says so after its end. Of
        that step, it is not whole; but where connections have changed is said only once.
        """
        if self.stopped:
            return
        before = self._observed.get(url)
        if before is not None:
            known = {**before.connections, **observed.connections}
            observed = observed._replace(connections=known)
        self._observed[url] = observed
        # A slave that is lost before the step is over takes its numbers along.
        self._numbers[url] = self._subject.numbers(url)

    # ---- steps

    async def take(self, act: Callable[[Asked | None], Awaitable[list[Any]]]) -> list[Any]:
        """Take a step, and write it.

        Args:
            act: Makes the agents act; gets what is to be observed.

        Raises:
            AgentErrors: As ``act``, or what is to be recorded of the agents or the environment
                could not be observed.
            RecordError: The step could not be written.
            Exception: As ``act``.
        """
        if self.stopped or self._in_step:  # within a step, another is a part of it
            return await act(None)
        self._in_step = True
        try:
            await self.open()
            await self._write_left()
            if self.record.has_checkpoints and self._checkpoint_at is None:
                await self._checkpoint(acted=False)  # what cannot be kept shows at once
            return await self._take(act)
        finally:
            self._in_step = False

    async def _take(self, act: Callable[[Asked], Awaitable[list[Any]]]) -> list[Any]:
        self._step += 1
        self._reported = self._subject.last_step()
        began, at = now(), time.perf_counter()
        failed: Exception | None = None
        try:
            results: Any = await act(self.record.asks(self._step))
        except Exception as error:
            if isinstance(error, CreamasError) and not error.may_have_run:
                self._step -= 1  # no agent has acted
                raise
            failed, results = error, getattr(error, "results", ())
        except BaseException:  # it was cancelled: it is not whole
            self._note_cancelled()
            raise
        seconds = time.perf_counter() - at
        try:
            metrics, failures = await measure(
                self._subject.environment, self.record.metrics, self._subject.address
            )
        except BaseException:  # it was cancelled
            self._note_cancelled()
            raise
        marks = (began, seconds, results, failed)
        left = await self._write(self._batch(marks, metrics, failures))
        # Where a slave was lost, the last checkpoint has the agents that are missing now.
        whole = left is None and not isinstance(failed, SlaveLost)
        if whole and self._checkpoint_is_due():
            try:
                await self._checkpoint(acted=True)
            except CheckpointError as error:
                left = error
        if failed is not None:
            if left is not None:
                log.error("%s", left)
            raise failed
        if left is not None:
            left.results = results
            raise left
        if failures:
            raise agent_errors("failed in observe", failures, results)
        return results  # type: ignore[no-any-return]

    def _note_cancelled(self) -> None:
        self.note_event("step_cancelled", {"step": self._step})

    def _batch(
        self,
        marks: tuple[float, float, Any, Exception | None],
        metrics: Mapping[str, Any],
        failures: dict[str, BaseException],
    ) -> Batch:
        """The rows of a step, all that has come since the last one included."""
        began, seconds, results, failed = marks
        step, subject = self._step, self._subject
        observed = {url: each for url, each in self._observed.items() if each.step == step}
        for each in observed.values():
            for described in each.errors:
                error: Any = from_wire(described)
                failures[error.address] = error
        of_agents = getattr(failed, "failures", {})
        text = None if failed is None or isinstance(failed, AgentErrors) else str(failed)
        acts = len(results) + len(of_agents)
        environment = subject.environment
        report = subject.last_step()
        if report is None or report is self._reported:  # turns of a `Simulation` have none
            report = StepReport(None)
        why = to_json(report.why) if report.why else None
        mark = (step, environment.age, began, seconds, acts, len(of_agents), text)
        batch = self._rest(step)
        batch.rows.update(self._agents.of_step(step, observed, self._numbers))
        batch.rows["connections"] = rows.of_connections(
            step, self._observed, self._numbers, subject.number_of
        )
        batch.rows["metrics"] = [(step, name, value) for name, value in metrics.items()]
        batch.rows["steps"] = [(*mark, report.repeatable, why)]
        for address, failure in failures.items():
            details: dict[str, Any] = {"address": address, "error": str(failure)}
            number = subject.number_of(address)
            if number is not None:
                details = {"agent": number, "error": str(failure).replace(address, str(number))}
            batch.rows["events"].append((step, now(), "observe_failed", to_json(details)))
        self._observed, self._numbers = {}, {}
        return batch

    def _rest(self, step: int | None) -> Batch:
        """What has come since the last step: of the ``step`` that is done, or after all of them."""
        subject, at = self._subject, self._step + 1 if step is None else step
        artifacts, self._artifacts = self._artifacts, []
        events, self._events = [(at, *event) for event in self._events], []
        of_artifacts = [
            artifact_row(index, at, artifact, subject.codec, subject.number_of)
            for index, artifact in enumerate(artifacts, self._artifact_count)
        ]
        self._artifact_count += len(artifacts)
        run: dict[str, Any] = {}
        if step is not None and not self._described:  # seed, code and more are settled now
            self._described, run = True, self._run()
        return Batch(step, {"artifacts": of_artifacts, "events": events}, run)

    def _run(self) -> dict[str, Any]:
        """Columns of the run."""
        setup = self._subject.setup()
        parameters = {**setup.pop("parameters", {}), **self.record.parameters}
        return {
            "class": setup.pop("class"),
            "seed": str(setup.pop("seed")),
            "parameters": to_json(parameters),
            "setup": to_json(setup),
            "versions": to_json(versions()),
            "machine": to_json(machine()),
            "code": code_fingerprint(self._subject.sources()),
        }

    # ---- checkpoints

    def _checkpoint_is_due(self) -> bool:
        every, seconds = self.record.checkpoint_every, self.record.checkpoint_seconds
        if self._checkpoint_at is None or self.stopped:
            return False
        waited = time.monotonic() - self._checkpoint_at
        return bool(every and not self._step % every) or (seconds is not None and waited >= seconds)

    async def _checkpoint(self, acted: bool) -> None:
        """Write a checkpoint of the last step.

        Args:
            acted: Whether agents have acted in the call that this is part of.

        Raises:
            CheckpointError: It cannot be written.
        """
        write = self._subject.write_checkpoint
        assert self._file is not None
        assert write is not None
        file, kept = self._file, self.record.checkpoints_kept
        recorded = {"artifacts": self._artifact_count, "agents": self._agents.state()}
        try:
            await self._in_thread(file.sync)
            await write(file.path, file.id, self._step, recorded, kept)
        except (OSError, CreamasError, sqlite3.Error, trio.TooSlowError) as error:
            text = f"there is no checkpoint of step {self._step}: {error}"
            raise CheckpointError(text, may_have_run=acted) from error
        self._checkpoint_at = time.monotonic()

    def take_up(
        self, file: RunFile, step: int, recorded: Mapping[str, Any], branches: bool
    ) -> None:
        """Go on with the record of a run that is resumed; nothing is written before `go_on`.

        Args:
            recorded: What the checkpoint of the step has kept of its recording.
            branches: Whether the file is of another run, which has no checkpoint yet.
        """
        self.stopped, self._described = True, True
        self._file, self._step = file, step
        self._artifact_count = recorded["artifacts"]
        self._agents.go_on(recorded["agents"])
        self._checkpoint_at = None if branches else time.monotonic()

    async def go_on(self, run: Mapping[str, Any], event: str, details: Mapping[str, Any]) -> None:
        """Remove what is recorded of later steps, and record again.

        Args:
            run: Columns of the run that change.
            event, details: What is noted.

        Raises:
            RecordError: It cannot be written.
        """
        assert self._file is not None
        file = self._file
        cut = partial(file.cut, self._step, run, event, to_json(dict(details)))
        try:
            await self._in_thread(cut)
        except (OSError, sqlite3.Error, trio.TooSlowError) as error:
            raise RecordError(f"{file.path} cannot be written: {error}") from error
        self.stopped = False

    # ---- writing

    async def _write_left(self) -> None:
        """Write the step that could not be written.

        Raises:
            RecordError: It still cannot be.
        """
        if self._left is not None:
            error = await self._write(self._left)
            if error is not None:
                error.may_have_run = False
                raise error

    async def _write(self, batch: Batch) -> RecordError | None:
        """Write a batch; returns what to raise if it was not written, and keeps it then."""
        assert self._file is not None
        try:
            await self._in_thread(partial(self._file.write, batch))
        except (OSError, sqlite3.Error, trio.TooSlowError) as error:
            self._left = batch
            path, step = self._file.path, batch.step or self._step
            if isinstance(error, RecordGone):
                why, what = f"{error}", "the simulation goes on without a record"
            elif isinstance(error, trio.TooSlowError):
                why = f"{path} was not written for {self._seconds:g} s"
                what = "the simulation goes on without a record"
            else:
                why = f"{path} cannot be written: {getattr(error, 'strerror', None) or error}"
                what = "it will be written before the next step, or that is refused"
            if isinstance(error, (RecordGone, trio.TooSlowError)):
                self._stop()
            failure = RecordError(f"step {step} is not in the record: {why}; {what}")
            failure.__cause__ = error
            return failure
        self._left = None
        return None

    async def _in_thread(self, function: Callable[[], T]) -> T:
        with trio.fail_after(self._seconds) as scope:
            scope.shield = True
            return await trio.to_thread.run_sync(
                function, abandon_on_cancel=True, limiter=self._limiter
            )

    def _stop(self) -> None:
        self.stopped = True
        self._left = None
        self._artifacts, self._events, self._observed, self._numbers = [], [], {}, {}

    async def aclose(self) -> None:
        """Write what has come since the last step, and the run's end; shielded and bounded.

        A close must not take long: its bound is CLOSE_SECONDS.

        Raises:
            RecordError: It could not be written.
        """
        self._seconds = CLOSE_SECONDS
        error = None if self.stopped else await self._write_end()
        self._stop()
        file, self._file = self._file, None
        if file is None or not self._limiter.available_tokens:  # a thread hangs in it
            return
        try:
            await self._in_thread(file.close)
        except (OSError, sqlite3.Error, trio.TooSlowError) as failure:
            log.error("%s could not be closed: %s", file.path, failure)
        if error is not None:
            raise error

    async def _write_end(self) -> RecordError | None:
        if self._file is None:
            return None
        if self._left is not None and (error := await self._write(self._left)) is not None:
            return error
        last = self._rest(None)
        last.run["ended"] = now()
        return await self._write(last)
