"""`prestart`: the processes behind slaves come up while the script's imports go on."""

from __future__ import annotations

import signal
from itertools import product
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.marks import slow_but
from tests.support.programs import run_script, running_script

CHILDREN = """
def children():
    found = []
    for thread in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{thread}/children") as file:
            found += file.read().split()
    return found

"""
HEAD = f"""
import os, sys, creamas_sc
creamas_sc.prestart()
from creamas_sc import MultiEnvironment, Environment, run
{CHILDREN}"""
USE = """
from creamas_sc.mp import EnvManager

class Printing(Environment):
    def __init__(self, addr):
        super().__init__(addr)
        umask = os.umask(0)
        os.umask(umask)
        os.write(1, f"slave {umask:o} {os.environ.get('CHANGED')}\\n".encode())

def use():
    with MultiEnvironment(("localhost", 0), Environment) as menv:
        run(menv.spawn_slaves([("localhost", 0)], Printing, EnvManager))
        return children()

"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """Where a test writes its script."""
    return tmp_path / "script.py"


def test_the_first_supervisor_uses_the_early_tree(script: Path) -> None:
    script.write_text(HEAD + "early = children()\n" + USE + "print(early == use(), len(early))")
    done = run_script(script)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines())[0] == "True 1"


def test_one_simulation_after_the_other_uses_it(script: Path) -> None:
    script.write_text(
        HEAD + "early = children()\n" + USE + "print([use() == early for _ in '123'])"
    )
    done = run_script(script)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines())[0] == "[True, True, True]"


def test_two_at_a_time_have_one_each(script: Path) -> None:
    both = """
with MultiEnvironment(("localhost", 0), Environment) as menv:
    run(menv.spawn_slaves([("localhost", 0)], Environment, EnvManager))
    print(len(use()), len(children()))
print(len(children()))
"""
    script.write_text(HEAD + USE + both)
    done = run_script(script)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines())[:2] == ["1", "2 1"]


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["keeper", pytest.param("supervisor", marks=pytest.mark.slow)])
def test_if_it_dies_between_simulations_another_is_started(victim: str, script: Path) -> None:
    kill = f"""
use()
victim = int(children()[0])
if {victim!r} == "supervisor":
    for _ in range(2):
        with open(f"/proc/{{victim}}/task/{{victim}}/children") as file:
            victim = int(file.read().split()[0])
pidfd = os.pidfd_open(victim)
os.kill(victim, 9)
select.select([pidfd], [], [])
print(len(use()), len(use()))
"""
    script.write_text("import select\n" + HEAD + USE + kill)
    done = run_script(script)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines())[0] == "1 1"


LOADED = """
from creamas_sc.mp import EnvManager

class Printing(Environment):
    def __init__(self, addr):
        super().__init__(addr)
        os.write(1, f"{'colorsys' in sys.modules} {os.environ['OMP_NUM_THREADS']}\\n".encode())

for _ in range(2):
    with MultiEnvironment(("localhost", 0), Environment) as menv:
        run(menv.spawn_slaves([("localhost", 0)], Printing, EnvManager))
"""


@pytest.mark.parametrize("modules", ["", "'colorsys'"])
def test_slaves_are_forked_from_a_process_with_the_modules_that_it_names(
    modules: str, script: Path
) -> None:
    script.write_text(HEAD.replace("prestart()", f"prestart({modules})") + LOADED)
    done = run_script(script)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == [str(bool(modules))] * 2


def test_modules_that_cannot_be_named(script: Path) -> None:
    script.with_name("painters.py").write_text("")
    refused = """
import creamas_sc
for name in ("painters", "no_such_module.part"):
    try:
        creamas_sc.prestart(name)
    except (ImportError, ValueError) as error:
        print(error)
"""
    script.write_text(refused)
    done = run_script(script)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "'painters' is your own module, not an installed one: leave it out",
        "there is no module 'no_such_module'",
    ]


# In all threads: another one than the main thread might be given the signal.
BLOCK = "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})\n"
WAIT = """
print(*children(), flush=True)
signal.sigwait({signal.SIGUSR1})
"""


ENDS = {"": 0, "sys.exit(3)": 3, "os._exit(0)": 0, "os.kill(0, 9)": -9}
QUICK = {(False, ""), (True, "sys.exit(3)"), (False, "os._exit(0)"), (True, "os.kill(0, 9)")}


@pytest.mark.parametrize(("used", "end"), slow_but(QUICK, product((False, True), ENDS)))
def test_it_ends_with_the_script(used: bool, end: str, script: Path) -> None:
    use = f"{USE}use()\n" if used else ""
    script.write_text(f"{BLOCK}{HEAD}{use}{WAIT}{end}")
    with running_script(script) as under_way:
        if used:
            under_way.read_until("slave")
        (keeper,) = map(int, under_way.read_until("").split())
        left = processes.open_pidfds(processes.family(keeper).values() if used else [keeper])
        under_way.signal(signal.SIGUSR1)
        assert under_way.finish() == (ENDS[end], "", "")
        assert processes.wait_gone(left, 2) == []


def test_a_fork_leaves_it_to_the_script(script: Path) -> None:
    fork = "early = children()\npid = os.fork()\nif pid == 0:\n    sys.exit()\nos.waitpid(pid, 0)\n"
    script.write_text(HEAD + fork + USE + "print(early == use(), len(early))")
    done = run_script(script)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines())[0] == "True 1"


@pytest.mark.slow
def test_what_changed_since_the_import_is_inherited(script: Path) -> None:
    change = "os.umask(0o77)\nos.environ['CHANGED'] = 'late'\nearly = children()\n"
    script.write_text(HEAD + change + USE + "print(early == use(), len(early))")
    done = run_script(script)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == ["False 1", "slave 77 late"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "taken_over"),
    [
        (("OMP_NUM_THREADS", "PYTHONPATH"), True),
        (("PYTHONUTF8",), False),
        pytest.param(("LC_ALL",), False, marks=pytest.mark.slow),
    ],
)
def test_the_environment_comes_with_the_slaves(
    variables: tuple[str, ...], taken_over: bool, script: Path
) -> None:
    """But for what a process reads before anything of theirs runs."""
    changed = dict.fromkeys(variables, "1")
    change = f"os.environ.update(CHANGED='late', **{changed})\nearly = children()\n"
    script.write_text(HEAD + change + USE + "print(early == use(), len(early))")
    done = run_script(script)
    assert (done.returncode, done.stderr) == (0, "")
    same, slave = sorted(done.stdout.splitlines())
    assert (same, slave.endswith(" late")) == (f"{taken_over} 1", True)


def test_a_second_call_starts_nothing_more(script: Path) -> None:
    script.write_text(f"{HEAD}creamas_sc.prestart()\nprint(len(children()))")
    done = run_script(script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_a_slave_that_loads_the_script_starts_none(script: Path) -> None:
    script.write_text(
        HEAD
        + "count = len(children())\n"
        + USE
        + """
from creamas_sc import CreativeAgent, expose
class Counting(CreativeAgent):
    @expose
    async def act(self):
        return count, len(children())

with MultiEnvironment(("localhost", 0), Environment) as menv:
    run(menv.spawn_slaves([("localhost", 0)], Environment, EnvManager))
    run(menv.spawn(Counting))
    print(run(menv.trigger_all()))
"""
    )
    done = run_script(script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[(0, 0)]\n", "")


def test_without_tractor_it_says_what_to_do(script: Path) -> None:
    script.write_text(
        "import sys, creamas_sc\nsys.modules['creamas_sc_carried'] = None\ncreamas_sc.prestart()"
    )
    done = run_script(script)
    assert done.returncode == 1
    assert "creamas_sc.errors.StartError: slaves need tractor" in done.stderr


@pytest.mark.parametrize(
    "code",
    [
        "import creamas_sc",
        "from creamas_sc import MultiEnvironment, run",
        "import creamas_sc.mp, creamas_sc.client\nfrom creamas_sc import client",
    ],
)
def test_an_import_changes_nothing(code: str, script: Path) -> None:
    """It starts no process and no thread, and leaves garbage collection and signals alone."""
    script.write_text(f"""
import os, gc, signal, sys, threading
{CHILDREN}
def look():
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), sys.excepthook
    return children(), threading.active_count(), gc.get_freeze_count(), gc.isenabled(), handlers

before = look()
{code}
print(look() == before)
""")
    done = run_script(script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_what_is_alive_at_the_end_is_not_searched_for_garbage(script: Path) -> None:
    script.write_text(
        "import atexit, gc\n"
        "atexit.register(lambda: print(gc.get_freeze_count()))  # handlers run in reverse\n"
        f"{HEAD}print(gc.get_freeze_count())"
    )
    before, at_the_end = map(int, run_script(script).stdout.split())
    assert at_the_end > 10 * (before + 1)  # Python itself has frozen a few
