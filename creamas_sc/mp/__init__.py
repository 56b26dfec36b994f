"""Simulations over several processes: multi-environments, their managers, single containers."""

from creamas_sc.runtime.installation import explain_import

try:
    from creamas_sc.mp.managers import EnvManager
    from creamas_sc.mp.master import MultiEnvManager
    from creamas_sc.mp.multienvironment import MultiEnvironment
    from creamas_sc.mp.single_environments import (
        Container,
        Containers,
        spawn_container,
        spawn_containers,
        start,
    )
    from creamas_sc.reports import Restart, SlaveReceipt, StepReport, StopReport
    from creamas_sc.restarts.policy import RestartPolicy
    from creamas_sc.rpc.base_timeout import set_base_timeout
except ModuleNotFoundError as error:
    raise explain_import(error) from None

__all__ = [
    "Container",
    "Containers",
    "EnvManager",
    "MultiEnvManager",
    "MultiEnvironment",
    "Restart",
    "RestartPolicy",
    "SlaveReceipt",
    "StepReport",
    "StopReport",
    "set_base_timeout",
    "spawn_container",
    "spawn_containers",
    "start",
]
