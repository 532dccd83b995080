"""Examples of the tracker are run where MLflow is installed; in CI they must be."""

import importlib.util
import os

collect_ignore = []
if not os.environ.get("CI") and importlib.util.find_spec("mlflow") is None:
    collect_ignore.append("mlflow_observer.py")
