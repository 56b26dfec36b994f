"""The machines on which a multi-environment's slaves run: this one, and nodes.

An order for a slave says as its ``node`` where it is wished to run, until `Machines.place` has
chosen a node. A slave keeps its address when it is started again on another one: then the others
get a *route* to where it listens now, ahead of any further call.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial

import trio

from creamas_sc.errors import CreamasError, StartError
from creamas_sc.foreign import printable
from creamas_sc.mp.placing import NODES, addresses_for, nodes_for, threads_for
from creamas_sc.mp.slave_orders import SlaveOrders
from creamas_sc.nodes import NodeAccess, Nodes
from creamas_sc.restarts.slave import Slave
from creamas_sc.rpc.addresses import address_towards, base_url, split_address
from creamas_sc.rpc.network import Network
from creamas_sc.rpc.routes import Route
from creamas_sc.runtime.class_loading import load_object
from creamas_sc.runtime.coroutines import at_once
from creamas_sc.runtime.process_load import ProcessLoad
from creamas_sc.supervisor_client.connection import Supervisor
from creamas_sc.supervisor_client.launcher import THREADS
from creamas_sc.supervisor_client.messages import ActorOrder, Code, NodeInfo, StartedActor
from creamas_sc.supervisor_client.spec import changed, changes_of, fields_of

log = logging.getLogger(__name__)

# Ending the nodes that were started for this simulation.
STOP_SECONDS = 30.0
# Until there is a node on which a lost slave can be started again.
ANOTHER_SECONDS = 20.0


class Machines:
    """Chooses where slaves run, and tells each where the others are.

    Args:
        network: The master environment's; None if the slaves are not called from here.
        ordering: Says which code they load.

    Attributes:
        nodes: Starts nodes; None if the supervisor has them already, or none.
        count, seconds: How many have to be there before slaves are started, and how long they are
            waited for.
    """

    count = 1
    seconds = 60.0

    def __init__(self, network: Network | None, ordering: SlaveOrders) -> None:
        self.nodes: Nodes | None = None
        self._ordering = ordering
        self._network = network
        self._access: NodeAccess | None = None
        self._started = False
        self._brought: set[str] = set()
        self._generations = itertools.count(1)

    @property
    def default(self) -> str:
        """Where slaves run if nothing is said."""
        return "" if self.nodes is None else NODES

    # ---- nodes

    async def open(self, supervisor: Supervisor) -> None:
        """Have nodes started, and wait for them.

        Raises:
            StartError: Too few have joined in time.
            BadValue: They cannot be started.
        """
        nodes = self.nodes
        if nodes is not None and not self._started:
            if self._access is None:
                key = await trio.to_thread.run_sync(nodes.key)
                (host, port), lease = nodes.listen, nodes.lease
                place = await supervisor.listen_for_nodes(
                    {"host": host, "port": port, "key": key, "lease": lease}
                )
                self._access = NodeAccess(*place, key)
            await trio.to_thread.run_sync(nodes.start, self._access)
            self._started = True
            self.count, self.seconds = nodes.count, nodes.seconds
        joined = await supervisor.wait_nodes(self.count, self.seconds)
        if len(joined) < self.count:
            where = "" if self._access is None else f" at {base_url(*self._access[:2])}"
            raise StartError(
                f"{len(joined)} of {self.count} nodes have joined{where} within "
                f"{self.seconds:g} s: creamas-supervisor node starts one, and says why if not"
            )

    @staticmethod
    async def joined(supervisor: Supervisor | None) -> list[NodeInfo]:
        """The nodes that have joined, if the supervisor runs."""
        return [] if supervisor is None else await supervisor.nodes()

    async def aclose(self) -> None:
        """End the nodes that were started for this simulation."""
        if self._access is None or self.nodes is None:
            return
        self._access, self._started = None, False
        with trio.move_on_after(STOP_SECONDS, shield=True) as scope:
            try:
                await trio.to_thread.run_sync(self.nodes.stop, abandon_on_cancel=True)
            except Exception as error:  # of a cluster that is gone, say: the nodes end all the same
                log.warning("the nodes were not stopped in order: %s", printable(str(error)))
        if scope.cancelled_caught:
            log.warning("the nodes were not stopped in order within %g s", STOP_SECONDS)

    # ---- placing

    async def place(
        self, supervisor: Supervisor, orders: Sequence[ActorOrder], slaves: Sequence[Slave]
    ) -> list[ActorOrder]:
        """Orders with the names of nodes for what was wished, and what follows from that.

        Args:
            slaves: Those that there are.

        Raises:
            BadValue: A node does not exist, or addresses do not go together.
            StartError: There are no nodes.
        """
        running = [slave for slave in slaves if not slave.gone.is_set()]
        wishes = [order.get("node", "") for order in orders]
        if not any(wishes) and not any(slave.node for slave in running):
            return list(orders)
        if any(wishes):
            await self.open(supervisor)
        infos = await supervisor.nodes()
        nodes = {info["name"]: info for info in infos}
        chosen = nodes_for(wishes, infos)
        asked = [tuple(fields_of(order["spec"])["addr"]) for order in orders]
        hosts = {split_address(slave.address)[0]: slave.node for slave in running}
        choose = partial(addresses_for, asked, chosen, nodes, hosts, address_towards)
        addresses = await trio.to_thread.run_sync(choose)  # a node's host may be a name
        placed = []
        for order, name, address in zip(orders, chosen, addresses, strict=True):
            spec, environ = changed(order["spec"], addr=address, node=name), order["environ"]
            if name and THREADS not in os.environ:
                there = sum(slave.node == name for slave in running)
                share = threads_for(name, chosen, nodes[name]["cores"], there)
                environ = {**environ, THREADS: str(share)}
            placed.append({**order, "node": name, "spec": spec, "environ": environ})
        return placed  # type: ignore[return-value]

    async def place_again(self, supervisor: Supervisor, slave: Slave) -> ActorOrder:
        """The order to start a lost slave again: where it was, or on another node if that is lost.

        Raises:
            StartError: There is no node.
        """
        host, port, _ = split_address(slave.address)
        spec = changed(slave.order["spec"], addr=(host, port), incarnation=slave.incarnation + 1)
        if not slave.node:
            return {**slave.order, "spec": spec}
        infos = await supervisor.nodes() or await supervisor.wait_nodes(1, ANOTHER_SECONDS)
        nodes = {info["name"]: info for info in infos}
        (name,) = [slave.node] if slave.node in nodes else nodes_for([NODES], infos)
        # Nobody keeps its port while it is away.
        spec = changed(spec, elsewhere=(nodes[name]["host"], 0), node=name)
        return {**slave.order, "spec": spec, "node": name}

    async def start(
        self, supervisor: Supervisor, orders: Sequence[ActorOrder]
    ) -> list[tuple[ActorOrder, StartedActor]]:
        """Start slaves that are placed, with the code that those on nodes need.

        Raises:
            StartError: One did not come up; nothing of them is left.
        """
        versions, code = self._ordering.versions, None
        away = any(order.get("node") for order in orders)
        ordered = []
        for order in orders:
            spec = order["spec"]
            if order.get("node"):
                fields = fields_of(spec)
                _load([fields["env_cls"], fields["mgr_cls"]])
                spec = changed(spec, generation=next(self._generations))
            ordered.append(ActorOrder(**{**order, "spec": spec}))
        if versions is not None:
            versions.keep_loaded()
            if away:
                code = Code(simulation=versions.folder.name, files=versions.files())
        return list(zip(ordered, await supervisor.start(ordered, code), strict=True))

    # ---- telling

    def note_start(self, slave: Slave, place: tuple[str, int], others: Iterable[Slave]) -> None:
        """Tell others where a slave listens that was started again."""
        if slave.incarnation and slave.node:
            self._tell(slave, Route(*place, _generation(slave)), others)

    def note_loss(self, slave: Slave, others: Iterable[Slave]) -> None:
        """Tell others that a slave on a node is lost, or was stopped.

        Their connections may not have noticed, and it may not, either: they refuse it from now on.
        """
        if slave.node:
            self._tell(slave, Route("", 0, _generation(slave) + 1), others)

    def _tell(self, slave: Slave, route: Route, others: Iterable[Slave]) -> None:
        if self._network is None:
            return
        moved = {slave.base_url: route}
        self._network.endpoint.move(moved)
        for other in others:
            if other is not slave and not other.gone.is_set():
                self._network.announce(other.base_url, moved)

    @staticmethod
    async def loads(
        supervisor: Supervisor | None, slaves: Sequence[Slave]
    ) -> dict[str, ProcessLoad]:
        """What slaves on nodes take of their machines, by slot, as far as that is known."""
        away = [slave.slot for slave in slaves if slave.node and not slave.gone.is_set()]
        if not away or supervisor is None:
            return {}
        with suppress(CreamasError):  # it has just ended
            return await supervisor.loads(away)
        return {}

    # ---- code

    async def bring(self, names: Sequence[str], slaves: Sequence[Slave]) -> None:
        """Have slaves on nodes find classes that are to be spawned there.

        Args:
            slaves: All that there are.

        Raises:
            LoadError: One cannot be loaded here.
            StartError: It differs between machines.
        """
        away = [slave for slave in slaves if slave.node and not slave.gone.is_set()]
        versions, network = self._ordering.versions, self._network
        new = [name for name in names if name not in self._brought]
        if not away or not new or versions is None or network is None:
            return
        _load(new)
        versions.keep_loaded()
        files = versions.files()

        async def send(slave: Slave) -> None:
            await network.call_agent(slave.address, "_take_code", (files, new), {})

        await at_once(send, away)
        await self.check_code(slaves)
        self._brought.update(new)

    async def check_code(self, slaves: Sequence[Slave]) -> None:
        """Check that slaves on several machines have loaded the same code.

        Raises:
            StartError: They have not; it names the file.
        """
        members = [slave for slave in slaves if not slave.gone.is_set()]
        if self._network is None or not any(slave.node for slave in members):
            return
        call = self._network.call_agent
        found = await at_once(lambda each: call(each.address, "_loaded_code", (), {}), members)
        places = [f"the node {slave.node}" if slave.node else "this machine" for slave in members]
        if (why := difference(dict(zip(places, found, strict=True)))) is not None:
            raise StartError(why)


def _generation(slave: Slave) -> int:
    return int(changes_of(slave.order["spec"]).get("generation", 0))


def _load(names: Iterable[str]) -> None:
    """Load classes here, so that their modules are among the code that is sent.

    Raises:
        LoadError: One cannot be loaded.
    """
    for name in names:
        load_object(name)


def difference(code: Mapping[str, Mapping[str, tuple[str, str]]]) -> str | None:
    """Say which module differs between machines.

    Args:
        code: By machine, what `loaded_code` returns.
    """
    known: dict[str, tuple[str, str, str]] = {}
    for machine, modules in code.items():
        for name, (path, digest) in modules.items():
            first, first_path, first_digest = known.setdefault(name, (machine, path, digest))
            if digest != first_digest:
                return (
                    f"the module {name} differs: {first_path} on {first}, and {path} on {machine}: "
                    "import it in the script, so that its version is sent, or make them alike"
                )
    return None
