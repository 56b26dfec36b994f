"""What a user reads when a script catches no error of creamas_sc."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.programs import run_script

HEAD = """
import asyncio, trio
from creamas_sc import CreativeAgent, Environment, MultiEnvironment, expose, run
from creamas_sc.mp import EnvManager

class Painter(CreativeAgent):
    @expose
    async def act(self):
        raise ValueError("no paint")

async def main():
    async with MultiEnvironment(("localhost", 0), Environment) as menv:
        await menv.spawn_slaves([("localhost", 0)], Environment, EnvManager)
        await menv.spawn(Painter)
        await menv.trigger_all()

"""


@pytest.mark.slow
@pytest.mark.parametrize("start", ["run(main())", "trio.run(main)", "asyncio.run(main())"])
def test_a_traceback_shows_only_the_users_lines(start: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(HEAD + start)
    done = run_script(script)
    assert done.returncode == 1
    ours, _, remote = done.stderr.partition("Traceback in tcp://")
    assert start in ours
    assert "await menv.trigger_all()" in ours
    assert "/creamas_sc/" not in ours
    assert "never awaited" not in done.stderr
    assert 'raise ValueError("no paint")' in remote
    assert len(done.stderr.splitlines()) < 30


def test_a_users_own_error_is_printed_unchanged(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(HEAD + "run(asyncio.sleep(0, 1 / 0))")
    done = run_script(script)
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")
    assert "run(asyncio.sleep(0, 1 / 0))" in done.stderr


def test_ctrl_c_that_comes_as_a_group_ends_as_any_other(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from creamas_sc.runtime.signals import install_signal_handling\n"
        "install_signal_handling()\n"
        "raise BaseExceptionGroup('twice', [KeyboardInterrupt(), KeyboardInterrupt()])\n"
    )
    done = run_script(script)
    assert (done.returncode, done.stderr) == (130, "Interrupted\n")


SAVING = """
import sys
from pathlib import Path
from creamas_sc import Environment, MultiEnvironment, run
from creamas_sc.mp import EnvManager

class Gallery(Environment):
    def save_info(self, folder):
        (Path(folder) / "catalogue").write_text(self.name)
        if self.name == sys.argv[1]:
            raise OSError("no more paper")

class Museum(MultiEnvironment):
    def save_info(self, folder):
        if sys.argv[2]:
            raise OSError("no more room")

with Museum(("localhost", 0), Environment) as menv:
    kwargs = [{"name": "first"}, {"name": "second"}]
    run(menv.spawn_slaves([("localhost", 0)] * 2, Gallery, EnvManager, kwargs))
    if sys.argv[2]:
        raise ZeroDivisionError
    menv.close("results")
"""


@pytest.mark.slow
@pytest.mark.parametrize("failing", ["", "second"])
def test_each_slave_saves_in_its_own_part_and_a_failure_fails_the_script(
    failing: str, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SAVING)
    done = run_script(script, failing, "")
    saved = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("cat*")}
    parts = {"results/slave-0/catalogue": "first", "results/slave-1/catalogue": "second"}
    assert saved == parts
    assert done.returncode == bool(failing)
    assert ("OSError: no more paper" in done.stderr) == bool(failing)


def test_a_failing_close_does_not_hide_the_error_that_led_to_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SAVING)
    done = run_script(script, "", "raise")
    assert done.stderr.splitlines()[-1] == "ZeroDivisionError"
    assert "OSError in tcp://" in done.stderr


ENCODING = """
from creamas_sc import Artifact, CreativeAgent, Environment, MultiEnvironment, expose, run
from creamas_sc.mp import EnvManager

class Thing:
    pass

class Publishes(CreativeAgent):
    @expose
    async def act(self):
        self.publish(Artifact(self, Thing(), domain=Thing))

class Returns(CreativeAgent):
    @expose
    async def act(self):
        return [1, {"a": Thing()}]

with MultiEnvironment(("localhost", 0), Environment) as menv:
    run(menv.spawn_slaves([("localhost", 0)], Environment, EnvManager))
    for cls in (Publishes, Returns):
        run(menv.spawn(cls))
    run(menv.trigger_all())
"""


def test_what_cannot_travel_is_said_in_few_lines(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(ENCODING)
    done = run_script(script)
    assert done.returncode == 1
    assert "artifact._obj: cannot carry __main__.Thing: make its class a dataclass" in done.stderr
    assert "self.publish(Artifact(self, Thing(), domain=Thing))" in done.stderr
    assert "the result of act[1]['a']: cannot carry __main__.Thing" in done.stderr
    assert "/creamas_sc/" not in done.stderr
    assert "msgpack" not in done.stderr
    assert len(done.stderr.splitlines()) < 20


def test_a_wrong_argument_is_shown_where_it_stands(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(ENCODING.replace("run(menv.trigger_all())", "menv.close(folder=5)"))
    done = run_script(script)
    assert done.stderr.splitlines()[-1] == "TypeError: folder must be a path or None, not 5 (int)"
    assert "menv.close(folder=5)" in done.stderr
    assert "/creamas_sc/" not in done.stderr
