"""Who may ask the page's server for what: it decides on each request before anything is read.

A page in another tab, on another port or of a name that leads here must read and change nothing,
although the browser sends it this user's cookies:

- Host names this machine. A name that somebody else's name server leads to 127.0.0.1 is not one.
- Origin, where a browser sends it, is that of this page; so is what Sec-Fetch-Site says.
- The URL that was printed has a token that works once and becomes a cookie, which no script reads
  and which goes nowhere else. All other requests need the cookie.
- What changes something is a POST with another token in a header, which only this page has.

A page that is started again at the same port, because the port was asked for, knows the browser
that had entered before: the secret of which cookie and header are made is kept where the daemon's
socket is, in a folder for this user only.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from tempfile import mkstemp
from typing import Final, NamedTuple
from urllib.parse import parse_qs

from creamas_sc.runtime.paths import runtime_folder

# 256 bits each.
TOKEN_BYTES: Final = 32
HEADER: Final = "x-creamas-token"
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_READING: Final = frozenset({"GET", "HEAD"})
# What Sec-Fetch-Site says of requests of this page, and of an address that the user has typed.
_OWN_SITE: Final = frozenset({"same-origin", "none"})

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
# An artifact's: in a frame it has no origin and runs no script, wherever it is opened.
ARTIFACT_POLICY: Final = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
)
HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}

HOW_TO_GET_IN: Final = "open the URL that the command printed: it works once"


class Refusal(NamedTuple):
    """Why a request is refused."""

    status: int
    why: str


class Enter(NamedTuple):
    """The request has the URL's token: answer with a redirection that sets the cookie."""

    cookie: str


class Access:
    """Decides on requests.

    Args:
        hosts: Names and addresses that the page may be asked for by, beside those of loopback.
        port: Where it listens; browsers do not keep the cookies of two ports apart.
        read_only: Refuse whatever changes something.
        secret: Of which the cookie is made; by default a new one.

    Attributes:
        url_token: Of the URL to print.
        header_token: Of requests that change something.
    """

    def __init__(
        self,
        hosts: Iterable[str] = (),
        *,
        port: int = 0,
        read_only: bool = False,
        secret: bytes | None = None,
    ) -> None:
        secret = new_secret() if secret is None else secret
        self.read_only = read_only
        self.url_token = secrets.token_urlsafe(TOKEN_BYTES)
        self.header_token = _derived(secret, "header")
        self.cookie_name = f"creamas-page-{port}"
        self._hosts = LOOPBACK | {host.lower() for host in hosts}
        self._cookie = _derived(secret, "cookie")
        self._entered = False

    def decide(
        self, method: str, path: str, query: str, headers: Mapping[str, str]
    ) -> Refusal | Enter | None:
        """What to do about a request: refuse it, let its browser enter, or serve it.

        Args:
            headers: By their names in small letters.
        """
        refusal = self._wrong_place(headers)
        if refusal is not None:
            return refusal
        known = self._has_cookie(headers.get("cookie", ""))
        if path == "/" and method == "GET" and (tokens := parse_qs(query).get("token")):
            return self._enter(tokens[-1], known)
        if not known:
            return Refusal(403, f"this page is for one browser: {HOW_TO_GET_IN}")
        if method in _READING:
            return None
        if method != "POST":
            return Refusal(405, f"{method} is not served here")
        if self.read_only:
            return Refusal(403, "this page was started with --read-only: it changes nothing")
        if not _same(headers.get(HEADER, ""), self.header_token):
            return Refusal(403, "the request lacks the token of this page: load the page again")
        return None

    def cookie(self) -> str:
        """The Set-Cookie header of an `Enter`."""
        return f"{self.cookie_name}={self._cookie}; Path=/; HttpOnly; SameSite=Strict"

    def _enter(self, token: str, known: bool) -> Refusal | Enter:
        if known:
            return Enter(self.cookie())
        if self._entered or not _same(token, self.url_token):
            return Refusal(
                403,
                "the token of this URL was used already, or is that of another page: start "
                "another page with `creamas-supervisor page`, and open the URL that it prints",
            )
        self._entered = True
        return Enter(self.cookie())

    def _wrong_place(self, headers: Mapping[str, str]) -> Refusal | None:
        host = headers.get("host", "")
        name = _host_name(host)
        if name not in self._hosts:
            return Refusal(421, "the page is not served under that name: open the printed URL")
        origin = headers.get("origin")
        if origin is not None and origin.lower() != f"http://{host.lower()}":
            return Refusal(403, "the request comes from a page of another origin")
        if headers.get("sec-fetch-site", "none") not in _OWN_SITE:
            return Refusal(403, "the request comes from a page of another site")
        return None

    def _has_cookie(self, header: str) -> bool:
        # `http.cookies` gives up at the first cookie that is malformed, and other programs of this
        # machine have theirs here too.
        pairs = (each.strip().partition("=") for each in header.split(";"))
        return any(
            name == self.cookie_name and _same(value, self._cookie) for name, _, value in pairs
        )


def new_secret() -> bytes:
    """Bytes that nobody can guess."""
    return secrets.token_bytes(TOKEN_BYTES)


def kept_secret(port: int) -> bytes:
    """The secret of the pages of this user at a port, made by the first of them.

    Raises:
        CreamasError, OSError: There is no place for it that is this user's only.
    """
    path = runtime_folder() / f"page-{port}.key"
    if not path.exists():
        descriptor, made = mkstemp(prefix=path.name, dir=path.parent)  # with mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(new_secret())
            with suppress(FileExistsError):  # of another page
                os.link(made, path)
        finally:
            os.unlink(made)
    secret = path.read_bytes()
    if len(secret) != TOKEN_BYTES:
        path.unlink()
        raise OSError(f"{path} was not whole and is removed")
    return secret


def _derived(secret: bytes, purpose: str) -> str:
    digest = hmac.digest(secret, purpose.encode(), "sha256")
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _same(one: str, other: str) -> bool:
    """Whether they are equal; how long it takes does not say how much of them is."""
    return hmac.compare_digest(one.encode(), other.encode())


def _host_name(host: str) -> str:
    """The name or address in a Host header; "" if there is none."""
    host = host.lower()
    if host.startswith("["):
        address, bracket, port = host[1:].partition("]")
        if not bracket or (port and not _is_port(port[1:])) or (port and port[0] != ":"):
            return ""
        try:
            return str(ipaddress.IPv6Address(address))
        except ValueError:
            return ""
    name, colon, port = host.partition(":")
    return "" if colon and not _is_port(port) else name


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5
