"""The regressor."""

from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import column_or_1d

from ..errors import ArgumentError, DataError, shorten
from ..losses import Huber, MeanAbsoluteError, PoissonNll, Quadratic
from .base import Estimator
from .parameters import knows_its_parameters

LOSSES = {
    "squared_error": Quadratic(),
    "absolute_error": MeanAbsoluteError(),
    "huber": Huber(),
    "poisson": PoissonNll(),
}


class FNNRegressor(RegressorMixin, Estimator):
    """A multilayer perceptron for regression.

    The parameters are those of `FNNClassifier`, with the following differences. The attributes are the same, except for
    `classes_`.

    Args:
        loss: 'squared_error' (½ (p − y)², summed over outputs), 'absolute_error', 'huber', or 'poisson', for counts, in
            which case the network's output is the logarithm of the expected count, so that `warm_start` cannot change
            to it or from it. Default: 'squared_error'.
        alpha: the strength of the L2 penalty, as for `FNNClassifier`. Default: 0.0001.
        learning_rate_init: the initial learning rate. Default: 0.001.
        standardize: whether to standardize inputs and, except with 'poisson', targets to mean 0 and standard deviation
            1 in training. A last layer of `net_` transforms predictions back; `loss_` is that of the standardized
            targets. Default: True.

    >>> X = np.linspace(-1, 1, 50)[:, None]
    >>> model = FNNRegressor(learning_rate_init=0.01, random_state=0).fit(X, 1000 + 300 * X[:, 0] ** 2)
    >>> round(model.score(X, 1000 + 300 * X[:, 0] ** 2), 1)
    1.0
    """

    loss: Any

    _score = staticmethod(r2_score)

    @knows_its_parameters
    def __init__(
        self,
        loss="squared_error",
        hidden_layer_sizes=(100,),
        activation="relu",
        *,
        solver: Any = "adam",
        alpha=0.0001,
        batch_size: Any = "auto",
        learning_rate="constant",
        learning_rate_init=0.001,
        power_t=0.5,
        max_iter=200,
        shuffle=True,
        random_state=None,
        tol=1e-4,
        verbose=False,
        warm_start=False,
        momentum=0.9,
        nesterovs_momentum=True,
        early_stopping=False,
        validation_fraction=0.1,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        n_iter_no_change=10,
        standardize=True,
        dropout=0.0,
        callbacks=(),
        backend=None,
    ):
        # scikit-learn reads the names and defaults from this signature
        super().__init__(**{name: value for name, value in locals().items() if name not in ("self", "__class__")})

    def fit(self, X, y, sample_weight=None):
        """Fit the network to the data.

        With `warm_start` it continues from where the last call ended, with the present parameters; otherwise it starts
        afresh. Ctrl-C ends training with a warning, as in scikit-learn, and the network of the last whole epoch is
        kept (with early stopping that of the best; before the end of the first epoch, the one it began with).

        Args:
            X: the inputs (n_samples, n_features), an array, a frame or a sparse matrix.
            y: the targets (n_samples,), or (n_samples, n_outputs).
            sample_weight: (n_samples,), at least 0; only their ratios matter. Default: None, equal weights.

        Returns:
            The estimator.
        """
        return self._fit(X, y, sample_weight)

    def partial_fit(self, X, y, sample_weight=None):
        """Train for one more epoch.

        Inputs and targets are standardized by the mean and standard deviation of the first part. Those of a feature are
        replaced by those of all examples so far where they are off by more than a standard deviation, or by a factor
        of 3.
        """
        return self._fit(X, y, sample_weight, anew=not hasattr(self, "params_"), epochs=1)

    def predict(self, X):
        """Predict the targets of each example: (n_samples,), or (n_samples, n_outputs)."""
        return self._decided(self._output(X))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _check_parameters(self):
        super()._check_parameters()
        if self.loss not in list(LOSSES):
            raise ArgumentError(f"loss: expected one of {', '.join(LOSSES)}, got {shorten(self.loss)}")

    def _check_continued(self):
        if (self.loss == "poisson") != (self.out_activation_ == "exp"):
            kept = "'poisson'" if self.out_activation_ == "exp" else "another than 'poisson'"
            raise ArgumentError(
                f"loss: expected {kept}, as in the last fit, which is continued, since its outputs are to mean the "
                f"same, got {self.loss!r}; fit with warm_start=False begins a new network"
            )
        super()._check_continued()

    def _labels(self, y, anew, classes):
        if y.dtype.kind not in "fiub":
            raise DataError(f"y: expected numbers, got {shorten(y.flat[0])}; FNNClassifier learns classes")
        y = column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y
        if anew:
            self._flat, self.out_activation_ = y.ndim == 1, "exp" if self.loss == "poisson" else "identity"
        return y

    def _targets(self, y):
        return LOSSES[self.loss], y.reshape(len(y), -1).astype(self._dtype)

    def _to_standardize(self):
        return ("X",) if self.loss == "poisson" else ("X", "y")

    def _outputs(self, targets):
        return targets.shape[1]

    def _decided(self, output):
        prediction = np.exp(output) if self.out_activation_ == "exp" else output
        return prediction[:, 0] if self._flat else prediction
