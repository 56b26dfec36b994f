from __future__ import annotations

from creamas_sc.runtime.lazy_import import lazy_attributes

__getattr__, __dir__ = lazy_attributes(__name__, {}, ("debugging",))
