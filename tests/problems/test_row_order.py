import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tardigrad as td
from tardigrad.core.streams import Domain, Stream
from tardigrad.problems.row_order import ORDERS, ItemOrder, alias_table, key_of, mixed, mixed_in_place

all_orders = pytest.mark.parametrize("order", ORDERS)
WEIGHTS = np.array([1.0, 0.0, 2.0, 5.0, 0.5, 1.5, 0.0])


def make(order, n=7, **kwargs):
    return ItemOrder(n, order, lambda: np.resize(WEIGHTS, n), **kwargs)


@all_orders
@given(start=st.integers(0, 60), length=st.integers(0, 50), seed=st.integers(0, 2**70))
@settings(max_examples=30, deadline=None)
def test_many_at_once_are_those_one_by_one(order, start, length, seed):
    items = make(order)
    span = items.span(seed, start, start + length)
    assert span.dtype == np.int64
    assert span.tolist() == [items.at(seed, index) for index in range(start, start + length)]
    stream = Stream(seed, Domain.TASK)
    assert span.tolist() == [items.draw(stream.at(index)) for index in range(start, start + length)]


@all_orders
def test_a_long_span_is_made_of_short_ones(order):
    items = make(order)
    parts = [items.span(3, low, low + 7000) for low in range(0, 35000, 7000)]
    assert np.array_equal(items.span(3, 0, 35000), np.concatenate(parts))


@all_orders
def test_what_was_asked_before_does_not_matter(order):
    used, fresh = make(order), make(order)
    for index in (900, 3, 450, 7):
        used.at(1, index)
        used.at(2, index)
        used.at_each(1, index, 4)
    assert np.array_equal(used.span(1, 0, 40), fresh.span(1, 0, 40))


@all_orders
def test_seeds_and_replicas_have_items_of_their_own(order):
    items = make(order, n=50)
    spans = [tuple(items.span(seed, 0, 100)) for seed in (0, 1, 2**64, 2**64 + 1)]
    assert len(set(spans)) == 4
    each = np.stack([items.at_each(0, index, 5) for index in range(100)], axis=1)
    assert each.shape == (5, 100)
    assert len({tuple(row) for row in each}) == 5
    stream = Stream(0, Domain.TASK, 5)
    assert np.array_equal(each, np.stack([items.draw(stream.at(index)) for index in range(100)], axis=1))


@pytest.mark.parametrize("chunk", [1, 4, 5, 100])
def test_every_pass_has_every_item_once_and_differs(chunk):
    items = make("shuffled", n=23, chunk=chunk)
    passes = items.span(5, 0, 23 * 4).reshape(4, 23)
    assert (np.sort(passes, axis=1) == np.arange(23)).all()
    assert len({tuple(row) for row in passes}) == 4
    each = np.stack([items.at_each(5, index, 3) for index in range(46)], axis=1)
    assert (np.sort(each[:, :23], axis=1) == np.arange(23)).all()
    assert (np.sort(each[:, 23:], axis=1) == np.arange(23)).all()


def test_items_of_a_chunk_stay_together():
    items = make("shuffled", n=23, chunk=5)
    for number in range(6):
        chunks = items.span(1, 23 * number, 23 * number + 23) // 5
        assert np.count_nonzero(np.diff(chunks)) == 4  # five chunks, each in one stretch
    firsts = {items.at(1, 23 * number) // 5 for number in range(60)}
    assert firsts == set(range(5)), "each chunk comes first now and then, the short one too"


def test_permutations_are_uniform():
    items = make("shuffled", n=3)
    orders = items.span(0, 0, 3 * 6000).reshape(-1, 3) @ [9, 3, 1]
    counts = np.unique(orders, return_counts=True)[1]
    assert len(counts) == 6
    assert (((counts - 1000) ** 2) / 1000).sum() < 20.5  # chi-squared with 5 degrees, 0.999


def test_uniform_items_are_uniform_and_independent():
    items = make("uniform", n=7).span(2, 0, 70_000)
    assert ((np.bincount(items) - 10_000) ** 2 / 10_000).sum() < 22.5
    pairs = np.bincount(items[:-1] * 7 + items[1:], minlength=49)
    assert ((pairs - 70_000 / 49) ** 2 / (70_000 / 49)).sum() < 85


def test_items_by_weight_have_their_probabilities():
    items = make("norms").span(2, 0, 100_000)
    counts, expected = np.bincount(items, minlength=7), WEIGHTS / WEIGHTS.sum() * 100_000
    assert not counts[expected == 0].any()
    used = expected > 0
    assert ((counts[used] - expected[used]) ** 2 / expected[used]).sum() < 18.5


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(-300, 300))
@settings(max_examples=200, deadline=None)
def test_an_alias_table_has_the_weights(weights, exponent):
    weights = np.array(weights, float)
    kept, other = alias_table(weights * 10.0**exponent if abs(exponent) < 290 else weights)
    shares = (kept + np.bincount(other, 1 - kept, len(weights))) / len(weights)
    if not weights.any():
        weights = np.ones(len(weights))
    assert np.allclose(shares, weights / weights.sum(), rtol=1e-12, atol=1e-15)
    assert ((kept >= 0) & (kept <= 1)).all()


def test_the_hash_is_splitmix64():
    # first outputs of the reference implementation (Vigna) for seed 1234567
    golden = 0x9E3779B97F4A7C15
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert [mixed(1234567 + golden * k) for k in range(1, 6)] == known
    words = np.array([1234567 + golden * k & 2**64 - 1 for k in range(1, 6)], np.uint64)
    assert mixed_in_place(words).tolist() == known


def test_keys_of_seeds_of_any_size_differ():
    seeds = [0, 1, 2**63, 2**64, 2**64 + 1, 2**128, 2**128 + 1]
    assert len({key_of(seed) for seed in seeds} | {key_of(seed, 0) for seed in seeds}) == 2 * len(seeds)


@all_orders
def test_a_second_draw_of_a_task_is_another_one(order):
    items = make(order, n=1000)
    stream = Stream(0, Domain.TASK)
    firsts, seconds = zip(*[(items.draw(stream.at(k)), items.draw(stream)) for k in range(50)], strict=True)
    assert sum(a == b for a, b in zip(firsts, seconds, strict=True)) < 5
    again = [(items.draw(stream.at(k)), items.draw(stream))[1] for k in range(50)]
    assert list(seconds) == again


@all_orders
@pytest.mark.parametrize("rng", [np.random.default_rng(1), Stream(1, Domain.SERVER)], ids=["generator", "server"])
def test_other_generators_draw_items(order, rng):
    drawn = [make(order).draw(rng) for _ in range(300)]
    assert set(drawn) == set(np.flatnonzero(WEIGHTS) if order == "norms" else range(7))


@all_orders
def test_a_server_draws_other_items_than_tasks(order):
    items, stream = make(order, n=1000), Stream(1, Domain.SERVER)
    drawn = [items.draw(stream.at(index)) for index in range(50)]
    assert drawn == [items.draw(stream.at(index)) for index in range(50)]
    assert np.count_nonzero(items.span(1, 0, 50) == drawn) < 5


@all_orders
def test_a_server_s_replicas_draw_each(order):
    drawn = make(order, n=500).draw(Stream(1, Domain.SERVER, 40))
    assert drawn.shape == (40,)
    assert len(set(drawn.tolist())) > 20


@all_orders
def test_threads_may_share_an_order(order):
    items, expected = make(order, n=301), make(order, n=301).span(9, 0, 3010).tolist()
    found = {}

    def draw(k):
        found[k] = [items.at(9, index) for index in range(k, 3010, 4)]

    threads = [threading.Thread(target=draw, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[k] == expected[k::4] for k in range(4))


@pytest.mark.parametrize("order", ["sorted", None, 3])
def test_unknown_orders_are_refused(order):
    with pytest.raises(td.InvalidInputError, match="order must be one of 'shuffled', 'uniform', 'norms', not"):
        td.Rows(order)
