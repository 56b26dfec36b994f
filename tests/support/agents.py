"""Agents, environments and managers that the integration tests start in slaves."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import subprocess
import sys
from typing import Any

import trio

from creamas_sc import Artifact, CreativeAgent, Environment, expose, run_asyncio
from creamas_sc.mp import EnvManager, MultiEnvManager
from creamas_sc.wire.frames import Kind, encode_frame
from tests.support.forks import exit_code_of
from tests.support.values import Stranger


class Homebound:
    """Can be sent, but not decoded in another process."""

    def _wire_state_(self) -> dict[str, Any]:
        return {"pid": os.getpid()}

    @classmethod
    def _from_wire_state_(cls, state: dict[str, Any]) -> Homebound:
        if state["pid"] != os.getpid():
            raise ValueError("far from home")
        return cls()


class Echo(CreativeAgent):
    """Returns what it is given, and asks others to."""

    @expose
    def evaluate(self, artifact: Any) -> Any:
        return artifact

    @expose
    async def ask(self, addr: str, value: Any) -> Any:
        other = await self.connect(addr)
        return await other.evaluate(value)

    @expose
    async def reach(self, addr: str, timeout: float | None) -> Any:
        """Connect to another agent, for so many seconds if need be."""
        return await self.env.connect(addr, timeout=timeout)

    @expose
    async def act(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    @expose
    def pid(self) -> int:
        return os.getpid()

    @expose
    def give_stranger(self) -> Any:
        return [1, {"odd": Stranger()}]

    @expose
    def fail(self, text: str) -> None:
        raise ValueError(text)

    @expose
    def perhaps(self, failing: str) -> str:
        if self.addr == failing:
            raise ValueError(failing)
        return failing

    @expose
    def give_homebound(self, *numbers: int) -> Any:
        """Give one that cannot be decoded, if the agent has one of these numbers."""
        mine = int(self.addr.rpartition("/")[2])
        return (mine, [Homebound()]) if mine in numbers else (mine, [])

    def secret(self) -> None:
        """Not for others."""

    @expose
    def draw(self, n: int) -> list[float]:
        return [float(self.rng.random()) for _ in range(n)]

    @expose
    def stop_environment(self) -> None:
        self.env.manager.stop()

    @expose
    async def all_artifacts(self) -> list[Artifact]:
        return await self.env.get_artifacts()

    @expose
    async def use_asyncio(self) -> None:
        import asyncio

        await asyncio.sleep(0)

    @expose
    async def ask_under_asyncio(self, addr: str, seconds: float) -> Any:
        import asyncio

        async def ask() -> Any:
            other = await self.connect(addr)
            async with asyncio.timeout(20):
                await asyncio.sleep(seconds)
                return await asyncio.gather(other.evaluate(1), other.evaluate(2))

        return await run_asyncio(ask)


class ForCreamas(Environment):
    """Has the parameters that creamas' environments have, and sets its own seed."""

    def __init__(self, base_url: str, clock: Any, connect_kwargs: Any, size: int = 3) -> None:
        super().__init__(base_url, clock, connect_kwargs)
        self.size = size
        self.seed = 5

    def is_ready(self) -> bool:
        return self.size == 4


class Counter(CreativeAgent):
    """Counts its acts, and publishes each count."""

    def __init__(self, environment: Environment, start: int = 0) -> None:
        super().__init__(environment)
        self.count = start

    @expose
    def perhaps(self, failing: str) -> str:
        return failing

    @expose
    async def act(self, *args: Any) -> int:
        self.count += 1
        self.publish(Artifact(self, self.count))
        return self.count


class Raises(CreativeAgent):
    """Raises a chosen error in a chosen place."""

    def __init__(self, environment: Environment, kind: str, where: str) -> None:
        super().__init__(environment)
        self.kind, self.where = kind, where
        self._perhaps("init")

    def _perhaps(self, where: str) -> None:
        if where == self.where:
            kinds = {"value": ValueError, "exit": SystemExit, "interrupt": KeyboardInterrupt}
            raise kinds[self.kind](f"raised in {where}")

    @expose
    async def act(self) -> str:
        self._perhaps("act")
        return "acted"

    @expose
    def close(self, folder: str | None = None) -> None:
        self._perhaps("close")


class GivesStranger(CreativeAgent):
    """Its act returns what cannot travel."""

    @expose
    async def act(self) -> Any:
        return Stranger()


class Sleeper(CreativeAgent):
    """Sleeps through its act, and notes whether it was cancelled."""

    cancelled = False

    @expose
    async def act(self) -> None:
        try:
            await trio.sleep(3600)
        except trio.Cancelled:
            type(self).cancelled = True
            raise

    @expose
    def was_cancelled(self) -> bool:
        return type(self).cancelled


class SlowToClose(CreativeAgent):
    """Takes half a second to close."""

    @expose
    async def act(self) -> None:
        """Nothing to do."""

    @expose
    async def close(self, folder: str | None = None) -> None:
        await trio.sleep(0.5)


class Killer(CreativeAgent):
    """Kills its process in its act, by ``signal`` or with an exit code."""

    def __init__(self, environment: Environment, how: str = "SIGKILL") -> None:
        super().__init__(environment)
        self.how = how

    @expose
    async def act(self) -> None:
        if self.how == "exit":
            os._exit(3)
        os.kill(os.getpid(), getattr(signal, self.how))


class Deserter(CreativeAgent):
    """Ends its environment, and not its process."""

    def __init__(self, environment: Environment, how: str) -> None:
        super().__init__(environment)
        self.how = how

    @expose
    async def act(self) -> None:
        if self.how == "exec":
            os.execv(sys.executable, [sys.executable, "-c", "import signal; signal.pause()"])
        if self.how == "close":
            await self.env.close(as_coro=True)
        if self.how == "loop":
            self.env.get_loop().nursery.cancel_scope.cancel()
        if self.how in ("task", "all"):
            task: Any = trio.lowlevel.current_task()
            while task.parent_nursery is not None:
                task.parent_nursery.cancel_scope.cancel()
                if self.how == "task":
                    break
                task = task.parent_nursery.parent_task
        await trio.sleep_forever()


class CutsFrame(CreativeAgent):
    """Kills its process when half of a frame to the master is out."""

    @expose
    async def act(self) -> None:
        upstream = self.env.network.steps.master
        assert upstream is not None
        assert upstream.out._raw is not None
        upstream.out._raw.send(b"".join(encode_frame(Kind.REPLY, 1, b"", b"x" * 1000))[:500])
        os.kill(os.getpid(), signal.SIGKILL)


class Busy(CreativeAgent):
    """Says that it acts, then holds its process in one of several ways."""

    def __init__(self, environment: Environment, how: str = "python") -> None:
        super().__init__(environment)
        self.how = how

    @expose
    async def act(self) -> None:
        os.write(1, b"busy\n")
        if self.how == "sleep":
            await trio.sleep_forever()
        if self.how == "python":
            while True:
                pass
        if self.how == "c":
            ctypes.PyDLL(None).usleep(3_600_000_000 % 2**32)
        if self.how == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)


class Forker(CreativeAgent):
    """Starts a grandchild that has left its session and parent."""

    @expose
    async def act(self) -> int:
        code = "import os, time; os.fork() and os._exit(0); os.setsid(); print(os.getpid(), "
        code += "flush=True); os.close(1); time.sleep(3600)"
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        with child:
            assert child.stdout is not None
            return int(child.stdout.readline())


class Twins(Counter):
    """Forks in the middle of its act and its calls, and has the child return as well."""

    @expose
    async def act(self, *args: Any) -> Any:
        await trio.lowlevel.checkpoint()
        pid = os.fork()
        await super().act(*args)
        return self.count, pid and exit_code_of(pid)

    @expose
    def evaluate(self, artifact: Artifact) -> Any:
        pid = os.fork()
        self.count += 1
        return self.count, pid and exit_code_of(pid)


class Parallel(CreativeAgent):
    """Computes in processes of its own, started in every way that agents have."""

    @expose
    def act(self) -> list[Any]:  # type: ignore[override]
        import multiprocessing  # which other agents need not wait for
        from concurrent.futures import ProcessPoolExecutor

        forking = multiprocessing.get_context("fork")
        child = forking.Process(target=sys.exit, args=(4,))
        child.start()
        child.join()
        with forking.Pool(1) as pool:
            mapped = pool.map(abs, [-1])
        with ProcessPoolExecutor(1, forking) as executor:
            submitted = executor.submit(abs, -2).result()
        program = [sys.executable, "-S", "-c", "print(3)"]
        ran = subprocess.run(program, capture_output=True, check=True, preexec_fn=lambda: None)
        pid = os.fork()
        if pid == 0:
            os._exit(5)
        return [child.exitcode, *mapped, submitted, ran.stdout, exit_code_of(pid)]


class Draws(CreativeAgent):
    """Draws a number from its own generator, and one from its process's."""

    @expose
    def draws(self) -> tuple[float, float]:
        return self.rng.random(), random.random()


class Variables(CreativeAgent):
    """Tells its process's environment variables."""

    @expose
    def variable(self, name: str) -> bytes:
        return os.environb[name.encode()]


class SavingEnvironment(Environment):
    """Notes in its folder that it saved."""

    def save_info(self, folder: str | None, *args: Any, **kwargs: Any) -> Any:
        if folder is not None:
            with open(os.path.join(folder, f"saved-{os.getpid()}"), "w"):
                pass


class FailingEnvironment(Environment):
    """Raises in `is_ready` or `save_info`."""

    def __init__(self, *args: Any, fails_in: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fails_in = fails_in

    def is_ready(self) -> bool:
        if self.fails_in == "is_ready":
            raise ValueError("not ready at all")
        return True

    def save_info(self, folder: str | None, *args: Any, **kwargs: Any) -> Any:
        if self.fails_in == "save_info":
            raise ValueError("cannot save")


class LateEnvironment(Environment):
    """Is ready from the ``late``-th question on."""

    def __init__(self, *args: Any, late: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.late = late

    def is_ready(self) -> bool:
        self.late -= 1
        return self.late <= 0


class Host(MultiEnvManager):
    """Keeps what slaves report, and adds artifacts that they report."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.reported: list[Any] = []

    @expose
    def handle(self, msg: Any) -> Any:
        self.reported.append(msg)
        if isinstance(msg, Artifact):
            self.menv.add_artifact(msg)
        return "heard", msg


class Gives(Echo):
    """Acts as `give_homebound`."""

    @expose
    async def act(self, *args: Any, **kwargs: Any) -> Any:
        return self.give_homebound(*args)


class Reporter(CreativeAgent):
    """Publishes equal artifacts in each act: twice itself and twice through its manager."""

    @expose
    async def act(self, *args: Any, **kwargs: Any) -> None:
        for _ in range(2):
            self.publish(Artifact(self, [1]))
            await self.env.manager.report(Artifact(self, [1]))


class Manager(EnvManager):
    """A slave's manager with one more method."""

    @expose
    def pid(self) -> int:
        return os.getpid()


class Keeper(Environment):
    """Offers a checkpoint: its counters' counts; ``breaks`` names the method that raises."""

    def __init__(self, *args: Any, breaks: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.breaks = breaks

    async def checkpoint(self) -> Any:
        if self.breaks == "checkpoint":
            raise ValueError("cannot be kept")
        return [agent.count for agent in self.get_agents(addr=False, agent_cls=Counter)]

    def restore(self, state: Any) -> None:
        if self.breaks == "restore":
            raise ValueError("cannot be restored")
        for agent, count in zip(self.get_agents(addr=False, agent_cls=Counter), state, strict=True):
            agent.count = count


class SlowKeeper(Keeper):
    """Takes its time to be as it was."""

    async def restore(self, state: Any) -> None:  # type: ignore[override]
        await trio.sleep(0.3)
        super().restore(state)


class Moody(CreativeAgent):
    """When it is made it does what the file ``mood`` says, if there is one; its act does ``how``.

    "raise" raises, "once" ends the process and removes the file, "stop once" stops it in place of
    that, a signal's name or an exit code ends the process so.
    """

    def __init__(self, environment: Environment, mood: str = "", how: str = "SIGKILL") -> None:
        super().__init__(environment)
        self.how = how
        if mood and os.path.exists(mood):
            with open(mood) as file:
                how = file.read()
            if how.endswith("once"):
                os.unlink(mood)
            end_process({"once": "SIGKILL", "stop once": "SIGSTOP"}.get(how, how))

    @expose
    async def act(self) -> None:
        end_process(self.how)


class MoodyEnvironment(Environment):
    """The same of an environment."""

    def __init__(self, *args: Any, mood: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if os.path.exists(mood):
            with open(mood) as file:
                if file.read() == "hang":
                    signal.pause()
            raise ValueError("not in the mood")


def end_process(how: str) -> None:
    """End the calling process by a signal of that name, or with an exit code; or raise."""
    if how == "raise":
        raise ValueError("not in the mood")
    if how.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, how))
    os._exit(int(how))


class Judge(CreativeAgent):
    """Draws what it is worth, asks the next agent for a draw that takes a moment, and says so."""

    @expose
    async def act(self, addrs: list[str]) -> float:
        mine: float = self.rng.random()
        judge = await self.connect(addrs[(addrs.index(self.addr) + 1) % len(addrs)])
        answer: float = await judge.judge(mine)
        return mine + answer

    @expose
    async def judge(self, value: float) -> float:
        await trio.sleep(0.001)
        share: float = self.rng.random()
        return value * share
