"""The metrics of the whole, which the user's code returns after each step."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import isawaitable
from typing import Any

from creamas_sc.errors import AgentError
from creamas_sc.foreign import is_ctrl_c
from creamas_sc.results.columns import scalar
from creamas_sc.runtime.nurseries import cancellation_in


async def measure(
    environment: Any, function: Any, address: str
) -> tuple[dict[str, Any], dict[str, BaseException]]:
    """The metrics after a step, and what failed, by address.

    Args:
        environment: What ``function`` gets.
        function: By default the environment's method ``observe``, if it has one.
        address: Stands for the user's code in errors.

    Raises:
        Cancelled, KeyboardInterrupt: As the user's code.
    """
    if function is None:
        function = getattr(type(environment), "observe", None)
    if function is None:
        return {}, {}
    try:
        found = function(environment)
        found = await found if isawaitable(found) else found
        if not isinstance(found, Mapping):
            kind = type(found).__name__
            raise TypeError(f"metrics must be a dict of names and values, not {kind}")
        return {str(name): _metric(name, value) for name, value in found.items()}, {}
    except BaseException as error:  # user code may raise anything, SystemExit included
        if cancellation_in(error) is not None or is_ctrl_c(error):
            raise
        return {}, {address: AgentError.from_exception(address, error)}


def _metric(name: Any, value: Any) -> Any:
    if name in ("run", "step"):
        raise TypeError(f"the metric {name!r} is a column of the table already: use another name")
    try:
        return scalar(value)
    except TypeError as error:
        raise TypeError(f"the metric {name!r} {error}") from None
