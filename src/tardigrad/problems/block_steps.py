"""Steps on several equations at once: blocks of rows, Gaussian and CountSketch combinations of all rows.

Rules of this file:

- a sample is small (row numbers, a block's number, a key): combinations are made again from their key;
- what is kept (factors and rows of a fixed partition) is bounded, and safe with several threads: two may compute
  the same factor at once, and both get the same one.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.streams import Domain, Rng, Stream, noise_shape
from tardigrad.core.task import Array
from tardigrad.problems.block import Block, Factor
from tardigrad.problems.row_order import ItemOrder, task_index
from tardigrad.problems.system_matrix import rows_of

if TYPE_CHECKING:
    from tardigrad.problems.linear_system import LinearSystem
    from tardigrad.problems.sketches import CountSketch, GaussianSketch, RowBlocks

#: bytes of factors and rows that a fixed partition keeps; blocks beyond are made again each time
KEPT = 2**30


class BlockSteps:
    """Base class: a subclass says what a sample is, and which equations it stands for."""

    #: axes of a sample
    ndim = 0

    def __init__(self, system: LinearSystem) -> None:
        self.system = system

    @abstractmethod
    def sample(self, rng: Rng) -> Any:
        """One sketch."""

    @abstractmethod
    def rows_at(self, seed: int, start: int, stop: int) -> Array:
        """The samples of tasks."""

    @abstractmethod
    def equations(self, sample: Any) -> tuple[Any, Array, Array | None]:
        """Left-hand sides, right-hand sides and row numbers of a sample, in new arrays."""

    def block(self, sample: Any) -> Block:
        """The equations of a sample, ready to be projected onto."""
        M, c, names = self.equations(sample)
        return Block(M, c, self.system.metric, names)

    def gradient(self, x: Array, sample: Any) -> Array:
        dim = self.system.dim
        if np.ndim(sample) == self.ndim:
            return self.block(sample).step(x.reshape(-1, dim)).reshape(x.shape)
        points = x.reshape(len(sample), -1, dim)
        steps = [self.block(one).step(point) for one, point in zip(sample, points, strict=True)]
        return np.stack(steps).reshape(x.shape)

    def expected(self, x: Array, homogeneous: bool = False) -> Array:
        raise InvalidInputError(
            f"the expectation over all {self.system.sketch!r} is not finite work: give a sample, or use"
            " RowBlocks(size, partition='fixed') or Rows()"
        )


class RandomBlocks(BlockSteps):
    """What `RowBlocks` does on a system where each block is drawn anew."""

    ndim = 1

    def __init__(self, system: LinearSystem, sketch: RowBlocks) -> None:
        super().__init__(system)
        self.size, self.shuffled = sketch.size, sketch.order == "shuffled"
        #: blocks of a pass; rows that are left over are others in every pass
        self.n_blocks = system.n_rows // sketch.size
        self.order = ItemOrder(system.n_rows, "shuffled")

    def sample(self, rng: Rng) -> Array:
        shape = noise_shape(rng)
        index = task_index(rng) if self.shuffled else None
        if index is not None:
            assert isinstance(rng, Stream)
            return self._cut(rng.seed, index, shape[0] if shape else None)
        if shape:
            return np.stack([self._chosen(rng) for _ in range(shape[0])])
        return self._chosen(rng)

    def _cut(self, seed: int, index: int, replicas: int | None = None) -> Array:
        number, place = divmod(index, self.n_blocks)
        rows = self.order.permutation(seed, number, replicas)[..., place * self.size : (place + 1) * self.size]
        return np.sort(rows, axis=-1)

    def _chosen(self, rng: Rng) -> Array:
        return np.sort(rng.choice(self.system.n_rows, self.size, replace=False, shuffle=False))

    def rows_at(self, seed: int, start: int, stop: int) -> Array:
        if self.shuffled:
            blocks = [self._cut(seed, index) for index in range(start, stop)]
        else:
            stream = Stream(seed, Domain.TASK)
            blocks = [self._chosen(stream.at(index)) for index in range(start, stop)]
        return np.array(blocks, np.int64).reshape(-1, self.size)

    def equations(self, sample: Array) -> tuple[Any, Array, Array | None]:
        return rows_of(self.system.A, sample), self.system.b[sample], sample


class FixedBlocks(BlockSteps):
    """What `RowBlocks` does on a system that is cut into blocks once."""

    def __init__(self, system: LinearSystem, sketch: RowBlocks) -> None:
        super().__init__(system)
        self.n_blocks = -(-system.n_rows // sketch.size)
        rows = Stream(sketch.seed, Domain.PARTITION).permutation(system.n_rows)
        self.blocks = [np.sort(part) for part in np.array_split(rows, self.n_blocks)]
        self.order = ItemOrder(self.n_blocks, sketch.order)
        self._blocks: dict[int, Block] = {}
        self._factors: dict[int, Factor] = {}
        self._lock, self._bytes = threading.Lock(), 0

    def sample(self, rng: Rng) -> Any:
        return self.order.draw(rng)

    def rows_at(self, seed: int, start: int, stop: int) -> Array:
        return self.order.span(seed, start, stop)

    def block(self, sample: Any) -> Block:
        number = int(sample)
        block = self._blocks.get(number)
        if block is None:
            M, c, names = self.equations(number)
            block = Block(M, c, self.system.metric, names, self._factors.get(number))
            self._keep(number, block)
        return block

    def equations(self, sample: Any) -> tuple[Any, Array, Array | None]:
        rows = self.blocks[int(sample)]
        return rows_of(self.system.A, rows), self.system.b[rows], rows

    def _keep(self, number: int, block: Block) -> None:
        # none is ever thrown out for another: passes use all blocks equally often
        with self._lock:
            if number not in self._factors and self._bytes + block.factor.nbytes <= KEPT:
                self._factors[number] = block.factor
                self._bytes += block.factor.nbytes
            if number not in self._blocks and number in self._factors and self._bytes + block.nbytes <= KEPT:
                self._blocks[number] = block
                self._bytes += block.nbytes

    def expected(self, x: Array, homogeneous: bool = False) -> Array:
        flat = x.reshape(-1, self.system.dim)
        total = np.zeros(flat.shape, self.system.dtype)
        for number in range(self.n_blocks):
            total += self.block(number).step(flat, homogeneous)
        total /= self.n_blocks
        return total.reshape(x.shape)

    def trace(self) -> float:
        """Mean rank of a sketch, by the factors."""
        return float(np.mean([self.block(number).factor.rank for number in range(self.n_blocks)]))


class Combinations(BlockSteps):
    """Base class of sketches that combine all rows; a sample is a key from which the combination is made."""

    def __init__(self, system: LinearSystem, sketch: GaussianSketch | CountSketch) -> None:
        super().__init__(system)
        self.size = sketch.size
        self.order = ItemOrder(2**53, "uniform")
        self._latest: tuple[int, Block] | None = None

    def sample(self, rng: Rng) -> Any:
        return self.order.draw(rng)

    def rows_at(self, seed: int, start: int, stop: int) -> Array:
        return self.order.span(seed, start, stop)

    def block(self, sample: Any) -> Block:
        key, latest = int(sample), self._latest
        if latest is None or latest[0] != key:
            latest = self._latest = key, super().block(key)
        return latest[1]

    @abstractmethod
    def matrix(self, key: int, rows: slice) -> Any:
        """``S'`` (size, rows), for some rows of the system."""

    def equations(self, sample: Any) -> tuple[Any, Array, Array | None]:
        """``S'A`` and ``S'b``: one pass over the matrix."""
        system, key = self.system, int(sample)

        def part(rows: slice, A: Any) -> tuple[Array, Array]:
            S = self.matrix(key, rows)
            M = S @ A
            return M.toarray() if sp.issparse(M) else np.asarray(M), S @ system.b[rows]

        found = system.passes.each(part, width=self.size)
        M, c = found[0]
        for more, also in found[1:]:
            M += more
            c += also
        return M, c, None


class GaussianSteps(Combinations):
    """What `GaussianSketch` does on a system."""

    def matrix(self, key: int, rows: slice) -> Array:
        rng = np.random.Generator(np.random.SFC64([key, rows.start]))
        return rng.standard_normal((self.size, rows.stop - rows.start), self.system.dtype)


class CountSteps(Combinations):
    """What `CountSketch` does on a system."""

    def matrix(self, key: int, rows: slice) -> Any:
        n = rows.stop - rows.start
        words = np.random.Generator(np.random.SFC64([key, rows.start])).integers(2 * self.size, size=n)
        signs = (1 - 2 * (words & 1)).astype(self.system.dtype)
        return sp.csr_array((signs, (words >> 1, np.arange(n))), shape=(self.size, n))
