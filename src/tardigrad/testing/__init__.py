"""Checks for rules, engines and problems, ours and yours: `check_rule`, `check_engine`, `check_problem`."""

from __future__ import annotations

from tardigrad.testing.any_order import AnyOrder
from tardigrad.testing.engines import check_engine
from tardigrad.testing.plain_copies import arrays_of, copied, round_trip
from tardigrad.testing.problems import check_problem
from tardigrad.testing.rules import CheckedRule, check_rule

__all__ = [
    "AnyOrder",
    "CheckedRule",
    "arrays_of",
    "check_engine",
    "check_problem",
    "check_rule",
    "copied",
    "round_trip",
]
