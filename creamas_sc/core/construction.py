"""Constructors of environments: the arguments that creamas' have, and classes that want them.

creamas calls ``cls(base_url=..., clock=..., connect_kwargs=...)``, so many a subclass has these
parameters and passes them on.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from creamas_sc.rpc.addresses import base_url, split_address
from creamas_sc.serializers import check_codec, get_serializers, to_serializers
from creamas_sc.wire.codec import Serializer

Env = TypeVar("Env")

_CONNECT = ("codec", "extra_serializers")


def make_environment(
    env_cls: Callable[..., Env],
    addr: tuple[str, int],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Env:
    """Make an environment, with creamas' arguments if its class takes these alone."""
    parameters = inspect.signature(env_cls).parameters
    if "addr" in parameters or not {"base_url", "connect_kwargs"} <= parameters.keys():
        return env_cls(addr, *args, **kwargs)
    others = {name: value for name, value in kwargs.items() if name not in _CONNECT}
    others["connect_kwargs"] = {name: kwargs[name] for name in _CONNECT if name in kwargs}
    if "clock" in parameters:
        others.setdefault("clock", None)
    return env_cls(*args, base_url=base_url(*addr), **others)


def place_of(addr: Any, url: str | None) -> tuple[str, int]:
    """Host and port of ``addr``, a pair or a URL, or else of ``url``.

    Raises:
        TypeError: There is neither.
        ValueError: The URL is not of the form ``tcp://host:port/``.
    """
    addr = url if addr is None else addr
    if addr is None:
        raise TypeError("an environment needs addr: (host, port), where port 0 is any free one")
    if isinstance(addr, str):
        host, port, _ = split_address(f"{addr.rstrip('/')}/0")
    else:
        host, port = addr
    return host, port


def serializers_of(
    codec: Any, extra: Iterable[Any] | None, connect_kwargs: Mapping[str, Any] | None
) -> list[Serializer]:
    """Return the serializers that an environment has.

    Args:
        codec, extra: As it was given directly.
        connect_kwargs: Creamas' dict with these; what it has counts first.

    Raises:
        TypeError: The codec is none, or the dict has something else that is not None.
    """
    given = {name: value for name, value in (connect_kwargs or {}).items() if value is not None}
    check_codec(given.pop("codec", codec))
    extra = given.pop("extra_serializers", extra)
    if given:
        raise TypeError(f"connect_kwargs can hold {' and '.join(_CONNECT)}, not {', '.join(given)}")
    return to_serializers(get_serializers() if extra is None else extra)
