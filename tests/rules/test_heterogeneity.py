"""How the rules for clients with different data stand up to heterogeneity, on the quadratics of the AsyncBC paper.

Client i of 4 takes 10 i / 4 seconds. Counted are updates until the mean of the last 20 squared gradient norms is at most 0.01,
the median of seeds at the best step of a grid, with a fixed start relative to the minimiser.
"""

import numpy as np
import pytest

import tardigrad as td

TIMING = td.PerClient([2.5, 5.0, 7.5, 10.0])
N_SEEDS = 5


def updates_to_target(make, zeta, steps, n_updates):
    """The median over seeds at the best of the steps."""
    direction = np.random.default_rng(100).normal(size=10)
    direction *= np.sqrt(10) / np.linalg.norm(direction)
    counts = []
    for seed in range(N_SEEDS):
        problem = td.ClientQuadratics.of_paper(zeta, seed=seed)
        result = td.run(
            make(steps),
            problem,
            td.Simulated(TIMING),
            stop=td.MaxUpdates(n_updates),
            x0=problem.minimiser + direction,
            seed=seed,
            concurrency=4,
            snapshot_every=1,
        )
        squared = problem.measures(result.history.x, ["gradient_norm"])["gradient_norm"] ** 2
        windows = np.lib.stride_tricks.sliding_window_view(squared, 20, axis=0).mean(axis=-1)
        reached = windows <= 0.01  # a step that diverged never is
        counts.append(np.where(reached.any(axis=0), reached.argmax(axis=0) + 19, np.inf))
    return float(np.median(counts, axis=0).min())


@pytest.mark.parametrize(
    ("make", "low", "high"),
    [
        (lambda step: td.IAG(step, "answered"), 40, 70),
        (lambda step: td.IAG(step, "uniform"), 35, 65),
        (lambda step: td.SAGA(step, "uniform"), 30, 55),
        (lambda step: td.SAGA(step, "answered"), 30, 60),
        (lambda step: td.SARAH(step, restart_every=6), 20, 45),
    ],
    ids=["IAG", "IAG, uniform", "SAGA", "SAGA, answered", "SARAH, restarts"],
)
def test_rules_that_know_each_clients_part_take_as_long_at_every_heterogeneity(make, low, high):
    steps = np.geomspace(1e-2, 0.5, 16)
    counts = [updates_to_target(make, zeta, steps, 150) for zeta in (0.0, 1.0, 10.0)]
    assert counts[0] == counts[1] == counts[2]
    assert low <= counts[0] <= high


@pytest.mark.parametrize(
    ("make", "at_zero"),
    [
        (lambda step: td.AsyncSGD(step, "uniform"), (30, 60)),
        (lambda step: td.FedBuff(step, buffer=2), (20, 60)),
        (lambda step: td.FedBuff(step, buffer=4), (15, 60)),
        (lambda step: td.FedBuff(step / 0.05, local_steps=2, local_step=0.05, buffer=2), (20, 60)),
    ],
    ids=["AsyncSGD", "FedBuff, 2", "FedBuff, 4", "FedBuff, local steps"],
)
def test_rules_that_do_not_take_longer_the_more_the_clients_differ(make, at_zero):
    zero = updates_to_target(make, 0.0, np.geomspace(1e-2, 0.5, 16), 150)
    one = updates_to_target(make, 1.0, np.geomspace(3e-3, 0.2, 12), 600)
    ten = updates_to_target(make, 10.0, np.geomspace(3e-4, 5e-3, 10), 8000)
    assert at_zero[0] <= zero <= at_zero[1]
    assert 2.5 * zero < one < 12 * zero
    assert 5 * one < ten < 50 * one
