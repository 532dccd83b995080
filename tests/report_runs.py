"""Runs that reports are made of, and what a page holds."""

import base64
import json
import re
import zlib

import numpy as np

import tardigrad as td
from conftest import make_problem
from tardigrad.report.html_page import page
from tardigrad.report.html_run import ReportedRun
from tardigrad.report.html_timeline import COLUMNS


def simulate(rule=None, updates=200, *, problem=None, timing=None, **kwargs):
    engine = td.Simulated(timing or td.Exponential(1.0))
    arguments = {"stop": td.MaxUpdates(updates), "snapshot_every": 10, **kwargs}
    return td.run(rule or td.AsyncSGD(0.1), problem or make_problem(), engine, **arguments)


def text_of(*runs):
    """The page of results, named run0, run1, ..."""
    named = [run if isinstance(run, ReportedRun) else ReportedRun(f"run{i}", run) for i, run in enumerate(runs)]
    return page(named)


def data_of(text):
    """What the page's scripts are given."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found)


def unpacked(packed, shape, dtype="<i4"):
    """An array as the page's script reads it."""
    size = np.dtype(dtype).itemsize
    planes = np.frombuffer(zlib.decompress(base64.b64decode(packed)), np.uint8).reshape(shape[0], size, shape[1])
    return np.ascontiguousarray(planes.transpose(0, 2, 1)).view(dtype)[..., 0]


def tasks_of(data):
    """The columns of a timeline's tasks, times in seconds."""
    columns = dict(zip(COLUMNS, unpacked(data["tasks"], (len(COLUMNS), data["n"])).astype(np.int64), strict=True))
    for name in ("received", "task", "applied"):
        columns[name] = np.cumsum(columns[name])
    ticks = [columns[name] for name in ("received", "held", "busy", "waited")]
    finished = ticks[0] - ticks[1]
    times = {"finished": finished, "started": finished - ticks[2], "submitted": finished - ticks[2] - ticks[3]}
    return {**columns, **{name: data["tick"] * value for name, value in {"received": ticks[0], **times}.items()}}
