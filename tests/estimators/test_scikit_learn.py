"""What scikit-learn asks of its estimators."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

import tardigrad as td

# some checks are skipped, and some fit sparse rows of zeros with random targets, which is rightly told
pytestmark = pytest.mark.filterwarnings(
    "default::sklearn.exceptions.SkipTestWarning", "ignore::sklearn.exceptions.ConvergenceWarning"
)


@parametrize_with_checks([td.KernelRegressor(), td.KernelClassifier()])
def test_keeps_to_the_interface(estimator, check):
    check(estimator)
