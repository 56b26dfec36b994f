"""The commands page and report: what they show, what they print, and what is refused."""

from __future__ import annotations

import json
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from creamas_sc.errors import ConnectionLost
from creamas_sc.page import choosing, live, recorded, server
from creamas_sc.page.access import Access
from creamas_sc.page.choosing import DaemonSources
from creamas_sc.page.source import PageError
from supervisor.cli.main import main
from tests.support.cli_fakes import NAME, FakeClient
from tests.support.programs import run_code
from tests.support.records import write_run

Run = Callable[..., tuple[int, str, str]]
URL, TUNNEL = "http://127.0.0.1:5/?token=x", "ssh -N -L 5:127.0.0.1:5 me@here"


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    made = FakeClient()
    made.daemon = "default"  # type: ignore[attr-defined]
    monkeypatch.setattr("creamas_sc.client.connect_sync", lambda daemon, timeout: made)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return made


@pytest.fixture
def run(client: FakeClient, capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return command


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the server was started with; it ends at once."""
    found: list[Any] = []

    def serve(sources: Any, *, announce: Any, **options: Any) -> int:
        found.append((sources, options))
        announce(URL, TUNNEL)
        return signal.SIGINT

    monkeypatch.setattr(server, "serve", serve)
    return found


def test_a_page_of_a_simulation(run: Run, served: list[Any]) -> None:
    code, out, err = run("page", NAME)
    assert (code, out) == (130, f"{URL}\n")
    assert TUNNEL in err
    assert "the page has ended" in err
    ((sources, options),) = served
    source = sources.get(NAME)
    assert isinstance(source, live.LiveSource)
    assert (source.daemon, source.name, sources.daemon) == ("default", NAME, "default")
    assert options == {"host": "127.0.0.1", "port": 0, "read_only": False}


def test_its_options(run: Run, served: list[Any]) -> None:
    words = ["--port", "8000", "--host", "0.0.0.0", "--read-only", "--json"]
    code, out, _ = run("page", NAME, *words)
    assert (code, json.loads(out)) == (130, {"url": URL, "tunnel": TUNNEL})
    assert served[0][1] == {"host": "0.0.0.0", "port": 8000, "read_only": True}


def test_a_page_of_all_simulations(run: Run, served: list[Any]) -> None:
    assert run("page")[0] == 130
    assert isinstance(served[0][0], DaemonSources)


def test_a_page_of_a_record_needs_no_daemon(
    run: Run, served: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise ConnectionLost("no daemon")

    monkeypatch.setattr("creamas_sc.client.connect_sync", refuse)
    file = write_run(tmp_path / "rec", metrics=[{"x": 1}])
    for source in ("rec", str(file)):
        assert run("page", source)[0] == 130
    (folder, _), (one, _) = served
    assert isinstance(folder.get("rec"), recorded.RecordSource)
    assert one.get("run-1.sqlite").path == file
    assert run("page", "nothing/")[0] == 1
    code, _, err = run("page", "nothing")
    assert code == 69
    assert "there is no folder or file nothing here, and no daemon" in err


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["page", "unknown"], 1, "unknown"),
        (["page", "no name!"], 2, "no name!"),
        (["page", "."], 1, "no record of a run"),
        (["page", "--port", "65536"], 2, "65,535"),
        (["page", "--port", "x"], 2, "not a whole number"),
        (["report", NAME], 2, "output"),
        (["report", NAME, "-o", "report.txt"], 2, "must end with .html"),
    ],
)
def test_what_is_refused(run: Run, served: list[Any], words: Any, code: int, text: str) -> None:
    found = run(*words)
    assert found[0] == code
    assert text in found[2]
    assert found[2].count("\n") == 1
    assert served == []


def test_a_report_of_a_record(run: Run, tmp_path: Path) -> None:
    write_run(tmp_path / "rec", metrics=[{"x": 1}], objects=[1, 2])
    code, out, err = run("report", "rec", "-o", "r.html")
    assert (code, out, err) == (0, "r.html\n", "")
    page = (tmp_path / "r.html").read_text()
    assert 'id="creamas-data"' in page
    assert '"kind":"record"' in page
    code, out, _ = run("report", "rec", "--output", "r.html", "--json")
    assert json.loads(out) == {"file": "r.html", "bytes": (tmp_path / "r.html").stat().st_size}
    code, _, err = run("report", "rec", "-o", "nowhere/r.html")
    assert code == 1
    assert "nowhere/r.html" in err


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["page", NAME], "starlette"),
        (["page", NAME], "uvicorn"),
        (["report", NAME, "-o", "r.html"], "starlette"),
    ],
)
def test_what_is_not_installed(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: Any, missing: str
) -> None:
    for name in list(sys.modules):
        if name.startswith("creamas_sc.page") or name.partition(".")[0] == missing:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    code, _, err = run(*words)
    assert code == 1
    assert f"needs {missing}, which this Python lacks: " in err
    assert "[page]" in err


def test_nothing_else_imports_what_the_page_needs() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['starlette', 'uvicorn']));"
        "import creamas_sc, creamas_sc.client, creamas_sc.mp, creamas_sc.results.reader;"
        "import creamas_sc.experiments, creamas_sc.simulation_host.main, supervisor.cli.app;"
        "import creamas_sc.page; print('creamas_sc.page.app' in sys.modules)"
    )
    done = run_code(code)
    assert (done.stdout, done.returncode) == ("False\n", 0), done.stderr


def test_the_page_needs_no_trio() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['trio', 'tractor', 'structlog']));"
        "import creamas_sc.page.server, creamas_sc.page.choosing, creamas_sc.page.report"
    )
    done = run_code(code)
    assert done.returncode == 0, done.stderr


# ---- the server, and what it shows


def test_where_it_cannot_listen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Exception, match=f"port {port}: Address already in use; choose another"):
            server.serve(DaemonSources("default"), port=port)


def test_what_announcing_raises_ends_it() -> None:
    def announce(url: str, tunnel: str) -> None:
        raise BrokenPipeError("nobody reads")

    with pytest.raises(BrokenPipeError, match="nobody reads"):
        server.serve(DaemonSources("default"), announce=announce)


@pytest.mark.parametrize(
    ("host", "url", "tunnel"),
    [
        ("127.0.0.1", "http://127.0.0.1:5/?token=", "ssh -N -L 5:127.0.0.1:5 "),
        ("::1", "http://[::1]:5/?token=", "ssh -N -L 5:[::1]:5 "),
        ("lab.example", "http://lab.example:5/?token=", ""),
        ("0.0.0.0", f"http://{socket.gethostname()}:5/?token=", ""),
    ],
)
def test_what_is_printed(host: str, url: str, tunnel: str) -> None:
    access = Access(server._names(host), port=5)
    assert server._url(host, 5, access) == url + access.url_token
    assert server._tunnel(host, 5).startswith(tunnel)
    assert bool(server._tunnel(host, 5)) is bool(tunnel)


def test_by_which_names_it_may_be_asked_for() -> None:
    assert server._names("lab.example") == {"lab.example"}
    assert socket.gethostname() in server._names("0.0.0.0")
    assert "0.0.0.0" not in server._names("0.0.0.0")


def test_simulations_that_are_shown_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "_KEPT", 2)
    sources = DaemonSources("default")
    one = sources.get("one")
    assert sources.get("two") is not one
    assert sources.get("one") is one
    sources.get("three")
    assert sources.get("one") is one
    assert len(sources._sources) == 2
    with pytest.raises(PageError) as raised:
        sources.get("../one")
    assert raised.value.status == 404
