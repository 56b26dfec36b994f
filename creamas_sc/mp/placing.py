"""On which machine each slave is to run: decided here, from what is known of the nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from creamas_sc.errors import BadValue, StartError
from creamas_sc.foreign import shown
from creamas_sc.rpc.addresses import is_loopback, is_wildcard, split_address
from creamas_sc.rpc.network import Network
from creamas_sc.runtime.validation import check_count
from creamas_sc.supervisor_client.messages import MAX_SLAVES, NodeInfo

# What `place=` may be besides the name of a node; an order has no node, or "", for the first.
HERE: Final = "here"
NODES: Final = "nodes"

Place = tuple[str, int]


def addresses(slaves: Sequence[Place] | int, master: Network | None) -> Sequence[Place]:
    """Return the addresses of slaves; so many have the host of their master, and any free port.

    Raises:
        BadValue: It is not a possible number.
    """
    if not isinstance(slaves, int) or master is None:
        return slaves  # type: ignore[return-value]
    check_count("slave_addrs", slaves, 0)
    if slaves > MAX_SLAVES:
        raise BadValue(f"cannot start {slaves} slaves: a simulation can have {MAX_SLAVES}")
    return [(split_address(f"{master.base_url}0")[0], 0)] * slaves


def check_places_to_run(place: Any, slaves: int, default: str = HERE) -> list[str]:
    """Return where each of so many slaves is to run, as its order says it.

    Args:
        place: The user's: one for all, or a list with one for each; None for the ``default``.

    Raises:
        BadValue: It is not that.
    """
    places = [place or default] * slaves if place is None or isinstance(place, str) else place
    if not isinstance(places, Sequence) or not all(isinstance(each, str) for each in places):
        raise BadValue(
            f'place must be "{HERE}", "{NODES}", the name of a node, or a list of these, not '
            f"{shown(place)}"
        )
    if len(places) != slaves:
        raise BadValue(f"place has {len(places)} items for {slaves} slaves: give one each")
    return ["" if each == HERE else each for each in places]


def nodes_for(wishes: Sequence[str], nodes: Sequence[NodeInfo]) -> list[str]:
    """The node of each slave: the one with the most free cores, if any will do.

    A core is free if no process was started for it; of those with as many, the first that joined.

    Args:
        wishes: "" for this machine, "nodes" for any node, else a node's name.
        nodes: In the order of joining.

    Returns:
        Names, or "" for this machine.

    Raises:
        BadValue: There is no node of that name.
        StartError: There is no node.
    """
    free = {node["name"]: node["cores"] - node["processes"] for node in nodes}
    chosen = []
    for wish in wishes:
        name = wish
        if wish == NODES:
            if not free:
                raise StartError("no node is there on which slaves could be started")
            name = max(free, key=lambda each: free[each])  # the first one of several
        elif wish and wish not in free:
            raise BadValue(f"place: there is no node {shown(wish)}; these are: {list(free)}")
        if name:
            free[name] -= 1
        chosen.append(name)
    return chosen


def addresses_for(
    asked: Sequence[Place],
    chosen: Sequence[str],
    nodes: Mapping[str, NodeInfo],
    running: Mapping[str, str],
    own_address: Callable[[str], str],
) -> list[Place]:
    """Where each slave is to listen: on a node, at the node's host.

    Args:
        asked: The places that the user has given.
        chosen: The node of each slave, "" for this machine.
        running: Hosts of the slaves that there are, and the node of each.
        own_address: The one of this machine towards another host, for a slave that listens at all
            of them: others need one.

    Raises:
        BadValue: Slaves that only their own machine reaches would mix with those of others.
    """
    hosts = [
        nodes[name]["host"] if name else host for name, (host, _) in zip(chosen, asked, strict=True)
    ]
    pairs = [*zip(hosts, chosen, strict=True), *running.items()]
    far = next((host for host, name in pairs if name and not is_loopback(host)), None)
    if far is not None:
        hosts = [own_address(far) if is_wildcard(host) else host for host in hosts]
        near = [*filter(is_loopback, hosts), *filter(_is_of_here, running)]
        if near:
            raise BadValue(
                f"slaves at {near[0]} are reached on their own machine only, and there would be "
                f'others at {far}: give those on this machine an address like ("0.0.0.0", 0)'
            )
    return [(host, port) for host, (_, port) in zip(hosts, asked, strict=True)]


def _is_of_here(host: str) -> bool:
    """Whether an environment at ``host`` has no address for other machines."""
    return is_loopback(host) or is_wildcard(host)


def threads_for(name: str, chosen: Sequence[str], cores: int, running: int) -> int:
    """How many threads a slave on a machine may compute with: a fair share of the cores.

    Args:
        name: Of the machine, as in ``chosen``.
        chosen: The machine of each new slave.
        running: How many slaves there are on it already.
    """
    return max(1, cores // max(1, running + chosen.count(name)))
