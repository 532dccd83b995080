"""The drawing of the rooms: up to date, and readable."""

import importlib.util
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "docs" / "draw_architecture.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("draw_architecture", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def drawing(script):
    return script.plan()


def test_the_picture_is_that_of_the_code(script, drawing):
    up_to_date = script.PICTURE.read_text() == script.draw(drawing)
    assert up_to_date, "imports have changed: python docs/draw_architecture.py, and look at docs/images/architecture.svg"


def test_another_process_draws_the_same_bytes(script, drawing):
    code = "import draw_architecture as d; print(d.draw(d.plan()), end='')"
    run = {"cwd": SCRIPT.parent, "capture_output": True, "text": True, "check": True, "timeout": 100}
    done = subprocess.run([sys.executable, "-c", code], **run)
    assert done.stdout == script.draw(drawing)


def test_every_room_is_drawn_in_its_layer(drawing):
    folder = ROOT / "src" / "tardigrad"
    names = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert {room.name for room in drawing.rooms} == names - {"__init__", "__main__"}
    levels = [room.layer for room in drawing.rooms]
    assert levels == sorted(levels)
    assert drawing.rooms[0].name == "cli"
    assert drawing.rooms[-1].name == "core"


def test_lines_are_imports(drawing):
    layer = {room.name: room.layer for room in drawing.rooms}
    pairs = {(line.source, line.target): line.imports for line in drawing.lines}
    assert all(layer[source] < layer[target] for source, target in pairs)
    assert min(pairs.values()) >= 1
    text = "".join(path.read_text() for path in (ROOT / "src" / "tardigrad" / "timing").glob("*.py"))
    assert ("timing", "core") in pairs
    assert pairs["timing", "core"] <= text.count("tardigrad.core")
    assert ("core", "rules") not in pairs
    widths = [line.width for line in sorted(drawing.lines, key=lambda line: line.imports)]
    assert widths == sorted(widths)
    assert [(line.source, line.target) for line in drawing.upward] == [("core", "report")]


def segments(line):
    """The two straight parts of a line, as boxes (left, right, top, bottom)."""
    half = line.width / 2
    for (x0, y0), (x1, y1) in pairwise(line.corners):
        yield min(x0, x1) - half, max(x0, x1) + half, min(y0, y1) - half, max(y0, y1) + half


def overlap(a, b, slack=0.0):
    """Whether two boxes share more than `slack` in both directions."""
    return min(a[1], b[1]) - max(a[0], b[0]) > slack and min(a[3], b[3]) - max(a[2], b[2]) > slack


def test_nothing_overlaps(drawing):
    boxes = {room.name: (room.left, room.right, room.top, room.bottom) for room in drawing.rooms}
    for a, b in pairwise(drawing.rooms):
        assert a.bottom < b.top
    for line in [*drawing.lines, *drawing.upward]:
        for part in segments(line):
            for name, box in boxes.items():
                touches = name in (line.source, line.target)  # half a line's width beside the wall that it meets
                assert not overlap(part, box, slack=line.width / 2 + 1e-9 if touches else 0.0), (line, name)
    for i, line in enumerate(drawing.lines):
        for other in drawing.lines[:i]:
            for part, beside in zip(segments(line), segments(other), strict=True):  # both go right, or both down
                assert not overlap(part, beside), (line, other)


def test_all_is_on_the_page_and_names_fit(drawing):
    for room in drawing.rooms:
        assert 0 < room.left < room.right < drawing.width
        assert 0 < room.top < room.bottom < drawing.height
        assert len(room.name) * 8.5 < room.right - room.left
    assert all(0 < x < drawing.width and 0 < y < drawing.height for line in drawing.lines for x, y in line.corners)


def test_the_picture_is_an_svg_with_a_title_for_each_line(script, drawing):
    tree = ElementTree.fromstring(script.draw(drawing))
    space = "{http://www.w3.org/2000/svg}"
    titles = {element.text for element in tree.iter(f"{space}title")}
    assert len(titles) == len(drawing.lines) + len(drawing.upward)
    assert any(title.startswith("core imports from report: ") for title in titles)
    names = {element.text for element in tree.iter(f"{space}text")}
    assert {room.name for room in drawing.rooms} <= names


def test_the_picture_is_in_the_design_and_linked():
    assert "](images/architecture.svg)" in (ROOT / "docs" / "design.md").read_text()
    assert "(docs/images/architecture.svg)" in (ROOT / "CONTRIBUTING.md").read_text()
