"""The regressor."""

from typing import Any

import numpy as np  # noqa: F401 - for the example
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import column_or_1d

from .. import trees
from ..errors import ArgumentError, shorten
from ..layers import Standardize, StandardizeParams
from ..losses import Huber, MeanAbsoluteError, PoissonNll, Quadratic
from ..networks import Frozen, Serial
from .base import Network

LOSSES = {
    "squared_error": Quadratic(),
    "absolute_error": MeanAbsoluteError(),
    "huber": Huber(),
    "poisson": PoissonNll(),
}


class FNNRegressor(RegressorMixin, Network):
    """A multilayer perceptron for regression.

    The parameters are those of `FNNClassifier`, with the following differences. The attributes are the same, except for
    `classes_`.

    Args:
        loss: 'squared_error' (½ (p − y)², summed over outputs), 'absolute_error', 'huber', or 'poisson', for counts, in
            which case the network's output is the logarithm of the expected count. Default: 'squared_error'.
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

    _score = staticmethod(r2_score)
    out_activation_ = "identity"

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
        backend=None,
    ):
        # scikit-learn reads the names and defaults from this signature
        arguments = {name: value for name, value in locals().items() if name not in ("self", "loss", "__class__")}
        super().__init__(**arguments)
        self.loss = loss

    def partial_fit(self, X, y, sample_weight=None):
        """Train for one more epoch."""
        return self._fit(X, y, sample_weight, anew=not hasattr(self, "params_"), epochs=1)

    def predict(self, X):
        """Predict the targets of each example: (n_samples,), or (n_samples, n_outputs)."""
        output = self._output(X)
        prediction = self._loss().predict(output)
        return prediction[:, 0] if self._flat else prediction

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _check_parameters(self):
        super()._check_parameters()
        if self.loss not in list(LOSSES):
            raise ArgumentError(f"loss: expected one of {', '.join(LOSSES)}, got {shorten(self.loss)}")

    def _labels(self, y, anew, classes):
        return column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y

    def _targets(self, y, weights, dtype, anew):
        columns = y.reshape(len(y), -1).astype(dtype)
        if anew:
            self._flat, self._scale = y.ndim == 1, None
            if self.standardize and self.loss != "poisson":
                self._scale = Standardize().measured(columns, weights, dtype)
        return self._loss(), columns if self._scale is None else Standardize().apply(self._scale, columns)

    def _loss(self):
        return LOSSES[self.loss]

    def _outputs(self, targets):
        return targets.shape[1]

    def _keep(self, state):
        super()._keep(state)
        if self._scale is not None:  # (z − (−μ/σ)) / (1/σ) = σ z + μ
            back = StandardizeParams(-self._scale.mean / self._scale.std, 1 / self._scale.std)
            self.net_ = Serial((*self.net_.layers, Frozen(Standardize())))
            self.params_ = (*self.params_, trees.Fixed(back))
