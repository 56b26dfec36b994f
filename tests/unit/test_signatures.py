"""Every name, parameter and default of creamas.mp's reference page, from a table of that page."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import pytest

import creamas_sc
from creamas_sc import mp
from creamas_sc.core.environment import Environment
from creamas_sc.mp import EnvManager, MultiEnvironment
from creamas_sc.runtime.event_loop import adopt_running_loop

# As on the page: "async" marks its coroutine functions, "property" its properties; a parameter
# list is that of a def, without self.
PAGE = """
EnvManager(environment)
EnvManager.create_connections(connection_map)
EnvManager.get_agents(addr=True, agent_cls=None, as_coro=False)
async EnvManager.get_artifacts()
EnvManager.get_connections(data=False)
async EnvManager.is_ready()
EnvManager.set_host_manager(addr)
async EnvManager.spawn_n(agent_cls, n, *args, **kwargs)
async EnvManager.trigger_all(*args, **kwargs)
MultiEnvManager(environment)
async MultiEnvManager.create_connections(connection_map)
async MultiEnvManager.get_agents(addr=True, agent_cls=None)
async MultiEnvManager.get_connections(data=True)
async MultiEnvManager.get_slave_managers()
MultiEnvManager.handle(msg)
async MultiEnvManager.is_ready()
async MultiEnvManager.set_as_host_manager(addr, timeout=5)
async MultiEnvManager.spawn(agent_cls, *args, addr=None, **kwargs)
async MultiEnvManager.spawn_n(agent_cls, n, *args, addr=None, **kwargs)
async MultiEnvManager.trigger_all(*args, **kwargs)
MultiEnvironment(addr, env_cls, mgr_cls=None, name=None, logger=None, **env_kwargs)
MultiEnvironment.add_artifact(artifact)
MultiEnvironment.add_artifacts(artifacts)
MultiEnvironment.check_ready()
MultiEnvironment.close(folder=None, as_coro=False)
MultiEnvironment.create_connections(connection_map, as_coro=False)
MultiEnvironment.destroy(folder=None, as_coro=False)
MultiEnvironment.get_agents(addr=True, agent_cls=None, as_coro=False)
MultiEnvironment.get_artifacts(agent_name=None)
MultiEnvironment.get_connections(data=True, as_coro=False)
async MultiEnvironment.is_ready()
MultiEnvironment.save_info(folder, *args, **kwargs)
async MultiEnvironment.set_host_manager(addr, timeout=5)
async MultiEnvironment.set_host_managers(timeout=5)
async MultiEnvironment.spawn(agent_cls, *args, addr=None, **kwargs)
async MultiEnvironment.spawn_n(agent_cls, n, *args, addr=None, **kwargs)
async MultiEnvironment.spawn_slaves(slave_addrs, slave_env_cls, slave_mgr_cls, slave_kwargs=None)
async MultiEnvironment.stop_slaves(timeout=1)
async MultiEnvironment.trigger_act(addr)
async MultiEnvironment.trigger_all(*args, **kwargs)
async MultiEnvironment.wait_slaves(timeout, check_ready=False)
property MultiEnvironment.addrs
property MultiEnvironment.artifacts
property MultiEnvironment.env
property MultiEnvironment.logger
property MultiEnvironment.manager
property MultiEnvironment.name
set_base_timeout(timeout)
spawn_container(addr, env_cls=Environment, mgr_cls=EnvManager, set_seed=True, *args, **kwargs)
spawn_containers(addrs, env_cls=Environment, env_params=None, mgr_cls=EnvManager, *args, **kwargs)
async start(addr, env_cls, mgr_cls, *env_args, **env_kwargs)
"""

# Parameters that the page lacks, on purpose: keyword-only and optional.
ADDED: dict[str, dict[str, Any]] = {
    "MultiEnvironment": {
        "seed": None,
        "restart": "temporary",
        "calls": "rounds",
        "record": None,
        "nodes": None,
    },
    "MultiEnvironment.spawn_slaves": {"place": None},
    "MultiEnvironment.get_artifacts": {"since": 0, "limit": None},
}

DEFAULTS = {"Environment": Environment, "EnvManager": EnvManager}


def parsed(line: str) -> Any:
    """Kind, name, and signature (None for a property) of a line of the page."""
    words, _, parameters = line.partition("(")
    *kind, name = words.split()
    if kind == ["property"]:
        return "property", name, None
    namespace: dict[str, Any] = dict(DEFAULTS)
    exec(f"def function({parameters}: pass", namespace)
    return "".join(kind), name, inspect.signature(namespace["function"])


LINES = [parsed(line) for line in PAGE.split("\n") if line]
CALLABLES = [line for line in LINES if line[2] is not None]


def ours(name: str) -> Any:
    owner, _, attribute = name.partition(".")
    found = getattr(mp, owner)
    return inspect.getattr_static(found, attribute) if attribute else found


def bare(signature: inspect.Signature, *, bound: bool) -> dict[str, Any]:
    """Name -> kind and default, in order, without ``self``."""
    parameters = list(signature.parameters.values())[0 if bound else 1 :]
    return {p.name: (p.kind, p.default) for p in parameters}


@pytest.mark.parametrize(("kind", "name", "page"), CALLABLES, ids=[line[1] for line in CALLABLES])
def test_parameters_order_and_defaults(kind: str, name: str, page: inspect.Signature) -> None:
    method = "." in name
    found = ours(name)
    if method:  # also where it is inherited
        owner, _, attribute = name.partition(".")
        found = getattr(getattr(mp, owner), attribute)
    parameters = bare(inspect.signature(found), bound=not method)
    for added, default in ADDED.get(name, {}).items():
        assert parameters.pop(added) == (inspect.Parameter.KEYWORD_ONLY, default)
    assert list(parameters.items()) == list(bare(page, bound=True).items())


@pytest.mark.parametrize(("kind", "name", "page"), LINES, ids=[line[1] for line in LINES])
def test_what_is_awaited_and_what_is_a_property(kind: str, name: str, page: Any) -> None:
    found = ours(name)
    assert isinstance(found, property) == (kind == "property")
    unwrapped = found.fget if isinstance(found, property) else found
    assert inspect.iscoroutinefunction(unwrapped) == (kind == "async")


def test_managers_of_the_page_may_be_called_from_outside() -> None:
    named = [name.split(".") for _, name, _ in LINES if "Manager." in name]
    assert len(named) > 15
    for owner, attribute in named:
        method = getattr(getattr(mp, owner), attribute)
        assert getattr(method, "__creamas_exposed__", False), f"{owner}.{attribute}"


def test_every_name_is_documented() -> None:
    for _, name, _ in LINES:
        assert inspect.getdoc(ours(name)), name


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("get_agents", ()),
        ("get_connections", ()),
        ("create_connections", ({},)),
        ("close", ()),
        ("destroy", ()),
    ],
)
async def test_two_forms(name: str, args: tuple[Any, ...]) -> None:
    """``as_coro=True`` is awaitable; the other form on the home loop is refused, not a deadlock."""
    async with adopt_running_loop():
        menv = MultiEnvironment(("localhost", 0), Environment)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            coroutine = getattr(menv, name)(*args, as_coro=True)
            assert inspect.iscoroutine(coroutine)
            coroutine.close()
            with pytest.raises(RuntimeError, match="as_coro=True"):
                getattr(menv, name)(*args)


def test_what_the_package_exports() -> None:
    assert {name.partition(".")[0] for _, name, _ in LINES} <= set(mp.__all__)
    for name in creamas_sc.__all__:
        assert getattr(creamas_sc, name)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        creamas_sc.Nothing  # noqa: B018
