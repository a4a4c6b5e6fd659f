"""The common part of the estimators: from data to a run, and from a run to a network that predicts."""

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from .. import gate, random, trees
from ..errors import ArgumentError, DataError
from ..layers import DenseParams, Dropout
from ..training import init_state
from .examples import held_out, readable, relative, standardized
from .parameters import Parameters
from .running import Run, applied
from .scaling import Seen, with_scaling


class Estimator(Parameters):
    """Base class of the two estimators, which define `predict` and

    _labels     y, checked, in the form in which it is learnt
    _targets    the cost and its targets
    _outputs    the number of outputs that the targets need
    _decided    the prediction for outputs of the network
    _score      the score of a prediction
    """

    predict: Any
    _labels: Any
    _targets: Any
    _outputs: Any
    _decided: Any
    _score: Any
    n_features_in_: Any
    best_loss_: Any
    validation_scores_: Any
    best_validation_score_: Any

    def _fit(self, X, y, weights, anew=None, epochs=None, classes=None):
        """`fit`, or `epochs` more epochs."""
        anew = not (self.warm_start and hasattr(self, "params_")) if anew is None else anew
        self._check_parameters()
        if epochs is not None and self.solver == "lbfgs":
            raise ArgumentError("solver: expected another than 'lbfgs' for partial_fit, since it needs all examples")
        if not anew:
            self._check_continued()
        X, y = self._checked(X, y, multi_output=True, y_numeric=not isinstance(self, ClassifierMixin), reset=anew)
        y = y.toarray() if hasattr(y, "toarray") else y
        weights = None if weights is None else relative(weights, len(y))
        if anew:
            vars(self).pop("params_", None)  # if this fit fails, there is no network
            self._seen, self._dtype = {}, X.dtype
        chance = check_random_state(self.random_state)
        y, held = self._labels(y, anew, classes), None
        if self.early_stopping:
            if epochs is not None:
                raise ArgumentError("early_stopping: expected False for partial_fit, got True")
            X, y, weights, *held = self._split(X, y, weights, chance)
        X, weights = readable(X), self._weighted(y, weights, epochs)
        loss, targets = self._targets(y)
        X, targets, seen = self._standardized(X, targets, weights)
        if anew:
            self._begin(X, targets, chance)
        else:
            self._continue(X, epochs)
        self._state = Run(self, held, epochs, len(X)).train(X, targets, weights, loss)
        self.net_, self.params_ = self._public(self._state.params)
        self._seen = seen
        return self

    def _weighted(self, y, weights, epochs):
        """The weights of examples for training; the classifier multiplies them by those of classes."""
        return weights

    def _standardized(self, X, targets, weights):
        """X and the targets, standardized by what has been seen so far, and that: for each, all and what is in use."""
        arrays, seen, self._constants = {"X": X, "y": targets}, {}, {}
        for name in self._to_standardize() if self.standardize else ():
            before, used = self._seen.get(name, (None, None))
            new = Seen.of(arrays[name], weights, before)
            used = new if used is None else new.close_to(used)
            seen[name], self._constants[name] = (new, used), used.constants(self._dtype, name)
            arrays[name] = standardized(arrays[name], self._constants[name], self._dtype)
        return arrays["X"], arrays["y"], seen

    def _to_standardize(self) -> tuple[str, ...]:
        return ("X",)

    def _split(self, X, y, weights, chance) -> Any:
        """X, y and weights for training, and those that are held out; classes are stratified where that can be had."""
        labels = y if isinstance(self, ClassifierMixin) and y.ndim == 1 else None
        parts = held_out(len(y), self.validation_fraction, chance, weights, labels)
        chosen = ((X[part], y[part], None if weights is None else weights[part]) for part in parts)
        return *next(chosen), *next(chosen)

    def _begin(self, X, targets, chance):
        """A new network, and the state of its run at step 0."""
        self.n_layers_, self.n_outputs_ = np.size(self.hidden_layer_sizes) + 2, self._outputs(targets)
        self.t_, self._restarted, self._recipe = 0, 0, self._recipe_for(len(X))
        self._net = self._network()
        key = random.key(int(chance.randint(2**32, dtype=np.uint64)), backend="numpy")
        params = self._net.init(random.split(key)[0], X.shape[1:], np.float64)  # so that float32 draws the same ones
        params = trees.map(lambda p: p.astype(self._dtype), params)
        self._state = init_state(self._net, self._new_optimizer(len(X)), key, X.shape[1:], params=params)
        self.loss_curve_, self.validation_scores_ = [], None
        self.best_loss_ = self.best_validation_score_ = None

    def _check_continued(self):
        """Raise if the parameters do not suit the network that is continued."""
        net, dropped = self._network(), any(isinstance(layer, Dropout) for layer in self._net.layers)
        if bool(self.dropout) != dropped:
            raise ArgumentError(
                f"dropout: expected {'above 0' if dropped else 0}, as in the last fit, which is continued, got "
                f"{self.dropout}; fit with warm_start=False begins a new network"
            )
        if not trees.alike(self._state.params, gate.parameter_shapes(net, (self.n_features_in_,))):
            raise ArgumentError(
                f"hidden_layer_sizes: expected the layers of the last fit, which is continued, {self._net.layers}, "
                f"got {net.layers}; fit with warm_start=False begins a new network"
            )
        if bool(self.standardize) != bool(self._seen):
            raise ArgumentError(
                f"standardize: expected {bool(self._seen)}, as in the last fit, which is continued, "
                f"got {self.standardize}; fit with warm_start=False begins a new network"
            )

    def _continue(self, X, epochs):
        """Continue with the present parameters, which may differ from those of the last call."""
        self._net, n, before = self._network(), len(X), self._state
        recipe = self._recipe_for(n)
        if recipe == self._recipe and (self.learning_rate != "adaptive" or epochs is not None):
            return
        begin = lambda: init_state(self._net, self._new_optimizer(n), before.key, X.shape[1:], params=before.params)
        new, self._recipe = begin(), recipe
        if type(new.optimizer) is type(before.optimizer) and trees.alike(new.opt_state, before.opt_state):
            self._state = before._replace(optimizer=new.optimizer)
        else:
            self._restarted = int(before.step)
            new = begin()  # whose schedule counts from here
            self._state = before._replace(optimizer=new.optimizer, opt_state=new.opt_state)

    def _public(self, params):
        """The network and its parameters, which takes X and gives y as they are."""
        return with_scaling(self._net, params, self._constants)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "params_")

    def _output(self, X):
        """The outputs of the network."""
        check_is_fitted(self)
        return applied(self.net_, self.params_, self._checked(X, reset=False))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _checked(self, *data, **options) -> Any:
        """X, or X and y, as arrays, checked by scikit-learn."""
        try:
            return validate_data(self, *data, accept_sparse="csr", dtype=(np.float64, np.float32), **options)
        except ValueError as error:
            if "could not convert string" not in str(error):
                raise
            hint = "pandas.get_dummies(X) or a OneHotEncoder makes a column of 0 and 1 of each word"
            raise DataError(f"X and y: expected numbers, but {error}; {hint}") from None

    @property
    def coefs_(self):
        """The weights of each layer, (inputs, outputs)."""
        return [p.w.T for p in self._dense()]

    @property
    def intercepts_(self):
        """The biases of each layer, (outputs,)."""
        return [p.b for p in self._dense()]

    def _dense(self):
        check_is_fitted(self)
        return [p for p in self.params_ if isinstance(p, DenseParams)]
