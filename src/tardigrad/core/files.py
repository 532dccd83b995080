"""Files of a run: plain data, written atomically, checked when read.

A run folder holds ``run.json`` and arrays in ``*.npz`` files. Rules of this file:

- a file is written under a temporary name, synced, then renamed: a reader sees the old or the new one;
- ``run.json`` is written last and holds the SHA-256 of every other file: a folder that was cut short,
  or mixed from two runs, is recognised;
- arrays are read with ``allow_pickle=False``.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tardigrad.core.errors import RunFileError
from tardigrad.core.task import Array

FORMAT = 1
HEADER = "run.json"


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that no reader ever sees a part of it."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:  # also after Ctrl-C; once renamed it is no longer there
            with contextlib.suppress(OSError):
                temporary.unlink()
    except OSError as error:
        raise _unwritable(path, error) from error


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
        raise RunFileError(f"{path} is not a readable npz file ({error}): it was cut short or overwritten") from error


def write_folder(folder: Path, header: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Write the files of a run, the header with their checksums last."""
    make_folder(folder)
    for name, content in files.items():
        write_atomic(folder / name, content)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    text = json.dumps({"format": FORMAT, **header, "files": sums}, indent=1)
    write_atomic(folder / HEADER, text.encode())


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The header and the files that `write_folder` wrote."""
    header = read_header(folder)
    files = {}
    for name, expected in header["files"].items():
        path = folder / name
        content = _read(path)
        if hashlib.sha256(content).hexdigest() != expected:
            raise RunFileError(
                f"{path} ({len(content)} bytes) is not the file that {HEADER} describes: it was cut short or changed;"
                " restore it from a copy or run again"
            )
        files[name] = content
    return header, files


def read_header(folder: Path) -> dict[str, Any]:
    """The content of ``run.json``, its format checked."""
    path = folder / HEADER
    if not path.exists():
        raise RunFileError(f"{folder} holds no saved run (no {HEADER}): give a folder that Result.save wrote")
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
    if not isinstance(header.get("files"), dict):
        raise RunFileError(f"{path} lists no files: it was cut short or changed")
    return header


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunFileError(f"cannot read {path}: {error.strerror or error}") from error
