"""Rates, step sizes and tables: pure functions of constants, each citing its equation."""
