"""Solvers with the habits of SciPy: one call, everything chosen."""
