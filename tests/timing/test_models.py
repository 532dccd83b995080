"""Models of durations: each is the quantile function that it says it is."""

import json
from statistics import NormalDist

import numpy as np
import pytest
import scipy.integrate
from scipy import stats

import tardigrad as td
from tardigrad.benchmarks.simulator import Identity
from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import decode, encode, same_bits
from tardigrad.core.trace import Trace
from tardigrad.timing.models import Constant, Exponential, FromTrace, LogNormal, Pareto, PerClient, RandomStragglers

LAST = 1 - 2.0**-53  # the largest uniform number that a generator gives
LEVELS = [0.0, 1e-12, 0.01, 0.25, 0.5, 0.75, 0.99, 1 - 1e-9, LAST]
MEASURED = FromTrace([[0, 3.0], [0, 1.0], [1, 2.0], [0, 1.5]])

#: a model, and the distribution of its client 1
DISTRIBUTIONS = [
    (Exponential(), stats.expon()),
    (Exponential(3.0), stats.expon(scale=3)),
    (Exponential([1.0, 0.25]), stats.expon(scale=0.25)),
    (Pareto(), stats.pareto(1.5, scale=1 / 3)),
    (Pareto(2.0, tail=4.0), stats.pareto(4, scale=1.5)),
    (Pareto((9.0, 2.0), tail=4.0), stats.pareto(4, scale=1.5)),
    (LogNormal(), stats.lognorm(1, scale=np.exp(-0.5))),
    (LogNormal(2.0, sigma=0.5), stats.lognorm(0.5, scale=2 * np.exp(-0.125))),
    (LogNormal(np.array([9.0, 2.0]), sigma=0.5), stats.lognorm(0.5, scale=2 * np.exp(-0.125))),
]
ALL = [Constant(2.0), PerClient([1.0, 2.5]), MEASURED, *(model for model, _ in DISTRIBUTIONS)]


def name_of(model):
    return type(model).__name__


def durations(model, client, levels):
    return np.array([model.duration(client, 0.0, float(u)) for u in levels])


@pytest.mark.parametrize(("model", "distribution"), DISTRIBUTIONS, ids=name_of)
def test_durations_are_the_quantiles_of_the_distribution(model, distribution):
    levels = np.r_[1e-6, np.linspace(0.001, 0.999, 99), 1 - 1e-6]
    assert np.allclose(durations(model, 1, levels), distribution.ppf(levels), rtol=1e-9)


@pytest.mark.parametrize(
    ("model", "mean"), [(Exponential(3.0), 3.0), (Pareto(2.0, tail=4.0), 2.0), (LogNormal(2.0, sigma=0.5), 2.0)]
)
def test_the_mean_duration_is_the_mean_asked_for(model, mean):
    # the substitution u = Phi(z) makes the integrand over (0, 1) smooth
    phi = NormalDist()
    value, _ = scipy.integrate.quad(lambda z: model.duration(0, 0.0, min(phi.cdf(z), LAST)) * phi.pdf(z), -8, 8, epsabs=1e-10)
    assert value == pytest.approx(mean, rel=1e-4)


@pytest.mark.parametrize(("model", "distribution"), DISTRIBUTIONS, ids=name_of)
def test_a_large_sample_follows_the_distribution(model, distribution):
    sample = durations(model, 1, np.random.default_rng(5).random(4000))
    assert stats.kstest(sample, distribution.cdf).pvalue > 1e-3


@pytest.mark.parametrize("model", ALL, ids=name_of)
@pytest.mark.parametrize("client", [0, 1])
def test_durations_are_finite_not_negative_and_monotone_in_u(model, client):
    found = durations(model, client, LEVELS)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (np.diff(found) >= 0).all()


@pytest.mark.parametrize("model", ALL, ids=name_of)
def test_only_models_that_say_so_are_random(model):
    assert (len(set(durations(model, 0, LEVELS))) > 1) is model.random


@pytest.mark.parametrize("model", ALL, ids=name_of)
def test_the_time_of_the_start_does_not_matter(model):
    assert model.duration(1, 0.0, 0.3) == model.duration(1, 1e6, 0.3)


def test_constant_takes_the_same_time_for_every_client():
    assert {Constant(0.5).duration(client, 0.0, u) for client in range(5) for u in LEVELS} == {0.5}


def test_per_client_durations_are_those_given():
    model = PerClient(np.array([3, 1, 2]))
    assert [model.duration(client, 0.0, 0.7) for client in range(3)] == [3.0, 1.0, 2.0]


def test_linear_durations_grow_up_to_the_slowest():
    assert PerClient.linear(5, 10.0).seconds == pytest.approx((2, 4, 6, 8, 10))


@pytest.mark.parametrize("make", [Exponential, Pareto, LogNormal])
def test_means_per_client_scale_the_same_distribution(make):
    one, several = make(1.0), make([0.5, 4.0])
    for u in LEVELS:
        assert several.duration(0, 0.0, u) == pytest.approx(0.5 * one.duration(7, 0.0, u))
        assert several.duration(1, 0.0, u) == pytest.approx(4.0 * one.duration(7, 0.0, u))


@pytest.mark.parametrize("make", [Exponential, Pareto, LogNormal])
@pytest.mark.parametrize(
    "mean", [2, np.float32(2.0), np.float64(2.0), np.int64(2), np.array(2.0)], ids=lambda mean: type(mean).__name__
)
def test_any_kind_of_number_is_a_mean_for_all_clients(make, mean):
    model = make(mean)
    model.check(5)
    assert model.duration(4, 0.0, 0.3) == pytest.approx(make(2.0).duration(4, 0.0, 0.3))


@pytest.mark.parametrize(
    "model", [PerClient([1.0, 2.0]), Exponential([1.0, 2.0]), Pareto([1.0, 2.0]), LogNormal([1.0, 2.0])], ids=name_of
)
@pytest.mark.parametrize("n_clients", [1, 3])
def test_a_model_for_another_number_of_clients_is_refused(model, n_clients):
    model.check(2)
    for checked in (model, RandomStragglers(0.1, 1.0, model)):
        with pytest.raises(InvalidInputError, match=rf"has 2 (durations|means) for {n_clients} clients: give one"):
            checked.check(n_clients)


@pytest.mark.parametrize("model", [Constant(1.0), Exponential(1.0), MEASURED, RandomStragglers(0.1, 1.0)], ids=name_of)
def test_other_models_fit_any_number_of_clients(model):
    for n_clients in (1, 10_000):
        model.check(n_clients)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.3, 0.5, 0.9, 1.0])
def test_the_share_of_stragglers_is_p(p):
    model = RandomStragglers(p, delay=5.0, base=Constant(1.0))
    n = 10_000
    found = durations(model, 0, (np.arange(n) + 0.5) / n)
    assert set(found) <= {1.0, 6.0}
    assert (found == 6.0).mean() == pytest.approx(p, abs=1 / n)


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_stragglers_and_others_both_follow_the_base_distribution(p):
    n = 2000
    found = durations(RandomStragglers(p, delay=1000.0, base=Exponential(2.0)), 0, (np.arange(n) + 0.5) / n)
    late = found >= 1000
    for sample in (found[late] - 1000, found[~late]):
        # not random: the levels are a grid, so the sample's steps are as small as they can be
        assert stats.kstest(sample, stats.expon(scale=2).cdf).statistic < 1.5 / len(sample)


@pytest.mark.parametrize("p", [0.0, 1e-17, 0.1, 0.3, 1 / 3, 0.7, 0.9, 1 - 2.0**-53, 1.0])
@pytest.mark.parametrize("base", [Exponential(1.0), Pareto(), LogNormal(), MEASURED], ids=name_of)
def test_stragglers_hand_a_uniform_number_below_1_to_their_base(p, base):
    model = RandomStragglers(p, delay=5.0, base=base)
    levels = [*LEVELS, p / 2, np.nextafter(p, 0), min(p, LAST), min(np.nextafter(p, 1), LAST)]
    found = durations(model, 0, [u for u in levels if u >= 0])
    assert np.isfinite(found).all()
    assert (found >= 0).all()


def test_a_straggler_of_a_client_has_the_client_s_own_base():
    model = RandomStragglers(0.5, delay=10.0, base=PerClient([1.0, 2.0]))
    assert [model.duration(client, 0.0, u) for client in (0, 1) for u in (0.4, 0.6)] == [11.0, 1.0, 12.0, 2.0]


def test_stragglers_of_stragglers_have_delays_of_both():
    model = RandomStragglers(0.5, 10.0, RandomStragglers(0.5, 100.0, Constant(1.0)))
    assert [model.duration(0, 0.0, u) for u in (0.1, 0.4, 0.6, 0.9)] == [111.0, 11.0, 101.0, 1.0]


def test_durations_from_rows_are_each_client_s_own_with_equal_shares():
    levels = [0.0, 0.32, 0.34, 0.66, 0.67, 0.99, LAST]
    assert durations(MEASURED, 0, levels).tolist() == [1.0, 1.0, 1.5, 1.5, 3.0, 3.0, 3.0]
    assert set(durations(MEASURED, 1, levels)) == {2.0}


def test_a_client_that_never_answered_takes_its_durations_from_all():
    found = durations(MEASURED, 5, (np.arange(8) + 0.5) / 8)
    assert found.tolist() == [1.0, 1.0, 1.5, 1.5, 2.0, 2.0, 3.0, 3.0]


def test_durations_from_a_trace_are_occupancies_or_computations():
    rows = [
        (0, 1, 0, 0, 0, 2, 0.0, 0.5, 1.5, 9.0),
        (1, 0, 1, 0, 1, 2, 0.0, 0.0, 4.0, 10.0),
        (2, 1, 0, 1, 2, 2, 9.5, 10, 12, 13.0),
    ]
    trace = Trace.from_rows(rows, updates=2)
    for model in (FromTrace(trace), FromTrace(trace, "occupancy")):
        assert durations(model, 0, [0.2, 0.8]).tolist() == [10.0, 10.0]
        assert durations(model, 1, [0.2, 0.8]).tolist() == [4.0, 9.0]
    model = FromTrace(trace, measure="computation")
    assert durations(model, 0, [0.2, 0.8]).tolist() == [4.0, 4.0]
    assert durations(model, 1, [0.2, 0.8]).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("measure", ["finished", None, 1])
def test_from_trace_knows_two_measures(measure):
    with pytest.raises(InvalidInputError, match=r"FromTrace\.measure must be one of occupancy, computation, not"):
        FromTrace([[0, 1.0]], measure=measure)


def cluster(n_workers, n_replies, barrier=False):
    """The trace of a cluster with transport and a server that handles one reply after another, and its updates a second.

    A job takes an exponential time with mean 1, a way 0.2 s, the server 0.15 s a reply.
    """
    rng = np.random.default_rng(8)
    rows, version, issued, server_free = [], 0, n_workers, 0.0
    # time of arrival, worker, task, version read, submitted, started, finished
    jobs = []

    def send(worker, task, now):
        start = now + 0.2
        finish = start + rng.exponential()
        jobs.append((finish + 0.2, worker, task, version, now, start, finish))

    for worker in range(n_workers):
        send(worker, worker, 0.0)
    answered = 0
    while len(rows) < n_replies:
        jobs.sort()
        arrival, worker, task, read, submitted, started, finished = jobs.pop(0)
        received = max(arrival, server_free)
        rows.append((task, worker, worker, read, version, n_workers, submitted, started, finished, received))
        server_free = received + 0.15
        answered += 1
        if not barrier:
            version += 1
            send(worker, issued, server_free)
            issued += 1
        elif answered % n_workers == 0:
            version += 1
            for one in range(n_workers):
                send(one, issued, server_free)
                issued += 1
    return Trace.from_rows(rows, updates=version), version / rows[-1][-1]


@pytest.mark.parametrize(("barrier", "within"), [(False, 0.03), (True, 0.15)])
@pytest.mark.parametrize("n_workers", [1, 4])
def test_simulations_with_occupancies_predict_the_rate_of_a_cluster(n_workers, barrier, within):
    trace, measured = cluster(n_workers, 4000, barrier)
    rule = td.SyncSGD(1e-9) if barrier else td.AsyncSGD(1e-9)

    def predicted(measure):
        engine = td.Simulated(FromTrace(trace, measure), workers=n_workers)
        again = td.run(rule, Identity(n_workers, 1), engine, stop=td.MaxUpdates(trace.updates)).trace
        return again.summary().updates_per_s

    assert predicted("occupancy") == pytest.approx(measured, rel=within)
    assert predicted("computation") > 1.25 * measured


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 1000, 4097])
def test_the_largest_uniform_number_takes_the_longest_measured_duration(n):
    model = FromTrace(np.column_stack([np.zeros(n), np.arange(1, n + 1)]))
    assert model.duration(0, 0.0, LAST) == n


NOT_SECONDS = [0.0, -1.0, np.nan, np.inf, -np.inf, "fast", None]


@pytest.mark.parametrize("seconds", NOT_SECONDS)
@pytest.mark.parametrize(
    "make",
    [
        Constant,
        lambda value: PerClient([1.0, value]),
        lambda value: PerClient.linear(3, value),
        Exponential,
        Pareto,
        LogNormal,
        lambda value: Exponential([1.0, value]),
        lambda value: Pareto([1.0, value]),
        lambda value: LogNormal([1.0, value]),
        lambda value: LogNormal(1.0, sigma=value),
    ],
    ids=[
        "Constant",
        "PerClient",
        "linear",
        "Exponential",
        "Pareto",
        "LogNormal",
        "means",
        "Pareto means",
        "LogNormal means",
        "sigma",
    ],
)
def test_what_is_not_a_positive_number_is_refused(make, seconds):
    with pytest.raises(InvalidInputError, match=r"> 0|must be a duration or one for each client"):
        make(seconds)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(-1.0), r"Constant must be a number of seconds > 0, not -1\.0"),
        (lambda: PerClient([1.0, -2.0]), r"PerClient, client 1,? must be .*not -2\.0"),
        (lambda: PerClient([]), "PerClient needs a duration for each client, not an empty list"),
        (lambda: PerClient.linear(0, 1.0), "n_clients must be an integer >= 1"),
        (lambda: Exponential(0.0), r"Exponential\.mean must be .*not 0\.0"),
        (lambda: Exponential([1.0, 0.0]), r"Exponential\.mean, client 1,? must be .*not 0\.0"),
        (lambda: Exponential([]), r"Exponential"),
        (lambda: Pareto([]), r"Pareto"),
        (lambda: LogNormal([]), r"LogNormal"),
        (lambda: LogNormal(sigma=0.0), r"LogNormal\.sigma must be .*not 0\.0"),
    ],
)
def test_the_message_names_the_value_and_the_client(make, message):
    with pytest.raises(InvalidInputError, match=message):
        make()


@pytest.mark.parametrize("tail", [1.0, 0.5, -2.0, np.nan, np.inf, "heavy", None])
def test_pareto_refuses_a_tail_without_a_mean(tail):
    with pytest.raises(InvalidInputError, match=r"Pareto\.tail must be .* > 1, not"):
        Pareto(1.0, tail=tail)


@pytest.mark.parametrize("p", [-0.1, 1.1, np.nan, "often", None])
def test_stragglers_refuse_what_is_no_probability(p):
    with pytest.raises(InvalidInputError, match=r"RandomStragglers\.p must be a probability"):
        RandomStragglers(p, 1.0)


@pytest.mark.parametrize("delay", [-1.0, np.nan, np.inf, "long", None])
def test_stragglers_refuse_a_delay_that_is_no_time(delay):
    with pytest.raises(InvalidInputError, match=r"RandomStragglers\.delay must be a number of seconds >= 0"):
        RandomStragglers(0.1, delay)


@pytest.mark.parametrize("base", [1.0, None, Constant])
def test_stragglers_refuse_a_base_that_is_no_timing(base):
    with pytest.raises(InvalidInputError, match=r"RandomStragglers\.base"):
        RandomStragglers(0.1, 1.0, base)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [1.0, 2.0],
        [[0, 1.0, 2.0]],
        [[0, -1.0]],
        [[0, np.nan]],
        [[0, np.inf]],
        [[-1, 1.0]],
        [[0.5, 1.0], [0, 2.0]],
        [[0, "fast"]],
        [[0, 1.0], [1]],
        "trace",
        None,
    ],
    ids=repr,
)
def test_from_trace_refuses_what_are_no_replies(rows):
    with pytest.raises(InvalidInputError, match=r"FromTrace needs (rows of client and seconds >= 0|a trace .* or an array)"):
        FromTrace(rows)


def test_from_trace_refuses_durations_that_are_all_zero():
    with pytest.raises(InvalidInputError, match="only durations of 0 seconds"):
        FromTrace([[0, 0.0], [1, 0.0]])


def test_from_trace_refuses_an_empty_trace():
    with pytest.raises(InvalidInputError, match="FromTrace needs"):
        FromTrace(Trace.from_rows([], updates=0))


@pytest.mark.parametrize(
    "model", [*ALL, RandomStragglers(0.25, 3.0, Pareto([1.0, 2.0], tail=3.0)), RandomStragglers(0.5, 1.0)], ids=name_of
)
def test_a_model_comes_back_from_json_and_takes_the_same_times(model):
    arrays = {}
    back = decode(json.loads(json.dumps(encode(model, arrays))), arrays)
    assert type(back) is type(model)
    assert same_bits(back, model)
    for client in (0, 1):
        assert np.array_equal(durations(back, client, LEVELS[:-1]), durations(model, client, LEVELS[:-1]))
