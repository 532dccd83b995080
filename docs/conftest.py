"""Pages whose examples need an optional package are left out where it is missing; under CI nothing is."""

import importlib.util
import os

NEEDS = {"tutorials/silos-that-differ.md": ("torch", "ray")}

collect_ignore = [
    page
    for page, packages in NEEDS.items()
    if not os.environ.get("CI") and any(importlib.util.find_spec(name) is None for name in packages)
]
