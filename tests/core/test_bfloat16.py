"""Rounding to bfloat16: against exact arithmetic, and against PyTorch; what is sent comes back the same."""

import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tardigrad as td
from needs import needs_ray, needs_torch
from tardigrad.core.bfloat16 import NARROW, narrowed, rounded, widened
from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import same_bits
from tardigrad.core.worker import WorkerHalf
from tardigrad.engines import ray_worker, real

SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45, 1e-40, 2.0**-126, 1.0, -1.0], np.float32)


def nearest(value):
    """The nearest bfloat16 number by exact arithmetic, for numbers that are not tiny or huge."""
    value = Fraction(float(value))
    exponent = 0
    while abs(value) / Fraction(2) ** exponent >= 2:
        exponent += 1
    while value and abs(value) / Fraction(2) ** exponent < 1:
        exponent -= 1
    unit = Fraction(2) ** (exponent - 7)
    return float(round(value / unit) * unit)  # round of a Fraction is to the even one of two


@given(st.floats(2.0**-100, 2.0**100, width=32), st.booleans())
def test_rounding_is_to_the_nearest_and_to_the_even_one_of_two(value, negative):
    value = np.float32(-value if negative else value)
    found = rounded(np.array([value]))
    assert found.dtype == np.float32
    assert float(found[0]) == nearest(value)
    assert not found.view(np.uint32)[0] & 0xFFFF


def test_ties_go_to_the_even_number():
    np.testing.assert_array_equal(rounded(np.float32([1 + 2**-8, 1 + 3 * 2**-8])), np.float32([1.0, 1 + 2**-6]))


def all_kinds():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 20_000, dtype=np.uint32).view(np.float32)
    nans = np.array([0x7F800001, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF, 0x7FC00000], np.uint32).view(np.float32)
    return np.concatenate([SPECIAL, nans, bits])


@needs_torch
def test_rounding_is_pytorch_s():
    import torch

    values = all_kinds()
    expected = torch.from_numpy(values.copy()).bfloat16().float().numpy()
    np.testing.assert_array_equal(rounded(values), expected)
    assert np.isnan(expected).sum() > 5


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 4), (0,)])
def test_shapes_stay_and_nothing_is_lost_on_the_way(shape):
    values = rounded(np.random.default_rng(1).normal(size=shape).astype(np.float32))
    assert values.shape == shape
    sent = narrowed(values)
    assert sent.dtype == NARROW
    assert sent.nbytes * 2 == values.nbytes
    assert same_bits(widened(sent), values)


def test_other_arrays_are_left_alone():
    payload = np.arange(3), np.ones(2), np.float32([1.001]), np.ones(2, np.uint16)
    back = widened(narrowed(rounded(payload)))
    assert back[0] is payload[0]
    assert back[1] is payload[1]
    assert back[3] is payload[3]
    assert back[2].tolist() == [1.0]
    assert payload[2] == np.float32(1.001)  # a payload may share memory with points: it is not written to
    transposed = np.float32([[1, 2, 3], [4, 5, 6.001]]).T
    np.testing.assert_array_equal(rounded(transposed), rounded(transposed.copy()))


class Constant(td.Problem):
    """Gradients that only bfloat16 shortens."""

    dtype = np.dtype(np.float32)

    def __init__(self, dim, payload_type="bfloat16", nan=False):
        self.n_clients, self.dim, self.payload_type, self.nan = 4, dim, payload_type, nan

    def fields(self):
        return {"dim": self.dim, "payload_type": self.payload_type, "nan": self.nan}

    def gradient(self, client, x, sample=None):
        if self.nan:
            return np.full_like(x, np.nan)
        return np.full_like(x, 1 + (client + 1) * 2**-12) + x


@pytest.mark.parametrize("dim", [5, 60_000])
@pytest.mark.parametrize(
    "name", ["Simulated", "Threads", "Processes", pytest.param("RayCluster", marks=(needs_ray, pytest.mark.ray))]
)
def test_every_engine_rounds_the_same(name, dim):
    """SyncSGD gives the same bits on every engine, and none of them those without rounding."""
    engine = {
        "Simulated": lambda: td.Simulated(td.Constant(1.0)),
        "Threads": lambda: td.Threads(2),
        "Processes": lambda: td.Processes(2),
        "RayCluster": lambda: td.RayCluster(workers=2),
    }[name]()
    runs = [
        td.run(td.SyncSGD(0.1), problem, one, stop=td.MaxUpdates(3))
        for problem in (Constant(dim), Constant(dim, None))
        for one in (engine, td.Simulated(td.Constant(1.0)))
    ]
    assert same_bits(runs[0].x, runs[1].x)
    assert same_bits(runs[2].x, runs[3].x)
    assert not np.allclose(runs[0].x, runs[2].x, rtol=1e-5)
    np.testing.assert_allclose(runs[0].x, runs[2].x, rtol=2**-8)
    assert td.replay(runs[0]).identical


def test_half_of_the_bytes_are_sent(monkeypatch):
    """What reaches the server from a worker process, or in a message of Ray, is of the narrow type."""
    seen = []
    original = real.RealEngine._has_answered

    def spy(self, worker, task_id, payload, *rest):
        seen.append((payload.dtype, payload.nbytes))
        original(self, worker, task_id, payload, *rest)

    monkeypatch.setattr(real.RealEngine, "_has_answered", spy)
    result = td.run(td.AsyncSGD(0.1), Constant(100), td.Processes(2), stop=td.MaxUpdates(8))
    assert set(seen) == {(NARROW, 200)}
    assert result.x.dtype == np.float32
    half = WorkerHalf(td.AsyncSGD(0.1), Constant(100), 0)
    main, buffers = real.pickled(half, None, "")
    worker = ray_worker.Worker(main, buffers)
    fields = (0, 0, "gradient", 0, 1.0)
    message = ray_worker.parcel((fields, 0.0, False), *ray_worker.packed((np.zeros(100, np.float32),)))
    _, arrays = ray_worker.read(worker.work(message))
    worker._at_work.close()
    assert [(array.dtype, array.nbytes) for array in arrays] == [(NARROW, 200)]


def test_a_gradient_that_is_not_finite_ends_the_run():
    for engine in (td.Simulated(td.Constant(1.0)), td.Processes(2)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = td.run(td.AsyncSGD(0.1), Constant(5, nan=True), engine, stop=td.MaxUpdates(8))
        assert result.status is td.Status.DIVERGED


def test_another_payload_type_is_refused():
    with pytest.raises(InvalidInputError, match="payload_type must be None or 'bfloat16', not 'int8'"):
        td.run(td.AsyncSGD(0.1), Constant(5, "int8"), td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(8))
