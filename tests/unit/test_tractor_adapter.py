"""The adapter has all of tractor that it uses, and stands in for what tractor misses."""

from __future__ import annotations

import inspect
import json
import operator
import re
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import trio

from supervisor.actors.tractor_adapter import compat
from tests.support.programs import Program, run_code

IMPORTS = "import sys\nfrom supervisor.actors import tractor_adapter\n"


def in_another_python(code: str, *options: str) -> str:
    """What ``code``, run after the adapter's imports, prints; of an error the last line."""
    done = run_code(f"{IMPORTS}{code}", options=options)
    return (done.stdout + done.stderr).strip().rpartition("\n")[2]


# ---- private names


# All that the adapter replaces or uses. A new tractor that lacks one shows it here.
PRIVATE_NAMES = [
    "_spawn.new_proc",
    "_actor.Actor._stream_handler",
    "_actor.Actor._serve_forever",
    "_actor.Actor.accept_addr",
    "_actor.Actor._do_handshake",
    "_actor.Actor._service_n",
    "_actor.get_arbiter",
    "_mp_fixup_main._mp_figure_out_main",
    "_root._connect_chan",
    "_ipc.Channel.connect",
    "_ipc.Channel.set_msg_transport",
    "_entry._trio_main",
    "_portal.Portal.cancel_actor",
    "_streaming.Context._cancel_called",
    "_state.current_actor",
    *(f"{module}.is_multi_cancelled" for module in compat.PATCHED),
]
# The same for attributes that their class's ``__init__`` sets.
PRIVATE_ATTRIBUTES = {
    "_actor.Actor": {"_peers", "_peer_connected", "_contexts", "_spawn_method", "_arb_addr"},
    "_supervise.ActorNursery": {"_children", "_join_procs"},
    "_ipc.Channel": {"_destaddr", "msgstream"},
}


@pytest.mark.parametrize("name", PRIVATE_NAMES)
def test_the_tractor_that_is_carried_has_the_private_name(name: str) -> None:
    operator.attrgetter(name)(compat.tractor)


@pytest.mark.parametrize(("owner", "names"), PRIVATE_ATTRIBUTES.items())
def test_the_tractor_that_is_carried_has_the_private_attributes(
    owner: str, names: set[str]
) -> None:
    cls: Any = operator.attrgetter(owner)(compat.tractor)
    assert names <= set(cls.__init__.__code__.co_names)


# ---- the import


def test_importing_the_supervisor_warns_of_nothing_and_brings_little() -> None:
    code = (
        "import supervisor.root, trio; "
        "print({'numpy', 'pdbpp', 'asyncio', 'colorlog', 'tractor.to_asyncio'} & set(sys.modules), "
        "sys.modules['trio'] is trio, hasattr(trio, 'MultiError'))"
    )
    assert in_another_python(code, "-W", "error") == "set() True False"


def test_another_tractor_on_the_path_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tractor.py").write_text("raise RuntimeError('the wrong one')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code = "print(sys.modules['tractor'].__path__[0].endswith('creamas_sc_carried/tractor'))"
    assert in_another_python(code) == "True"


def test_an_installation_that_carries_no_tractor_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "creamas_sc_carried", None)
    with pytest.raises(RuntimeError, match=r"lacks tractor: .*\[supervisor\]"):
        compat.import_tractor()


# ---- what tractor cannot do without; once it can, the stand-in is to go

# Runs each line of its input as code in a new fork, which inherits the adapter's imports.
FORKS = f"""
import json, os, traceback
{IMPORTS}
for line in sys.stdin:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(write, 1)
        os.dup2(write, 2)
        try:
            exec(json.loads(line), {{"sys": sys}})
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(0)
    os.close(write)
    with open(read) as file:
        print(json.dumps(file.read()), flush=True)
    os.waitpid(pid, 0)
"""
# Imports tractor again, with the stand-ins but one.
AGAIN = """
for name in [name for name in sys.modules if name.partition(".")[0] == "tractor"]:
    del sys.modules[name]
from supervisor.actors.tractor_adapter import compat
{without}
tractor = compat.import_tractor()
"""
Again = Callable[..., str]


@pytest.fixture(scope="module")
def again(_surroundings: None) -> Iterator[Again]:
    """Import tractor again and run code; returns the last line that this prints."""
    with Program([sys.executable, "-c", FORKS]) as program:

        def run(*, without: str = "", code: str = "") -> str:
            program.say(json.dumps(AGAIN.format(without=without) + code))
            output = str(json.loads(program.read_until("")))
            return output.strip().rpartition("\n")[2]

        yield run


@pytest.mark.parametrize("module", ["async_generator", "trio_typing", "colorlog", "pdbpp"])
def test_tractor_needs_the_module(module: str, again: Again) -> None:
    assert find_spec(module) is None, "it is not to be installed"
    output = again(without=f"del compat.MODULES[{module!r}]")
    assert re.match(
        rf"(ModuleNotFoundError: .*'{module}'|AssertionError: {module} is not ins)", output
    )


@pytest.mark.parametrize(
    ("module", "imports"), [("to_asyncio", "asyncio"), ("_clustering", "multiprocessing")]
)
def test_tractor_would_import_much(module: str, imports: str, again: Again) -> None:
    looks = f"print({imports!r} in sys.modules)"
    assert again(code=looks) == "False"
    assert again(without=f"del compat.MODULES['tractor.{module}']", code=looks) == "True"


def test_tractor_needs_multi_error(again: Again) -> None:
    output = again(without="del compat.TRIO_NAMES['MultiError']")
    assert output.startswith("ImportError: cannot import name 'MultiError' from 'trio'")


# tractor's own portal opens such a nursery around a stream, and expects what the stream raises.
ONE_ERROR = """
import trio
async def main():
    try:
        async with tractor._portal.maybe_open_nursery():
            raise trio.ClosedResourceError
    except BaseException as error:
        print(type(error).__name__)
trio.run(main)
"""


@pytest.mark.parametrize(
    ("without", "raised"),
    [("", "ClosedResourceError"), ("del compat.TRIO_NAMES['open_nursery']", "ExceptionGroup")],
)
def test_tractor_needs_nurseries_that_do_not_wrap(without: str, raised: str, again: Again) -> None:
    assert again(without=without, code=ONE_ERROR) == raised


CANCELLED = """
import trio
error = BaseExceptionGroup("", [trio.Cancelled._create(source="unknown")])
print(*(getattr(tractor, name).is_multi_cancelled(error) for name in compat.PATCHED))
"""


def test_tractor_recognizes_cancellation(again: Again) -> None:
    assert again(code=CANCELLED) == "True True True True True"


@pytest.mark.parametrize("module", compat.PATCHED)
def test_tractor_alone_cannot_recognize_cancellation(module: str, again: Again) -> None:
    without = f"compat.PATCHED = [m for m in compat.PATCHED if m != {module!r}]"
    output = again(without=without, code=CANCELLED.replace("compat.PATCHED", f"[{module!r}]"))
    assert output.startswith(
        "AttributeError: type object 'BaseExceptionGroup' has no attribute 'fil"
    )


async def test_tractor_needs_an_event_with_a_truth() -> None:
    assert "if event:" in inspect.getsource(compat.tractor._actor.Actor._stream_handler)
    event = trio.Event()
    with pytest.raises((NotImplementedError, DeprecationWarning)):
        bool(event)
    stand_in = compat.EventWithTruth(event)
    assert stand_in
    stand_in.set()
    assert event.is_set()
