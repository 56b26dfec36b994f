"""The table of operations beside the class that it mirrors."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from creamas_sc.client import Simulation, SyncSimulation
from creamas_sc.core.environment import Environment
from creamas_sc.mp import MultiEnvironment
from creamas_sc.simulation_api import OPERATIONS, Kind, Operation, SimulationAPI
from creamas_sc.simulation_host.hosted_simulation import HostedSimulation

# Public names of MultiEnvironment that have no operation, and why.
LOCAL = {
    "attach_observer": "for the host itself",
    "overview": "for the host itself; clients get it as part of progress()",
    "artifacts": "get_artifacts() is the same, and pages",
    "env": "the master environment is an object of the host's process",
    "get_loop": "as is the loop on which it lives",
    "logger": "and so is the logger",
    "manager": "and the manager, which can be connected to at its address",
}


def names_of(kind: Kind) -> list[str]:
    return [name for name, operation in OPERATIONS.items() if operation.kind is kind]


def bare(signature: inspect.Signature) -> dict[str, Any]:
    """Name -> kind and default, in order."""
    return {p.name: (p.kind, p.default) for p in signature.parameters.values()}


def test_every_public_name_is_mirrored_or_local() -> None:
    public = {name for name in dir(MultiEnvironment) if not name.startswith("_")}
    mirrored = {o.attribute for o in OPERATIONS.values() if o.kind is not Kind.HOST}
    assert mirrored | set(LOCAL) == public
    assert not mirrored & set(LOCAL)


@pytest.mark.parametrize("name", names_of(Kind.METHOD) + names_of(Kind.TWO_FORMS))
def test_signatures(name: str) -> None:
    operation = OPERATIONS[name]
    # MultiEnvironment hands `connect` on with any arguments.
    owner = Environment if name == "connect" else MultiEnvironment
    theirs = bare(inspect.signature(getattr(owner, operation.attribute)))
    theirs.pop("self")
    as_coro = theirs.pop("as_coro", None)
    assert (as_coro is not None) == (operation.kind is Kind.TWO_FORMS)
    assert list(bare(operation.signature).items()) == list(theirs.items())


@pytest.mark.parametrize("name", names_of(Kind.HOST))
def test_signatures_of_the_host(name: str) -> None:
    theirs = bare(inspect.signature(getattr(HostedSimulation, name)))
    theirs.pop("self")
    assert list(bare(OPERATIONS[name].signature).items()) == list(theirs.items())


@pytest.mark.parametrize("name", names_of(Kind.GETTER) + names_of(Kind.SETTER))
def test_properties(name: str) -> None:
    operation = OPERATIONS[name]
    prefix = "get" if operation.kind is Kind.GETTER else "set"
    assert name == f"{prefix}_{operation.attribute}"
    found = inspect.getattr_static(MultiEnvironment, operation.attribute)
    assert isinstance(found, property)
    if operation.kind is Kind.GETTER:
        assert not operation.signature.parameters
    else:
        assert found.fset is not None
        assert list(operation.signature.parameters) == [operation.attribute]


def test_what_can_be_set_is_an_operation() -> None:
    members = inspect.getmembers_static(MultiEnvironment, lambda m: isinstance(m, property))
    settable = {name for name, member in members if member.fset is not None}
    assert settable == {OPERATIONS[name].attribute for name in names_of(Kind.SETTER)}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("client", [Simulation, SyncSimulation])
def test_both_clients_have_it_with_its_words(client: type[SimulationAPI], name: str) -> None:
    method = getattr(client, name)
    assert inspect.getdoc(method)
    # The client's own methods do not take an operation's name.
    assert method is getattr(SimulationAPI, name)
    own = bare(inspect.signature(method))
    own.pop("self")
    assert own == bare(OPERATIONS[name].signature)


class Recorder(SimulationAPI):
    """Returns what it is asked for."""

    def _invoke(self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return operation, args, kwargs


def test_arguments_are_handed_on_as_given() -> None:
    recorded = Recorder().spawn("mod:Cls", 1, 2, addr=None, x=3)
    assert recorded == (OPERATIONS["spawn"], ("mod:Cls", 1, 2), {"addr": None, "x": 3})
    assert Recorder().call("method", self=1) == (OPERATIONS["call"], ("method",), {"self": 1})


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "says"),
    [
        ("trigger_act", (), {}, "missing a required argument: 'addr'"),
        ("get_agents", (), {"as_coro": True}, "unexpected keyword argument 'as_coro'"),
        ("get_age", (1,), {}, "too many positional arguments"),
    ],
)
def test_arguments_that_do_not_fit(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], says: str
) -> None:
    with pytest.raises(TypeError, match=says):
        getattr(Recorder(), name)(*args, **kwargs)
