"""The command line against a client without a daemon: verbs, their output, exit codes."""

from __future__ import annotations

import errno
import inspect
import json
import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from creamas_sc import Experiment
from creamas_sc.errors import (
    AgentError,
    AgentErrors,
    BadValue,
    ConnectionLost,
    CreamasError,
    DeadlineExceeded,
    HandshakeError,
    HostLost,
    SlaveLost,
    StartError,
    UnknownSimulation,
)
from creamas_sc.experiments import Progress
from creamas_sc.reports import SlaveReceipt, StopReport
from creamas_sc.restarts.policy import RestartPolicy
from creamas_sc.results.record import Record
from creamas_sc.verification import Change, Difference, Verification
from creamas_sc.wire.codec import Codec
from supervisor.cli import output
from supervisor.cli.app import VERBS, build
from supervisor.cli.exits import Exit, explain
from supervisor.cli.main import main
from supervisor.cli.step_commands import SOON_SECONDS
from tests.support.cli_fakes import ADDRS, NAME, FakeClient, lost, progress, summary
from tests.support.programs import run_code

NAMES = [verb.__name__ for verbs in VERBS.values() for verb in verbs]
Run = Callable[..., tuple[int, str, str]]
build_once = cache(build)  # it takes longer than what most tests do with it


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """What all verbs connect to; the user's own settings are out of the way."""
    made = FakeClient()
    monkeypatch.setattr("creamas_sc.client.connect_sync", lambda daemon, timeout: made)
    monkeypatch.setattr("supervisor.cli.app.build", build_once)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("CREAMAS_LOG_FOLDER", str(tmp_path / "logs"))
    return made


@pytest.fixture
def run(client: FakeClient, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command; its exit code, standard output and standard error."""

    def command(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return command


# ---- help and usage


def test_help_lists_every_verb_in_one_line(run: Run) -> None:
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    for verb in NAMES:
        assert re.search(rf"^│ {verb} +\S.*\S +│$", out, re.MULTILINE), verb
    listed = [line for line in out.splitlines() if line.startswith("│")]
    assert len(listed) == len(NAMES) + 2
    for word in ("69", "75", "77", "130", "143", "CREAMAS_DAEMON", "config.toml"):
        assert word in out.replace("\n", "")
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("verb", NAMES)
def test_each_verb_helps_with_examples(run: Run, verb: str) -> None:
    code, out, err = run(verb, "--help")
    assert (code, err) == (0, "")
    assert f"\n    creamas-supervisor {verb}" in out
    assert "Exit codes: " in out
    assert ("--daemon NAME" in out) is (verb not in ("verify", "completion", "node"))
    assert ("--json" in out) is (verb not in ("completion", "node"))
    assert max(map(len, out.splitlines())) <= 80


def test_without_a_verb_the_help_is_no_data(run: Run) -> None:
    code, out, err = run()
    assert (code, out) == (2, "")
    assert "A first tour" in err


def test_the_version(run: Run) -> None:
    code, out, _ = run("--version")
    assert code == 0
    assert re.match(r"\d+\.\d+", out)


@pytest.mark.parametrize(
    "words",
    [
        ["nothing"],
        ["inspect"],
        ["inspect", "a", "b"],
        ["ls", "--nothing"],
        ["close", NAME, "--timeout", "soon"],
        ["close", NAME, "--timeout", "-1"],
        ["close", NAME, "--timeout", "nan"],
        ["step", NAME, "0"],
        ["step", NAME, "2", "--forever"],
        ["logs", NAME, "-n", "-1"],
        ["logs", "../key"],
        ["ls", "--daemon", "../key"],
        ["create", NAME, "--restart", "always"],
        ["create", NAME, "--restart", "all", "--restarts", "3"],
        ["create", NAME, "--within", "3"],
        ["create", NAME, "--restart", "permanent", "--within", "0"],
        ["create", "a b"],
        ["create", NAME, "--slaves", "0"],
        ["create", NAME, "--slaves", "1", "--slave", "localhost:0"],
        ["create", NAME, "--slave", "localhost"],
        ["create", NAME, "--agents", "painters:Painter=2"],
        ["create", NAME, "--slaves", "1", "--agents", "painters:Painter"],
        ["create", NAME, "--slaves", "1", "--agents", "painters:Painter=0"],
        ["create", NAME, "--slaves", "1", "--agents", "no/such/file.py:Painter=1"],
        ["create", NAME, "--env-kwargs", "[1]"],
        ["create", NAME, "--slaves", "3", "--slave-kwargs", "{}", "--slave-kwargs", "{}"],
        ["node"],
        ["node", "--join", "here:1"],
        ["node", "--join", "here", "--key-fd", "0"],
        ["node", "--join", "here:0", "--key-fd", "0"],
        ["node", "--join", "here:1", "--key-fd", "0", "--key-file", "nodes.key"],
        ["node", "--join", "here:1", "--key-fd", "0", "--cores", "0"],
        ["node", "--join", "here:1", "--key-fd", "0", "--name", "../key"],
    ],
)
def test_wrong_usage_is_one_line_and_2(run: Run, words: list[str]) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith("creamas-supervisor: ")
    assert err.count("\n") == 1


def test_wrong_usage_names_the_help_of_its_verb(run: Run) -> None:
    assert "Try: creamas-supervisor inspect --help" in run("inspect")[2]


VERBS_BY_NAME = {verb.__name__: verb for verbs in VERBS.values() for verb in verbs}


# What a verb needs before an option; of others, the name of a simulation.
_FIRST = {"logs": [], "verify": ["--agents", "m:Agent=1"], "node": ["--join", "a:1"]}


def _whole_numbers() -> list[list[str]]:
    """The words before each value that must be an int, of all verbs."""
    found = []
    for name, verb in VERBS_BY_NAME.items():
        for parameter in inspect.signature(verb).parameters.values():
            if re.search(r"\bint\b", str(parameter.annotation)):
                option = f"--{parameter.name.replace('_', '-')}"
                named = parameter.kind is parameter.KEYWORD_ONLY
                first = _FIRST.get(name, [NAME])
                found.append([name, *first, *[option] * named])
    return found


@pytest.mark.parametrize("words", _whole_numbers(), ids=" ".join)
def test_numbers_are_not_rounded(run: Run, words: list[str]) -> None:
    for number in ("1.5", "1.0", "1e3", "0x10", "one"):
        code, out, err = run(*words, number)
        assert (code, out) == (2, "")
        assert f"'{number}' is not a whole number" in err


def test_what_must_be_a_whole_number_is_found() -> None:
    assert ["step", NAME] in _whole_numbers()
    assert ["create", NAME, "--seed"] in _whole_numbers()


@pytest.mark.parametrize(
    ("word", "suggested"),
    [("stp", "step"), ("pase", "pause"), ("atach", "attach"), ("sto", "stop"), ("clse", "close")],
)
def test_a_suggestion_destroys_nothing_that_another_one_would_not(
    run: Run, word: str, suggested: str
) -> None:
    _, _, err = run(word)
    expected = f'Unknown command "{word}". Did you mean "{suggested}"? Try: '
    assert err == f"creamas-supervisor: {expected}creamas-supervisor --help\n"


def test_where_nothing_is_near_nothing_is_suggested(run: Run) -> None:
    assert "Did you mean" not in run("frobnicate")[2]


@pytest.mark.parametrize(
    ("verb", "usage"),
    [
        ("step", "step NAME [N] [OPTIONS]"),
        ("logs", "logs [NAME] [OPTIONS]"),
        ("ls", "ls [OPTIONS]"),
    ],
)
def test_usage_lines_name_the_arguments(run: Run, verb: str, usage: str) -> None:
    assert run(verb, "--help")[1].startswith(f"Usage: creamas-supervisor {usage}\n")


# ---- errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnknownSimulation("no simulation"), 1),
        (BadValue("taken"), 1),
        (StartError("it failed"), 1),
        (HostLost("it has ended"), 1),
        (SlaveLost("it has ended"), 1),
        (CreamasError("bad"), 1),
        (OSError("no disk"), 1),
        (lost(), 69),
        (DeadlineExceeded("too late"), 75),
        (HandshakeError("none of ours"), 77),
        (PermissionError("not yours"), 77),
    ],
)
def test_errors_become_a_line_and_a_code(
    run: Run, client: FakeClient, error: Exception, code: int
) -> None:
    client.error = error
    for words in (["ls"], ["ls", "--json"]):
        assert run(*words) == (code, "", f"creamas-supervisor: {error}\n")
    assert client.disconnected == 2


def test_an_error_of_many_lines_is_told_in_one() -> None:
    assert explain(StartError("one\n  two\n"))[1] == "one two"


def test_a_group_of_errors_tells_the_first() -> None:
    one = AgentError(address="a", type_name="ValueError", message="no colour")
    assert explain(AgentErrors("2 of the agents failed", {"a": one}))[1] == (
        "2 of the agents failed: ValueError in a: no colour"
    )


@pytest.mark.parametrize(("missing", "verb"), [("cyclopts", "ls"), ("trio", "start")])
def test_without_a_package_it_says_what_to_install(missing: str, verb: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from supervisor.cli.main import main; "
    done = run_code(f"{code} sys.exit(main([{verb!r}]))")
    assert (done.returncode, done.stdout) == (1, "")
    line = f"creamas-supervisor: this needs {missing}, which this Python lacks: "
    assert done.stderr.startswith(line)
    assert done.stderr.endswith("[supervisor]'\n")
    assert done.stderr.count("\n") == 1


def test_a_fault_of_our_own_is_not_hidden(run: Run, client: FakeClient) -> None:
    client.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        run("ls")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_in_one_line(
    run: Run, client: FakeClient, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(client, "ls", lambda all: signal.raise_signal(number))
    got, out, err = run("ls")
    assert (got, out, err.count("\n")) == (code, "", 1)
    assert signal.getsignal(signal.SIGTERM) is before
    assert client.disconnected == 1


class SlowToEncode:
    """A signal comes while it is encoded: at once, or on the search for what failed."""

    def __init__(self, number: int, failures: int) -> None:
        self.number = number
        self.failures = failures

    def _wire_state_(self) -> dict[str, object]:
        if not self.failures:
            signal.raise_signal(self.number)
        self.failures -= 1
        raise ValueError

    @classmethod
    def _from_wire_state_(cls, state: dict[str, object]) -> SlowToEncode:
        raise NotImplementedError


@pytest.mark.parametrize("failures", [0, 1, 2])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_a_request_is_encoded(
    run: Run,
    client: FakeClient,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    code: int,
    failures: int,
) -> None:
    value = SlowToEncode(number, failures)
    monkeypatch.setattr(client, "ls", lambda all: Codec().encode(value))
    got, _, _ = run("ls")
    assert got == code


def test_ctrl_c_in_the_middle_of_the_imports(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "supervisor.cli.exits")
    monkeypatch.setattr(sys, "meta_path", [Interrupted])
    assert main(["ls"]) == 130
    assert capsys.readouterr().err == "creamas-supervisor: interrupted\n"


# ---- data


@pytest.mark.parametrize("words", [["ls"], ["ls", "--json"], ["step", NAME, "--wait"]])
def test_a_full_standard_output_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    def to_full_disk(text: str, file: Any = None) -> None:
        if file is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        file.write(f"{text}\n")

    monkeypatch.setattr(output, "print", to_full_disk, raising=False)
    line = "creamas-supervisor: cannot write to standard output: No space left on device\n"
    assert run(*words) == (1, "", line)


@pytest.mark.parametrize("words", [["ls"], ["ls", "--json"]])
def test_a_reader_that_has_gone(
    client: FakeClient, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    read, write = os.pipe()
    os.close(read)
    dup2 = os.dup2
    with open(write, "w") as gone, monkeypatch.context() as patch:
        patch.setattr("os.dup2", lambda nowhere, _: dup2(nowhere, write))
        patch.setattr("sys.stdout", gone)
        assert main(words) == 0


def test_a_closed_standard_output(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    assert main(["ls"]) == 0


@pytest.mark.parametrize(
    "words",
    [
        ["ls"],
        ["ls", "--all"],
        ["status"],
        ["inspect", NAME],
        ["create", "other", "--slaves", "2"],
        ["step", NAME],
        ["step", NAME, "3", "--wait"],
        ["pause", NAME],
        ["resume", NAME],
        ["wait", NAME],
        ["close", NAME],
        ["kill", NAME],
        ["stop"],
    ],
)
def test_json_of_every_verb_parses(run: Run, words: list[str]) -> None:
    code, out, err = run(*words, "--json")
    assert (code, err) == (0, "")
    json.loads(out)
    code, out, _ = run(*words)
    assert code == 0
    assert not out.startswith(("{", "["))


def test_json_of_nothing_is_an_empty_list(run: Run, client: FakeClient) -> None:
    client.summaries = []
    assert run("ls", "--json") == (0, "[]\n", "")
    code, out, err = run("ls")
    assert (code, out) == (0, "")
    assert "create NAME" in err


def test_ls_is_a_table(run: Run, client: FakeClient) -> None:
    client.summaries = [
        summary(),
        summary(name="a", host=progress("stepping", 3, 10)),
        summary(name="b", host=None, state="ended", cause="closed"),
    ]
    head, *rows = run("ls", "--all")[1].splitlines()
    assert head.split() == [
        *("NAME", "STATE", "STEPS", "AGENTS", "SLAVES", "CLIENTS", "PID", "SINCE", "CAUSE")
    ]
    assert rows[0].split()[:7] == [NAME, "running", "idle", "24", "2", "1", "7"]
    assert "stepping 3/10" in rows[1]
    assert rows[2].split()[:6] == ["b", "ended", "-", "-", "-", "-"]
    assert rows[2].endswith("closed")


def test_a_wrong_name_lists_what_there_is(run: Run) -> None:
    for words in (["inspect", "x"], ["attach", "x"], ["close", "x"], ["step", "x"]):
        code, _, err = run(*words)
        assert code == 1
        assert f"there are {NAME}" in err


def test_nodes_are_listed_with_what_they_say_escaped(run: Run, client: FakeClient) -> None:
    node = {"name": "far", "host": "192.0.2.7", "cores": 8, "memory": 32 << 30}
    client.nodes_found = [{**node, "processes": 3, "engine": "x\x1b[2J", "heard": 0.6}]
    code, out, _ = run("nodes")
    assert code == 0
    head, row = out.splitlines()
    assert head.split() == ["NAME", "HOST", "CORES", "MEMORY", "PROCESSES", "ENGINE", "HEARD"]
    assert row.split() == ["far", "192.0.2.7", "8", "32", "GiB", "3", "x\\x1b[2J", "1", "s"]
    assert json.loads(run("nodes", "--json")[1])[0]["cores"] == 8


def test_without_nodes_the_command_that_starts_one_is_shown(run: Run, client: FakeClient) -> None:
    client.access = {"host": "0.0.0.0", "port": 5600, "key": b"", "key_file": "/a b/nodes.key"}
    code, out, err = run("nodes")
    assert (code, out) == (0, "")
    here = socket.gethostname()
    assert f"creamas-supervisor node --join {here}:5600 --key-file '/a b/nodes.key' (" in err
    assert run("nodes", "--json") == (0, "[]\n", "")
    client.access = BadValue("this daemon does not listen for nodes")
    code, _, err = run("nodes")
    assert (code, "does not listen" in err) == (1, True)


@pytest.mark.parametrize("verb", ["start", "run"])
def test_where_a_daemon_listens_for_nodes_is_checked(run: Run, verb: str) -> None:
    code, _, err = run(verb, "--listen", "5600")
    assert (code, "--listen '5600': expected HOST:PORT" in err) == (Exit.USAGE, True)
    code, _, err = run(verb, "--node-key", "file")
    assert (code, "it needs --listen HOST:PORT" in err) == (Exit.USAGE, True)


def test_inspect_shows_processes(run: Run) -> None:
    lines = run("inspect", NAME)[1].splitlines()
    assert "processes:" in lines
    assert "  host     7    -                       host novelty" in lines
    assert f"  slave-0  8    {ADDRS[0]}  slave-0" in lines
    assert not any(word in line for line in lines for word in ("addrs", "pids", "["))


def test_inspect_shows_what_may_be_secret_only_if_asked_to(run: Run) -> None:
    for words in ([], ["--json"]):
        assert "secret" not in run("inspect", NAME, *words)[1]
    assert json.loads(run("inspect", NAME, "--json")[1])["environ"] == ["PATH", "TOKEN"]
    assert json.loads(run("inspect", NAME, "--json", "--environ")[1])["environ"] == {
        "TOKEN": "secret",
        "PATH": "/bin",
    }
    assert "  TOKEN  secret" in run("inspect", NAME, "--environ")[1].splitlines()


def test_a_command_does_not_count_itself_among_the_clients(run: Run, client: FakeClient) -> None:
    assert json.loads(run("step", NAME, "--json")[1])["clients"] == 0
    assert json.loads(run("step", NAME, "--wait", "--json")[1])["clients"] == 0
    assert json.loads(run("status", "--json")[1])["clients"] == 0
    client.sim.answers["resume"] = [progress(clients=3)]
    assert ", 2 other clients\n" in run("resume", NAME)[1]


# ---- create


def test_create_passes_on_what_was_given(run: Run, client: FakeClient) -> None:
    words = ["--slave", "localhost:5556", "--slave", "[::1]:0", "--slave-kwargs", '{"a": 1}']
    words += ["--addr", "localhost:5555", "--seed", "3", "--restart", "all", "--timeout", "5"]
    words += ["--menv-cls", "m:M", "--env-kwargs", '{"name": "x"}', "--env-cls", "e:E"]
    words += ["--calls", "rounds"]
    code, out, _ = run("create", "two", *words)
    assert code == 0
    assert out == "created two: 0 agents in 2 slaves (pid 7)\n"
    assert client.created == {
        "name": "two",
        "slave_addrs": [("localhost", 5556), ("::1", 0)],
        "slave_kwargs": [{"a": 1}, {"a": 1}],
        "addr": ("localhost", 5555),
        "seed": 3,
        "restart": "all",
        "calls": "rounds",
        "timeout": 5.0,
        "menv_cls": "m:M",
        "env_cls": "e:E",
        "env_kwargs": {"name": "x"},
    }


def test_verify_passes_on_what_was_given(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "own.py").touch()
    seen: dict[str, Any] = {}
    same = Verification(True, 7, 3, (2, 2, 8), "rounds")

    def verify(build: Any, **kwargs: Any) -> Verification:
        seen.update(kwargs, path=sys.path[0])
        return seen["outcome"]  # type: ignore[no-any-return]

    monkeypatch.setattr("creamas_sc.verify", verify)
    words = ["--agents", f"{tmp_path / 'own.py'}:Own=4", "--slaves", "2,8"]
    words += ["--seed", "7", "--steps", "3", "--calls", "rounds"]
    seen["outcome"] = same
    before = sys.path[:]
    assert run("verify", *words) == (0, f"{same}\n", "")
    assert {**seen, "outcome": None} == {
        "outcome": None, "steps": 3, "seed": 7, "slaves": [2, 8], "path": str(tmp_path),
    }  # fmt: skip
    assert sys.path == before
    change = Change("state", "memory[2]", ("0.5", "0.7"))
    seen["outcome"] = replace(same, same=False, difference=Difference(2, 3, (2, 8), (change,)))
    assert run("verify", *words)[:2] == (1, f"{seen['outcome']}\n")
    code, out, _ = run("verify", *words, "--json")
    assert code == 1
    assert json.loads(out)["difference"]["changes"] == [["state", "memory[2]", ["0.5", "0.7"]]]


def test_verify_says_what_the_users_own_code_raised(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def verify(build: Any, **kwargs: Any) -> Verification:
        raise ZeroDivisionError("odd")

    monkeypatch.setattr("creamas_sc.verify", verify)
    code, out, err = run("verify", "--agents", "m:Agent=1")
    assert (code, out) == (1, "")
    assert err.endswith(": the simulation's own code failed: ZeroDivisionError: odd\n")


@pytest.mark.parametrize("counts", ["", "0", "1,", "1,-2", "one", "1.5"])
def test_verify_needs_numbers_of_slaves(run: Run, counts: str) -> None:
    code, out, err = run("verify", "--agents", "m:Agent=1", "--slaves", counts)
    assert (code, out) == (2, "")
    assert "expected numbers above 0, say 1,2,4" in err


def test_two_files_of_one_name(run: Run, client: FakeClient, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "society.py").touch()
    words = [f"--agents={tmp_path}/{folder}/society.py:P=1" for folder in ("a", "b", "a")]
    code, out, err = run("create", "two", "--slaves", "1", *words)
    assert (code, out) == (2, "")
    assert f"a file of another name than {tmp_path}/a/society.py: both are society" in err
    (tmp_path / "random.py").touch()
    code, _, err = run("create", "two", "--slaves", "1", f"--agents={tmp_path}/random.py:P=1")
    assert code == 2
    assert "a file of another name: random is a module of Python's" in err


@pytest.mark.parametrize("words", [["ls"], ["start"]])
def test_without_a_home(run: Run, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    def no_home(self: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    for variable in [name for name in os.environ if name.startswith(("XDG_CONFIG", "CREAMAS_"))]:
        monkeypatch.delenv(variable)
    monkeypatch.setattr(Path, "expanduser", no_home)
    monkeypatch.setattr(os.path, "expanduser", no_home)
    code, _, err = run(*words)
    assert code == 2
    assert "set HOME, or CREAMAS_CONFIG" in err


def test_create_passes_on_how_many_restarts(run: Run, client: FakeClient) -> None:
    words = ["--restart", "permanent", "--restarts", "5", "--within", "30"]
    assert run("create", "two", *words)[0] == 0
    assert client.created["restart"] == RestartPolicy("permanent", 5, 30.0)
    assert run("create", "two", "--restart", "transient", "--restarts", "0")[0] == 0
    assert client.created["restart"] == RestartPolicy("transient", 0, 60.0)
    assert run("create", "two", "--restart", "permanent")[0] == 0
    assert client.created["restart"] == "permanent"


def test_agents_are_spread_over_the_slaves(run: Run, client: FakeClient) -> None:
    agents = ["--agents", "painters:Painter=5", "--agents", "painters:Critic=1"]
    words = ["--slaves", "2", *agents, "--agent-kwargs", '{"novelty": 0.2}']
    code, out, _ = run("create", "two", *words)
    assert (code, out) == (0, "created two: 6 agents in 2 slaves (pid 7)\n")
    assert client.created["agent_classes"] == ["painters:Painter", "painters:Critic"]
    assert client.sim.called("spawn_n") == [
        (("painters:Painter", 3), {"addr": ADDRS[0], "novelty": 0.2}),
        (("painters:Painter", 2), {"addr": ADDRS[1], "novelty": 0.2}),
        (("painters:Critic", 1), {"addr": ADDRS[0], "novelty": 0.2}),
    ]
    assert client.sim.detached


@pytest.mark.parametrize(
    ("error", "code"),
    [(BadValue("no such class"), 1), (DeadlineExceeded("slow"), 75), (KeyboardInterrupt(), 130)],
)
def test_agents_that_fail_take_the_simulation_down(
    run: Run, client: FakeClient, error: BaseException, code: int
) -> None:
    client.sim.answers["spawn_n"] = [error]
    got, out, err = run("create", NAME, "--slaves", "2", "--agents", "painters:Painter=5")
    assert (got, out, err.count("\n")) == (code, "", 1)
    assert client.killed == [NAME]
    assert client.killed_why == f"creating it failed: {str(error) or 'KeyboardInterrupt'}"


def test_agents_get_no_more_than_the_time_left(run: Run, client: FakeClient) -> None:
    words = ["--slaves", "2", "--agents", "painters:Painter=5", "--timeout", "0"]
    assert run("create", NAME, *words)[0] == 75
    assert client.sim.called("spawn_n") == []


def test_a_start_that_takes_too_long_is_75(run: Run, client: FakeClient) -> None:
    client.error = StartError("it was not ready in time")
    assert run("create", NAME, "--timeout", "0")[0] == 75
    assert run("create", NAME)[0] == 1


def test_a_file_in_place_of_a_module(
    run: Run, client: FakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "painters.py").touch()
    monkeypatch.setenv("PYTHONPATH", "/before")
    seen = []

    def create(name: str, **kwargs: Any) -> dict[str, Any]:
        seen.append(os.environ["PYTHONPATH"])
        return {"name": name, "pid": 1, "addrs": ADDRS}

    monkeypatch.setattr(client, "create", create)
    path = tmp_path / "painters.py"
    assert run("create", NAME, "--slaves", "2", "--agents", f"{path}:Painter=1")[0] == 0
    assert seen == [f"{tmp_path}:/before"]
    assert client.sim.called("spawn_n")[0][0] == ("painters:Painter", 1)


FILE = """\
seed = 3
steps = 50
[slaves]
number = 2
[agents.Painter]
class = "painters.py:Painter"
number = 5
arguments = { curiosity = 0.5 }
[connections]
random = 1
[record]
folder = "out"
"""


@pytest.fixture
def simulation_file(tmp_path: Path) -> Path:
    (tmp_path / "painters.py").touch()
    path = tmp_path / "simulation.toml"
    path.write_text(FILE)
    return path


def test_create_from_a_file(
    run: Run, client: FakeClient, simulation_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, seen = simulation_file.parent, []

    def create(name: str, **kwargs: Any) -> dict[str, Any]:
        seen.append((os.getcwd(), os.environ["PYTHONPATH"].split(os.pathsep)[0], kwargs))
        return {"name": name, "pid": 7, "addrs": ADDRS}

    monkeypatch.setattr(client, "create", create)
    agents = ["tcp://localhost:5556/1", "tcp://localhost:5557/1"]
    client.sim.answers |= {"get_agents": [agents], "get_numbers": [{}], "get_seed": [3]}
    code, out, _ = run("create", NAME, str(simulation_file))
    line = "created novelty: 5 agents in 2 slaves (pid 7), which takes 50 steps\n"
    assert (code, out) == (0, line)
    kwargs = {
        "seed": 3,
        "slave_addrs": [("localhost", 0)] * 2,
        "agent_classes": ["painters:Painter"],
        "record": Record(folder / "out"),
        "timeout": 30.0,
    }
    assert seen == [(str(folder), str(folder), kwargs)]
    arguments = {"curiosity": 0.5}
    assert client.sim.called("spawn_n") == [
        (("painters:Painter", 3), {"addr": ADDRS[0], **arguments}),
        (("painters:Painter", 2), {"addr": ADDRS[1], **arguments}),
    ]
    (((made,), _),) = client.sim.called("create_connections")
    assert made == {agents[0]: [(agents[1], {})], agents[1]: [(agents[0], {})]}
    assert client.sim.called("start_steps") == [((50,), {})]
    assert os.getcwd() != str(folder)


def test_create_refuses_a_bad_file_and_options_beside_one(
    run: Run, client: FakeClient, simulation_file: Path
) -> None:
    code, _, err = run("create", NAME, str(simulation_file), "--seed", "5")
    assert code == 2
    assert f"--seed does not go with a file: put it into {simulation_file}" in err
    simulation_file.write_text(FILE.replace("steps", "stebs"))
    code, _, err = run("create", NAME, str(simulation_file))
    assert code == 2
    assert f"{simulation_file}, line 2: stebs: is not a known key" in err
    assert client.created == {}


# ---- sweep


@pytest.fixture
def experiment_runs(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """In place of runs: how many workers were asked for."""
    asked: list[int | None] = []

    def run(self: Experiment, workers: int | None = None) -> Progress:
        asked.append(workers)
        return Progress(12, 12, taken=12, seconds=1.5)

    monkeypatch.setattr(Experiment, "run", run)
    return asked


STUDY = """\
[study]
simulation = "simulation.toml"
folder = "study"
steps = 5
[study.parameters]
agents.Painter.curiosity = [0.1, 0.5]
"""


def test_sweep_of_a_file(
    run: Run, simulation_file: Path, experiment_runs: list[int | None]
) -> None:
    path = simulation_file.with_name("study.toml")
    path.write_text(STUDY)
    folder = path.parent / "study"
    code, out, _ = run("sweep", str(path), "--workers", "3")
    assert (code, out) == (0, f"12 of 12 runs done; they are in {folder}\n")
    assert experiment_runs == [3]
    counts = {"total": 12, "done": 12, "failed": 0, "lost": 0, "taken": 12, "seconds": 1.5}
    found = json.loads(run("sweep", str(path), "--json")[1])
    assert found == {"folder": str(folder), **counts}
    path.write_text(STUDY.replace("steps", "stebs"))
    code, _, err = run("sweep", str(path))
    assert code == 2
    assert f"{path}, line 4: study.stebs: is not a known key" in err


def test_sweep_of_a_module(run: Run, tmp_path: Path, experiment_runs: list[int | None]) -> None:
    path = tmp_path / "a_study_of_the_command.py"
    path.write_text(
        "from creamas_sc import Experiment\n"
        "def build(parameters, seed): ...\n"
        "study = Experiment(build, {'a': [1]}, steps=1, folder='out')\n"
    )
    assert run("sweep", f"{path}:study")[:2] == (0, "12 of 12 runs done; they are in out\n")
    assert experiment_runs == [None]
    code, _, err = run("sweep", f"{path}:build")
    assert code == 2
    assert "a_study_of_the_command:build must be an Experiment, not <function build" in err
    assert run("sweep", "nowhere.py:study")[0] == 2
    assert run("sweep", f"{path}:nothing")[0] == 1
    assert str(tmp_path) not in sys.path


# ---- closing


def report_of(ended_by: str, *errors: str) -> StopReport:
    graceful = ended_by == "request"
    one = SlaveReceipt(ADDRS[0], 8, None, None, 0.5, graceful, ended_by, tuple(errors))
    return StopReport([one])


@pytest.mark.parametrize(
    ("report", "code"),
    [
        (report_of("request"), 0),
        (report_of("gone"), 0),
        (report_of("cancel"), 0),
        (report_of("term"), 1),
        (report_of("kill"), 1),
        (report_of("request", "OSError: disk full\n..."), 1),
        (StopReport([], errors=["OSError: disk full"]), 1),
    ],
)
def test_close_tells_how_slaves_ended(
    run: Run, client: FakeClient, report: StopReport, code: int
) -> None:
    client.report = report
    got, out, err = run("close", NAME, "--folder", "results", "--timeout", "3")
    assert got == code
    assert out.endswith("novelty was closed\n")
    assert err.count("\n") == code
    assert client.created["closed"] == (str(Path("results").absolute()), 3.0)
    assert json.loads(run("close", NAME, "--json")[1])["graceful"] is report.graceful


def test_stop_tells_who_had_to_be_killed(run: Run, client: FakeClient) -> None:
    client.stopped = [
        {"name": "a", "report": report_of("kill")},
        {"name": "b", "report": report_of("request", "OSError: disk full\n...")},
        {"name": "c", "report": report_of("request")},
    ]
    code, out, err = run("stop")
    assert code == 1
    assert [line for line in out.splitlines() if "closed" in line] == [
        f"{name} was closed" for name in "abc"
    ]
    assert out.count(f"{ADDRS[0]}  8    request") == 2
    first, second = err.splitlines()
    assert f"{ADDRS[0]} did not end in time" in first
    assert second.endswith("closing raised: OSError: disk full")
    stopped = json.loads(run("stop", "--json")[1])
    assert [each["slaves"][0]["ended_by"] for each in stopped] == ["kill", "request", "request"]
    client.stopped = client.stopped[2:]
    assert run("stop")[0] == 0


# ---- status


def test_status_of_no_daemon(run: Run, client: FakeClient) -> None:
    client.error = lost()
    code, out, err = run("status")
    assert (code, out) == (3, "")
    assert "creamas-supervisor start" in err
    code, out, _ = run("status", "--json")
    assert (code, json.loads(out)) == (3, {"name": "default", "state": "not running"})


def test_status_of_a_daemon_that_does_not_answer(run: Run, client: FakeClient) -> None:
    for client.error, known in (
        (DeadlineExceeded("too late"), "is running but does not answer"),
        (HandshakeError("none of ours"), "may be running"),
    ):
        code, out, err = run("status", "--json")
        assert (code, json.loads(out)["state"]) == (4, "unknown")
        assert f"the daemon 'default' {known}: {client.error}" in err


def test_status_where_the_folder_is_open_to_others(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "creamas").mkdir(mode=0o755)
    code, _, err = run("status")
    assert code == 4
    assert "the daemon 'default' may be running: " in err
    assert "mode 0700" in err
    assert "is running but" not in err


# ---- steps


def test_steps_in_a_limited_time(run: Run, client: FakeClient) -> None:
    assert run("step", NAME, "7", "--within", "2")[0] == 0
    assert run("step", NAME, "--forever", "--within", "2", "--on-overrun", "kill")[0] == 0
    assert client.sim.called("start_steps_within") == [
        ((2.0, 7), {"on_overrun": "cancel"}),
        ((2.0, None), {"on_overrun": "kill"}),
    ]
    assert client.sim.called("start_steps") == []
    code, _, err = run("step", NAME, "--on-overrun", "kill")
    assert (code, err) == (2, "creamas-supervisor: --on-overrun goes with --within\n")


PAUSES = f"{NAME} pauses after this step"
LATE = DeadlineExceeded("late", acknowledged=True)


def test_a_pause_that_comes_soon_says_nothing_more(run: Run, client: FakeClient) -> None:
    client.sim.answers["pause"] = [progress("paused", 2, 3)]
    code, out, err = run("pause", NAME)
    assert (code, err) == (0, "")
    assert out.startswith(f"{NAME}: paused, step 2 of 3,")


@pytest.mark.parametrize(
    ("words", "seconds"), [([], (SOON_SECONDS, None)), (["--timeout", "5"], (SOON_SECONDS, 4.5))]
)
def test_a_pause_says_that_it_waits_for_the_step(
    run: Run, client: FakeClient, words: list[str], seconds: tuple[float, float | None]
) -> None:
    client.sim.answers["pause"] = [LATE, progress("paused", 2, 3)]
    code, out, err = run("pause", NAME, *words)
    assert code == 0
    assert err == f"creamas-supervisor: {PAUSES}; Ctrl-C ends only the wait for it\n"
    assert out.startswith(f"{NAME}: paused, step 2 of 3,")
    assert [args for args, _ in client.sim.called("pause")] == [(each,) for each in seconds]
    assert client.sim.timeout == (14.5 if words else None)


@pytest.mark.parametrize("seconds", ["0", "0.2", "5"])
def test_a_pause_has_an_end(run: Run, client: FakeClient, seconds: str) -> None:
    client.sim.answers["pause"] = [LATE]
    code, out, err = run("pause", NAME, "--timeout", seconds)
    assert (code, out) == (75, "")
    text = f"the step was not done after {seconds} s; {PAUSES}"
    assert err.splitlines()[-1] == f"creamas-supervisor: {text}"


def test_a_pause_that_did_not_reach_the_simulation_is_no_pause(
    run: Run, client: FakeClient
) -> None:
    silence = DeadlineExceeded("the simulation does not answer")
    for answers, words in (([LATE, silence], ["--timeout", "5"]), ([silence, silence], [])):
        client.sim.answers["pause"] = list(answers)
        code, _, err = run("pause", NAME, *words)
        assert code == 75
        assert err.splitlines()[-1] == "creamas-supervisor: the simulation does not answer"
    assert client.sim.timeout == SOON_SECONDS + 10.0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_only_the_wait_for_a_pause(
    run: Run, client: FakeClient, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    def pause(timeout: float | None) -> None:
        if timeout == SOON_SECONDS:
            raise LATE
        signal.raise_signal(number)

    monkeypatch.setattr(client.sim, "pause", pause, raising=False)
    got, out, err = run("pause", NAME)
    assert (got, out) == (code, "")
    assert err.splitlines()[-1] == f"creamas-supervisor: not waiting any longer; {PAUSES}"


def test_a_simulation_that_is_about_to_pause_shows_that(run: Run, client: FakeClient) -> None:
    pausing = progress("stepping", 3, 10, pausing=True)
    client.summaries = [summary(host=pausing)]
    assert "pausing 3/10" in run("ls")[1]
    client.sim.answers["resume"] = [pausing]
    assert "stepping, step 3 of 10, pauses after this step, " in run("resume", NAME)[1]


# ---- following


def steps(*events: Any, last: int = 0) -> list[Any]:
    """Answers of `next_events`: the first one, and one for each event."""
    return [(last, []), *((last + n, [(last + n, *event)]) for n, event in enumerate(events, 1))]


def test_step_waits_until_done(run: Run, client: FakeClient) -> None:
    client.sim.answers["progress"] = [progress("stepping", 1, 3)]
    client.sim.answers["next_events"] = steps(
        ("steps", progress("stepping", 2, 3)), ("steps", progress("idle", 3, 3))
    )
    code, out, _ = run("step", NAME, "3", "--wait")
    assert code == 0
    assert client.sim.called("start_steps") == [((3,), {})]
    lines = out.splitlines()
    assert lines[0] == (
        "novelty: stepping, step 1 of 3, 1,234 acts/s, 1:01 left, "
        "24 agents, 2 slaves, 1 artifact, 0 other clients"
    )
    assert lines[-1].startswith("novelty: idle, step 3 of 3,")


@pytest.mark.parametrize(("words", "n"), [([], 1), (["7"], 7), (["--forever"], None)])
def test_step_counts(run: Run, client: FakeClient, words: list[str], n: int | None) -> None:
    assert run("step", NAME, *words)[0] == 0
    assert client.sim.called("start_steps") == [((n,), {})]


def test_steps_that_fail_are_1(run: Run, client: FakeClient) -> None:
    failed = progress("failed", 2, 3, error="ValueError in a:\nno colour")
    client.sim.answers["progress"] = [failed]
    client.sim.answers["next_events"] = [(0, [])]
    for words in (["step", NAME, "--wait"], ["wait", NAME], ["attach", NAME, "--until-done"]):
        code, out, err = run(*words)
        assert code == 1
        expected = "the steps of novelty failed: ValueError in a: no colour"
        assert err == f"creamas-supervisor: {expected}; creamas-supervisor logs novelty has more\n"
        assert "novelty: failed, step 2 of 3" in out
        assert "no colour" not in out  # a terminal shows both
    client.sim.answers["start_steps"] = [failed]
    assert json.loads(run("wait", NAME, "--json")[1])["error"] == failed["error"]
    assert "no colour" in run("step", NAME)[1]


@pytest.mark.parametrize(
    "words", [["step", NAME, "--wait"], ["wait", NAME], ["attach", NAME, "--until-done"]]
)
def test_steps_that_are_not_all_taken_are_1(run: Run, client: FakeClient, words: list[str]) -> None:
    answers = client.sim.answers
    answers["progress"] = [progress("paused", 2, 3)]
    answers["next_events"] = [(0, [])]
    code, _, err = run(*words)
    expected = "the steps of novelty are not done: paused at step 2 of 3"
    assert (code, err) == (1, f"creamas-supervisor: {expected}\n")


def test_a_close_in_the_middle_of_the_steps_is_1(run: Run, client: FakeClient) -> None:
    client.sim.answers["progress"] = [progress("stepping", 1, 3)]
    client.sim.answers["next_events"] = [
        *steps(("closing", {"cause": "closed"})),
        HostLost("it has ended"),
    ]
    code, _, err = run("step", NAME, "3", "--wait")
    assert (code, err) == (1, "creamas-supervisor: novelty was closed\n")


@pytest.mark.parametrize("words", [["wait", NAME], ["attach", NAME, "--until-done"]])
def test_steps_that_ended_with_the_daemon_are_1(
    run: Run, client: FakeClient, words: list[str]
) -> None:
    client.sim.answers["progress"] = [progress("closed", 7)]
    gone = "the daemon (pid 6) is gone"
    client.sim.answers["next_events"] = [*steps(("closing", {"cause": gone})), HostLost(gone)]
    code, _, err = run(*words)
    assert (code, err) == (1, f"creamas-supervisor: {gone}\n")


def test_a_step_that_takes_long_is_told(run: Run, client: FakeClient) -> None:
    client.sim.answers["progress"] = [progress("stepping", 1, 3, step_seconds=75.0)]
    client.sim.answers["start_steps"] = client.sim.answers["progress"]
    _, out, _ = run("step", NAME, "3")
    assert "step 1 of 3 (the next has taken 1:15 so far)" in out


def test_wait_times_out(run: Run, client: FakeClient) -> None:
    client.sim.answers["progress"] = [progress("stepping", 1, 3)]
    for seconds in ("0", "0.01"):
        code, out, err = run("wait", NAME, "--timeout", seconds)
        assert (code, out) == (75, "")
        assert err == f"creamas-supervisor: novelty is still stepping after {seconds} s\n"


@pytest.mark.parametrize(("cause", "code"), [("closed", 0), ("the host was killed", 1)])
def test_the_end_ends_waiting_and_following(
    run: Run, client: FakeClient, cause: str, code: int
) -> None:
    client.ended = cause
    code_of_wait, _, err = run("wait", NAME)
    assert (code_of_wait, err.count("\n")) == (code, 1)
    client.ended = ""

    def next_events(*args: Any) -> Any:
        client.ended = cause
        raise HostLost(f"it has ended: {cause}")

    client.sim.next_events = next_events
    code_of_attach, _, err = run("attach", NAME)
    assert (code_of_attach, err.count("\n")) == (code, 1)


def test_attach_shows_events_as_lines(run: Run, client: FakeClient) -> None:
    client.sim.answers["next_events"] = [
        *steps(("slave_lost", {"address": ADDRS[0], "pid": 8, "cause": "SIGKILL"})),
        (1003, [(1003, "closing", {"cause": "closed"})]),
        HostLost("it has ended"),
    ]
    code, out, err = run("attach", NAME)
    assert (code, err) == (0, "creamas-supervisor: novelty was closed\n")
    assert out.splitlines()[1:] == [
        "novelty: lost: SIGKILL",
        "novelty: 1,001 events came too fast to be shown",
        "novelty: is being closed",
    ]


def test_attach_as_json_lines(run: Run, client: FakeClient) -> None:
    client.sim.answers["next_events"] = [
        *steps(("closing", {"cause": "closed"})),
        HostLost("it has ended"),
    ]
    lines = [json.loads(line) for line in run("attach", NAME, "--json")[1].splitlines()]
    assert [line.get("event") for line in lines] == ["steps", "closing", None]
    assert lines[-1]["state"] == "ended"
    assert {line["name"] for line in lines} == {NAME}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_detaches(run: Run, client: FakeClient, number: int, code: int) -> None:
    def next_events(*args: Any) -> Any:
        signal.raise_signal(number)

    client.sim.next_events = next_events
    expected = "creamas-supervisor: detached; the simulation goes on\n"
    for verb in ("attach", "step"):
        words = [verb, NAME, *(["--wait"] if verb == "step" else [])]
        assert run(*words) == (code, "", expected)
    assert client.sim.detached


def test_a_lost_connection_alone_is_69(run: Run, client: FakeClient) -> None:
    client.sim.answers["next_events"] = [ConnectionLost("the daemon is gone")]
    assert run("attach", NAME)[0] == 69


@pytest.mark.parametrize("words", [["step", NAME], ["logs", "-n"], ["wait", NAME, "--timeout"]])
@pytest.mark.parametrize("digits", [20, 400, 5000])
def test_a_number_of_many_digits_is_wrong_usage(run: Run, words: list[str], digits: int) -> None:
    code, out, err = run(*words, "9" * digits)
    assert (code, out) == (2, "")
    assert "sys.set_int_max_str_digits" not in err
    assert len(err.splitlines()) == 1
