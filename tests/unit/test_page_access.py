"""Who may ask the page for what: nobody reads or changes anything but the browser that entered."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from creamas_sc.errors import CreamasError
from creamas_sc.page.access import POLICY, Access, Enter, Refusal, kept_secret
from tests.support.pages import HOST, ORIGIN, Browser, Visit

READS = [
    "/",
    "/static/page.js",
    "/api/session",
    *(
        f"/api/s/society/{what}"
        for what in (
            *("state", "events", "runs", "metrics", "artifacts", "artifacts/1"),
            *("artifacts/1/picture", "society", "slaves", "log"),
        )
    ),
]
ORDERS = ["/api/s/society/pause", "/api/s/society/resume"]


async def test_the_token_of_the_url_becomes_a_cookie_once() -> None:
    visit = Visit()
    reply = await visit.browser.get(f"/?token={visit.access.url_token}")
    assert (reply.status, reply.headers["location"], reply.body) == (303, "./", b"")
    cookie = reply.headers["set-cookie"]
    assert re.fullmatch(r"creamas-page-0=[\w-]{43}; Path=/; HttpOnly; SameSite=Strict", cookie)
    assert visit.access.url_token not in cookie
    assert (await visit.browser.get("/")).status == 200
    again = Browser(visit.app)
    reply = await again.get(f"/?token={visit.access.url_token}")
    assert reply.status == 403
    assert b"was used already" in reply.body
    assert "set-cookie" not in reply.headers


async def test_who_has_entered_may_open_the_url_again() -> None:
    visit = Visit()
    browser = await visit.enter()
    assert (await browser.get(f"/?token={visit.access.url_token}")).status == 303
    assert (await browser.get("/api/session")).status == 200


@pytest.mark.parametrize("token", ["", "x", "é", "a" * 43])
async def test_a_wrong_token(token: str) -> None:
    visit = Visit()
    assert (await visit.browser.get(f"/?token={token}")).status == 403
    await visit.enter()  # that of the URL is still good


async def test_a_token_is_no_use_at_another_address() -> None:
    visit = Visit()
    reply = await visit.browser.get(f"/api/session?token={visit.access.url_token}")
    assert reply.status == 403
    await visit.enter()


def test_tokens_have_256_bits_and_differ() -> None:
    one, other = Access(), Access()
    tokens = {one.url_token, one.header_token, other.url_token, other.header_token}
    assert len(tokens) == 4
    assert all(len(token) == 43 for token in tokens)


async def test_a_page_that_is_started_again_at_its_port_knows_the_browser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    first = Visit(port=8000, secret=kept_secret(8000))
    browser = await first.enter()
    again = Visit(port=8000, secret=kept_secret(8000))
    other = Visit(port=8001, secret=kept_secret(8001))
    assert (await Browser(again.app).get("/api/session", cookie=browser.cookie)).status == 200
    for name in ("creamas-page-8000", "creamas-page-8001"):
        cookie = f"{name}={browser.cookie.partition('=')[2]}"
        assert (await Browser(other.app).get("/api/session", cookie=cookie)).status == 403
    assert again.access.url_token != first.access.url_token
    assert again.access.header_token == first.access.header_token


def test_the_secret_of_a_port_is_this_users_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    secret = kept_secret(8000)
    (file,) = (tmp_path / "creamas").iterdir()
    assert (file.name, len(secret), file.stat().st_mode & 0o777) == ("page-8000.key", 32, 0o600)
    file.write_bytes(b"")
    with pytest.raises(OSError, match="not whole"):
        kept_secret(8000)
    assert kept_secret(8000) != secret
    (tmp_path / "creamas").chmod(0o777)
    with pytest.raises(CreamasError, match="mode 0700"):
        kept_secret(8000)


@pytest.mark.parametrize("path", [*READS, *ORDERS])
async def test_without_the_cookie_nothing_is_read(path: str) -> None:
    visit = Visit()
    steering = visit.steering
    for reply in (await visit.browser.get(path), await visit.browser.post(path, **steering)):
        assert reply.status == 403
        assert b"open the URL that the command printed" in reply.body
    assert visit.fake.asked == []


@pytest.mark.parametrize(
    "cookie",
    ["creamas-page-0=", "creamas-page-0=x", "creamas-page-1={}", "other={}", "=;;{}", "\xff={}"],
)
async def test_a_wrong_cookie(cookie: str) -> None:
    visit = Visit()
    value = (await visit.enter()).cookie.partition("=")[2]
    reply = await Browser(visit.app).get("/api/session", cookie=cookie.format(value))
    assert reply.status == 403


async def test_cookies_of_other_programs_do_not_matter() -> None:
    visit = Visit()
    mine = (await visit.enter()).cookie
    reply = await visit.browser.get("/api/session", cookie=f'a b=[1,"2"]; "; {mine}; c')
    assert reply.status == 200


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8000", "127.0.0.1", "localhost:9", "LOCALHOST:8000", "[::1]:8000", "[0:0::1]:8"],
)
async def test_hosts_that_are_this_machine(host: str) -> None:
    visit = Visit()
    browser = await visit.enter()
    assert (await browser.get("/api/session", host=host)).status == 200


@pytest.mark.parametrize(
    "host",
    [
        *("", "evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.", "[::1"),
        *("127.0.0.1:8000@evil.example", "localhost:x", "[::1]x", "[::1]:x", "192.168.0.1:8000"),
        "localhost:123456",
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/s/society/state"])
async def test_another_host_reads_nothing(host: str, path: str) -> None:
    visit = Visit()
    reply = await visit.browser.get(f"/?token={visit.access.url_token}", host=host)
    assert reply.status == 421
    browser = await visit.enter()  # the token was not used up
    assert (await browser.get(path, host=host)).status == 421
    assert visit.fake.asked == []


async def test_a_host_that_was_asked_for() -> None:
    visit = Visit(hosts=["Lab.Example"])
    browser = await visit.enter()
    assert (await browser.get("/api/session", host="lab.example:8000")).status == 200


@pytest.mark.parametrize(
    "origin",
    ["null", "http://evil.example", "http://127.0.0.1:8001", "https://127.0.0.1:8000", ""],
)
@pytest.mark.parametrize("path", ["/api/s/society/state", *ORDERS])
async def test_a_page_of_another_origin_reads_and_changes_nothing(origin: str, path: str) -> None:
    visit = Visit()
    browser = await visit.enter()
    steering = visit.steering
    assert (await browser.get(path, origin=origin)).status == 403
    assert (await browser.post(path, origin=origin, **steering)).status == 403
    assert visit.fake.asked == []


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_nor_does_one_of_another_port_that_embeds_it(site: str) -> None:
    visit = Visit()
    browser = await visit.enter()
    assert (await browser.get("/api/s/society/state", sec_fetch_site=site)).status == 403
    assert visit.fake.asked == []


@pytest.mark.parametrize("headers", [{}, {"origin": ORIGIN}, {"sec_fetch_site": "same-origin"}])
async def test_the_page_itself_may(headers: Any) -> None:
    visit = Visit()
    browser = await visit.enter()
    assert (await browser.get("/api/s/society/state", **headers)).status == 200
    steering = visit.steering
    assert (await browser.post("/api/s/society/pause", **headers, **steering)).status == 200
    assert visit.fake.asked == [("state",), ("steer", "pause")]


@pytest.mark.parametrize("token", [None, "", "x", "url"])
@pytest.mark.parametrize("path", ORDERS)
async def test_an_order_needs_the_header(path: str, token: str | None) -> None:
    visit = Visit()
    browser = await visit.enter()
    value = visit.access.url_token if token == "url" else token
    headers = {} if value is None else {"x_creamas_token": value}
    assert (await browser.post(path, **headers)).status == 403
    assert (await browser.get(path, **headers)).status == 405
    assert visit.fake.asked == []


async def test_the_session_has_that_token() -> None:
    visit = Visit()
    browser = await visit.enter()
    session = (await browser.get("/api/session")).json
    assert session["sources"] == [{"name": "society", "kind": "simulation"}]
    assert (session["read_only"], session["daemon"]) == (False, "default")
    reply = await browser.post("/api/s/society/resume", x_creamas_token=session["token"])
    assert reply.json["can_steer"] is True
    assert visit.fake.asked == [("steer", "resume")]


async def test_read_only() -> None:
    visit = Visit(read_only=True)
    browser = await visit.enter()
    steering = visit.steering
    for path in ORDERS:
        reply = await browser.post(path, **steering)
        assert reply.status == 403
        assert "--read-only" in reply.json["error"]
    assert visit.fake.asked == []
    assert (await browser.get("/api/session")).json["read_only"] is True
    assert (await browser.get("/api/s/society/state")).json["can_steer"] is False


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
async def test_other_methods(method: str) -> None:
    visit = Visit()
    browser = await visit.enter()
    reply = await browser.send(method, "/api/s/society/pause", **visit.steering)
    assert reply.status == 405
    assert visit.fake.asked == []


@pytest.mark.parametrize("path", ["/", "/api/session", "/nothing", "/api/s/other/state"])
@pytest.mark.parametrize("enter", [False, True])
async def test_each_answer_has_the_headers(path: str, enter: bool) -> None:
    visit = Visit()
    browser = await visit.enter() if enter else visit.browser
    headers = (await browser.get(path)).headers
    assert headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in headers


async def test_a_web_socket_is_refused() -> None:
    visit = Visit()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await visit.app({"type": "websocket", "path": "/"}, None, send)  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_the_decision_needs_no_server() -> None:
    access = Access(port=5)
    headers = {"host": HOST}
    assert isinstance(access.decide("GET", "/", "", headers), Refusal)
    entered = access.decide("GET", "/", f"token={access.url_token}", headers)
    assert isinstance(entered, Enter)
    cookie = entered.cookie.partition(";")[0]
    assert access.decide("GET", "/", "", {**headers, "cookie": cookie}) is None
