"""What a multi-environment notes so that another process can go on with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from creamas_sc.mp.steps import Steps
    from creamas_sc.restarts.slave import Slave

Init = TypeVar("Init", bound=Callable[..., None])


class Resumable:
    """Notes what its class was called with, also where a user's class has its own constructor."""

    _steps: Steps
    # What the class was called with.
    _made_with: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    # Its age where it was resumed.
    _resumed_age = 0
    # The slaves that the last checkpoint has.
    _checkpointed: Sequence[Slave] = ()
    # Whether the age counts the step that is being taken.
    _age_is_ahead = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Have the constructor note its arguments."""
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _noting(cls.__init__)  # type: ignore[method-assign]

    @property
    def steps_taken(self) -> int:
        """How many steps of all agents were taken, those before it was resumed included."""
        return self._steps.count

    def _note_step(self) -> None:
        """All agents have acted, one after another."""
        self._steps.count += 1


def _noting(init: Init) -> Init:
    @wraps(init)
    def noting(self: Any, *args: Any, **kwargs: Any) -> None:
        if self._made_with is None:  # else a subclass's constructor calls this one
            self._made_with = args, kwargs
        init(self, *args, **kwargs)

    return noting  # type: ignore[return-value]
