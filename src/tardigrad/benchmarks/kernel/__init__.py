"""`tardigrad bench kernel`: kernel machines by asynchronous EigenPro, beside one worker, PyTorch and scikit-learn.

- Fashion-MNIST, all rows, Laplacian of bandwidth 10 on pixels in [0, 1] (`fashion`): accuracy and training residual after each
  epoch, seconds of an epoch, its share of the machine's matrix product, the speed-up to the same training loss;
- 28 features (`low_dimension`): kernel entries a second, and the error of the exponential;
- random delays (`delayed`): an epoch's growth beside what was drawn, and beside rounds;
- memory, and what users would take instead (`peers`), each in a process of its own.

It takes about ten minutes on 4 cores, and needs the data and no other work on the machine. Each part can be run alone:
``tardigrad.benchmarks.kernel.fashion.rows()``.
"""

from __future__ import annotations

from collections.abc import Iterator

from tardigrad.benchmarks.harness import Row
from tardigrad.benchmarks.kernel import delayed, fashion, low_dimension, peers
from tardigrad.engines.real import cores

WORKERS = 4


def rows() -> Iterator[Row]:
    """All rows of the benchmark."""
    if cores() < WORKERS:
        yield Row("EigenPro, 4 workers", None, "s", f"not measured: {cores()} cores, {WORKERS} are needed", None)
        return
    yield from fashion.rows()
    yield from low_dimension.rows()
    yield from delayed.rows()
    yield from peers.rows()
