"""Runs from files: TOML that says problem, data, rule, engine, timing and stop; see docs/run-files.md."""

from __future__ import annotations
