"""Kernel blocks by PyTorch: what `KernelBlocks` gives, on every device that is there, for all memories, data and threads."""

import pickle
import sys
import threading
from collections import Counter

import numpy as np
import pytest
import scipy.sparse as sp

from needs import needs_torch
from tardigrad.core.errors import InvalidInputError
from tardigrad.problems.kernel_blocks import KernelBlocks
from tardigrad.problems.kernel_functions import Dispersal, Gaussian, KernelFunction, Laplacian, Matern, UserKernel
from tardigrad.problems.kernel_rows import KernelRows, WideRows
from tardigrad.problems.torch_coefficients import DeviceCoefficients
from tardigrad.problems.torch_device import TorchDevice
from tardigrad.problems.torch_kernel_blocks import TorchKernelBlocks
from tardigrad.problems.torch_kernel_functions import in_place


def devices():
    """The CPU, and a GPU where there is one: without one nothing is left out."""
    try:
        import torch
    except ImportError:
        return ["cpu"]
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


on_every_device = pytest.mark.parametrize("device", devices())
pytestmark = needs_torch

N_ROWS, N_FEATURES = 300, 7


def inverse(distances):
    return 1 / (1 + distances)


def by_numpy(distances):
    assert isinstance(distances, np.ndarray)
    return np.exp(-distances)


def cubic(products):
    return (1 + products) ** 3


class Doubled(KernelFunction):
    """Somebody's own kernel class: it has no formula for tensors."""

    def apply(self, values):
        Laplacian(2.0).apply(values)
        values *= 2

    @property
    def diagonal(self):
        return 2.0


KERNELS = [
    Laplacian(2.0),
    Gaussian(2.0),
    Matern(2.0, 0.5),
    Matern(2.0, 1.5),
    Matern(2.0, 2.5),
    Dispersal(2.0, 0.7),
    Dispersal(2.0, 2.0),
    UserKernel(inverse),
    UserKernel(by_numpy),
    UserKernel(cubic, of="inner products"),
    Doubled(),
    Laplacian("auto"),
]


def data(seed=0, n_rows=N_ROWS, n_features=N_FEATURES, dtype=np.float64):
    return np.random.default_rng(seed).random((n_rows, n_features)).astype(dtype)


def request(seed=1, n_points=40, n_outputs=3):
    """Points that are rows, coefficients, and columns of which some are the points' own."""
    rng = np.random.default_rng(seed)
    own = rng.choice(N_ROWS, n_points, replace=False)
    columns = np.unique(np.concatenate([own[:5], rng.choice(N_ROWS, 20)]))
    return own, rng.normal(size=(N_ROWS, n_outputs)), columns


def tolerance(dtype):
    return 200 * np.finfo(dtype).eps


def assert_same(found, wanted, dtype):
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype == dtype
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance(dtype) * abs(other).max())


# the same as by NumPy


@on_every_device
@pytest.mark.parametrize("memory", [None, 20_000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_products_and_blocks_are_those_of_numpy(kernel, dtype, memory, device):
    X, (own, a, columns) = data(), request()
    plain, blocks = KernelBlocks(X, kernel, dtype), TorchKernelBlocks(X, kernel, dtype, device, memory=memory)
    assert blocks.resident == (memory is None or dtype == np.float32)
    assert blocks.kernel == plain.kernel
    rows = blocks.rows(own)
    np.testing.assert_array_equal(rows, plain.rows(own))
    assert_same(blocks.product(rows, a, columns, own), plain.product(rows, a, columns, own), dtype)
    P, C = blocks.product(X[:9] + 0.1, a)
    assert C is None
    assert_same([P], plain.product(X[:9] + 0.1, a)[:1], dtype)
    W = data(5, 30)
    assert_same([blocks.block(X[:9]), blocks.block(X[:9], W)], [plain.block(X[:9]), plain.block(X[:9], W)], dtype)


@on_every_device
def test_against_the_kernel_written_out(device):
    X, (own, a, columns) = data(), request()
    matrix = np.exp(-np.linalg.norm(X[:, None] - X, axis=2) / 3)
    P, C = TorchKernelBlocks(X, Laplacian(3.0), np.float64, device).product(X[own], a, columns, own)
    np.testing.assert_allclose(P, matrix[own] @ a, rtol=1e-12)
    np.testing.assert_allclose(C, matrix[np.ix_(own, columns)], rtol=1e-12)


@on_every_device
@pytest.mark.parametrize("memory", [None, 3_000])
def test_a_row_with_itself_is_exact_whatever_rounding_does(memory, device):
    X = 100 * data(dtype=np.float32)
    blocks = TorchKernelBlocks(X, Laplacian(1e-3), np.float32, device, memory=memory)
    own = np.array([7, 250, 3])
    without, itself = blocks.product(X[own], np.eye(N_ROWS), own=own), np.arange(3)
    assert (without[0][itself, own] == 1).all()
    C = blocks.product(X[own], np.ones((N_ROWS, 1)), np.sort(own), own)[1]
    assert C[2, 0] == C[0, 1] == C[1, 2] == 1


@on_every_device
@pytest.mark.parametrize("memory", [None, 5_000])
def test_distances_of_points_near_to_each_other_are_not_rounding(memory, device):
    X = data(dtype=np.float32)
    X[100:200] = X[:100] + 1e-4 * data(3, 100, dtype=np.float32)
    X[200:] = X[:100]
    matrix = np.exp(-np.linalg.norm(X[:, None].astype(float) - X, axis=2) / 1e-3)
    own = np.arange(0, 300, 7)
    blocks = TorchKernelBlocks(X, Laplacian(1e-3), np.float32, device, memory=memory)
    P, C = blocks.product(X[own], np.ones((N_ROWS, 1)), np.arange(N_ROWS), own)
    np.testing.assert_allclose(C, matrix[own], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(P[:, 0], matrix[own].sum(1), rtol=1e-4)
    np.testing.assert_allclose(blocks.block(X), matrix, rtol=1e-4, atol=1e-7)


def test_rows_do_not_count_as_near_to_themselves(monkeypatch):
    X = data()
    blocks = TorchKernelBlocks(X, Laplacian(1.0), np.float32, memory=5_000)
    computed = []
    monkeypatch.setattr(blocks, "_again", lambda *arguments: computed.append(1))
    blocks.product(X[:50], np.ones((N_ROWS, 1)), own=np.arange(50))
    assert not computed
    blocks.product(X[:50], np.ones((N_ROWS, 1)))
    assert computed


@on_every_device
@pytest.mark.parametrize("memory", [None, 5_000])
def test_rows_far_from_the_origin(memory, device):
    X, (own, a, columns) = data() + 1e4, request()
    plain = KernelBlocks(X, Gaussian(2.0)).product(X[own], a, columns, own)
    assert_same(
        TorchKernelBlocks(X, Gaussian(2.0), np.float32, device, memory=memory).product(X[own], a, columns, own),
        plain,
        np.float32,
    )


@on_every_device
def test_more_rows_than_are_sent_at_once_and_more_points_than_a_tile_has(device, monkeypatch):
    X = data(n_rows=5000)
    plain, a = KernelBlocks(X, Gaussian(1.0)), np.random.default_rng(0).normal(size=(5000, 2))
    own = np.random.default_rng(1).permutation(5000)[:700]
    blocks = TorchKernelBlocks(X, Gaussian(1.0), np.float32, device)
    assert blocks.resident
    assert_same(blocks.product(X[own], a, own=own)[:1], plain.product(X[own], a, own=own)[:1], np.float32)


@on_every_device
@pytest.mark.parametrize("nu", [1.5, 2.5])
def test_points_far_apart_and_at_one_place_give_no_nan(nu, device):
    X = np.array([[0.0], [1e18], [0.0]], np.float32)
    values = TorchKernelBlocks(X, Matern(1e-3, nu), np.float32, device).block(X)
    assert values.tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]


@on_every_device
def test_no_points_no_columns_and_one_of_each(device):
    X, blocks = data(), TorchKernelBlocks(data(), Gaussian(1.0), np.float64, device)
    P, C = blocks.product(X[:1], np.ones((N_ROWS, 1)), columns=[], own=[0])
    assert P.shape == (1, 1)
    assert C.shape == (1, 0)
    one = TorchKernelBlocks(X[:1], Gaussian(1.0), np.float64, device)
    assert one.product(X[:1], np.array([[2.0]]), [0], [0])[0].tolist() == [[2.0]]


# where X lies


@on_every_device
def test_a_small_memory_means_small_tiles_that_are_sent_one_after_another(device, monkeypatch):
    X, (own, a, columns) = data(dtype=np.float32), request()
    wanted = TorchKernelBlocks(X, Laplacian(2.0), np.float32, device).product(X[own], a, columns, own)
    seen = []
    tile = KernelRows.tile
    monkeypatch.setattr(
        KernelRows, "tile", lambda self, low, high, room: seen.append(high - low) or tile(self, low, high, room)
    )
    blocks = TorchKernelBlocks(X, Laplacian(2.0), np.float32, device, memory=5_000)
    assert not blocks.resident
    seen.clear()
    assert_same(blocks.product(X[own], a, columns, own), wanted, np.float32)
    assert sum(seen) == N_ROWS
    assert max(seen) * N_FEATURES * 4 * 6 <= 5_000
    seen.clear()
    shared = TorchKernelBlocks(X, Laplacian(2.0), np.float32, device, memory=5_000, n_workers=2)
    seen.clear()
    assert_same(shared.product(X[own], a, columns, own), wanted, np.float32)
    assert max(seen) * N_FEATURES * 4 * 6 <= 2_500


@on_every_device
def test_rows_in_a_file_that_must_not_be_written_to(tmp_path, device):
    X, (own, a, columns) = data(dtype=np.float32), request()
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    plain = KernelBlocks(X, Laplacian(2.0))
    for memory in (None, 5_000):
        blocks = TorchKernelBlocks(mapped, Laplacian(2.0), np.float32, device, memory=memory)
        assert_same(blocks.product(blocks.rows(own), a, columns, own), plain.product(X[own], a, columns, own), np.float32)


@on_every_device
@pytest.mark.parametrize("memory", [None, 5_000])
@pytest.mark.parametrize("of", ["squared distances", "inner products"])
@pytest.mark.parametrize("n_features", [7, 20_000])
def test_sparse_rows_narrow_and_wide(n_features, of, memory, device):
    rng = np.random.default_rng(0)
    X = sp.random_array((N_ROWS, n_features), density=0.3 if n_features < 100 else 0.001, format="csr", rng=rng)
    own, a, columns = request()
    kernel = UserKernel(inverse, of)
    plain = KernelBlocks(X, kernel, np.float64)
    blocks = TorchKernelBlocks(X, kernel, np.float64, device, memory=memory)
    assert isinstance(blocks.source, WideRows) == (n_features > 100)
    assert blocks.resident == (memory is None and n_features < 100)
    rows = blocks.rows(own)
    assert_same(blocks.product(rows, a, columns, own), plain.product(rows, a, columns, own), np.float64)
    assert_same(
        [blocks.block(rows)],
        [KernelBlocks(X.toarray(), kernel, np.float64).block(rows.toarray() if sp.issparse(rows) else rows)],
        np.float64,
    )


def test_a_dense_array_on_the_cpu_is_not_copied_and_never_written_to():
    X = data(dtype=np.float32)
    before = X.copy()
    blocks = TorchKernelBlocks(X, Laplacian(2.0))
    assert blocks._rows._resident.data_ptr() == X.ctypes.data
    blocks.product(X[:5], np.ones((N_ROWS, 1)), own=np.arange(5))
    np.testing.assert_array_equal(X, before)
    X.setflags(write=False)
    assert_same([TorchKernelBlocks(X, Laplacian(2.0)).block(X[:5])], [blocks.block(X[:5])], np.float32)


# threads


@on_every_device
@pytest.mark.parametrize("memory", [None, 5_000])
def test_threads_at_once_get_the_bits_of_one(memory, device):
    X = data(dtype=np.float32)
    blocks = TorchKernelBlocks(X, Matern(2.0, 2.5), np.float32, device, memory=memory, n_workers=4)
    requests = [request(seed) for seed in range(4)]
    wanted = [blocks.product(X[own], a, columns, own) for own, a, columns in requests]
    found = [[] for _ in requests]

    def work(number):
        own, a, columns = requests[number]
        found[number] = [blocks.product(X[own], a, columns, own) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        assert len(found[number]) == 20
        for P, C in found[number]:
            np.testing.assert_array_equal(P, wanted[number][0])
            np.testing.assert_array_equal(C, wanted[number][1])


def test_several_workers_on_a_cpu_compute_on_one_thread_each_and_leave_the_number_as_it_was(monkeypatch):
    import torch

    before, seen = torch.get_num_threads(), []
    for n_workers in (1, 2):
        blocks = TorchKernelBlocks(data(), UserKernel(inverse), n_workers=n_workers)
        function = blocks._function
        blocks._function = lambda values, scratch, function=function: (
            seen.append(torch.get_num_threads()) or function(values, scratch)
        )
        blocks.block(data())
    assert seen == [before, 1]
    assert torch.get_num_threads() == before


@on_every_device
def test_blocks_travel_to_other_processes_and_are_made_anew_there(device):
    X, (own, a, columns) = data(), request()
    blocks = TorchKernelBlocks(X, Laplacian("auto"), np.float32, device, memory=20_000, n_workers=2)
    again = pickle.loads(pickle.dumps(blocks))
    assert (again.kernel, again.memory, again.n_workers, again.dtype) == (blocks.kernel, 20_000, 2, np.float32)
    assert_same(again.product(X[own], a, columns, own), blocks.product(X[own], a, columns, own), np.float32)


# memory that runs out


def out_of_memory(times, monkeypatch):
    """Let the kernel's function run out of memory so many times, and tell the sizes of the tiles."""
    import torch

    sizes, left = [], [times]

    def breaking(blocks):
        function = blocks._function

        def broken(values, scratch):
            sizes.append(values.numel())
            if left[0]:
                left[0] -= 1
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
            function(values, scratch)

        monkeypatch.setattr(blocks, "_function", broken)

    return breaking, sizes


@on_every_device
def test_where_memory_runs_out_tiles_are_halved(device, monkeypatch):
    X, (own, a, columns) = data(), request()
    blocks = TorchKernelBlocks(X, Laplacian(2.0), np.float64, device)
    wanted = blocks.product(X[own], a, columns, own)
    breaking, sizes = out_of_memory(2, monkeypatch)
    breaking(blocks)
    assert_same(blocks.product(X[own], a, columns, own), wanted, np.float64)
    assert sizes[0] == 40 * N_ROWS
    assert sizes[0] / 2 >= sizes[1] >= 2 * sizes[2] > sizes[0] / 6
    np.testing.assert_array_equal(blocks.block(X), TorchKernelBlocks(X, Laplacian(2.0), np.float64, device).block(X))
    assert max(sizes[3:]) <= sizes[0] / 4, "it remembers what there is room for"


@on_every_device
def test_where_even_small_tiles_do_not_fit_the_error_names_the_sizes(device, monkeypatch):
    blocks = TorchKernelBlocks(data(), Laplacian(2.0), np.float64, device)
    breaking, sizes = out_of_memory(1000, monkeypatch)
    breaking(blocks)
    with pytest.raises(
        InvalidInputError, match=r"memory ran out on .* with 40 points of 7 features, 300 rows .* out of memory"
    ):
        blocks.product(data()[:40], np.ones((N_ROWS, 1)))
    assert len(sizes) < 10


def test_other_errors_are_not_taken_for_it(monkeypatch):
    blocks = TorchKernelBlocks(data(), Laplacian(2.0))
    monkeypatch.setattr(blocks, "_function", lambda values, scratch: values.view(-7, 3))
    with pytest.raises(RuntimeError, match="shape"):
        blocks.block(data())


def test_a_cpu_whose_memory_runs_out_says_so():
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert TorchDevice("cpu").is_out_of_memory(caught.value)


# what is refused


def test_a_device_that_is_not_there_and_which_ones_are(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidInputError, match=r"device='cuda' was asked for, and this process sees cpu:"):
        TorchKernelBlocks(data(), Laplacian(1.0), device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("cuda:2", "gpu", "", 3):
        with pytest.raises(InvalidInputError, match=r"this process sees cpu, cuda:0, cuda:1: choose"):
            TorchDevice(name)
    assert [TorchDevice(name).name for name in ("cuda", "cuda:1")] == ["cuda:0", "cuda:1"]


def test_without_pytorch_the_message_says_who_needs_it_and_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InvalidInputError, match=r"device='cpu' needs PyTorch.*pip install .tardigrad\[torch\]."):
        TorchKernelBlocks(data(), Laplacian(1.0))


def test_products_at_less_than_full_float32_are_refused():
    import torch

    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(InvalidInputError, match=r"at precision 'high', .*set_float32_matmul_precision\('highest'\)"):
            TorchKernelBlocks(data(), Laplacian(1.0))
        TorchKernelBlocks(data(), Laplacian(1.0), np.float64)
    finally:
        torch.set_float32_matmul_precision("highest")
    TorchKernelBlocks(data(), Laplacian(1.0))


def test_coefficients_of_a_wrong_shape_or_place():
    import torch

    blocks = TorchKernelBlocks(data(), Laplacian(1.0))
    for wrong in (torch.zeros(N_ROWS), torch.zeros(5, 1), torch.zeros((N_ROWS, 1), device="meta")):
        with pytest.raises(InvalidInputError, match=r"coefficients must have shape \(300, c\) and lie on cpu"):
            blocks.product(data()[:4], wrong)
    with pytest.raises(InvalidInputError, match="coefficients must have shape"):
        blocks.product(data()[:4], np.zeros(5))
    with pytest.raises(InvalidInputError, match="own must hold the position of each of the 4 rows of Z, not of 3"):
        blocks.product(data()[:4], np.zeros((N_ROWS, 1)), own=[1, 2, 3])
    with pytest.raises(InvalidInputError, match="Z has 3 features, X has 7"):
        blocks.product(np.zeros((2, 3)), np.zeros((N_ROWS, 1)))
    with pytest.raises(InvalidInputError, match="n_workers"):
        TorchKernelBlocks(data(), Laplacian(1.0), n_workers=0)


# the user's function


def test_a_function_is_given_tensors_where_it_takes_them_and_agrees():
    import torch

    device, dtype = TorchDevice("cpu"), np.dtype("float32")

    def takes(function):
        kinds = []
        kernel = UserKernel(lambda values: kinds.append(type(values)) or function(values))
        tile = torch.tensor([[1.0, 4.0]])
        applied, needs_scratch = in_place(kernel, device, dtype)
        applied(tile, None)
        assert not needs_scratch
        return kinds[-1], tile.tolist()

    assert takes(lambda d: 1 / (1 + d)) == (torch.Tensor, [[0.5, pytest.approx(0.2)]])
    assert takes(lambda d: np.exp(-d))[0] is np.ndarray
    assert takes(lambda d: np.asarray(d) * 2) == (np.ndarray, [[2.0, 8.0]])
    assert takes(lambda d: d * (3 if isinstance(d, torch.Tensor) else 2)) == (np.ndarray, [[2.0, 8.0]])


def test_a_function_that_changes_shape_is_refused():
    kernel = UserKernel(lambda d: d[:1] if d.shape[0] > 2 else 1.0 * d)
    with pytest.raises(
        InvalidInputError, match=r"a tensor of the shape that it was given, \(5, 300\), not Tensor of shape \(1, 300\)"
    ):
        TorchKernelBlocks(data(), kernel, np.float64).block(data()[:5])


# coefficients on the device


def cut(a, order, n_blocks):
    return [part.copy() for part in np.array_split(a[order], n_blocks)]


@on_every_device
def test_a_read_sends_only_blocks_that_were_published_since(device):
    rng = np.random.default_rng(0)
    X, (own, a, columns) = data(), request()
    order = rng.permutation(N_ROWS)
    shared = DeviceCoefficients(3, np.float64, device)
    blocks = TorchKernelBlocks(X, Laplacian(2.0), np.float64, device)
    published = cut(a, order, 4)
    for step in range(6):
        assert_same(
            blocks.product(X[own], shared.read(list(published), order), columns, own),
            blocks.product(X[own], a, columns, own),
            np.float64,
        )
        assert shared.uploads == 4 + step
        shared.read(list(published), order)
        assert shared.uploads == 4 + step, "nothing is new"
        which = step % 4
        a = a.copy()
        rows = order[sum(map(len, published[:which])) :][: len(published[which])]
        a[rows] += 1
        published[which] = a[rows]
    assert len(shared._sent) <= 8


@on_every_device
def test_blocks_may_be_flat_and_in_the_order_of_rows(device):
    a = np.arange(12.0).reshape(6, 2)
    shared = DeviceCoefficients(2, np.float32, device)
    found = shared.read([a[:4].ravel(), a[4:]])
    assert found.cpu().numpy().dtype == np.float32
    np.testing.assert_array_equal(found.cpu().numpy(), a)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(shared)).read([a]).cpu().numpy(), a)


@on_every_device
def test_an_order_is_known_by_identity_too_and_partitions_change(device):
    rng, a = np.random.default_rng(1), np.arange(30.0)[:, None]
    shared = DeviceCoefficients(1, np.float64, device)
    for _ in range(3):
        order = rng.permutation(30)
        np.testing.assert_array_equal(shared.read(cut(a, order, 4), order).cpu().numpy(), a)
    np.testing.assert_array_equal(shared.read(cut(a[:0:-1], np.arange(29), 2)).cpu().numpy(), a[:0:-1])


def test_a_block_that_is_known_is_held_so_that_its_number_is_no_other_arrays():
    shared = DeviceCoefficients(1)
    for value in range(200):  # freed arrays' numbers come back at once
        assert shared.read([np.array([float(value)])]).item() == value
    assert shared.uploads == 200
    assert len(shared._sent) == 2


def test_what_was_read_for_longest_is_forgotten_first():
    shared, first = DeviceCoefficients(1), np.zeros(1)
    shared.read([first])
    shared.read([np.ones(1)])
    shared.read([first])
    shared.read([np.ones(1)])
    assert shared.uploads == 3
    shared.read([first])
    assert shared.uploads == 3


def test_an_order_that_was_right_for_other_blocks_is_looked_at_again():
    shared, order = DeviceCoefficients(1), np.array([1, 0])
    shared.read([np.zeros(2)], order)
    with pytest.raises(InvalidInputError, match="order must hold each of the 3 rows"):
        shared.read([np.zeros(3)], order)


def test_what_was_read_does_not_change_by_what_readers_and_writers_do():
    shared = DeviceCoefficients(1)
    block = np.array([1.0, 2.0], np.float32)
    first = shared.read([block])
    first.mul_(5)
    assert shared.read([block]).tolist() == [[1.0], [2.0]]


@on_every_device
def test_readers_at_once_see_whole_blocks_and_each_block_is_sent_once(device):
    n_blocks, length, n_outputs = 4, 500, 2
    shared = DeviceCoefficients(n_outputs, np.float64, device)
    order = np.random.default_rng(0).permutation(n_blocks * length)
    published = [np.full((length, n_outputs), 0.0) for _ in range(n_blocks)]
    keep, torn, made = list(published), [], Counter()

    def work(number):
        for step in range(1, 100):
            found = shared.read(list(published), order).cpu().numpy()[order]
            parts = found.reshape(n_blocks, -1)
            torn.extend(part for part in parts if (part != part[0]).any())
            if parts[number, 0] != step - 1:
                torn.append("a worker's own block is the one that it published last")
            published[number] = np.full((length, n_outputs), float(step))
            keep.append(published[number])
            made[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(n_blocks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not torn
    assert made == dict.fromkeys(range(n_blocks), 99)
    assert len(shared._sent) <= 2 * n_blocks


def test_blocks_and_orders_that_do_not_fit():
    shared = DeviceCoefficients(2)
    for wrong in (np.zeros(3), np.zeros((4, 3)), np.zeros((2, 2, 2))):
        with pytest.raises(InvalidInputError, match=r"a block must have shape \(n, 2\)"):
            shared.read([wrong])
    for order in (np.array([0, 0]), np.array([0]), np.array([0, 2]), np.array([-1, 0])):
        with pytest.raises(InvalidInputError, match="order must hold each of the 2 rows"):
            shared.read([np.zeros((2, 2))], order)
