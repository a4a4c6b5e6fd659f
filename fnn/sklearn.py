"""Estimators for scikit-learn (the extra `sklearn`): `FNNClassifier` and `FNNRegressor`, multilayer perceptrons.

They take what `MLPClassifier` and `MLPRegressor` take, where it means something here, and stop by the same rule. What
they learn is a network of fnn's: `net_.apply(params_, X)`, which `fnn.checkpoints.save(path, params_, net=net_)` keeps.
This module is imported by whoever wants it, `import fnn.sklearn`, since scikit-learn takes a second.
"""

import math
import warnings
from typing import Any, NamedTuple

import numpy as np

from . import backend, random, trees
from .activations import Identity, Relu, Sigmoid, Tanh
from .errors import ArgumentError, DivergenceError, MissingExtraError, integer, real, same_shape, shape, shorten
from .initializers import GlorotUniform
from .layers import DenseParams, Layer
from .losses import (
    L2,
    Huber,
    MeanAbsoluteError,
    PoissonNll,
    Quadratic,
    SigmoidBinaryCrossEntropy,
    SoftmaxCrossEntropy,
)
from .networks import Frozen, Serial, mlp
from .normalization import Standardize, StandardizeParams
from .optimizers import Adam, Momentum, Nesterov, Sgd
from .training import check_data, init_state, run

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import accuracy_score, r2_score
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels
    from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
except ImportError as error:
    raise MissingExtraError("fnn.sklearn needs scikit-learn 1.6 or later: pip install 'fnn[sklearn]'") from error

__all__ = ["FNNClassifier", "FNNRegressor"]

_ACTIVATIONS = {"identity": Identity(), "logistic": Sigmoid(), "tanh": Tanh(), "relu": Relu()}
_LOSSES = {
    "squared_error": Quadratic(),
    "absolute_error": MeanAbsoluteError(),
    "huber": Huber(),
    "poisson": PoissonNll(),
}
_WORTH_COMPILING = 1e10  # operations of a whole run: about a second of NumPy's


class InverseScaling(NamedTuple):
    """η(t) = η / (1 + n ⌊t / S⌋)ᵖ        S steps an epoch of n examples"""

    rate: Any
    power: Any
    examples: Any
    steps: Any

    def __call__(self, count):
        return self.rate / (1 + self.examples * (count // self.steps)) ** self.power


class _Network(BaseEstimator):
    """What the two have in common. Of their own they have `predict` and

    _labels     y as it is learnt from, after a look at it
    _targets    the cost, and the targets that it is given
    _outputs    how many outputs these need
    _score      how good a prediction is
    """

    predict: Any
    _labels: Any
    _targets: Any
    _outputs: Any
    _score: Any

    def __init__(
        self,
        hidden_layer_sizes=(100,),
        activation="relu",
        *,
        solver: Any = "adam",
        alpha=0.2,
        batch_size: Any = "auto",
        learning_rate="constant",
        learning_rate_init=0.005,
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
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.standardize = standardize
        self.backend = backend

    def fit(self, X, y, sample_weight=None):
        """Learn from X (n_samples, n_features) and y, with `sample_weight` (n_samples,) if any; returns the estimator.

        With `warm_start` it goes on from where the last call ended, else it begins anew.
        """
        return self._fit(X, y, sample_weight, anew=not (self.warm_start and hasattr(self, "params_")))

    def _fit(self, X, y, weights, anew, epochs=None, classes=None):
        """`fit`, or so many epochs more."""
        self._check_parameters()
        checked: Any = validate_data(self, X, y, dtype=(np.float64, np.float32), multi_output=True, reset=anew)
        X, y = checked
        if weights is not None:
            weights = backend.as_array("sample_weight", weights, np).astype(np.float64)
            same_shape("sample_weight", weights, X.shape[:1])
            if not weights.any():
                raise ArgumentError("sample_weight: expected at least one weight above 0, and all are zero")
        if anew:
            vars(self).pop("params_", None)  # should this fit fail, there is no network
        chance = check_random_state(self.random_state)
        y, held = self._labels(y, anew, classes), None
        if self.early_stopping:
            if epochs is not None:
                raise ArgumentError("early_stopping: expected False for partial_fit, got True")
            X, y, weights, *held = self._split(X, y, weights, chance)
        if anew:
            self._center = Standardize().measured(X, weights, X.dtype) if self.standardize else None
        loss, targets = self._targets(y, weights, X.dtype, anew)
        X = X if self._center is None else Standardize().apply(self._center, X)
        if anew:
            self._begin(X, targets, chance)
        self._learn(X, targets, weights, loss, held, epochs)
        return self

    def _check_parameters(self):
        """Raise, before any work, for a parameter that makes no sense."""
        sizes: Any = self.hidden_layer_sizes
        shape("hidden_layer_sizes", tuple(sizes) if isinstance(sizes, tuple | list | np.ndarray) else (sizes,))
        if not isinstance(self.activation, Layer) and self.activation not in list(_ACTIVATIONS):
            raise ArgumentError(
                f"activation: expected one of {', '.join(_ACTIVATIONS)}, or a layer such as fnn.Gelu(), "
                f"got {shorten(self.activation)}"
            )
        if self.solver not in ("adam", "sgd") and not callable(self.solver):
            raise ArgumentError(
                f"solver: expected 'adam', 'sgd', or an optimizer's class such as fnn.AdamW, got {shorten(self.solver)}"
            )
        if self.learning_rate not in ("constant", "invscaling", "adaptive"):
            raise ArgumentError(
                f"learning_rate: expected 'constant', 'invscaling' or 'adaptive', got {shorten(self.learning_rate)}"
            )
        if self.backend not in (None, "jax", "numpy"):
            raise ArgumentError(f"backend: expected None, 'jax' or 'numpy', got {shorten(self.backend)}")
        if self.backend == "jax":
            backend.need_jax("backend='jax'")
        for name, bounds in {
            "alpha": {"least": 0},
            "learning_rate_init": {"above": 0},
            "power_t": {"least": 0},
            "tol": {"least": 0},
            "momentum": {"least": 0, "below": 1},
            "validation_fraction": {"above": 0, "below": 1},
            "beta_1": {"least": 0, "below": 1},
            "beta_2": {"least": 0, "below": 1},
            "epsilon": {"above": 0},
        }.items():
            real(name, getattr(self, name), **bounds)
        integer("max_iter", self.max_iter, least=1)
        if self.n_iter_no_change != math.inf:
            integer("n_iter_no_change", self.n_iter_no_change, least=1)
        if self.batch_size != "auto":
            integer("batch_size", self.batch_size, least=1)

    def _split(self, X, y, weights, chance) -> Any:
        """X, y and weights to learn from, and those that are held out; classes in equal shares."""
        single = isinstance(self, ClassifierMixin) and y.ndim == 1
        arrays = [X, y] if weights is None else [X, y, weights]
        how = {"test_size": self.validation_fraction, "random_state": chance, "stratify": y if single else None}
        split = train_test_split(*arrays, **how)
        if len(split[1]) < 2:
            raise ArgumentError("validation_fraction: expected one by which at least 2 examples are held out")
        return *(*split[::2], None)[:3], *(*split[1::2], None)[:3]

    def _begin(self, X, targets, chance):
        """A new network, and the state of its run at step 0."""
        hidden = np.ravel(self.hidden_layer_sizes).astype(int).tolist()
        activation = _ACTIVATIONS[self.activation] if isinstance(self.activation, str) else self.activation
        self.n_layers_, self.n_outputs_ = len(hidden) + 2, self._outputs(targets)
        self._net = mlp((*hidden, self.n_outputs_), activation, GlorotUniform())
        key = random.key(int(chance.randint(2**32, dtype=np.uint64)), backend="numpy")
        self._state = init_state(self._net, self._optimizer(len(X)), key, X.shape[1:], X.dtype)
        self.loss_curve_, self.best_loss_ = [], math.inf
        self.validation_scores_, self.best_validation_score_ = [], -math.inf
        self._best, self.t_ = None, 0

    def _optimizer(self, n):
        """A new one, for n examples."""
        rate: Any = float(self.learning_rate_init)
        if self.learning_rate == "invscaling":
            rate = InverseScaling(rate, float(self.power_t), float(n), float(-(-n // self._batch(n))))
        if self.solver == "adam":
            return Adam(rate, self.beta_1, self.beta_2, self.epsilon)
        if self.solver == "sgd":
            kind = Nesterov if self.nesterovs_momentum else Momentum
            return kind(rate, self.momentum) if self.momentum else Sgd(rate)
        optimizer = self.solver(rate)
        if self.learning_rate == "adaptive" and not hasattr(optimizer, "learning_rate"):
            raise ArgumentError(f"learning_rate: expected 'constant' or 'invscaling' with {shorten(optimizer)}")
        return optimizer

    def _batch(self, n):
        """The batch size for n examples."""
        if self.batch_size == "auto":
            return -(-n // max(1, round(n / 200)))
        return min(self.batch_size, n)

    def _learn(self, X, targets, weights, loss, held, epochs):
        """So many epochs, or those until it stops; what they leave behind are the attributes."""
        most, size = self.max_iter if epochs is None else epochs, self._batch(len(X))
        chosen = self.backend
        if chosen is None:
            work = 6 * sum(p.size for p in trees.leaves(self._state.params)) * len(X) * most
            chosen = "jax" if work > _WORTH_COMPILING and backend.jax is not None else "numpy"
        state = _on(chosen, self._state)
        data = check_data(self._net, loss, state.params, (X, targets, weights))
        per_epoch, total = -(-len(X) // size), len(X) if weights is None else weights.sum()
        how = {"net": self._net, "loss": loss, "batch_size": size, "shuffle": bool(self.shuffle)}
        penalty = L2(data[0].dtype.type(self.alpha * per_epoch / total)) if self.alpha else None
        self.n_iter_, self._waited, stopped = 0, 0, False
        while self.n_iter_ < most and not stopped:
            at_once = 1
            if chosen == "numpy" and held is None and not self.verbose:  # it cannot stop sooner than after these
                at_once = int(min(self.n_iter_no_change + 1 - self._waited, most - self.n_iter_))
            state, history = run(state, penalty, *data, steps=at_once * per_epoch, **how)
            losses, sizes = (np.asarray(history[k], np.float64).reshape(at_once, -1) for k in ("loss", "weight"))
            for value in (losses * sizes).sum(axis=1) / sizes.sum(axis=1):
                self._told(float(value), len(X), state, held)
            if epochs is None and self._waited > self.n_iter_no_change:
                state, stopped = self._slower(state)
        if epochs is None and not stopped:
            told = f"max_iter: {most} epochs are done, and it had not stopped by itself"
            warnings.warn(told, ConvergenceWarning, stacklevel=4)
        state = _on("numpy", state)
        if not all(np.isfinite(p).all() for p in trees.leaves(state.params)):
            raise self._diverged("a parameter is not finite")
        self._state = state
        self._keep(self._state if held is None else self._best)

    def _told(self, value, n, state, held):
        """An epoch is done, with this mean loss."""
        self.n_iter_ += 1
        self.t_ += n
        if not math.isfinite(value):
            raise self._diverged(f"the loss is {value:g}")
        self.loss_, watched, best = value, value, self.best_loss_
        self.loss_curve_.append(value)
        self.best_loss_ = min(value, best)
        if self.verbose:
            print(f"Iteration {self.n_iter_}, loss = {value:.8f}")
        if held is not None:
            X, y, weights = held
            self._keep(_on("numpy", state))
            score = self._score(y, self.predict(X), sample_weight=weights)
            watched, best = -score, -self.best_validation_score_
            self.validation_scores_.append(score)
            if watched < best or self._best is None:
                self.best_validation_score_, self._best = score, _on("numpy", state)
            if self.verbose:
                print(f"Validation score: {score:f}")
        self._waited = 0 if watched <= best - self.tol else self._waited + 1

    def _diverged(self, what):
        message = f"epoch {self.n_iter_}: {what}; a lower learning_rate_init helps, or standardize=True"
        return DivergenceError(message, self._state, {"loss": np.array(self.loss_curve_)})

    def _slower(self, state):
        """`(state, whether to stop)` where the loss falls no more: with an adaptive rate it first goes on slower."""
        if self.learning_rate != "adaptive" or (rate := state.optimizer.learning_rate) <= 1e-6:
            return state, True
        self._waited = 0
        return state._replace(optimizer=state.optimizer._replace(learning_rate=rate / 5)), False

    def _keep(self, state):
        """The network as others see it: with a first layer that standardises."""
        self.net_, self.params_ = self._net, state.params
        if self._center is not None:  # once and for all in training
            self.net_ = Serial((Frozen(Standardize()), *self.net_.layers))
            self.params_ = (trees.Fixed(self._center), *self.params_)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "params_")

    def _output(self, X):
        """What the network gives, 10,000 examples at a time."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        return np.concatenate([self.net_.apply(self.params_, X[i : i + 10_000]) for i in range(0, len(X), 10_000)])

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


class FNNClassifier(ClassifierMixin, _Network):
    """A multilayer perceptron that tells classes, or sets of labels, by cross-entropy.

    Parameters, with `MLPClassifier`'s names: `hidden_layer_sizes` (100,); `activation` 'relu', 'identity', 'logistic',
    'tanh', or a layer such as `fnn.Gelu()`; `solver` 'adam' (with `beta_1` 0.9, `beta_2` 0.999, `epsilon` 10⁻⁸), 'sgd'
    (with `momentum` 0.9, `nesterovs_momentum` True) or an optimizer's class such as `fnn.AdamW`; `alpha` 0.2, the L2
    penalty, divided by the examples of a batch; `batch_size` 'auto', about 200, so that all batches are alike;
    `learning_rate` 'constant', 'invscaling' (by `power_t` 0.5) or 'adaptive', for every solver; `learning_rate_init`
    0.005; `max_iter` 200 epochs, before which it stops when for more than `n_iter_no_change` 10 of them the loss has
    not fallen by `tol` 10⁻⁴, or, with `early_stopping`, the score on the `validation_fraction` 0.1 that is held out has
    not risen, whose best epoch then counts; `shuffle` True, `random_state`, `verbose`, `warm_start`. And of its own:
    `standardize` True, whether inputs are brought to mean 0 and deviation 1 by a first layer whose constants come from
    the training data; `backend` 'numpy', 'jax', or None, by the size of the work.

    Three defaults are not scikit-learn's, where `alpha` is 0.0001, `learning_rate_init` 0.001 and `batch_size` at most
    200: with these it does as well, sooner.

    Attributes: `classes_`, `net_` and `params_`, `coefs_`, `intercepts_`, `loss_`, `best_loss_`, `loss_curve_`,
    `n_iter_`, `t_`, `n_layers_`, `n_outputs_`, `validation_scores_`, `best_validation_score_`, `n_features_in_`.

    It computes in the precision of X; on JAX in float32, unless 64 bits are switched on there. It passes scikit-learn's
    `check_estimator`; on JAX in float32 but for a comparison to ten digits.

    >>> X, y = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), ["no", "yes", "yes", "no"]
    >>> FNNClassifier(solver="sgd", learning_rate_init=0.3, random_state=0).fit(X, y).predict(X).tolist()
    ['no', 'yes', 'yes', 'no']
    """

    _score = staticmethod(accuracy_score)

    def partial_fit(self, X, y, sample_weight=None, classes=None):
        """One epoch more; `classes`, all there will be, must be given the first time."""
        anew = not hasattr(self, "params_")
        if anew and classes is None:
            raise ArgumentError("classes: expected all classes on the first call of partial_fit, got None")
        if not anew and classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ArgumentError(f"classes: expected those of the first call, {self.classes_}, got {shorten(classes)}")
        return self._fit(X, y, sample_weight, anew, epochs=1, classes=classes)

    def predict(self, X):
        """The class of each example, (n_samples,), or its labels, (n_samples, n_labels) of 0 and 1."""
        output = self._output(X)
        if self._multilabel:
            return (output > 0).astype(int)
        return self.classes_[(output[:, 0] > 0).astype(int) if len(self.classes_) == 2 else output.argmax(axis=1)]

    def predict_proba(self, X):
        """The probability of each class, or of each label, (n_samples, n_classes), in the order of `classes_`."""
        output = self._output(X)
        p = self._loss().predict(output)
        return np.hstack([1 - p, p]) if p.shape[1] < len(self.classes_) else p

    def predict_log_proba(self, X):
        """The logarithm of `predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    @property
    def out_activation_(self):
        """What follows the last layer: 'softmax' or 'logistic'."""
        check_is_fitted(self)
        return "softmax" if isinstance(self._loss(), SoftmaxCrossEntropy) else "logistic"

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _labels(self, y, anew, classes):
        """y, of classes that are known from here on."""
        check_classification_targets(y)
        multilabel = type_of_target(y).startswith("multilabel")
        y = y if multilabel else column_or_1d(y, warn=True)
        if anew:
            self.classes_, self._multilabel = unique_labels(y) if classes is None else np.unique(classes), multilabel
        unknown = np.setdiff1d(unique_labels(y), self.classes_)
        if len(unknown) or multilabel != self._multilabel:
            raise ArgumentError(f"y: expected classes of {shorten(self.classes_)}, got {shorten(unknown)} too")
        return y

    def _targets(self, y, weights, dtype, anew):
        if not self._multilabel:
            y = np.searchsorted(self.classes_, y)
            y = y[:, None] if len(self.classes_) == 2 else y
        return self._loss(), y if y.ndim == 1 else y.astype(dtype)

    def _loss(self):
        return SigmoidBinaryCrossEntropy() if self._multilabel or len(self.classes_) == 2 else SoftmaxCrossEntropy()

    def _outputs(self, targets):
        return len(self.classes_) if targets.ndim == 1 else targets.shape[1]


class FNNRegressor(RegressorMixin, _Network):
    """A multilayer perceptron that tells numbers.

    Parameters as for `FNNClassifier`, `alpha` 0.0001 and `learning_rate_init` 0.001, and `loss`: 'squared_error'
    (½ (p − y)², summed over outputs), 'absolute_error', 'huber', or 'poisson', of counts, whose logarithm the network
    then gives. With `standardize`, True by default, not
    only inputs but, except for 'poisson', targets too have mean 0 and deviation 1 in training, and a last layer of
    `net_` takes predictions back; `loss_` is that of targets so standardised.

    Attributes as those of `FNNClassifier`, but for `classes_`.

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
        """One epoch more."""
        return self._fit(X, y, sample_weight, anew=not hasattr(self, "params_"), epochs=1)

    def predict(self, X):
        """The numbers for each example: (n_samples,), or (n_samples, n_outputs)."""
        output = self._output(X)
        found = self._loss().predict(output)
        return found[:, 0] if self._flat else found

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _check_parameters(self):
        super()._check_parameters()
        if self.loss not in list(_LOSSES):
            raise ArgumentError(f"loss: expected one of {', '.join(_LOSSES)}, got {shorten(self.loss)}")

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
        return _LOSSES[self.loss]

    def _outputs(self, targets):
        return targets.shape[1]

    def _keep(self, state):
        super()._keep(state)
        if self._scale is not None:  # (z − (−μ/σ)) / (1/σ) = σ z + μ
            back = StandardizeParams(-self._scale.mean / self._scale.std, 1 / self._scale.std)
            self.net_ = Serial((*self.net_.layers, Frozen(Standardize())))
            self.params_ = (*self.params_, trees.Fixed(back))


def _on(chosen, state):
    """A state on a backend."""
    xp = np if chosen == "numpy" else backend.jnp
    key = random.like(state.key, xp)
    return trees.map(lambda a: xp.asarray(a)[()], state._replace(key=()))._replace(key=key)
