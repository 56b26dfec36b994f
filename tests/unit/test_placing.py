"""On which machine slaves run, and at which addresses: decided from what is known of the nodes."""

from __future__ import annotations

from typing import Any

import pytest

from creamas_sc.errors import BadValue, StartError
from creamas_sc.mp.machines import difference
from creamas_sc.mp.placing import (
    addresses_for,
    check_places_to_run,
    nodes_for,
    threads_for,
)
from creamas_sc.supervisor_client.messages import NodeInfo


def node(name: str, cores: int, processes: int = 0, host: str = "") -> NodeInfo:
    return {
        "name": name,
        "instance": name,
        "host": host or f"10.0.0.{name[-1]}",
        "pid": 1,
        "cores": cores,
        "memory": 1 << 30,
        "engine": "",
        "version": "0.1.0",
        "python": "3.12",
        "processes": processes,
        "heard": 0.0,
        "since": 0.0,
    }


@pytest.mark.parametrize(
    ("cores", "slaves", "expected"),
    [
        ([(2, 0), (2, 0)], 4, ["n0", "n1", "n0", "n1"]),
        ([(4, 0), (2, 0)], 4, ["n0", "n0", "n0", "n1"]),
        ([(4, 3), (2, 0)], 3, ["n1", "n0", "n1"]),
        ([(2, 9), (2, 5)], 2, ["n1", "n1"]),  # none is free
        ([(1, 0)], 3, ["n0", "n0", "n0"]),
    ],
)
def test_slaves_go_where_most_cores_are_free(
    cores: list[tuple[int, int]], slaves: int, expected: list[str]
) -> None:
    nodes = [node(f"n{place}", *each) for place, each in enumerate(cores)]
    assert nodes_for(["nodes"] * slaves, nodes) == expected


def test_named_nodes_and_this_machine() -> None:
    nodes = [node("n0", 2), node("n1", 8)]
    assert nodes_for(["n0", "", "nodes", "n0"], nodes) == ["n0", "", "n1", "n0"]
    assert nodes_for(["", ""], []) == ["", ""]
    with pytest.raises(BadValue, match=r"no node 'n7'; these are: \['n0', 'n1'\]"):
        nodes_for(["n7"], nodes)
    with pytest.raises(StartError, match="no node is there"):
        nodes_for(["nodes"], [])


def test_what_place_may_be() -> None:
    assert check_places_to_run(None, 2) == ["", ""]
    assert check_places_to_run(None, 2, "nodes") == ["nodes", "nodes"]
    assert check_places_to_run("here", 1, "nodes") == [""]
    assert check_places_to_run(["here", "n1"], 2) == ["", "n1"]
    for wrong in (5, ["here", 5], {"here"}):
        with pytest.raises(BadValue, match="place must be"):
            check_places_to_run(wrong, 2)
    with pytest.raises(BadValue, match="1 items for 2 slaves"):
        check_places_to_run(["here"], 2)


NODES = {"n1": node("n1", 2), "n2": node("n2", 2), "near": node("near", 2, host="127.0.0.1")}


def towards(host: str) -> str:
    """This machine's address, as it is called towards another."""
    return f"own-to-{host}"


@pytest.mark.parametrize(
    ("asked", "chosen", "running", "expected"),
    [
        (["localhost", "::1"], ["n1", "n2"], {}, ["10.0.0.1", "10.0.0.2"]),
        (["0.0.0.0", "0.0.0.0"], ["", "n2"], {}, ["own-to-10.0.0.2", "10.0.0.2"]),
        (["me", "0.0.0.0"], ["", "n2"], {}, ["me", "10.0.0.2"]),
        (["0.0.0.0"], [""], {"10.0.0.1": "n1"}, ["own-to-10.0.0.1"]),
        (["localhost", "localhost"], ["", "near"], {}, ["localhost", "127.0.0.1"]),
        (["0.0.0.0"], [""], {"localhost": ""}, ["0.0.0.0"]),
    ],
)
def test_where_slaves_listen(
    asked: list[str], chosen: list[str], running: dict[str, str], expected: list[str]
) -> None:
    places = [(host, port) for port, host in enumerate(asked)]
    found = addresses_for(places, chosen, NODES, running, towards)
    assert found == [(host, port) for port, host in enumerate(expected)]


@pytest.mark.parametrize(
    ("asked", "chosen", "running"),
    [
        (["localhost", "localhost"], ["", "n1"], {}),
        (["localhost"], ["n1"], {"localhost": ""}),
        (["localhost"], ["n1"], {"0.0.0.0": ""}),
        (["localhost"], [""], {"10.0.0.1": "n1"}),
        (["localhost", "localhost"], ["near", "n1"], {}),
    ],
)
def test_slaves_that_others_cannot_reach_do_not_mix_with_them(
    asked: list[str], chosen: list[str], running: dict[str, str]
) -> None:
    with pytest.raises(BadValue, match="reached on their own machine only"):
        addresses_for([(host, 0) for host in asked], chosen, NODES, running, towards)


def test_threads_are_a_share_of_the_cores_of_the_machine() -> None:
    assert threads_for("n1", ["n1", "n2", "n1"], cores=8, running=0) == 4
    assert threads_for("n1", ["n1", "n2", "n1"], cores=8, running=2) == 2
    assert threads_for("n2", ["n2"] * 5, cores=2, running=0) == 1


def test_modules_that_differ_between_machines_are_named() -> None:
    same: dict[str, Any] = {"a": ("/x/a.py", "1"), "b": ("/x/b.py", "2")}
    other = {"a": ("/y/a.py", "1"), "c": ("/y/c.py", "3")}
    assert difference({"this machine": same, "the node n1": other}) is None
    other["b"] = "/y/b.py", "4"
    why = difference({"this machine": same, "the node n1": other})
    assert why is not None
    assert "the module b differs: /x/b.py on this machine, and /y/b.py on the node n1" in why
