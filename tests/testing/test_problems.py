"""check_problem catches what it claims to catch: one broken problem for each contract."""

import itertools

import numpy as np
import pytest

import tardigrad as td
from tardigrad.core.streams import noise_shape
from tardigrad.testing import check_problem


class Good(td.Problem):
    """f_i(x) = |x|^4 / 4 - i <1, x>, with noise on the gradients."""

    def __init__(self, n_clients=3, dim=4, noise=0.1, dtype="float64"):
        self.n_clients, self.dim, self.noise, self.dtype = n_clients, dim, noise, np.dtype(dtype)

    def fields(self):
        return {"n_clients": self.n_clients, "dim": self.dim, "noise": self.noise, "dtype": self.dtype.str}

    def sample(self, client, rng):
        return (rng.normal(size=(*noise_shape(rng), self.dim)) * self.noise).astype(self.dtype)

    def gradient(self, client, x, sample=None):
        if sample is not None and sample.ndim > 1:
            sample = sample.reshape(len(sample), *(1,) * (x.ndim - 2), self.dim)
        noise = 0 if sample is None else sample
        return ((x * x).sum(-1, keepdims=True) * x - self.dtype.type(client) + noise).astype(self.dtype)

    def measures(self, x, names=None):
        square = (x * x).sum(-1)
        table = {"loss": square**2 / 4 - (self.n_clients - 1) / 2 * x.sum(-1), "norm": np.sqrt(square)}
        return {name: value for name, value in table.items() if names is None or name in names}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("n_clients", [1, 3, 40])
def test_a_good_problem_passes(dtype, n_clients):
    for seed in range(5):
        check_problem(Good(n_clients, dtype=dtype), seed=seed)


def test_a_problem_without_exact_gradients_passes():
    class OnlyNoisy(Good):
        def gradient(self, client, x, sample=None):
            if sample is None:
                raise td.InvalidInputError("there is none")
            return super().gradient(client, x, sample)

    check_problem(OnlyNoisy())


def test_a_problem_that_says_that_it_cannot_be_saved_passes():
    class NotPlain(Good):
        def fields(self):
            raise TypeError("it holds a file")

    check_problem(NotPlain())


class NoFields(td.Problem):
    n_clients, dim = 1, 2

    def gradient(self, client, x, sample=None):
        return 2 * x


class NoClients(Good):
    def __init__(self):
        super().__init__(n_clients=0)


class NoDim(NoFields):
    dim = None


class HalfDim(NoFields):
    dim = 2.0


class NamedType(NoFields):
    dtype = "float64"


class Integers(NoFields):
    dtype = np.dtype(int)


class WrongStart(Good):
    def x0(self):
        return np.zeros(self.dim + 1)


class FloatStart(Good):
    dtype = np.dtype("f4")

    def __init__(self):
        super().__init__(dtype="f4")

    def x0(self):
        return np.zeros(self.dim)


class InfiniteStart(Good):
    def x0(self):
        return np.full(self.dim, np.inf)


class SharedStart(Good):
    kept = np.ones(4)

    def x0(self):
        return self.kept


class WrongWeights(Good):
    equal_weights = False

    def scale(self, client):
        return 1.0 + client


class NegativeWeight(Good):
    equal_weights = False

    def scale(self, client):
        return (-1.0, 2.0, 2.0)[client]


class SecretWeights(Good):
    def scale(self, client):
        return (0.5, 1.0, 1.5)[client]


class WrongShape(Good):
    def gradient(self, client, x, sample=None):
        return super().gradient(client, x, sample)[..., :-1]


class NoArray(Good):
    def gradient(self, client, x, sample=None):
        return super().gradient(client, x, sample).tolist()


class WrongType(Good):
    def gradient(self, client, x, sample=None):
        return super().gradient(client, x, sample).astype("f4")


class NotFinite(Good):
    def gradient(self, client, x, sample=None):
        return super().gradient(client, x, sample) / (client - 2.0) if client != 2 else np.full_like(x, np.nan)


class ChangesPoint(Good):
    def gradient(self, client, x, sample=None):
        found = super().gradient(client, x, sample)
        x += 1e-9
        return found


class ReturnsPoint(NoFields):
    def gradient(self, client, x, sample=None):
        return x


class KeepsAnswer(NoFields):
    answer = np.ones(2)

    def gradient(self, client, x, sample=None):
        return self.answer if x.ndim == 1 else np.ones_like(x)


class Remembers(Good):
    def gradient(self, client, x, sample=None):
        last, self.last = getattr(self, "last", 0.0), x.copy()
        return super().gradient(client, x, sample) + 1e-9 * np.sum(last)


class ChangesSample(Good):
    def gradient(self, client, x, sample=None):
        found = super().gradient(client, x, sample)
        if sample is not None:
            sample *= 0.5
        return found


class OtherGradients(Good):
    def gradients(self, client, xs, sample=None):
        return tuple(self.gradient(client, x) for x in xs)


class OwnNoise(Good):
    draws = itertools.count()

    def sample(self, client, rng):
        return np.full(self.dim, float(next(self.draws)))


class OnlyVectors(Good):
    def gradient(self, client, x, sample=None):
        return (np.sum(x * x) * x - client + (0 if sample is None else sample)).astype(self.dtype)


class OnlyRows(Good):
    def gradient(self, client, x, sample=None):
        found = super().gradient(client, x, sample)
        if x.ndim > 2:
            found[...] = found.reshape(-1, self.dim)[0]
        return found


class IgnoresReplicas(Good):
    def gradient(self, client, x, sample=None):
        if sample is not None and sample.ndim > 1:
            return super().gradient(client, x, None)[0]
        return super().gradient(client, x, sample)


class Biased(Good):
    def sample(self, client, rng):
        return super().sample(client, rng) + 0.5


class HalfOfTheClients(Good):
    """The last client's samples are twice as large as they should be."""

    def gradient(self, client, x, sample=None):
        exact = super().gradient(client, x)
        return exact if sample is None or client < 2 else 2 * exact + super().gradient(client, x, sample) - exact


class MeasuresChange(Good):
    def measures(self, x, names=None):
        found = super().measures(x, names)
        x *= 2
        return found


class MeasuresTheFirst(Good):
    def measures(self, x, names=None):
        found = super().measures(x, names)
        if x.ndim > 1 and "norm" in found:
            found["norm"] = np.full(x.shape[:-1], np.linalg.norm(x.reshape(-1, self.dim)[0]))
        return found


class OneMeasure(Good):
    def measures(self, x, names=None):
        return {name: np.mean(value) for name, value in super().measures(x, names).items()}


class AllMeasures(Good):
    def measures(self, x, names=None):
        return super().measures(x)


class WrongSign(Good):
    def gradient(self, client, x, sample=None):
        return -super().gradient(client, x, sample)


class ForgetsATerm(Good):
    def measures(self, x, names=None):
        found = super().measures(x, names)
        if "loss" in found:
            found["loss"] = found["loss"] + 1e-5 * x[..., 0]
        return found


class Curved(Good):
    """Quadratics of different curvature, 1, 2 and 3; and constants that are given."""

    L, delta, ell = 2.0, 1.0, 3.0

    def gradient(self, client, x, sample=None):
        return (client + 1) * x

    def measures(self, x, names=None):
        return {}

    def constants(self):
        return td.SmoothnessConstants(self.L, self.delta, self.ell, exact=True)


class TooSmooth(Curved):
    L = 1.9


class TooAlike(Curved):
    delta = 0.9


class TooFlat(Curved):
    ell = 2.9


class ForgetsAField(Good):
    def __init__(self, n_clients=3, dim=4, noise=0.1, dtype="float64", shift=0.0):
        super().__init__(n_clients, dim, noise, dtype)
        self.shift = shift

    def gradient(self, client, x, sample=None):
        return super().gradient(client, x, sample) + self.shift


class LosesItself(Good):
    def __getstate__(self):
        return {**vars(self), "noise": 0.0}


class PrintsDate(Good):
    days = itertools.count()

    def fingerprint(self):
        return str(next(self.days))


class PrintsPlace(Good):
    def fingerprint(self):
        return str(id(self))


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (NoFields(), r"define fields\(\), the arguments that rebuild it\. Of a problem that cannot be saved"),
        (NoClients(), "n_clients must be an integer >= 1, not 0"),
        (NoDim(), "dim must be an integer >= 1, not None"),
        (HalfDim(), r"dim must be an integer >= 1, not 2\.0"),
        (NamedType(), r"dtype must be a numpy\.dtype, not 'float64'"),
        (Integers(), "a type of floating-point numbers, not int64"),
        (WrongStart(), r"x0\(\) must have shape \(4,\), \(dim,\), not \(5,\)"),
        (FloatStart(), r"x0\(\) is of float64, iterates are of float32"),
        (InfiniteStart(), r"x0\(\) must be finite"),
        (SharedStart(), r"x0\(\) must return a new array"),
        (WrongWeights(), "weights must add up to 1, not 2"),
        (NegativeWeight(), "weights must not be negative; client 0 has -0.333"),
        (SecretWeights(), "weights differ: set equal_weights = False"),
        (WrongShape(), r"gradient of client 0 on a sample must be an array \(4,\), as x is, not \(3,\)"),
        (NoArray(), r"must be an array \(4,\)"),
        (WrongType(), "is of float32, the problem's dtype is float64"),
        (NotFinite(), "client 2 on a sample is not finite at a point near x0"),
        (ChangesPoint(), "changed the point x: write to arrays of your own"),
        (ReturnsPoint(), "is the memory of x itself: return a new array"),
        (KeepsAnswer(), "is not pure: the same point gave other bits"),
        (Remembers(), "is not pure: the same point gave other bits"),
        (ChangesSample(), "is not pure: the same point gave other bits"),
        (OtherGradients(), r"gradients\(\) must give what gradient\(\) gives at each point"),
        (OwnNoise(), "two samples of client 0 from the same stream give different gradients"),
        (OnlyVectors(), r"at iterates with leading axes \(6,\) differs by"),
        (OnlyRows(), r"at iterates with leading axes \(2, 3\) differs by"),
        (IgnoresReplicas(), r"on a sample of 3 replicas must be finite, of the shape of x, not \(4,\)"),
        (Biased(), "the mean of 200 stochastic gradients of client 0 is .* away from its exact gradient, chance allows"),
        (HalfOfTheClients(), "stochastic gradients of client 2 is .* away from its exact gradient"),
        (MeasuresChange(), r"measures\(\) changed the iterates"),
        (MeasuresTheFirst(), r"measure 'norm' differs by .* from what each iterate gives alone"),
        (OneMeasure(), r"measure 'loss' must have shape \(2, 3\), not \(\)"),
        (AllMeasures(), r"measures\(x, \('loss',\)\) must give this one alone, not \['loss', 'norm'\]"),
        (WrongSign(), "is not that of the measure 'loss': along a random direction it says"),
        (ForgetsATerm(), "is not that of the measure 'loss'"),
        (TooSmooth(), r"constants\(\)\.L is 1\.9, but between two random points it is at least 2:"),
        (TooAlike(), r"constants\(\)\.delta is 0\.9, but between two random points it is at least 1:"),
        (TooFlat(), r"constants\(\)\.ell is 2\.9, but between two random points it is at least 3:"),
        (ForgetsAField(shift=1.0), "copy that was saved and read back has another gradient"),
        (LosesItself(), r"copy that was sent to workers \(by cloudpickle\) has another gradient of client 0"),
        (PrintsDate(), r"fingerprint\(\) must be the same every time"),
        (PrintsPlace(), "was saved and read back has another fingerprint"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, td.Problem) else "",
)
def test_a_broken_problem_is_caught(problem, message):
    measure = None if isinstance(problem, ForgetsAField) else "loss"
    with pytest.raises(AssertionError, match=message):
        check_problem(problem, objective=measure)


def test_constants_that_hold_pass_and_those_that_are_not_known_are_not_asked():
    check_problem(Curved())

    class Unknown(Curved):
        def constants(self):
            raise td.InvalidInputError("not known for this regulariser")

    check_problem(Unknown())


def test_another_measure_may_be_the_objective():
    class Renamed(Good):
        def measures(self, x, names=None):
            found = {"energy": super().measures(x)["loss"], "loss": x[..., 0]}
            return {name: value for name, value in found.items() if names is None or name in names}

    check_problem(Renamed(), objective="energy")
    check_problem(Renamed(), objective=None)
    check_problem(Renamed(), objective="no such measure")
    with pytest.raises(AssertionError, match="'loss'"):
        check_problem(Renamed())
