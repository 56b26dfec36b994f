"""What an installation without trio says, and what is imported at its first use only."""

from __future__ import annotations

import pytest

from tests.support.programs import run_code


@pytest.mark.parametrize(
    "wanted",
    ["from creamas_sc import Environment", "import creamas_sc.mp", "import creamas_sc.mp.managers"],
)
def test_without_trio(wanted: str) -> None:
    code = f"import sys; sys.modules['trio'] = None; {wanted}"
    done = run_code(code)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: environments need trio, which this Python lacks: ")
    assert last.endswith("[supervisor]'")


def test_without_trio_artifacts_and_serializers_are_there() -> None:
    code = (
        "import sys; sys.modules['trio'] = None; from creamas_sc import Artifact, MsgPack, expose"
    )
    assert run_code(code).returncode == 0


def test_another_missing_module_is_named() -> None:
    code = "import sys; sys.modules['msgpack'] = None; import creamas_sc.mp"
    done = run_code(code)
    assert "ModuleNotFoundError: import of msgpack" in done.stderr


@pytest.mark.parametrize("package", ["creamas_sc", "creamas_sc.client", "creamas_sc.core"])
def test_names_that_are_imported_at_first_use_are_listed(package: str) -> None:
    code = (
        f"import rlcompleter, {package} as package; before = set(vars(package));"
        "names = dir(package); assert names == sorted(set(names));"
        "assert {*package.__all__, *before} <= set(names) and before == set(vars(package));"
        "complete = rlcompleter.Completer({'package': package}).attr_matches;"
        "assert {name.split('(')[0] for name in complete('package.')}"
        " >= {f'package.{name}' for name in package.__all__}"
    )
    done = run_code(code)
    assert (done.returncode, done.stderr) == (0, "")


DOCUMENTED = """
client errors.AgentErrors experiments mp.EnvManager mp.RestartPolicy page results.open
results.Record results.schema rpc.rounds runtime.debugging serializers.register util.run
verification
""".split()


# Each in a process of its own, which finds only what takes long to import and needs no creamas_sc.
FORKS = """
import os, sys, trio, creamas_sc
for name in sys.argv[1:]:
    pid = os.fork()
    if pid == 0:
        eval(f"creamas_sc.{name}")
        os._exit(0)
    print(name, os.waitpid(pid, 0)[1])
"""


def test_what_the_documentation_names_needs_no_import_but_the_packages() -> None:
    done = run_code(FORKS, *DOCUMENTED)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [f"{name} 0" for name in DOCUMENTED]


def test_little_is_imported_before_processes_start() -> None:
    # Nor is it all searched for garbage again and again, only once as the collector goes on.
    code = """
import gc, sys, creamas_sc
collections = []
gc.callbacks.append(lambda *each: collections.append(each))
creamas_sc.prestart
print({"hashlib", "inspect", "json", "logging"} & sys.modules.keys(), len(collections) <= 2)
"""
    assert run_code(code).stdout == "set() True\n"


def test_asyncio_is_imported_by_the_first_call_under_it() -> None:
    code = "import sys; from creamas_sc import run_asyncio; sys.exit('asyncio' in sys.modules)"
    assert run_code(code).returncode == 0
