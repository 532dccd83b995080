"""Random numbers keyed by what they are for, never by when they are drawn.

Rules of this file:

- a stream is a pure function of ``(seed, domain, index)``; for a task the index is its id, for the
  server the number of replies received. So order of arrival, engine and worker do not matter;
- Philox is counter based: the key is the seed, the high words of the counter are index and domain,
  the low words count the draws. Streams cannot overlap before 2**128 draws;
- one bit generator serves all indices of a domain: its counter is set anew (0.8 microseconds) only
  when something is drawn, and building one (6.5 microseconds) happens once.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from tardigrad.core.validate import integer


class Domain(IntEnum):
    """What random numbers are for."""

    START = 0
    TASK = 1
    SERVER = 2
    TIMING = 3
    PARTITION = 4
    PREPARE = 5
    AVAILABILITY = 6


class Stream:
    """Independent random numbers for each index of one domain.

    A stream behaves as a `numpy.random.Generator` set to the beginning of the numbers of the index
    last given to `at`. It must not be kept beyond the call that it was handed to.

    Parameters
    ----------
    seed : int
        Seed of the run, ``>= 0``.
    domain : Domain
        What the numbers are for.
    replicas : int or None
        Number of replicas that need independent noise; None for one run (see `noise_shape`).

    Examples
    --------
    >>> stream = Stream(7, Domain.TASK)
    >>> first = stream.at(3).normal()
    >>> _ = stream.at(4).normal()
    >>> stream.at(3).normal() == first
    True
    """

    __slots__ = ("_bits", "_generator", "_key", "_template", "domain", "index", "replicas", "seed")

    def __init__(self, seed: int, domain: Domain, replicas: int | None = None) -> None:
        self.seed = check_seed(seed)
        self.domain = domain
        self.replicas = replicas
        self._key = np.random.SeedSequence(self.seed).generate_state(2, np.uint64)
        self._bits = np.random.Philox(key=self._key)
        self._generator = np.random.Generator(self._bits)
        self._template: Any = self._bits.state
        self._template["state"]["counter"][3] = int(domain)
        #: where to go at the next draw; None once it is there. Hot loops set it instead of calling `at`
        self.index: int | None = 0

    def at(self, index: int) -> Stream:
        """Go to the beginning of the numbers of `index`; nothing is computed until the first draw."""
        self.index = index
        return self

    @property
    def generator(self) -> np.random.Generator:
        """The NumPy generator itself, for code that insists on one."""
        if self.index is not None:
            self._template["state"]["counter"][2] = self.index
            self._bits.state = self._template
            self.index = None
        return self._generator

    def __reduce__(self) -> tuple[Any, ...]:
        return Stream, (self.seed, self.domain, self.replicas)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    else:

        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return getattr(self.generator, name)


Rng = Stream | np.random.Generator


def noise_shape(rng: Rng) -> tuple[int, ...]:
    """Leading shape of independent noise: ``(replicas,)`` in a run of replicas, else ``()``.

    Replicas are the first leading axis of the iterates. Further axes (a sweep of step sizes) see the
    same noise: common random numbers.

    Examples
    --------
    >>> import numpy as np
    >>> noise_shape(np.random.default_rng(0)), noise_shape(Stream(0, Domain.TASK, replicas=5))
    ((), (5,))
    """
    replicas = getattr(rng, "replicas", None)
    return () if replicas is None else (replicas,)


class Uniforms:
    """One uniform number in [0, 1) for each index, drawn in blocks.

    Timings are quantile functions, so one number a task suffices; a block of 1024 makes it cost
    0.1 microseconds instead of 1.
    """

    BLOCK = 1024
    KEPT = 64

    def __init__(self, seed: int, domain: Domain) -> None:
        self._stream = Stream(seed, domain)
        self._blocks: dict[int, list[float]] = {}

    def __call__(self, index: int) -> float:
        number, place = divmod(index, self.BLOCK)
        block = self._blocks.get(number)
        if block is None:
            if len(self._blocks) >= self.KEPT:
                del self._blocks[next(iter(self._blocks))]
            block = self._blocks[number] = self._stream.at(number).random(self.BLOCK).tolist()
        return block[place]


def check_seed(seed: int) -> int:
    """The seed as a plain int."""
    return integer(seed, "seed", low=0)
