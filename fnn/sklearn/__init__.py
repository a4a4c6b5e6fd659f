"""Estimators for scikit-learn (the extra `sklearn`): `FNNClassifier` and `FNNRegressor`, multilayer perceptrons.

They take what `MLPClassifier` and `MLPRegressor` take, where it means something here, and stop by the same rule. What
they learn is an fnn network: `net_.apply(params_, X)`, which `fnn.checkpoints.save(path, params_, net=net_)` saves.
This package is imported on request, `import fnn.sklearn`, since importing scikit-learn takes a second.
"""

from ..static import make_exportable
from .base import InverseScaling as InverseScaling
from .classifier import FNNClassifier as FNNClassifier
from .regressor import FNNRegressor as FNNRegressor

make_exportable("fnn.sklearn.")
