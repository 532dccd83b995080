"""Run files to start from: one for each kind of problem, each complete and run as it is printed.

Rules of this file:

- an example is a .toml file beside this one; its first line says what it is.
"""

from __future__ import annotations

from pathlib import Path

from tardigrad.core.errors import InvalidInputError
from tardigrad.run_config.place import nearest

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The examples that there are."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def text_of(name: str) -> str:
    """The example of that name.

    Examples
    --------
    >>> text_of("softmax").splitlines()[0]
    '# Softmax regression over clients whose data differ: asynchronous SGD on a virtual clock.'
    """
    if name not in names():
        raise InvalidInputError(f"there is no example {name!r}: {nearest(name, names())}the examples are {', '.join(names())}")
    return (_FOLDER / f"{name}.toml").read_text(encoding="utf-8")


def as_table() -> str:
    """All examples, a line each, and how to get one."""
    lines = [f"{name:<16}{text_of(name).splitlines()[0].removeprefix('# ')}" for name in names()]
    return "\n".join([*lines, "", "tardigrad run --print-config softmax > my.toml; tardigrad run my.toml"])
