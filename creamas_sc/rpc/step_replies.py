"""Replies that hold the results of many agents, where some of these cannot travel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from creamas_sc.errors import (
    AgentError,
    AgentErrors,
    DecodeError,
    EncodeError,
    Results,
    StepOverran,
    agent_errors,
    step_error,
)
from creamas_sc.wire.codec import MAX_VALUE_BYTES, Codec, payload_size

# A manager's methods with which a master has it take part in a step in rounds.
ROUNDS_METHODS = frozenset({"trigger_all_in_rounds", "trigger_all_observed", "gather_in_rounds"})
# Those whose reply is what its agents returned: a list, or a dict by address.
STEP_METHODS = ROUNDS_METHODS | {"trigger_all", "trigger_all_within", "gather"}
# Of the results of a step in which agents fail; the rest is for the failures.
MAX_RESULTS_BYTES = MAX_VALUE_BYTES // 4 * 3


def cannot_travel(
    codec: Codec, agents: Sequence[Any], agent: Any, method: str, value: Any, error: EncodeError
) -> AgentError | AgentErrors | StepOverran:
    """The error for a reply of ``agent`` that cannot be encoded; of a step, which agents' fault."""
    if method in STEP_METHODS and isinstance(value, (list, dict)):
        return encodable(codec, agents, {}, value)
    return AgentError.from_exception(agent.addr, error)


def encodable(
    codec: Codec,
    agents: Sequence[Any],
    failures: Mapping[str, AgentError],
    results: Results,
    late: Sequence[str] = (),
) -> AgentErrors | StepOverran:
    """Agents' failures, with those added whose results cannot travel, or not together.

    Args:
        agents: All of the environment; the first one is its manager.
    """
    failures, left = dict(failures), MAX_RESULTS_BYTES
    kept: dict[str, Any] = {}
    root = "the result"
    if isinstance(results, Mapping):
        by_address = results
    else:
        root = "the result of act"
        without = {*failures, *late}
        acted = [a.addr for a in agents[1:] if a.addr not in without]
        by_address = dict(zip(acted, results, strict=False))
    for address, result in by_address.items():
        try:
            size = payload_size(codec.encode(result, root=root))
            if size > left:
                raise EncodeError(
                    f"{root}, {size:,} bytes: there is room for {left:,} besides the other "
                    "agents' results; publish artifacts, or return less"
                )
        except EncodeError as error:
            failures[address] = AgentError.from_exception(address, error)
        else:
            left -= size
            kept[address] = result
    if isinstance(results, Mapping):
        return agent_errors("failed", failures, kept)
    return step_error(failures, list(kept.values()), late)


def undecodable_reply(address: str, method: str, error: DecodeError) -> DecodeError:
    """The error for a caller, whose call was served."""
    named = DecodeError(f"the reply of {method} of {address} cannot be decoded here: {error}")
    named.may_have_run = True
    return named
