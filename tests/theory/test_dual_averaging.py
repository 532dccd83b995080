"""Step sequences: what they are, which delays they are proven for, and what is proposed."""

import math

import numpy as np
import pytest

import tardigrad as td
from tardigrad.core.growth import Growth
from tardigrad.theory.dual_averaging import proven_for
from tardigrad.theory.step_proposal import POWER, fitting_sequence, steps_for


def steps(sequence, n):
    return np.array([sequence(int(i)) for i in n])


def window(sequence, n, q, factor=1.0):
    """Sum of the steps from n to n + factor n^q, by brute force."""
    return steps(sequence, np.arange(n, n + int(factor * n**q) + 1)).sum()


def test_the_formulas():
    m = 10.0 + np.arange(50)
    assert np.allclose(steps(td.LogStep(2.0, 10.0), range(50)), 2 / (m * np.log(m)), rtol=1e-15)
    assert np.allclose(steps(td.LogLogStep(2.0, 10.0), range(50)), 2 / (m * np.log(m) * np.log(np.log(m))), rtol=1e-15)


def test_a_scale_for_each_replica():
    scale = np.array([1.0, 2.0])
    for kind in (td.LogStep, td.LogLogStep):
        sequence = kind(scale, 10.0)
        assert sequence.shape == (2,)
        assert sequence(3).tolist() == [kind(1.0, 10.0)(3), kind(2.0, 10.0)(3)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: td.LogStep(0.0), "LogStep.scale must be a positive number"),
        (lambda: td.LogStep(1.0, offset=1.0), "LogStep.offset must be a finite number > 1, not 1.0"),
        (lambda: td.LogLogStep(1.0, offset=2.7), "LogLogStep.offset must be a finite number > 2.718"),
        (lambda: td.LogLogStep(td.LogStep(1.0)), "LogLogStep.scale must be a positive number"),
        (lambda: steps_for(-1.0, 1.0), "growth must be a finite number >= 0"),
        (lambda: steps_for(0.0, 0.0), "lipschitz must be a finite number > 0"),
        (lambda: steps_for(0.0, 1.0, noise=-1), "noise must be"),
        (lambda: steps_for(0.0, 1.0, delay=-1), "delay must be"),
        (lambda: steps_for(0.0, 1.0, staleness=-1), "staleness must be"),
        (lambda: steps_for(0.0, 1.0, distance=0), "distance must be"),
        (lambda: steps_for(0.0, 1.0, horizon=0), "horizon must be"),
        (lambda: steps_for(Growth(math.nan, math.nan, 1.0, 0.0, None, 0, 3), 1.0), r"too little is known \(3 replies\)"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(td.InvalidInputError, match=message):
        make()


#: sequence, exponents of delays that it is proven for, and such that it is not
LIMITS = [
    (td.PowerStep(1.0, 0.75, 10.0), [0.0, 0.5, 0.7], [0.75, 1.0, 2.0]),
    (td.PowerStep(1.0, 1.0, 10.0), [0.0, 0.9], [1.0, 2.0]),
    (td.LogStep(1.0, 10.0), [0.0, 0.5, 1.0], [1.01, 2.0]),
    (td.LogLogStep(1.0, 10.0), [0.0, 1.0, 2.0, 7.0], []),
]


@pytest.mark.parametrize(("sequence", "within", "beyond"), LIMITS)
def test_limits(sequence, within, beyond):
    limit = sequence.proven_for
    assert proven_for(sequence) is limit or proven_for(sequence) == limit
    assert all(limit.allows(q) for q in within)
    assert not any(limit.allows(q) for q in beyond)


def test_no_limit():
    assert proven_for(0.1) is None
    assert proven_for(np.array([0.1, 0.2])) is None
    for power in (0.0, 0.5, 1.01):
        assert td.PowerStep(1.0, power).proven_for is None

    class Mine(td.StepSequence):
        shape = ()

        def __call__(self, n):
            return 1.0

    assert Mine().proven_for is None


def test_the_limits_in_words():
    assert str(td.PowerStep(1.0, 0.75).proven_for) == "delays O(n^q), q < 0.75"
    assert str(td.LogStep(1.0).proven_for) == "delays O(n^q), q <= 1"
    assert str(td.LogLogStep(1.0).proven_for) == "delays O(n^q) for any q"


def test_windows_vanish_within_the_limits_and_do_not_beyond():
    """The table of the module, by brute force."""
    power = td.PowerStep(1.0, 0.75, 2.0)
    falls = [window(power, n, 0.5) for n in (100, 10_000, 1_000_000)]
    assert falls[1] / falls[0] == pytest.approx(100 ** (0.5 - 0.75), rel=0.1)
    assert falls[2] / falls[1] == pytest.approx(100 ** (0.5 - 0.75), rel=0.02)
    assert window(power, 10_000, 0.75) == pytest.approx(window(power, 1_000_000, 0.75), rel=0.05)
    harmonic = td.PowerStep(1.0, 1.0, 2.0)
    assert window(harmonic, 1_000_000, 1.0) == pytest.approx(math.log(2), rel=0.01)

    def of_logs(n, q):
        return math.log(math.log(n + n**q) / math.log(n))

    log = td.LogStep(1.0, 2.0)
    for n in (1000, 1_000_000):
        assert window(log, n, 1.0) == pytest.approx(of_logs(n, 1.0), rel=0.01)
    assert of_logs(1e300, 1.0) < of_logs(1e3, 1.0) / 90
    assert window(log, 1000, 2.0) == pytest.approx(math.log(2), rel=0.01)
    assert of_logs(1e100, 2.0) == pytest.approx(math.log(2), rel=0.01)  # it never falls below log q

    log_log = td.LogLogStep(1.0, 4.0)
    found = window(log_log, 1000, 2.0)
    assert found == pytest.approx(math.log(math.log(math.log(1e6)) / math.log(math.log(1e3))), rel=0.01)
    later = math.log(1e300)
    assert math.log(math.log(2 * later) / math.log(later)) < found / 2


def test_squares_are_summable_and_sums_are_as_documented():
    n = range(100_000)
    for sequence, growth in ((td.LogStep(1.0, 1000.0), 0.5), (td.LogLogStep(1.0, 1000.0), 0.23)):
        total = steps(sequence, n).sum()
        # from 10^3 to 10^5 in m = n + offset
        assert total == pytest.approx(growth, rel=0.06)


def test_sequences_in_words():
    assert fitting_sequence(0.3) == "PowerStep with power=0.75, scale/n^0.75"
    assert fitting_sequence(0.8).startswith("LogStep")
    assert fitting_sequence(1.0).startswith("LogStep")
    assert fitting_sequence(1.05, error=0.03).startswith("LogStep")
    assert fitting_sequence(1.2).startswith("LogLogStep")


@pytest.mark.parametrize("growth", [0.0, 0.5, 0.74, 0.8, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("delay", [0.0, 0.1, 5.0])
def test_what_is_proposed_is_proven_for_the_growth_and_keeps_the_window(growth, delay):
    horizon, lipschitz = 3000, 7.0
    proposed = steps_for(growth, lipschitz, delay=delay, horizon=horizon)
    assert proposed.proven_for.allows(growth)
    a = steps(proposed, range(horizon))
    sums = np.concatenate([[0.0], np.cumsum(a)])
    n = np.arange(horizon)
    come = np.minimum(n + np.floor(delay * np.maximum(n, 1.0) ** growth), horizon - 1).astype(int)
    largest = (sums[come + 1] - sums[n]).max()
    assert 0.5 < lipschitz * largest <= 1.01


def last_iterate_bound(a, noise, distance):
    """The bound of the docstring, by brute force."""
    left, squares = np.cumsum(a[::-1])[::-1], np.cumsum(a[::-1] ** 2)[::-1]
    tail = (a[:-1] * squares[:-1] / (left[:-1] * left[1:])).sum()
    return distance**2 / (2 * left[0]) + noise**2 / 2 * (squares[0] / left[0] + tail)


@pytest.mark.parametrize("horizon", [1, 2, 10])
def test_short_runs(horizon):
    proposed = steps_for(0.0, 2.0, delay=0, noise=1.0, horizon=horizon)
    assert 0 < proposed(0) <= 0.5


@pytest.mark.parametrize("growth", [0.0, 1.0, 2.0])
def test_noise_makes_steps_smaller_and_they_balance_the_bound(growth):
    horizon, noise, distance = 5000, 20.0, 1.5
    quiet = steps_for(growth, 1e-3, delay=0.5, horizon=horizon)  # so small a constant that delays do not limit the steps
    noisy = steps_for(growth, 1e-3, delay=0.5, horizon=horizon, noise=noise, distance=distance)
    b = steps(noisy, range(horizon))
    assert b.sum() < steps(quiet, range(horizon)).sum()
    best = last_iterate_bound(b, noise, distance)
    for factor in (0.8, 1.25):
        assert best < last_iterate_bound(b * factor, noise, distance)
        c = steps(type(noisy)(noisy.scale, offset=noisy.offset * factor), range(horizon))
        assert best <= min(last_iterate_bound(c * f, noise, distance) for f in np.linspace(0.5, 2, 31)) * 1.0005


def test_the_bound_holds_for_noisy_descent():
    """Mean of f(last) over many runs of SGD on a quadratic, of gradients that are nearly all noise."""
    rng = np.random.default_rng(0)
    a = steps(steps_for(0.0, 1.0, delay=0, horizon=400, noise=3.0, distance=2.0), range(400))
    x = np.zeros((20_000, 1)) + 2.0
    for step in a:
        x -= step * (x + 3.0 * rng.standard_normal(x.shape))
    assert (x**2).mean() / 2 < last_iterate_bound(a, 3.0, 2.0)


@pytest.mark.parametrize(
    ("exponent", "error", "kind"),
    [
        (0.02, 0.05, td.PowerStep),
        (0.7, 0.05, td.LogStep),
        (1.03, 0.02, td.LogStep),
        (1.2, 0.02, td.LogLogStep),
        (-0.1, 0.01, td.PowerStep),
    ],
)
def test_a_measured_growth(exponent, error, kind):
    proposed = steps_for(Growth(exponent, error, 2.0, 0.1, None, 0, 1000), 1.0)
    assert type(proposed) is kind


def test_a_measured_growth_brings_its_own_factor_unless_one_is_given():
    seen = Growth(1.0, 0.01, 2.0, 0.1, None, 0, 1000)
    assert steps_for(seen, 1.0) == steps_for(1.0, 1.0, delay=2.0)
    assert steps_for(seen, 1.0, delay=0.3) == steps_for(1.0, 1.0, delay=0.3) != steps_for(1.0, 1.0)
    assert steps_for(1.0, 1.0) == steps_for(1.0, 1.0, delay=1.0)


def test_where_late_replies_are_few_windows_are_as_long_as_the_mean_staleness():
    proposed = steps_for(2.0, 1.0, staleness=3.0, horizon=3000)
    assert type(proposed) is td.LogLogStep
    a = steps(proposed, range(3000))
    assert (a[:-3] + a[1:-2] + a[2:-1] + a[3:]).max() == pytest.approx(1.0, abs=0.05)
    assert a.sum() > 10 * steps(steps_for(2.0, 1.0, delay=3.0, horizon=3000), range(3000)).sum()


def test_of_a_run():
    problem = td.LeastSquares((np.eye(4), np.ones(4)))
    result = td.run(td.AsyncSGD(1e-3), problem, td.Prescribed(td.UniformDelay(0.5)), stop=td.MaxUpdates(3000))
    proposed = td.steps_for(result.trace.growth(), lipschitz=0.5)
    assert type(proposed) is td.LogStep


def test_the_power_proposed_is_proven():
    assert 0.5 < POWER <= 1


def test_the_scale_of_what_is_proposed_balances_the_bound_of_its_own_sequence():
    """Not below, not above: the distance over the noise, where neither is 1, and both parts of the bound alike."""
    horizon, noise, distance = 2000, 50.0, 7.0
    proposed = steps_for(0.0, 1e-3, delay=0.5, horizon=horizon, noise=noise, distance=distance)
    a = steps(proposed, range(horizon))
    progress, wander = last_iterate_bound(a, 0.0, distance), last_iterate_bound(a, noise, 0.0)
    assert progress == pytest.approx(wander, rel=1e-3)


def test_noise_never_makes_steps_larger_than_delays_allow():
    for noise in (1e-6, 1e-3):
        proposed = steps_for(0.0, 2.0, delay=7, noise=noise, horizon=1000)
        assert 2.0 * steps(proposed, range(8)).sum() <= 1.01


@pytest.mark.parametrize(("growth", "kind"), [(0.3, td.PowerStep), (1.0, td.LogStep), (2.0, td.LogLogStep)])
def test_windows_reach_to_the_end_of_the_run_only(growth, kind):
    """Delays beyond the horizon count as long as the run."""
    one, other = (steps_for(growth, 1.0, delay=d, horizon=300) for d in (1e4, 1e9))
    assert type(one) is kind
    assert one == other
    assert steps(one, range(300)).sum() == pytest.approx(1.0, rel=0.1)


def test_a_measured_factor_is_the_delay_where_the_trend_falls_too():
    """d_n = 20: 21 steps in a window."""
    for exponent in (0.0, -0.3):
        proposed = steps_for(Growth(exponent, 0.0, 20.0, 0.0, None, 0, 1000), 1.0, horizon=1000)
        assert steps(proposed, range(21)).sum() == pytest.approx(1.0, rel=0.02)
