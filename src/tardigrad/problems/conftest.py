"""Examples in docstrings that need an optional package are left out where it is missing; under CI nothing is."""

import importlib.util
import os

collect_ignore = []
if not os.environ.get("CI") and importlib.util.find_spec("torch") is None:
    collect_ignore += ["torch_model.py", "torch_device.py", "torch_coefficients.py"]
    collect_ignore += ["torch_kernel_blocks.py", "torch_kernel_functions.py"]
