"""Draws the rooms of the house and their imports, from the code itself: ``python docs/draw_architecture.py``.

Rooms stand on a diagonal, in the layers of ``.importlinter``. An import leaves a room on its right and enters the room below
through its roof, so no line ever meets another room. Needs grimp, which comes with import-linter (extra ``test``).

Rules of this file:

- the same code gives the same picture, byte for byte: a test compares it with ``docs/images/architecture.svg``;
- rooms, layers and allowed exceptions are read, never listed here.
"""

from __future__ import annotations

from collections import Counter
from configparser import ConfigParser
from dataclasses import dataclass, field
from html import escape
from math import log2
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "architecture.svg"
PACKAGE = "tardigrad"

BOX = 112  # least width and height of a room, and the space between two
LOW = 36
GAP = 9
MARGIN = 18
PAD = 8  # within a box, beside the lines that enter
APART = 2.5  # between two lines
TURN = 7  # radius of a corner
COLOURS = ("#3b6ea8", "#b8652b", "#4d8a57", "#a04a6b", "#7a63a8", "#8a7a2e", "#3a8a8c", "#b04a44", "#5a6a78")


@dataclass
class Room:
    """A package or module right below the root: where it is drawn, and how many modules it has."""

    name: str
    layer: int
    modules: int
    colour: str
    left: float = 0.0
    right: float = 0.0
    top: float = 0.0
    bottom: float = 0.0


@dataclass
class Line:
    """Imports of one room from another, as the corners of a line."""

    source: str
    target: str
    imports: int
    corners: list[tuple[float, float]] = field(default_factory=list)

    @property
    def width(self) -> float:
        """Grows with the logarithm of the number of imports."""
        return round(0.9 + 0.6 * log2(self.imports), 2)


@dataclass
class Drawing:
    """Rooms from the top to the bottom, the lines between them, those against the order, and the size of it all."""

    rooms: list[Room]
    lines: list[Line]
    upward: list[Line]
    width: float = 0.0
    height: float = 0.0


def layers() -> list[list[str]]:
    """The rooms in layers, the highest first, as the contract says."""
    config = ConfigParser()
    config.read(ROOT / ".importlinter")
    text = config["importlinter:contract:layers"]["layers"]
    return [[name.strip().removeprefix(f"{PACKAGE}.") for name in line.split("|")] for line in text.split("\n") if line.strip()]


def imports() -> tuple[Counter[tuple[str, str]], Counter[str]]:
    """Imports of a module of one room from a module of another, and the modules of each room."""
    import grimp

    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    modules = {module for module in graph.modules if not module.endswith(".conftest")}
    found: Counter[tuple[str, str]] = Counter()
    for module in modules:
        for imported in graph.find_modules_directly_imported_by(module):
            found[_room(module), _room(imported)] += 1
    return found, Counter(_room(module) for module in modules)


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def plan() -> Drawing:
    """What is drawn where."""
    found, modules = imports()
    order = [(name, level) for level, names in enumerate(layers()) for name in names]
    rooms = [Room(name, level, modules[name], COLOURS[i % len(COLOURS)]) for i, (name, level) in enumerate(order)]
    place = {room.name: i for i, room in enumerate(rooms)}
    lines = [
        Line(source, target, number)
        for (source, target), number in sorted(found.items())
        if source in place and target in place and source != target
    ]
    downward = [line for line in lines if place[line.source] < place[line.target]]
    drawing = Drawing(rooms, downward, [line for line in lines if place[line.source] > place[line.target]])
    _place_rooms(drawing)
    _lead_lines(drawing, place)
    return drawing


def _bundle(lines: list[Line]) -> float:
    """How much room lines take side by side."""
    return sum(line.width for line in lines) + APART * (len(lines) + 1)


def _place_rooms(drawing: Drawing) -> None:
    """Each room is as high as what leaves it, and stands out to the right as far as what enters it needs."""
    right, top = float(MARGIN), float(MARGIN)
    for i, room in enumerate(drawing.rooms):
        entering = [line for line in drawing.lines if line.target == room.name]
        leaving = [line for line in drawing.lines if line.source == room.name]
        room.right = right + (BOX + MARGIN if i == 0 else max(_bundle(entering) + 2 * PAD, 44.0))
        room.left = room.right - max(BOX, _bundle(entering) + 2 * PAD)
        if i and room.layer != drawing.rooms[i - 1].layer:
            top += 2 * GAP
        room.top, room.bottom = top, top + max(LOW, _bundle(leaving) + 2 * PAD)
        right, top = room.right, room.bottom + GAP
    drawing.width, drawing.height = right + 2 * MARGIN, top - GAP + MARGIN


def _lead_lines(drawing: Drawing, place: dict[str, int]) -> None:
    """Lines of one room do not cross: who goes farthest leaves highest, who comes from farthest enters rightmost."""
    height: dict[tuple[str, str], float] = {}
    across: dict[tuple[str, str], float] = {}
    for room in drawing.rooms:
        leaving = sorted((line for line in drawing.lines if line.source == room.name), key=lambda line: -place[line.target])
        y = (room.top + room.bottom - _bundle(leaving)) / 2
        for line in leaving:
            y += APART + line.width / 2
            height[line.source, line.target] = y
            y += line.width / 2
        entering = sorted((line for line in drawing.lines if line.target == room.name), key=lambda line: place[line.source])
        x = room.right - PAD
        for line in entering:
            x -= APART + line.width / 2
            across[line.source, line.target] = x
            x -= line.width / 2
    rooms = {room.name: room for room in drawing.rooms}
    for line in drawing.lines:
        x, y = across[line.source, line.target], height[line.source, line.target]
        line.corners = [(rooms[line.source].right, y), (x, y), (x, rooms[line.target].top)]
    for line in drawing.upward:
        source, target = rooms[line.source], rooms[line.target]
        x, y = target.left + 2 * PAD, (source.top + source.bottom) / 2
        line.corners = [(source.left, y), (x, y), (x, target.bottom)]


def _path(corners: list[tuple[float, float]], head: float) -> str:
    """A line with a round corner, which ends where the head of its arrow begins."""
    (x0, y0), (x1, y1), (_, y2) = corners
    along, down = (1 if x1 > x0 else -1), (1 if y2 > y1 else -1)
    return (
        f"M{x0:.1f} {y0:.1f}H{x1 - along * TURN:.1f}Q{x1:.1f} {y1:.1f} {x1:.1f} {y1 + down * TURN:.1f}V{y2 - down * head:.1f}"
    )


def _arrow(line: Line, colour: str, dashed: bool = False) -> list[str]:
    x, y = line.corners[-1]
    down = 1 if y > line.corners[1][1] else -1
    half = 1.6 + line.width / 2
    head, dashes = 2 * half, ' stroke-dasharray="5 4"' if dashed else ""
    what = f"{line.source} imports from {line.target}: {line.imports}"
    triangle = f"M{x:.1f} {y:.1f}L{x - half:.1f} {y - down * head:.1f}H{x + half:.1f}Z"
    return [
        f'<g><title>{escape(what)}</title><path d="{_path(line.corners, head - 0.5)}" fill="none" stroke="{colour}"'
        f' stroke-width="{line.width}"{dashes}/><path d="{triangle}" fill="{colour}"/></g>'
    ]


def _box(room: Room) -> list[str]:
    x, y = (room.left + room.right) / 2, (room.top + room.bottom) / 2
    modules = "1 module" if room.modules == 1 else f"{room.modules} modules"
    return [
        f'<rect x="{room.left:.1f}" y="{room.top:.1f}" width="{room.right - room.left:.1f}"'
        f' height="{room.bottom - room.top:.1f}"'
        f' rx="5" fill="#ffffff" stroke="{room.colour}" stroke-width="1.6"/>',
        f'<text x="{x:.1f}" y="{y - 1:.1f}" class="name">{escape(room.name)}</text>',
        f'<text x="{x:.1f}" y="{y + 12:.1f}" class="small">{modules}</text>',
    ]


def _bands(drawing: Drawing) -> list[str]:
    """A band behind the rooms of each layer."""
    found = []
    for level in sorted({room.layer for room in drawing.rooms}):
        inside = [room for room in drawing.rooms if room.layer == level]
        top, bottom = inside[0].top - GAP + 1, inside[-1].bottom + GAP - 1
        found.append(
            f'<rect x="{MARGIN / 2:.1f}" y="{top:.1f}" width="{drawing.width - MARGIN:.1f}" height="{bottom - top:.1f}"'
            ' rx="6" fill="#eef1f4"/>'
        )
    return found


def _legend(drawing: Drawing) -> list[str]:
    words = [
        "Who imports from whom in tardigrad",
        "A line goes from a room down to one that it imports from;",
        "it is the wider, the more imports there are.",
        "Rooms in one band do not import from each other.",
    ]
    if drawing.upward:
        words.append("Dashed: the exceptions, imported when they are needed.")
    last = next(room for room in drawing.rooms if room.layer == drawing.rooms[-1].layer)
    first = last.top - 4 * GAP - 18 * (len(words) - 1)  # in the empty corner, above the lowest band
    return [
        f'<text x="{2 * MARGIN}" y="{first + 18 * i:.1f}" class="{"title" if i == 0 else "words"}">{escape(text)}</text>'
        for i, text in enumerate(words)
    ]


def draw(drawing: Drawing) -> str:
    """The picture, as SVG."""
    colour = {room.name: room.colour for room in drawing.rooms}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {drawing.width:.0f} {drawing.height:.0f}"'
        f' width="{drawing.width:.0f}" height="{drawing.height:.0f}" font-family="Helvetica, Arial, sans-serif">',
        "<style>.name{font-size:13px;font-weight:bold;text-anchor:middle;fill:#1d2733}"
        ".small{font-size:10px;text-anchor:middle;fill:#52606d}.title{font-size:15px;font-weight:bold;fill:#1d2733}"
        ".words{font-size:12px;fill:#3a4653}</style>",
        f'<rect width="{drawing.width:.0f}" height="{drawing.height:.0f}" rx="8" fill="#ffffff"/>',
        *_bands(drawing),
        *(part for line in drawing.lines for part in _arrow(line, colour[line.source])),
        *(part for line in drawing.upward for part in _arrow(line, colour[line.source], dashed=True)),
        *(part for room in drawing.rooms for part in _box(room)),
        *_legend(drawing),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(draw(plan()))
