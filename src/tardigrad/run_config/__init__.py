"""Runs from files: TOML that says problem, data, rule, engine, timing and stop; see docs/run-files.md."""

from __future__ import annotations

from tardigrad.run_config.running import Prepared, Ran, prepare, problem_of, run_file

__all__ = ["Prepared", "Ran", "prepare", "problem_of", "run_file"]
