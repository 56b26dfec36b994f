"""The reference page's order of usage, in each form that a user may write it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.marks import slow_but
from tests.support.programs import run_code, run_script

HEAD = """
from creamas_sc import Artifact, CreativeAgent, Environment, MsgPack, expose
from creamas_sc.mp import EnvManager, MultiEnvironment
from creamas_sc.util import run


class Sum(CreativeAgent):
    @expose
    async def act(self, *args):
        self.publish(Artifact(self, sum(args)))
        return sum(args)


class AlwaysReady(Environment):
    def is_ready(self):
        return True

ADDRS = [("localhost", 0), ("localhost", 0)]
KWARGS = [{"codec": MsgPack} for _ in ADDRS]


def check(menv, sums, report):
    assert sums == [6] * 4, sums
    assert [a.obj for a in menv.artifacts] == [6] * 4
    assert report.graceful and len(report) == 2, report
    print("done")
"""

SYNC = """
menv = MultiEnvironment(("localhost", 0), Environment, codec=MsgPack)
run(menv.spawn_slaves(ADDRS, AlwaysReady, EnvManager, KWARGS))
assert run(menv.wait_slaves(10, check_ready=True))
for _ in range(4):
    run(menv.spawn(Sum))
assert len(menv.get_agents()) == 4
sums = run(menv.trigger_all(1, 2, 3))
check(menv, sums, menv.close())
"""

WITH = """
with MultiEnvironment(("localhost", 0), Environment, codec=MsgPack) as menv:
    run(menv.spawn_slaves(ADDRS, AlwaysReady, EnvManager, KWARGS))
    run(menv.spawn("__main__:Sum"))
    run(menv.spawn_n(Sum, 3, addr=menv.addrs[1]))
    sums = run(menv.trigger_all(1, 2, 3))
check(menv, sums, menv.close())
"""

ASYNC = """
async def main():
    menv = MultiEnvironment(("localhost", 0), Environment, codec=MsgPack)
    await menv.spawn_slaves(ADDRS, AlwaysReady, EnvManager, KWARGS)
    assert await menv.wait_slaves(10, check_ready=True)
    for _ in range(4):
        await menv.spawn(Sum)
    assert len(await menv.get_agents(as_coro=True)) == 4
    sums = await menv.trigger_all(1, 2, 3)
    check(menv, sums, await menv.close(as_coro=True))
    async with MultiEnvironment(("localhost", 0), Environment) as menv:
        await menv.spawn_slaves(ADDRS, AlwaysReady, EnvManager, KWARGS)
        for _ in range(4):
            await menv.spawn(Sum)
        sums = await menv.trigger_all(1, 2, 3)
    check(menv, sums, await menv.close(as_coro=True))

import {library}
{call}
"""

# A notebook's cell runs as plain code while the kernel's asyncio loop is running in this thread.
NOTEBOOK = '''
import asyncio

async def kernel():
    exec(compile(CELL, "<cell>", "exec"), globals())

CELL = """SYNC"""
asyncio.run(kernel())
'''.replace("SYNC", SYNC)

FORMS = {
    "sync": SYNC,
    "with": WITH,
    "trio": ASYNC.format(library="trio", call="trio.run(main)"),
    "asyncio": ASYNC.format(library="asyncio", call="asyncio.run(main())"),
    "anyio": ASYNC.format(library="anyio", call="anyio.run(main)"),
    "notebook": NOTEBOOK,
}


def guarded(body: str) -> str:
    """The body behind a guard; what it defines stays global."""
    return 'if __name__ == "__main__":\n' + "".join(
        f"    {line}\n" if line and "CELL" not in line else f"{line}\n"
        for line in body.splitlines()
    )


NEEDLESS = """
from creamas_sc import Environment, run
from creamas_sc.mp import EnvManager, MultiEnvironment
from tests.support.values import pickled_tuples

KWARGS = {"extra_serializers": [pickled_tuples]}
with MultiEnvironment(("localhost", 0), Environment, **KWARGS) as menv:
    run(menv.spawn_slaves([("localhost", 0)] * 2, Environment, EnvManager, [KWARGS] * 2))
    print("done")
"""


@pytest.mark.slow
def test_creamas_serializers_are_warned_of_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(NEEDLESS)
    for result in (run_script(script), run_code(NEEDLESS)):
        assert (result.returncode, result.stdout) == (0, "done\n")
        assert result.stderr.count("for tuple are ignored: these travel without") == 1


@pytest.mark.parametrize(
    "form",
    [pytest.param(form, marks=pytest.mark.slow if form == "anyio" else ()) for form in FORMS],
)
def test_without_a_guard(form: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(HEAD + FORMS[form])
    result = run_script(script)
    assert (result.returncode, result.stderr) == (0, "")
    assert set(result.stdout.split()) == {"done"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "form", slow_but({("sync",), ("asyncio",)}, [("sync",), ("with",), ("trio",), ("asyncio",)])
)
def test_with_a_guard(form: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(HEAD + guarded(FORMS[form]))
    result = run_script(script)
    assert (result.returncode, result.stderr) == (0, "")
    assert set(result.stdout.split()) == {"done"}


@pytest.mark.slow
def test_an_agent_class_below_the_first_call(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(HEAD + SYNC.replace("(Sum)", "(Late)").replace(
        "for _ in", "class Late(Sum):\n    pass\n\nfor _ in"))  # fmt: skip
    result = run_script(script)
    assert result.returncode == 1
    assert re.search(r"has no .Late. above line \d+, its first call", result.stderr)
    assert "define the class above that call" in result.stderr


def test_an_agent_class_of_a_notebook(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import sys\ndel sys.modules['__main__'].__file__\n{HEAD}{SYNC}")
    result = run_script(script)
    assert result.returncode == 1
    assert "put it into a file" in result.stderr


def test_a_script_that_does_not_load(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys\nif __name__ != '__main__': sys.exit('no')\n" + HEAD + SYNC)
    result = run_script(script)
    assert result.returncode == 1
    assert "loading the script" in result.stderr
    assert "SystemExit: no" in result.stderr


def test_running_a_module(tmp_path: Path) -> None:
    package = tmp_path / "pkg"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "part.py").write_text("KIND = 'relative'\n")
    (package / "tool.py").write_text(f"from .part import KIND\n{HEAD}{SYNC}")
    runner = tmp_path / "runner.py"
    runner.write_text(
        "import subprocess, sys\n"
        "sys.exit(subprocess.run([sys.executable, '-m', 'pkg.tool']).returncode)\n"
    )
    result = run_script(runner)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "done\n"


@pytest.mark.slow
@pytest.mark.parametrize("guard", [False, True])
def test_a_script_that_names_itself(guard: bool, tmp_path: Path) -> None:
    body = SYNC.replace("run(menv.spawn(Sum))", 'run(menv.spawn("script:Sum"))')
    body = body.replace("len(menv.get_agents())", "len(menv.get_agents(agent_cls=Sum))")
    script = tmp_path / "script.py"
    script.write_text(HEAD + (guarded(body) if guard else body))
    result = run_script(script)
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")
