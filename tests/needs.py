"""Marks for tests that need an optional package or a data set on disk; under CI nothing is skipped."""

import importlib.util
import os
import shutil

import pytest

from tardigrad import datasets

_CI = bool(os.environ.get("CI"))

needs_torch = pytest.mark.skipif(
    not _CI and importlib.util.find_spec("torch") is None, reason="torch is not installed: pip install 'tardigrad[torch]'"
)

needs_pandas = pytest.mark.skipif(
    not _CI and importlib.util.find_spec("pandas") is None, reason="pandas is not installed: pip install 'tardigrad[test]'"
)

needs_ray = pytest.mark.skipif(
    not _CI and importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install 'tardigrad[ray]'"
)

needs_mlflow = pytest.mark.skipif(
    not _CI and importlib.util.find_spec("mlflow") is None, reason="MLflow is not installed: pip install 'tardigrad[mlflow]'"
)

#: a browser that draws pages without a screen
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(
    not _CI and (CHROMIUM is None or importlib.util.find_spec("playwright") is None),
    reason="Chromium or playwright is not installed: apt-get install chromium, pip install 'tardigrad[test]'",
)


def needs_data(name):
    """Skip a test where the files of the data set `name` are not found."""
    return pytest.mark.skipif(
        not _CI and not datasets.available(name),
        reason=f"{name} is not on disk: set TARDIGRAD_DATA to the folder that holds it",
    )
