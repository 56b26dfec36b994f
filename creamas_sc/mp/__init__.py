"""Simulations over several processes: multi-environments, their managers, single containers."""

from creamas_sc.installation import explain_import

try:
    from creamas_sc.mp.containers import (
        Container,
        Containers,
        spawn_container,
        spawn_containers,
        start,
    )
    from creamas_sc.mp.managers import EnvManager, MultiEnvManager
    from creamas_sc.mp.multienvironment import MultiEnvironment
    from creamas_sc.mp.timeouts import set_base_timeout
    from creamas_sc.policy import RestartPolicy
    from creamas_sc.receipt import Receipt, Restart, SlaveReceipt
except ModuleNotFoundError as error:
    raise explain_import(error) from None

__all__ = [
    "Container",
    "Containers",
    "EnvManager",
    "MultiEnvManager",
    "MultiEnvironment",
    "Receipt",
    "Restart",
    "RestartPolicy",
    "SlaveReceipt",
    "set_base_timeout",
    "spawn_container",
    "spawn_containers",
    "start",
]
