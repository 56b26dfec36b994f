"""The names that programs for creamas take from aiomas."""

from __future__ import annotations

from typing import Any

import pytest

import creamas_sc
from creamas_sc import aiomas, mp, serializers
from creamas_sc.core.agent import Agent
from creamas_sc.errors import AgentError, CreamasError
from creamas_sc.runtime.class_loading import load_object, portable_name
from creamas_sc.serializers import to_serializers
from creamas_sc.wire.codec import Codec


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serializers, "_registry", dict(serializers._registry))


@aiomas.serializable
class Point:
    def __init__(self, x: int, y: Any) -> None:
        self.x, self._y = x, y

    @property
    def y(self) -> Any:
        return self._y


@aiomas.codecs.serializable(repr=False)
class Bare:
    def __init__(self) -> None:
        pass


def test_the_names_are_those_of_this_package() -> None:
    assert [name for name in aiomas.__all__ if not hasattr(aiomas, name)] == []
    assert aiomas.run is aiomas.util.run is creamas_sc.run
    assert aiomas.expose is aiomas.rpc.expose is creamas_sc.expose
    assert aiomas.Proxy is aiomas.rpc.Proxy is creamas_sc.Proxy
    assert aiomas.Container is aiomas.agent.Container is creamas_sc.Environment
    assert aiomas.Agent is aiomas.agent.Agent is Agent
    assert issubclass(creamas_sc.CreativeAgent, aiomas.Agent)
    assert issubclass(mp.EnvManager, aiomas.subproc.Manager)
    assert issubclass(mp.MultiEnvManager, aiomas.subproc.Manager)
    assert (aiomas.RemoteException, aiomas.AiomasError) == (AgentError, CreamasError)
    assert issubclass(aiomas.exceptions.RemoteException, aiomas.exceptions.AiomasError)
    assert aiomas.util.obj_from_str("collections.abc:Mapping").__name__ == "Mapping"


@pytest.mark.parametrize("codec", [aiomas.MsgPack, aiomas.JSON, aiomas.codecs.MsgPackBlosc])
def test_every_codec_is_the_one(codec: Any) -> None:
    creamas_sc.Environment(("localhost", 0), codec=codec)


def test_serializable_classes_travel() -> None:
    codec = Codec(to_serializers())
    point, bare = codec.decode(codec.encode([Point(1, (2,)), Bare()]))
    assert (type(point), point.x, point.y) == (Point, 1, (2,))
    assert type(bare) is Bare
    assert repr(point) == "Point(x=1, y=(2,))"
    assert "Bare object at" in repr(bare)


def test_their_serializers_are_found_in_slaves() -> None:
    maker = Point.__serializer__  # type: ignore[attr-defined]
    assert load_object(portable_name(maker)) is maker
    (found,) = [s for s in to_serializers([maker]) if s.cls is Point]
    assert found.decode(found.encode(Point(1, 2))).y == 2
