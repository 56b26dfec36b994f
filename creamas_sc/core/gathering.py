"""One act, or another call, of many agents of an environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from creamas_sc.core.agent import Agent
from creamas_sc.core.step_loop import UNLIMITED, Unfinished, limited, run_acts
from creamas_sc.errors import CallRefused, agent_errors, step_error
from creamas_sc.rpc.exposed import exposed_method, start_call
from creamas_sc.rpc.network import Network
from creamas_sc.rpc.rounds.driver import Rounds
from creamas_sc.rpc.rounds.plan import TAKES_PER_STEP, Plan


async def act_each(
    agents: Sequence[Agent], act: Callable[[Any], Any] | None, rounds: Rounds | None = None
) -> list[Any]:
    """Make all ``agents`` act, concurrently; what each returned, in their order.

    Args:
        act: Called with each; None calls its ``act`` without arguments.
        rounds: As of `run_acts`.

    Raises:
        AgentErrors: Some raised.
        StepOverran: The `step_limit` cut some off.
    """
    results, failed = await run_acts(agents, act, rounds)
    if failed:
        by_address = {agents[i].addr: error for i, error in sorted(failed.items())}
        late = [addr for addr, error in by_address.items() if isinstance(error, Unfinished)]
        failures = {a: e for a, e in by_address.items() if not isinstance(e, Unfinished)}
        kept = [result for i, result in enumerate(results) if i not in failed]
        raise step_error(failures, kept, late)
    return results


async def call_each(
    agents: Sequence[Agent],
    method: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    rounds: Rounds | None = None,
) -> dict[str, Any]:
    """Call an exposed method of all ``agents``, concurrently; address -> value, in their order.

    Args:
        rounds: As of `run_acts`.

    Raises:
        NotExposed: One lacks the method; none was called.
        BadArguments: The arguments do not fit it.
        AgentErrors: Some raised.
    """
    methods = [exposed_method(agent, method) for agent in agents]
    left = iter(methods)  # agents are taken in order, each once
    with limited(UNLIMITED):  # this may be part of a step that has a limit
        act = lambda _: start_call(next(left), args, kwargs)  # noqa: E731
        results, failed = await run_acts(agents, act, rounds)
    values = {agent.addr: result for agent, result in zip(agents, results, strict=True)}
    if not failed:
        return values
    failures = {agents[position].addr: error for position, error in sorted(failed.items())}
    for addr, error in failures.items():
        if isinstance(error, CallRefused) and error.address == addr:
            raise error
        del values[addr]
    raise agent_errors(f"failed in {method}", failures, values)


async def take_part(network: Network, plan: Plan) -> None:
    """Serve calls in a step that goes in rounds, without acts; until its end, wherever that is."""
    try:
        with network.steps.take(plan) as rounds:
            await run_acts((), rounds=rounds)
    finally:
        network.steps.begin(plan.step + TAKES_PER_STEP)
