"""Agents, environments and managers that raise a chosen error in a chosen place."""

from __future__ import annotations

import builtins
import os
import stat
import subprocess
from collections.abc import Sequence
from typing import Any

import trio

from creamas_sc import CreativeAgent, Environment, expose
from creamas_sc.mp import EnvManager
from tests.support.agents import Echo


class Odd(BaseException):
    """Not an Exception."""


class Wordless(Exception):
    """An error whose text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def raise_it(kind: str) -> None:
    """Raise an exception of the class of that name."""
    error = {"Odd": Odd, "Wordless": Wordless}.get(kind) or getattr(builtins, kind)
    if kind == "UnicodeDecodeError":
        raise error("utf-8", b"\xff", 0, 1, "raised on purpose")
    raise error("raised on purpose")


class Raiser(CreativeAgent):
    """Raises ``kind`` in the method named ``where``."""

    def __init__(self, environment: Environment, kind: str, where: str) -> None:
        super().__init__(environment)
        self.kind, self.where = kind, where
        self._perhaps("init")

    def _perhaps(self, where: str) -> None:
        if where == self.where:
            raise_it(self.kind)

    @expose
    async def act(self, addr: str | None = None) -> str:
        self._perhaps("act")
        if addr is not None:
            await self.ask(addr)
        return "acted"

    @expose
    def evaluate(self, artifact: Any) -> Any:
        self._perhaps("evaluate")
        return 1.0, None

    @expose
    async def ask(self, addr: str) -> Any:
        return await (await self.connect(addr)).evaluate(None)

    @expose
    def close(self, folder: str | None = None) -> None:
        self._perhaps("close")


class Asker(Echo):
    """Asks others in its acts."""

    @expose
    async def act(self, addrs: Sequence[str] = (), *args: Any) -> list[str]:
        return [await self.ask(addr, addr) for addr in addrs if addr != self.addr]


class RaisingEnvironment(Environment):
    """Raises in its constructor, ``is_ready`` or ``save_info``."""

    def __init__(self, *args: Any, kind: str, where: str, **kwargs: Any) -> None:
        self.kind, self.where = kind, where
        if where == "env_init":
            raise_it(kind)
        super().__init__(*args, **kwargs)

    def is_ready(self) -> bool:
        if self.where == "is_ready":
            raise_it(self.kind)
        return True

    def save_info(self, folder: str | None, *args: Any, **kwargs: Any) -> Any:
        if self.where == "save_info":
            raise_it(self.kind)


class RaisingManager(EnvManager):
    """Raises in its constructor where its environment says so."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        if environment.where == "mgr_init":
            raise_it(environment.kind)


class Insider(CreativeAgent):
    """Returns the key that proves membership of its simulation."""

    @expose
    def membership(self) -> tuple[str, bytes]:
        member = self.env._listener.member
        assert member is not None
        return member.simulation, member.key


class Costly(CreativeAgent):
    """Raises and returns what takes long to write, to send or to show."""

    @expose
    def raise_text(self, length: int) -> None:
        raise ValueError("x" * length)

    @expose
    def raise_int(self, digits: int) -> None:
        raise ValueError(10**digits)

    @expose
    def give_bytes(self, size: int) -> bytes:
        return bytes(size)

    @expose
    def give_text(self, length: int) -> list[str]:
        return ["x" * length]

    @expose
    def take(self, value: Any) -> Any:
        return value


class Holder(CreativeAgent):
    """Gives large values to many callers at once."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.waiting = 0
        self.released = trio.Event()

    @expose
    async def give_bytes(self, size: int, calls: int) -> bytes:
        """Answer once there are so many calls."""
        self.waiting += 1
        if self.waiting == calls:
            self.released.set()
        await self.released.wait()
        return bytes(size)


class Printer(CreativeAgent):
    """Prints, runs a program that does, and looks at its standard descriptors."""

    @expose
    def act(self) -> tuple[int, bool]:  # type: ignore[override]
        """The program's exit code, and whether a socket has the number of a standard descriptor."""
        print("agents may print")
        os.write(1, b"in this way, too\n")
        os.write(2, b"this is an error\n")
        program = "cat; echo programs, too; echo this is an error >&2"
        code = subprocess.run(["sh", "-c", program], check=False).returncode
        return code, any(stat.S_ISSOCK(os.fstat(fd).st_mode) for fd in (0, 1, 2))
