"""Small data that estimators are tried on."""

import numpy as np


def curve(n=200, n_features=2, seed=0):
    """A smooth function without noise."""
    X = np.random.default_rng(seed).uniform(-1, 1, (n, n_features))
    return X, np.sin(3 * X[:, 0]) + X[:, 1]


def clusters(n=150, n_classes=3, seed=0):
    """Points around a centre for each class."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    return 4 * np.eye(n_classes)[y] + rng.normal(size=(n, n_classes)), y
