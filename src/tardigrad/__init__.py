"""tardigrad: asynchronous stochastic optimization that you can plan, run and replay.

Public names load when they are first used, so that ``import tardigrad`` costs milliseconds.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_MODULE_OF = {
    name: module
    for module, names in {
        "core.checkpoint": "Checkpoint",
        "core.drive": "run",
        "core.errors": (
            "DataError InvalidInputError ReplayError RunFileError TardigradError TheoryWarning TrackerError WorkerError"
        ),
        "core.engine": "Engine Placement",
        "core.json_lines": "JSONLines",
        "core.observers": "History Observer Progress",
        "core.in_place": "InPlaceRule InPlaceState",
        "core.problem": "Problem",
        "core.result": "Result",
        "core.resume": "resume",
        "core.rule": "Rule State scratch_field",
        "core.smoothness": "SmoothnessConstants",
        "core.steps": "PowerStep StepSequence",
        "core.stopping": "MaxOracleCalls MaxSeconds MaxUpdates Status Stop Tolerance",
        "core.task": "Cancel Reply Task",
        "core.timing": "Timing",
        "core.trace": "Trace",
        "diagnostics.coherence": "problem_coherence",
        "diagnostics.dual_averaging": "diagnose",
        "engines.prescribed": "Prescribed",
        "engines.processes": "Processes",
        "engines.ray_cluster": "RayCluster",
        "engines.reads": "ConstantDelay PowerDelay ReadSequence UniformDelay",
        "engines.replay": "Replay replay",
        "engines.simulated": "Simulated",
        "engines.threads": "Threads",
        "estimators.kernel": "KernelClassifier KernelRegressor",
        "problems.client_quadratics": "ClientQuadratics",
        "problems.data": "Dataset",
        "problems.hsu_dirichlet": "HsuDirichlet",
        "problems.kernel_functions": "Dispersal Gaussian Laplacian Matern UserKernel",
        "problems.kernel_interpolation": "KernelInterpolation",
        "problems.least_squares": "LeastSquares",
        "problems.linear_system": "LinearSystem",
        "problems.logistic": "LogisticRegression SoftmaxRegression",
        "problems.partition": "Dirichlet Given Iid Shards Shared",
        "problems.projections": (
            "AffineSubspace Ball Box ConvexSet L1Ball NuclearNormBall ProductSet Simplex UserSet WholeSpace"
        ),
        "problems.regularizers": "L2 SmoothNonconvex",
        "problems.sketches": "CountSketch GaussianSketch RowBlocks Rows",
        "problems.sigmoid_regression": "SigmoidRegression",
        "problems.test_functions": "DoubleWell Quadratic Ridges Rosenbrock",
        "problems.torch_model": "TorchModel",
        "problems.user_gradient": "UserGradient",
        "rules.compression": "Compressor Quantization RandomK",
        "rules.buffered": "FedBuff",
        "rules.accelerated_sketch": "AcceleratedSketchProject",
        "rules.async_bc": "AsyncBC",
        "rules.async_eigenpro": "AsyncEigenPro",
        "rules.eigenpro": "EigenPro SyncEigenPro",
        "rules.dual_averaging": "DAGD DASGD ProjectedSGD",
        "rules.gradient_descent": "AsyncSGD SyncSGD",
        "rules.incremental": "IAG SAGA",
        "rules.hogwild": "Hogwild",
        "rules.ringmaster": "Rennala Ringmaster",
        "rules.row_action": "RowAction",
        "rules.sarah": "SARAH",
        "rules.sketch_project": "AveragedSketchProject ParallelSketchProject SketchProject",
        "solvers.growth_watch": "GrowthWatch",
        "solvers.linsolve": "linsolve",
        "solvers.linear_result": "LinearResult",
        "solvers.minimize": "minimize",
        "theory.coherence": "check_coherence",
        "theory.dual_averaging": "LogLogStep LogStep",
        "theory.step_proposal": "steps_for",
        "timing.availability": "OnOff",
        "timing.growing": "Growing",
        "timing.models": "Constant Exponential FromTrace LogNormal Pareto PerClient RandomStragglers",
        "timing.recorded_availability": "OnOffTrace",
        "tracking.mlflow_observer": "MLflow",
    }.items()
    for name in names.split()
}
_SUBMODULES = ("datasets", "testing")

__all__ = ["__version__", *sorted(_MODULE_OF), *_SUBMODULES]  # noqa: PLE0604 (they are strings)


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        value = getattr(importlib.import_module(f"tardigrad.{_MODULE_OF[name]}"), name)
    elif name in _SUBMODULES:
        value = importlib.import_module(f"tardigrad.{name}")
    else:
        raise AttributeError(f"module 'tardigrad' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
