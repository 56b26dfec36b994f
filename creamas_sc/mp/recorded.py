"""A multi-environment as what is recorded."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from creamas_sc.reports import StepReport
from creamas_sc.results import recordings
from creamas_sc.results.observing import Asked, Observed
from creamas_sc.rpc.rounds.order import Order
from creamas_sc.runtime.class_loading import class_name
from creamas_sc.runtime.event_loop import LoopHandle, on_loop

if TYPE_CHECKING:
    from creamas_sc.mp.manager_calls import ManagerCalls
    from creamas_sc.mp.multienvironment import MultiEnvironment
    from creamas_sc.restarts.slave import Slave
    from creamas_sc.results.recording import Recording
    from creamas_sc.rpc.network import Network
    from creamas_sc.wire.codec import Codec


class Recordable:
    """A multi-environment whose steps may be recorded."""

    _recording: Any = None
    _managers: ManagerCalls
    _open_slaves: Callable[[], list[Slave]]
    get_loop: Callable[[], LoopHandle]

    def _record(self, record: Any, parameters: Mapping[str, Any] | None = None) -> None:
        """Record what follows, unless ``record`` is None; see `creamas_sc.results`."""
        if record is not None:
            self._recording = start_recording(record, self, parameters or {})  # type: ignore[arg-type]

    @on_loop
    async def _observe_agents(self, asked: Asked | None) -> None:
        """Have the slaves send what a record asks for."""
        if asked is not None:
            slaves = self._open_slaves()
            await self._managers.call_all(slaves, "observe_agents", (tuple(asked),))


class MultiEnvironmentSubject:
    """What the record of a multi-environment asks for; see `creamas_sc.results.recording`.

    Args:
        menv: It is not kept alive.
        parameters: Keyword arguments of its master environment.
    """

    def __init__(self, menv: MultiEnvironment, parameters: Mapping[str, Any]) -> None:
        self._menv = weakref.ref(menv)
        self._env, self._slaves, self._reports = menv.env, menv._slaves, menv._steps.reports
        self._class = class_name(type(menv))
        self._parameters = parameters

    @property
    def environment(self) -> Any:
        """The multi-environment; None if it is gone."""
        return self._menv()

    @property
    def codec(self) -> Codec:
        """Encodes the objects of artifacts."""
        return self._env.network.codec

    @property
    def address(self) -> str:
        """Stands for the user's code in errors."""
        return self._env.base_url

    def setup(self) -> dict[str, Any]:
        """How it is set up."""
        return {
            "class": self._class,
            "seed": self._env.seed,
            "parameters": dict(self._parameters),
            "env_cls": class_name(type(self._env)),
            "calls": self._env.calls,
            "restart": str(self._slaves.policy),
            "slaves": len(self._slaves.members),
        }

    def sources(self) -> list[bytes] | None:
        """The user's code that the slaves have loaded too."""
        versions = self._slaves.ordering.versions
        return (None if versions is None else versions.sources()) or None

    def last_step(self) -> StepReport | None:
        """Whether the last step is repeatable."""
        return self._reports.last

    def numbers(self, url: str) -> Sequence[Order]:
        """The numbers of the agents of a slave."""
        return self._env.network.steps.numbers.get(url, ())

    def number_of(self, address: str) -> Order | None:
        """The number of the agent at an address, if it is one in a slave."""
        return number_at(self._env.network, address)

    async def write_checkpoint(
        self, run_file: Path, run: str, step: int, recorded: Mapping[str, Any], kept: int
    ) -> None:
        """Write a checkpoint; see `creamas_sc.mp.checkpointing`."""
        from creamas_sc.mp.checkpointing import write_checkpoint  # few need it

        if (menv := self._menv()) is not None:
            await write_checkpoint(menv, run_file, run, step, recorded, kept)


def number_at(network: Network, address: str) -> Order | None:
    """The number of the agent at an address, if it is one in a slave of this master network."""
    if not address.startswith("tcp://"):
        return None
    try:
        return network.steps.number_at(address)
    except ValueError:
        return None


def start_recording(
    record: Any, menv: MultiEnvironment, parameters: Mapping[str, Any]
) -> Recording:
    """Record what follows; see `recordings.make` and `MultiEnvironmentSubject`."""
    subject = MultiEnvironmentSubject(menv, parameters)
    recording = recordings.make(record, subject, menv._recording)

    def take(url: str, observed: Any) -> None:
        recording.take_observed(url, Observed.from_wire(observed))

    menv._slaves.note_event, menv._closer.recording = recording.note_event, recording
    menv.env.network.steps.observed_sink = take
    return recording
