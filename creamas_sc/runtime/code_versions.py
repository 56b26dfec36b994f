"""One version of the user's code in all processes of a simulation, however long it runs.

A simulation's processes load a module at different times: a slave when the first agent of a class
is spawned, a restarted slave when it starts again. Its file may have been edited meanwhile. So the
first process that loads a file keeps a copy of it in the simulation's folder, and the others load
the copy::

    <runtime folder>/environments/<simulation>/<SHA-256 of the file's path>

Its master also notes the file of each module that it has loaded, in ``modules`` there. So a module
is found that its loader has put under a name along which no folder leads, as pytest does with
``--import-mode=importlib``.

On another machine slaves load what was sent there (`CodeVersions.files`, `CodeVersions.take`), also
where its own files differ: they find the modules of their master first.

A file that does not load is not kept: it may be corrected and loaded again. Python's own modules
and installed packages are loaded as always.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import struct
import sys
import threading
import time
from collections.abc import Container, Mapping
from contextlib import suppress
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from creamas_sc.errors import AgentError, LoadError
from creamas_sc.runtime.installation import is_users
from creamas_sc.runtime.loaded_modules import MAIN, loaded_files
from creamas_sc.runtime.paths import exposed, is_private

# From a process's start, which is known to a hundredth of a second, until it has read its script.
_READ_NS = 20_000_000
_MODULES = "modules"
_NAME_LENGTH = len(hashlib.sha256().hexdigest())

log = logging.getLogger(__name__)


class Version(NamedTuple):
    """What a source file was at some time; ``mtime_ns`` as `os.stat` has it."""

    path: str
    source: bytes
    mtime_ns: int

    @classmethod
    def of(cls, path: str) -> Version:
        """What the file at ``path`` is now.

        Raises:
            OSError: It cannot be read.
        """
        try:
            with open(path, "rb") as file:
                mtime_ns = os.fstat(file.fileno()).st_mtime_ns
                return cls(path, file.read(), mtime_ns)
        except NotADirectoryError:
            return cls._in_archive(path)

    @classmethod
    def _in_archive(cls, path: str) -> Version:
        """What the file at ``path`` is now that is in a zip application."""
        import zipfile  # few scripts are in one

        archive = next(str(folder) for folder in Path(path).parents if folder.is_file())
        try:
            with zipfile.ZipFile(archive) as files:
                source = files.read(path[len(archive) + 1 :])
        except (KeyError, zipfile.BadZipFile) as error:
            raise FileNotFoundError(f"{archive}: {error}") from None
        return cls(path, source, os.stat(archive).st_mtime_ns)

    @property
    def is_changed(self) -> bool:
        """Whether the file is another one now, or gone."""
        try:
            with suppress(NotADirectoryError):
                status = os.stat(self.path)
                if (status.st_mtime_ns, status.st_size) == (self.mtime_ns, len(self.source)):
                    return False
            return Version.of(self.path).source != self.source
        except OSError:
            return True


class CodeVersions:
    """The copies of one simulation's files, in its folder, which its master keeps open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def _is_ours(self) -> bool:
        """Whether nobody else can have put files there; to be asked before each look."""
        return is_private(self.folder.parents[1])

    def find(self, path: str) -> Version | None:
        """The version of the file at ``path`` that is kept; None if it was not loaded yet."""
        return self._read(self._place(path)) if self._is_ours else None

    def _place(self, path: str) -> Path:
        return self.folder / hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()

    def _read(self, place: Path) -> Version | None:
        try:
            kept = Version.of(str(place))
        except FileNotFoundError:
            return None
        path, _, source = kept.source.partition(b"\0")
        return Version(os.fsdecode(path), source, kept.mtime_ns)

    def keep(self, version: Version) -> None:
        """Keep the version of a file with which it was loaded.

        Raises:
            LoadError: Another process has loaded another version at the same time.
            OSError: It cannot be kept.
        """
        if os.path.lexists(self.folder.parents[1]) and not self._is_ours:
            raise PermissionError(errno.EPERM, "other users may write there", str(self.folder))
        place = self._place(version.path)
        draft = f"{place}.{os.getpid()}.{threading.get_ident()}"
        path = os.path.abspath(version.path)
        try:
            with open(draft, "xb") as file:
                file.write(os.fsencode(path) + b"\0" + version.source)
            os.utime(draft, ns=(version.mtime_ns, version.mtime_ns))
            os.link(draft, place)
        except FileNotFoundError:
            log.debug("the simulation of %s has ended: %s is not kept", self.folder, path)
        except FileExistsError:
            kept = self.find(path)
            if kept is not None and kept.source != version.source:
                raise LoadError(
                    f"{path} was changed while the simulation was loading it: load it again"
                ) from None
        finally:
            Path(draft).unlink(missing_ok=True)

    def keep_loaded(self) -> None:
        """Keep the files of all modules of this process that were not kept yet.

        Of one that was edited since this process loaded it, the new version is all that there is.
        """
        loaded = list(loaded_files())
        self._note_modules({name: path for name, path, _ in loaded})
        for _, path, module in loaded:
            if os.path.exists(self._place(path)):  # False if that cannot be known
                continue
            try:
                version = Version.of(path)
                self.keep(version)
            except OSError as error:  # slaves cannot load it either, and say so
                log.debug("%s cannot be kept: %s", path, error)
            else:
                if _is_newer(version, module):
                    log.warning(
                        "%s was changed after this process had loaded it, and slaves load it as it "
                        "is now: start this program again to run one version",
                        path,
                    )

    def _note_modules(self, files: Mapping[str, str]) -> None:
        """Note the files of modules, by name."""
        if not self._is_ours:
            return
        draft = self.folder / f"{_MODULES}.{os.getpid()}.{threading.get_ident()}"
        try:
            draft.write_text(json.dumps(files))
            draft.replace(self.folder / _MODULES)
        except OSError as error:  # the simulation has ended, or the disk is full
            log.debug("no modules are noted in %s: %s", self.folder, error)

    def find_module(self, name: str) -> ModuleSpec | None:
        """How to load a module as its master did; its packages are at least empty ones."""
        if not self._is_ours:
            return None
        try:
            files: dict[str, str] = json.loads((self.folder / _MODULES).read_text())
        except FileNotFoundError:
            return None
        path = files.get(name)
        if path is None:
            if not any(each.startswith(name + ".") for each in files):
                return None
            return ModuleSpec(name, None, is_package=True)
        folders = [os.path.dirname(path)] if os.path.basename(path) == "__init__.py" else None
        loader = SourceFileLoader(name, path)
        spec = spec_from_file_location(
            name, path, loader=loader, submodule_search_locations=folders
        )
        if spec is not None and folders and _Loading.node and not _is_safe(folders[0]):
            spec.submodule_search_locations = []  # what the master has loaded is found, too
        return spec

    def sources(self) -> list[bytes]:
        """The sources of all files that the simulation has loaded so far."""
        return [version.source for version in self._versions()]

    def digests(self) -> dict[str, str]:
        """Path -> SHA-256 of the files that the simulation has loaded so far."""
        found = {each.path: hashlib.sha256(each.source).hexdigest() for each in self._versions()}
        return dict(sorted(found.items()))

    def _versions(self) -> list[Version]:
        if not self._is_ours or not self.folder.is_dir():
            return []
        places = [each for each in self.folder.iterdir() if len(each.name) == _NAME_LENGTH]
        versions = [self._read(place) for place in places]
        return [version for version in versions if version is not None]

    def files(self) -> dict[str, tuple[int, bytes]]:
        """All that is kept, to be sent: by name, when it was changed, in ns, and what is in it."""
        if not self._is_ours or not self.folder.is_dir():
            return {}
        places = [self._place_of(name) for name in os.listdir(self.folder)]
        found = {place.name: Version.of(str(place)) for place in places if place is not None}
        return {name: (each.mtime_ns, each.source) for name, each in found.items()}

    def take(self, files: Mapping[str, tuple[int, bytes]]) -> None:
        """Keep what `files` has returned elsewhere; a file that is here already stays.

        Raises:
            OSError: It cannot be kept.
        """
        for name, (mtime_ns, content) in files.items():
            place = self._place_of(name)
            if place is None or (place.exists() and name != _MODULES):
                continue
            draft = self.folder / f"{name}.{os.getpid()}.{threading.get_ident()}"
            draft.write_bytes(content)
            os.utime(draft, ns=(mtime_ns, mtime_ns))
            draft.replace(place)

    def _place_of(self, name: str) -> Path | None:
        """Where the file of that name is; None if it is not of these."""
        known = name == _MODULES or (len(name) == _NAME_LENGTH and name.isalnum())
        return self.folder / name if known else None

    def changed_files(self) -> list[str]:
        """Paths of the files that are not any more what the simulation has loaded."""
        return sorted(each.path for each in self._versions() if each.is_changed)


def _is_safe(folder: str) -> bool:
    """Whether there is such a folder, and no other user may put files there."""
    try:
        return exposed(Path(folder)) is None
    except OSError:
        return False


def _is_newer(version: Version, module: Mapping[str, Any]) -> bool:
    """Whether a module of this process was loaded from an older version; False if in doubt."""
    spec: Any = module.get("__spec__")
    if version.mtime_ns <= _started_ns() + _READ_NS:
        return False
    if module.get("__name__") == MAIN:
        return True  # it is loaded at once
    try:
        with open(spec.cached, "rb") as compiled:
            _, flags, mtime, size = struct.unpack("<4sIII", compiled.read(16))
    except (OSError, AttributeError, TypeError, struct.error):
        return False
    now = version.mtime_ns // 10**9 & 0xFFFFFFFF, len(version.source) & 0xFFFFFFFF
    return flags == 0 and (mtime, size) != now


def _started_ns() -> int:
    """When this process was started, as files have their times."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    after_boot_ns = ticks * 10**9 // os.sysconf("SC_CLK_TCK")
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME) + after_boot_ns


def loaded_sources(modules: Container[str] | None = None) -> list[bytes]:
    """The sources of the user's modules that this process has loaded, as their files are now.

    Args:
        modules: Only of those with these names.
    """
    sources = []
    for name, path, _ in loaded_files():
        if modules is None or name in modules:
            with suppress(OSError):
                sources.append(Version.of(path).source)
    return sources


class _Loading:
    """What this process loads; None and no finder unless `load_from` was called.

    Attributes:
        node: On which this process runs, away from its master; empty beside it.
    """

    versions: CodeVersions | None = None
    node = ""


def load_from(versions: CodeVersions, node: str = "") -> None:
    """Load the user's modules from ``versions`` in this process from now on.

    Args:
        node: On which this process runs, away from its master; empty beside it.
    """
    if _Loading.versions is None:
        sys.meta_path.insert(0, _Finder)
    _Loading.versions, _Loading.node = versions, node
    AgentError.note_of = staticmethod(absence_note)


def take_code(files: Mapping[str, tuple[int, bytes]]) -> None:
    """Have this process load files that were kept elsewhere; see `CodeVersions.take`."""
    if _Loading.versions is not None:
        _Loading.versions.take(files)


def open_version(path: str) -> Version:
    """The version of the file at ``path`` that this process is to load.

    Raises:
        OSError: There is none, and the file cannot be read.
    """
    kept = None if _Loading.versions is None else _Loading.versions.find(path)
    if kept is not None and not _Loading.node and kept.is_changed:
        log.warning("%s was changed: %s", path, STAYS)
    return kept or Version.of(path)


def keep_version(version: Version) -> None:
    """Keep the version that this process has loaded.

    Raises:
        LoadError: Another process has loaded another version at the same time.
    """
    if _Loading.versions is not None:
        try:
            _Loading.versions.keep(version)
        except OSError as error:  # such as a full disk: the module is loaded all the same
            log.warning(
                "%s cannot be kept for the simulation's other processes, which will load it as "
                "it is then: %s",
                version.path,
                error,
            )


def change_note(module: ModuleType) -> str:
    """A clause for an error about what ``module`` lacks, if its file was changed; else ""."""
    path = None if _Loading.node else getattr(module, "__file__", None)
    kept = _Loading.versions.find(path) if path and _Loading.versions is not None else None
    return f"; {path} was changed: {STAYS}" if kept is not None and kept.is_changed else ""


def absence_note(error: BaseException) -> str:
    """A clause for an error about a module that the machine of this process lacks; else ""."""
    if not _Loading.node or not isinstance(error, ModuleNotFoundError):
        return ""
    return (
        f"; slaves on the node {_Loading.node} have what is installed there, and those of your "
        "modules that were imported before: import it at the top of the module that needs it"
    )


def loaded_code() -> dict[str, tuple[str, str]]:
    """The user's modules of this process: by name, the file, and the SHA-256 of what was loaded."""
    found = {}
    for name, path, _ in loaded_files(there=_Loading.node == ""):
        with suppress(OSError):
            kept = None if _Loading.versions is None else _Loading.versions.find(path)
            source = (kept or Version.of(path)).source
            found[name] = path, hashlib.sha256(source).hexdigest()
    return found


STAYS = (
    "this simulation runs the version that it began with; to run the new one, create a new "
    "simulation"
)


class _Loader(SourceFileLoader):
    """Loads one module from the version of its file that is kept, or keeps that of now."""

    _version: Version

    def path_stats(self, path: Any) -> Any:
        """Read the version; these are what a compiled file must match."""
        self._version = open_version(self.path)
        return {"mtime": self._version.mtime_ns // 10**9, "size": len(self._version.source)}

    def get_data(self, path: Any) -> bytes:
        """The source of the version, or a compiled file.

        Raises:
            OSError: There is none, or this is a node: there the file's folder may be of others.
        """
        if path == self.path:
            return self._version.source
        if _Loading.node and path.endswith(".pyc"):
            raise FileNotFoundError(errno.ENOENT, "nothing is compiled on nodes", path)
        return super().get_data(path)

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        """Write a compiled file, beside a source file that is there."""
        if not _Loading.node:
            super().set_data(path, data, _mode=_mode)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, and keep its version if that succeeds."""
        super().exec_module(module)
        keep_version(self._version)


def _find_as_master(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
    return None if _Loading.versions is None else _Loading.versions.find_module(name)


def _find_file_of_master(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
    spec = _find_as_master(name)
    return None if spec is None or spec.loader is None else spec


class _Finder:
    """Finds modules as the other finders do; the user's get a `_Loader`."""

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """What the first of the other finders finds, or what its master has loaded."""
        finders = [getattr(each, "find_spec", None) for each in sys.meta_path if each is not cls]
        if _Loading.node:  # which may have another module of that name
            finders.insert(0, _find_file_of_master)
        for find in (*finders, _find_as_master):
            spec: ModuleSpec | None = None if find is None else find(name, path, target)
            if spec is not None:
                loader = spec.loader
                if type(loader) is SourceFileLoader and is_users(os.path.abspath(loader.path)):
                    spec.loader = _Loader(loader.name, loader.path)
                return spec
        return None
