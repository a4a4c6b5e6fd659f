"""Estimators for scikit-learn (the extra `sklearn`): `FNNClassifier` and `FNNRegressor`, multilayer perceptrons.

They take what `MLPClassifier` and `MLPRegressor` take, where it means something here, and stop by the same rule. What
they learn is an fnn network: `net_.apply(params_, X)`, which `fnn.checkpoints.save(path, params_, net=net_)` saves.
This package is imported on request, `import fnn.sklearn`, since importing scikit-learn takes a second.

An estimator can be saved by `pickle` and `joblib`, whose files must come from somebody whom you trust, and by `skops`,
whose files may only hold types that are trusted. `fnn.sklearn.TRUSTED` has the names of fnn's:

    skops.io.dump(model, path)
    model = skops.io.load(path, trusted=fnn.sklearn.TRUSTED)
"""

from .. import static
from ..errors import MissingExtraError

try:
    import sklearn  # noqa: F401
except ImportError as error:
    raise MissingExtraError("fnn.sklearn needs scikit-learn 1.6 or later: pip install 'fnn[sklearn]'") from error

from .classifier import FNNClassifier as FNNClassifier
from .parameters import InverseScaling as InverseScaling
from .regressor import FNNRegressor as FNNRegressor

static.make_exportable("fnn.sklearn.")

_OWN = [name for name in (*static.registered(), *static.namedtuples()) if name.startswith("fnn.")]
_OWN += [f"{kind.__module__}.{kind.__qualname__}" for kind in (FNNClassifier, FNNRegressor)]
_OWN += ["fnn.backend.Held"]  # choices of an optimizer, such as those of Lbfgs
TRUSTED = sorted({*_OWN, "numpy.dtype"})
"""The names of the types that a fitted estimator is made of, all of fnn and `numpy.dtype`, for `skops.io.load`."""
