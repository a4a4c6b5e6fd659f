"""Estimators for scikit-learn (the extra `sklearn`): `FNNClassifier` and `FNNRegressor`, multilayer perceptrons.

They take what `MLPClassifier` and `MLPRegressor` take, where it means something here, and stop by the same rule. What
they learn is an fnn network: `net_.apply(params_, X)`, which `fnn.checkpoints.save(path, params_, net=net_)` saves.
This package is imported on request, `import fnn.sklearn`, since importing scikit-learn takes a second.
"""

from ..errors import MissingExtraError
from ..static import make_exportable

try:
    import sklearn  # noqa: F401
except ImportError as error:
    raise MissingExtraError("fnn.sklearn needs scikit-learn 1.6 or later: pip install 'fnn[sklearn]'") from error

from .classifier import FNNClassifier as FNNClassifier
from .parameters import InverseScaling as InverseScaling
from .regressor import FNNRegressor as FNNRegressor

make_exportable("fnn.sklearn.")
