"""Computed tomography: rows one at a time against lsqr, at equal image error.

``python examples/tomography.py [--out FOLDER] [--size 128] [--angles 180] [--noise 0.01]``

A scanner measures line integrals of an image: 180 angles with 128 detectors each give 23040 equations for the 16384
pixels of a 128 x 128 image, a sparse matrix with about 212 entries a row. The data are not made with that matrix: they
are exact integrals over the phantom's ellipses, averaged over the width of a detector, with noise. So the system is
inconsistent, as it is for a scanner, and every method reaches a best image and then fits the noise (semi-convergence).
Both methods start at zero, and what is compared is the seconds they take to the same image error
``|x - phantom| / |phantom|``; compilation and the matrix are left out.

What came out on 4 cores (`docs/examples/tomography.md`): rows on one thread reach an image error of 0.155 in 0.041 s, lsqr
in 0.112 s; the gain shrinks to nothing at the best image that either finds (0.113 and 0.115, 0.16 s), and rows need a
relaxation `omega` below 1 that suits the error wanted, where lsqr has nothing to choose. Rows stop paying there, and where
data are exact and wanted to many digits. At equal error rows leave more grain, lsqr more blur. More threads that write to
one image do not help: rays of all angles cross the same pixels, so threads wait for each other's cache lines.

Rules of this file:

- one unit of length is half the image's width; pixels are numbered line by line from the top left;
- times are the best of `ROUNDS`; nothing else of this script runs meanwhile.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, lsqr
from threadpoolctl import threadpool_limits

import tardigrad as td
from tardigrad.report.style import COLOURS, new_figure, save_figure, tidy

#: the phantom of Shepp and Logan (1974) in Toft's contrasts (1996): value, half axes, centre, degrees of turn
ELLIPSES = (
    (1.0, 0.69, 0.92, 0.0, 0.0, 0.0),
    (-0.8, 0.6624, 0.874, 0.0, -0.0184, 0.0),
    (-0.2, 0.11, 0.31, 0.22, 0.0, -18.0),
    (-0.2, 0.16, 0.41, -0.22, 0.0, 18.0),
    (0.1, 0.21, 0.25, 0.0, 0.35, 0.0),
    (0.1, 0.046, 0.046, 0.0, 0.1, 0.0),
    (0.1, 0.046, 0.046, 0.0, -0.1, 0.0),
    (0.1, 0.046, 0.023, -0.08, -0.605, 0.0),
    (0.1, 0.023, 0.023, 0.0, -0.606, 0.0),
    (0.1, 0.023, 0.046, 0.06, -0.605, 0.0),
)
#: image errors at which seconds are compared; pictures show the one that is `SHOWN`
LEVELS, SHOWN = (0.3, 0.2, 0.155, 0.13, 0.12, 0.11), 0.155
OMEGAS = (1.0, 0.25, 0.1)
PASSES, ITERATIONS = 20, 30
ROUNDS = 7
#: seconds before each timing: BLAS threads of what came before still spin
QUIET = 0.5


def phantom(size: int, ellipses: Any = ELLIPSES, finer: int = 8) -> np.ndarray:
    """An image (size, size) of ellipses; a pixel is the mean of ``finer**2`` points."""
    across = (np.arange(size * finer) + 0.5) * 2 / (size * finer) - 1
    x, y = across[np.newaxis, :], -across[:, np.newaxis]
    image = np.zeros((size * finer, size * finer))
    for value, a, b, x0, y0, degrees in ellipses:
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        u, v = (x - x0) * c + (y - y0) * s, (y - y0) * c - (x - x0) * s
        image += value * ((u / a) ** 2 + (v / b) ** 2 <= 1)
    return image.reshape(size, finer, size, finer).mean(axis=(1, 3))


def offsets(size: int, rays: int) -> np.ndarray:
    """Signed distances of all rays of an angle from the centre, `rays` of them evenly over each of `size` detectors."""
    return (np.arange(size * rays) + 0.5) * 2 / (size * rays) - 1


def projections(size: int, angles: int, ellipses: Any = ELLIPSES, rays: int = 8) -> np.ndarray:
    """What detectors see (angles, size), exact: the integral along a chord of each ellipse, averaged over the rays."""
    angle, offset = np.arange(angles)[:, np.newaxis] * np.pi / angles, offsets(size, rays)
    total = np.zeros((angles, size * rays))
    for value, a, b, x0, y0, degrees in ellipses:
        turned = angle - np.radians(degrees)
        width2 = (a * np.cos(turned)) ** 2 + (b * np.sin(turned)) ** 2  # of the ellipse's shadow, squared half
        distance = offset - (x0 * np.cos(angle) + y0 * np.sin(angle))
        total += value * 2 * a * b * np.sqrt(np.maximum(width2 - distance**2, 0)) / width2
    return total.reshape(angles, size, rays).mean(axis=2)


def ray_matrix(size: int, angles: int, rays: int = 2) -> sp.csr_array:
    """The matrix (angles size, size^2): lengths of rays within pixels, averaged over the rays of a detector."""
    parts = [_lengths(k * np.pi / angles, offsets(size, rays), size) for k in range(angles)]
    rows = np.concatenate([k * size + ray // rays for k, (ray, _, _) in enumerate(parts)])
    columns, lengths = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
    shape = (angles * size, size * size)
    # 32-bit numbers of rows and columns: less to read, for both methods
    A = sp.csr_array((lengths / rays, (rows.astype(np.int32), columns.astype(np.int32))), shape=shape)
    A.sum_duplicates()
    return A


def _lengths(angle: float, offset: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(ray, pixel, length)`` of all pixels that rays at an angle cross: rays are cut at all lines of the grid (Siddon)."""
    c, s = np.cos(angle), np.sin(angle)
    lines, p = np.linspace(-1, 1, size + 1), offset[:, np.newaxis]
    with np.errstate(divide="ignore"):  # rays along the grid meet some of its lines at infinity
        at_x, at_y = (lines - p * c) / -s, (lines - p * s) / c  # points of a ray: (p c - t s, p s + t c)
    ends = [np.sort(at[:, [0, -1]], axis=1) for at in (at_x, at_y)]
    enters = np.maximum(ends[0][:, :1], ends[1][:, :1])
    leaves = np.maximum(np.minimum(ends[0][:, 1:], ends[1][:, 1:]), enters)
    cuts = np.sort(np.clip(np.concatenate([at_x, at_y], axis=1), enters, leaves), axis=1)
    length = np.diff(cuts, axis=1)
    ray, piece = np.nonzero(length > 1e-12)
    middle = (cuts[ray, piece] + cuts[ray, piece + 1]) / 2
    column = ((p[ray, 0] * c - middle * s + 1) * size / 2).astype(int)
    line = ((1 - p[ray, 0] * s - middle * c) * size / 2).astype(int)
    return ray, np.clip(line, 0, size - 1) * size + np.clip(column, 0, size - 1), length[ray, piece]


@dataclass
class Curve:
    """Image errors and seconds of one method; `steps` are iterations or passes, `x` the images."""

    name: str
    steps: np.ndarray
    seconds: np.ndarray
    errors: np.ndarray
    x: np.ndarray

    def first(self, level: float) -> int | None:
        """The first image with at most this error."""
        reached = self.errors <= level
        return int(reached.argmax()) if reached.any() else None

    def best(self) -> int:
        """The image with the smallest error."""
        return int(self.errors.argmin())


class Clocked(LinearOperator):
    """A matrix and its transpose, both by rows, that notes when each iteration of lsqr begins."""

    def __init__(self, A: Any) -> None:
        super().__init__(A.dtype, A.shape)
        self.A, self.transposed = A, A.T.tocsr()
        self.began: list[float] = []

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        self.began.append(time.perf_counter())
        return self.A @ x

    def _rmatvec(self, y: np.ndarray) -> np.ndarray:
        return self.transposed @ y


class LsqrRun:
    """All iterations of lsqr, timed in one go, with all BLAS threads and with one: on a busy machine that is quicker."""

    def __init__(self, A: Any, b: np.ndarray) -> None:
        self.operator, self.b = Clocked(A), b
        every = [self._solve(k) for k in range(1, ITERATIONS + 1)]  # lsqr gives no iterate away
        self.steps, self.x = np.arange(ITERATIONS + 1), np.array([np.zeros(A.shape[1]), *every])

    def _solve(self, iterations: int) -> np.ndarray:
        return lsqr(self.operator, self.b, atol=0, btol=0, conlim=0, iter_lim=iterations)[0]

    def curve(self, image: np.ndarray) -> Curve:
        """Its errors and, after two runs, its seconds."""
        seconds = np.full(ITERATIONS + 1, np.inf)
        for blas_threads in (None, 1):
            with threadpool_limits(blas_threads, "blas"):
                time.sleep(QUIET)
                self.operator.began = []
                began = time.perf_counter()
                self._solve(ITERATIONS)
                ends = np.array([*self.operator.began, time.perf_counter()]) - began
            seconds = np.minimum(seconds, ends)
        seconds[0] = 0.0
        return Curve("lsqr", self.steps, seconds, error_of(self.x, image), self.x)


@dataclass
class RowsRun:
    """Row steps, with a snapshot every quarter of a pass; on several threads every pass, since all stop for one."""

    A: Any
    b: np.ndarray
    omega: float
    threads: int

    @property
    def name(self) -> str:
        """For table and picture."""
        return f"rows, {self.threads} thread{'s' * (self.threads > 1)}, omega {self.omega:g}"

    def curve(self, image: np.ndarray) -> Curve:
        """One run; its seconds include the start and the end of threads."""
        system, n_rows = td.LinearSystem(self.A, self.b, n_clients=self.threads), self.A.shape[0]
        every = n_rows if self.threads > 1 else n_rows // 4
        rule, engine = td.RowAction(omega=self.omega), td.Threads(self.threads, lock_free=True)
        time.sleep(QUIET)
        began = time.perf_counter()
        result = td.run(rule, system, engine, stop=td.MaxUpdates(PASSES * n_rows), snapshot_every=every)
        whole, history = time.perf_counter() - began, result.history
        seconds = history.seconds + (whole - history.seconds[-1])
        x = history.x
        return Curve(self.name, history.version / n_rows, seconds, error_of(x, image), x)


def best_of(runs: list[LsqrRun | RowsRun], image: np.ndarray, rounds: int) -> list[Curve]:
    """Each run in turn, round after round; the first compiles and does not count."""
    curves = [run.curve(image) for run in runs]
    for curve in curves:
        curve.seconds = np.full(len(curve.steps), np.inf)
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        for i, run in enumerate(runs):
            now = run.curve(image)
            now.seconds = np.minimum(now.seconds, curves[i].seconds)
            curves[i] = now  # errors of several threads differ a little from run to run
    return curves


def error_of(x: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The image error ``|x - image| / |image|`` of images (..., pixels)."""
    return np.linalg.norm(x - image.ravel(), axis=-1) / np.linalg.norm(image)


def fastest(curves: list[Curve], level: float) -> tuple[Curve, int] | None:
    """The curve that is first at a level, and where."""
    there = [(curve, i) for curve in curves if (i := curve.first(level)) is not None]
    return min(there, key=lambda found: found[0].seconds[found[1]]) if there else None


def table(reference: Curve, groups: dict[int, list[Curve]], levels: list[float]) -> str:
    """Seconds of each method to each image error; of rows with the best omega. `groups`: curves by number of threads."""

    def cell(found: tuple[Curve, int] | None) -> str:
        if found is None:
            return "not reached"
        curve, i = found
        what = "iterations" if curve is reference else f"passes, {curve.name.rpartition(', ')[2]}"
        return f"{curve.seconds[i]:.3f} s ({curve.steps[i]:g} {what})"

    heads = ["image error", "lsqr", *(f"rows, {n} thread{'s' * (n > 1)}" for n in groups), "lsqr / rows, 1 thread"]
    lines = [heads]
    for level in levels:
        slow, quick = fastest([reference], level), fastest(groups[1], level)
        ratio = f"{slow[0].seconds[slow[1]] / quick[0].seconds[quick[1]]:.1f}" if slow and quick else "-"
        lines.append([f"{level:.4g}", cell(slow), *(cell(fastest(curves, level)) for curves in groups.values()), ratio])
    lines[1:1] = [["-" * max(len(line[j]) for line in lines) for j in range(len(heads))]]
    widths = [len(rule) for rule in lines[1]]
    return "\n".join("| " + " | ".join(f"{text:<{n}}" for text, n in zip(line, widths, strict=True)) + " |" for line in lines)


def remarks(curves: list[Curve]) -> str:
    """Where each method is best, and where it gets worse again."""
    lines = ["", "Best image of each, and what comes of going on (the data are noisy: do not):"]
    for curve in curves:
        i, unit = curve.best(), "iterations" if curve.name == "lsqr" else "passes"
        end = f"{curve.errors[-1]:.4f} after {curve.steps[-1]:g}" if i < len(curve.steps) - 1 else "still falling"
        lines.append(f"  {curve.name}: {curve.errors[i]:.4f} after {curve.steps[i]:g} {unit}, {curve.seconds[i]:.3f} s; {end}")
    return "\n".join(lines)


def order_remark(A: Any, b: np.ndarray, image: np.ndarray, omega: float, passes: int) -> str:
    """The effect of the order in which rows are used."""
    errors = {}
    for order in ("shuffled", "uniform"):
        system = td.LinearSystem(A, b, sketch=td.Rows(order))
        stop = td.MaxUpdates(passes * A.shape[0])
        x = td.run(td.RowAction(omega=omega), system, td.Threads(1, lock_free=True), stop=stop).x
        errors[order] = float(error_of(x, image))
    return (
        f"Order of the rows, {passes} passes of omega {omega:g}: every row once a pass (shuffled) {errors['shuffled']:.4f},"
        f" rows drawn at random (uniform) {errors['uniform']:.4f}"
    )


def draw(image: np.ndarray, level: float, reference: Curve, groups: dict[int, list[Curve]], path: Path) -> None:
    """The phantom, images at equal error and what is wrong in them, and error against seconds."""
    figure = new_figure(15, 5.8)
    grid = figure.add_gridspec(2, 5, width_ratios=(1, 1, 1, 1, 2.4))
    candidates = [fastest([reference], level), fastest(groups[1], level), fastest(groups[1][-1:], level)]
    found = [pair for k, pair in enumerate(candidates) if pair is not None and pair not in candidates[:k]]
    _show(figure.add_subplot(grid[0, 0]), image, "phantom", "gray", 0, 0.5)
    key = figure.add_subplot(grid[1, 0])
    key.axis("off")
    text = f"all at image error {level:.4g}\nor just below\n\nabove: grey values 0 to 0.5\n(the skull is 1)\n\n"
    text += "beside: image - phantom,\nblue -0.2 to red 0.2"
    key.text(0, 0.95, text, va="top", linespacing=1.4, transform=key.transAxes)
    for column, (curve, i) in enumerate(found, 1):
        x = curve.x[i].reshape(image.shape)
        name = "lsqr" if curve is reference else f"rows, {curve.name.rpartition(', ')[2]}"
        _show(figure.add_subplot(grid[0, column]), x, f"{name}: {curve.seconds[i]:.3f} s", "gray", 0, 0.5)
        _show(figure.add_subplot(grid[1, column]), x - image, f"error {curve.errors[i]:.3f}", "RdBu_r", -0.2, 0.2)
    axes = tidy(figure.add_subplot(grid[:, 4]), "", "seconds", "image error")
    axes.axhline(level, color="0.6", linewidth=1, linestyle="--")
    axes.plot(reference.seconds[1:], reference.errors[1:], "o-", color=COLOURS[6], markersize=3.5, label="lsqr, each iteration")
    for threads, curves in groups.items():
        for colour, curve in zip(COLOURS, curves, strict=False):
            line, width = ("-", 2.0) if threads == 1 else (":", 1.5)
            axes.plot(curve.seconds[1:], curve.errors[1:], line, color=colour, linewidth=width, label=curve.name)
    ticks = (0.1, 0.12, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8)
    axes.set(xscale="log", yscale="log")
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks([], minor=True)
    axes.set_xticks([0.01, 0.03, 0.1, 0.3], ["0.01", "0.03", "0.1", "0.3"])
    axes.set_xticks([], minor=True)
    axes.legend(frameon=False, fontsize="small")
    save_figure(figure, path)


def _show(axes: Any, image: np.ndarray, title: str, colours: str, low: float, high: float) -> None:
    axes.imshow(image, cmap=colours, vmin=low, vmax=high)
    axes.set_title(title, loc="left", fontsize="medium")
    axes.axis("off")


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Build the scan, time both methods, print the table and save the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("tomography"), help="folder for the picture (tomography)")
    parser.add_argument("--size", type=int, default=128, help="pixels across, and detectors (128)")
    parser.add_argument("--angles", type=int, default=180, help="angles over half a turn (180)")
    parser.add_argument("--noise", type=float, default=0.01, help="norm of the noise by that of the data (0.01)")
    options = parser.parse_args(arguments)
    if options.size < 8 or options.angles < 2 or not 0 <= options.noise < np.inf:
        parser.error("--size must be at least 8, --angles at least 2, and --noise a number from 0")
    options.out.mkdir(parents=True, exist_ok=True)
    image = phantom(options.size)
    began = time.perf_counter()
    A = ray_matrix(options.size, options.angles)
    say(f"matrix {A.shape[0]} x {A.shape[1]}, {A.nnz / A.shape[0]:.0f} entries a row, in {time.perf_counter() - began:.1f} s")
    exact = projections(options.size, options.angles).ravel()
    noise = np.random.default_rng(0).normal(size=exact.size)
    b = exact + options.noise * np.linalg.norm(exact) / np.linalg.norm(noise) * noise
    counts = sorted({1, min(4, os.cpu_count() or 1)})
    rows = [RowsRun(A, b, omega, threads) for threads in counts for omega in OMEGAS]
    reference, *others = best_of([LsqrRun(A, b), *rows], image, ROUNDS)
    groups = {threads: others[i * len(OMEGAS) :][: len(OMEGAS)] for i, threads in enumerate(counts)}
    # of an error that one of them never reaches there is no picture
    best = max(reference.errors.min(), *(min(c.errors.min() for c in curves) for curves in groups.values()))
    level = max(SHOWN, float(best))
    print(table(reference, groups, sorted({*LEVELS, level}, reverse=True)))
    print(remarks([reference, *(curve for curves in groups.values() for curve in curves)]))
    print(order_remark(A, b, image, omega=0.25, passes=4))
    draw(image, level, reference, groups, options.out / "tomography.png")
    say(f"picture: {options.out / 'tomography.png'}")


if __name__ == "__main__":
    main()
