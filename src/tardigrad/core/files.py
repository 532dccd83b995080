"""Files of a run: plain data, written atomically, checked when read.

A run folder holds ``run.json`` and arrays in ``*.npz`` files. Rules of this file:

- a file is written under a temporary name, synced, then renamed: a reader sees the old or the new one;
- the name of a data file ends with the beginning of its SHA-256, so a folder can be written again without
  touching what the header in place refers to: at every moment there is one whole run in it;
- ``run.json`` is written last and holds the SHA-256 of every other file: a folder that was cut short,
  or mixed from two runs, is recognised. Files that it does not name are removed after that;
- arrays are read with ``allow_pickle=False``.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import secrets
import shlex
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tardigrad.core.errors import RunFileError
from tardigrad.core.task import Array

FORMAT = 2
HEADER = "run.json"
#: the run file's name in a folder that `tardigrad run` made
CONFIG = "config.toml"
#: hexadecimal digits of its SHA-256 in a file's name
_DIGITS = 16
_OURS = re.compile(rf"-[0-9a-f]{{{_DIGITS}}}\.npz$")
#: what a writer leaves that was killed
_LEFT = re.compile(rf"^\.({re.escape(HEADER)}|.+-[0-9a-f]{{{_DIGITS}}}\.npz)\.[0-9a-f]{{8}}$")
#: how often a folder is read again because it was written meanwhile
_READINGS = 5


def write_atomic(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write `content`, whole or in pieces, to `path` so that no reader ever sees a part of it.

    A link stays, the file that it names is replaced. What is no file, such as ``/dev/stdout``, cannot be replaced: it is
    written to.

    Raises
    ------
    RunFileError
        If `path` is a folder or cannot be written.
    """
    if path.is_dir():
        raise RunFileError(f"cannot write {path}: it is a folder; give the name of a file")
    pieces = [content] if isinstance(content, bytes) else content
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                file.writelines(pieces)
        else:
            _replace(Path(os.path.realpath(path)) if path.is_symlink() else path, pieces)
    except OSError as error:
        raise _unwritable(path, error) from error


def _replace(path: Path, pieces: Iterable[bytes]) -> None:
    """Put a file in the place of another, or where there was none."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:  # also after Ctrl-C; once renamed it is no longer there
        with contextlib.suppress(OSError):
            temporary.unlink()


def _sync_folder(path: Path) -> None:
    """Make a rename last; file systems that cannot sync a folder are left alone."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_folder(path: Path) -> Path:
    """Create the folder of a run, or say why that is not possible; for use before long work starts."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise _unwritable(path, error) from error
    return path


def _unwritable(path: Path, error: OSError) -> RunFileError:
    advice = "Choose a folder (not a file) with free space that you may write to"
    return RunFileError(f"cannot write {path}: {error.strerror or error}. {advice}")


def pack_arrays(arrays: Mapping[str, Array]) -> bytes:
    """The bytes of an npz file."""
    buffer = io.BytesIO()
    # the same bytes for the same content: savez keeps no time stamps of its own
    np.savez(buffer, allow_pickle=False, **{name: np.asarray(array) for name, array in arrays.items()})
    return buffer.getvalue()


def unpack_arrays(content: bytes, path: Path) -> dict[str, Array]:
    """The arrays of an npz file."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # zipfile, zlib and numpy each raise their own for a broken file
        # what NumPy says of a file without arrays is to unpickle it, which no file of a run is for
        why = "no arrays are in it" if "allow_pickle" in str(error) else str(error)
        raise RunFileError(f"{path} is not a readable npz file ({why}): it was cut short or overwritten") from error


class RunFolder:
    """A folder that a run is written to, once or again and again while it goes on.

    Parts are put one by one, then `commit` makes a header with some of them the run that is in the folder. Until it is
    closed nobody else can write there: two writers would remove each other's files.

    Parameters
    ----------
    path : path
        Created if needed.
    """

    def __init__(self, path: Path) -> None:
        self.path = make_folder(path)
        self._parts: dict[str, dict[str, str]] = {}
        self._lock = _lock(path)

    def close(self) -> None:
        """Let others write to the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    def put(self, name: str, arrays: Mapping[str, Array]) -> str:
        """Write a part; its name."""
        content = pack_arrays(arrays)
        digest = hashlib.sha256(content).hexdigest()
        file = f"{name}-{digest[:_DIGITS]}.npz"
        if self._parts.get(name, {}).get("file") != file:
            write_atomic(self.path / file, content)
            self._parts[name] = {"file": file, "sha256": digest}
        return name

    def commit(self, header: Mapping[str, Any], names: Collection[str]) -> None:
        """Make this the run in the folder; what it does not name is removed."""
        self._parts = {name: self._parts[name] for name in names}
        text = json.dumps({"format": FORMAT, **header, "files": self._parts}, indent=1)
        write_atomic(self.path / HEADER, text.encode())
        wanted = {part["file"] for part in self._parts.values()}
        for path in list(self.path.iterdir()):
            if _LEFT.match(path.name) or (_OURS.search(path.name) and path.name not in wanted):
                with contextlib.suppress(OSError):
                    path.unlink()


def _lock(path: Path) -> int | None:
    """A descriptor that keeps other writers away while it is open, also those of other processes; None if that cannot be."""
    try:
        import fcntl

        descriptor = os.open(path, os.O_RDONLY)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise RunFileError(
            f"{path} is being written by another run: give each run a folder of its own, or wait until that one has ended"
        ) from None
    except OSError:  # a file system without locks
        os.close(descriptor)
        return None
    return descriptor


def read_folder(folder: Path, listed: str | None = None) -> tuple[dict[str, Any], dict[str, dict[str, Array]]]:
    """The header and the arrays of each part that `RunFolder` wrote, or only of those in a list of the header."""
    for _ in range(_READINGS):
        header = read_header(folder)
        parts = {}
        try:
            for name in header["files"] if listed is None else header[listed]:
                part = header["files"][name]
                parts[name] = _read_part(folder / part["file"], part["sha256"])
        except (TypeError, KeyError) as error:
            raise RunFileError(
                f"{folder / HEADER} does not say which files belong to it ({error!r}): it was changed"
            ) from error
        except RunFileError:
            if read_header(folder) == header:
                raise
            continue  # a run that goes on has written its next checkpoint meanwhile
        return header, parts
    raise RunFileError(f"{folder} is written again and again faster than it can be read: try again, or copy it first")


def _read_part(path: Path, expected: str) -> dict[str, Array]:
    content = _read(path)
    if hashlib.sha256(content).hexdigest() != expected:
        raise RunFileError(
            f"{path} ({len(content)} bytes) is not the file that {HEADER} describes: it was cut short or changed;"
            " restore it from a copy or run again"
        )
    return unpack_arrays(content, path)


def read_header(folder: Path) -> dict[str, Any]:
    """The content of ``run.json``, its format checked."""
    path = folder / HEADER
    if not path.exists():
        raise RunFileError(f"{folder} holds no saved run (no {HEADER}): {_instead(folder)}")
    try:
        header: dict[str, Any] = json.loads(_read(path))
        written = int(header["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunFileError(f"{path} is not a run header ({error!r}): it was cut short or changed") from error
    if written > FORMAT:
        raise RunFileError(
            f"{path} has format {written}, written by tardigrad {header.get('tardigrad', '?')}; this version reads"
            f" up to format {FORMAT}: upgrade tardigrad"
        )
    if written < FORMAT:
        raise RunFileError(f"{path} has format {written}, which this version ({FORMAT}) does not read any more: run again")
    if not isinstance(header.get("files"), dict):
        raise RunFileError(f"{path} lists no files: it was cut short or changed")
    return header


def _instead(folder: Path) -> str:
    """What to do where no run is."""
    begun = folder / CONFIG
    if begun.is_file():
        return f"it was not begun, or ended before it was saved: start it again, tardigrad run {shlex.quote(str(begun))}"
    return "give a folder that Result.save or tardigrad run wrote"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunFileError(f"cannot read {path}: {error.strerror or error}") from error
