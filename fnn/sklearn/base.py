"""The common part of the estimators: parameters, the training run, and the resulting network."""

import math
import warnings
from typing import Annotated, Any, NamedTuple

import numpy as np

from .. import backend, gate, random, trees
from ..backpropagation import Problem
from ..errors import ArgumentError, DivergenceError, MissingExtraError, integer, same_shape, shape, shorten
from ..initializers import GlorotUniform
from ..layers import DenseParams, Layer, Standardize
from ..layers.activations import Identity, Relu, Sigmoid, Tanh
from ..losses import L2
from ..networks import Frozen, Serial, mlp
from ..optimizers import Adam, Momentum, Nesterov, Sgd
from ..order import Plan
from ..static import Interval, declared
from ..training import init_state
from ..training.loop import advance
from ..training.state import next_epoch

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise MissingExtraError("fnn.sklearn needs scikit-learn 1.6 or later: pip install 'fnn[sklearn]'") from error

ACTIVATIONS = {"identity": Identity(), "logistic": Sigmoid(), "tanh": Tanh(), "relu": Relu()}
WORTH_COMPILING = 1e10  # operations of a whole run: about a second of NumPy's


class InverseScaling(NamedTuple):
    """η(t) = η / (1 + n ⌊t / S⌋)ᵖ        S steps an epoch of n examples"""

    rate: Any
    power: Any
    examples: Any
    steps: Any

    def __call__(self, count):
        return self.rate / (1 + self.examples * (count // self.steps)) ** self.power


class Network(BaseEstimator):
    """Base class of the two estimators, which define `predict` and

    _labels     y, checked, in the form in which it is learnt
    _targets    the cost and its targets
    _outputs    the number of outputs that the targets need
    _score      the score of a prediction
    """

    alpha: Annotated[float, Interval("[0, ∞)")]
    learning_rate_init: Annotated[float, Interval("(0, ∞)")]
    power_t: Annotated[float, Interval("[0, ∞)")]
    tol: Annotated[float, Interval("[0, ∞)")]
    momentum: Annotated[float, Interval("[0, 1)")]
    validation_fraction: Annotated[float, Interval("(0, 1)")]
    beta_1: Annotated[float, Interval("[0, 1)")]
    beta_2: Annotated[float, Interval("[0, 1)")]
    epsilon: Annotated[float, Interval("(0, ∞)")]
    max_iter: Annotated[int, Interval("[1, ∞)")]

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
        """Fit the network to the data.

        With `warm_start` it continues from where the last call ended; otherwise it starts afresh.

        Args:
            X: the inputs (n_samples, n_features).
            y: the targets.
            sample_weight: (n_samples,). Default: None, equal weights.

        Returns:
            The estimator.
        """
        return self._fit(X, y, sample_weight, anew=not (self.warm_start and hasattr(self, "params_")))

    def _fit(self, X, y, weights, anew, epochs=None, classes=None):
        """`fit`, or `epochs` more epochs."""
        self._check_parameters()
        checked: Any = validate_data(self, X, y, dtype=(np.float64, np.float32), multi_output=True, reset=anew)
        X, y = checked
        if weights is not None:
            weights = gate.as_array("sample_weight", weights, np).astype(np.float64)
            same_shape("sample_weight", weights, X.shape[:1])
            if not weights.any():
                raise ArgumentError("sample_weight: expected at least one weight above 0, and all are zero")
        if anew:
            vars(self).pop("params_", None)  # if this fit fails, there is no network
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
        """Raise, before any work, if a parameter is invalid."""
        sizes: Any = self.hidden_layer_sizes
        shape("hidden_layer_sizes", tuple(sizes) if isinstance(sizes, tuple | list | np.ndarray) else (sizes,))
        if not isinstance(self.activation, Layer) and self.activation not in list(ACTIVATIONS):
            raise ArgumentError(
                f"activation: expected one of {', '.join(ACTIVATIONS)}, or a layer such as fnn.Gelu(), "
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
        for name, field in declared(type(self)).items():
            if field.interval is not None:
                field.interval.check(name, getattr(self, name), field.whole)
        if self.n_iter_no_change != math.inf:
            integer("n_iter_no_change", self.n_iter_no_change, least=1)
        if self.batch_size != "auto":
            integer("batch_size", self.batch_size, least=1)

    def _split(self, X, y, weights, chance) -> Any:
        """X, y and weights for training, and those that are held out; classes are stratified."""
        single = isinstance(self, ClassifierMixin) and y.ndim == 1
        arrays = [X, y] if weights is None else [X, y, weights]
        options = {"test_size": self.validation_fraction, "random_state": chance, "stratify": y if single else None}
        split = train_test_split(*arrays, **options)
        if len(split[1]) < 2:
            raise ArgumentError(
                f"validation_fraction: expected a fraction that holds out at least 2 examples, got {len(split[1])}"
            )
        return *(*split[::2], None)[:3], *(*split[1::2], None)[:3]

    def _begin(self, X, targets, chance):
        """A new network, and the state of its run at step 0."""
        hidden = np.ravel(self.hidden_layer_sizes).astype(int).tolist()
        activation = ACTIVATIONS[self.activation] if isinstance(self.activation, str) else self.activation
        self.n_layers_, self.n_outputs_ = len(hidden) + 2, self._outputs(targets)
        self._net = mlp((*hidden, self.n_outputs_), activation, GlorotUniform())
        key = random.key(int(chance.randint(2**32, dtype=np.uint64)), backend="numpy")
        self._state = init_state(self._net, self._optimizer(len(X)), key, X.shape[1:], X.dtype)
        self.loss_curve_, self.best_loss_ = [], math.inf
        self.validation_scores_, self.best_validation_score_ = [], -math.inf
        self._best, self.t_ = None, 0

    def _optimizer(self, n):
        """A new optimizer, for n examples."""
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
        """Train for `epochs` epochs, or until it stops, and set the attributes."""
        most, size = self.max_iter if epochs is None else epochs, self._batch(len(X))
        chosen = self.backend
        if chosen is None:
            work = 6 * sum(p.size for p in trees.leaves(self._state.params)) * len(X) * most
            chosen = "jax" if work > WORTH_COMPILING and backend.jax is not None else "numpy"
        state = on_backend(chosen, self._state)
        data = gate.dataset(self._net, loss, state.params, (X, targets, weights))
        state = next_epoch(state)
        per_epoch, total = -(-len(X) // size), len(X) if weights is None else weights.sum()
        plan = Plan(len(X), size, self.shuffle)
        penalty = L2(data[0].dtype.type(self.alpha * per_epoch / total)) if self.alpha else None
        self.n_iter_, self._waited, stopped = 0, 0, False
        while self.n_iter_ < most and not stopped:
            at_once = 1
            if chosen == "numpy" and held is None and not self.verbose:  # it cannot stop before these are done
                at_once = int(min(self.n_iter_no_change + 1 - self._waited, most - self.n_iter_))
            problem = Problem(self._net, loss, penalty)
            state, history = advance(problem, state, data, plan, at_once * per_epoch)
            losses, sizes = (np.asarray(history[k], np.float64).reshape(at_once, -1) for k in ("loss", "weight"))
            for value in (losses * sizes).sum(axis=1) / sizes.sum(axis=1):
                self._end_epoch(float(value), len(X), state, held)
            if epochs is None and self._waited > self.n_iter_no_change:
                state, stopped = self._slower(state)
        if epochs is None and not stopped:
            message = f"max_iter: {most} epochs are done, and training has not converged yet"
            warnings.warn(message, ConvergenceWarning, stacklevel=4)
        state = on_backend("numpy", state)
        if not all(np.isfinite(p).all() for p in trees.leaves(state.params)):
            raise self._diverged("a parameter is not finite")
        self._state = state
        self._keep(self._state if held is None else self._best)

    def _end_epoch(self, value, n, state, held):
        """Record the end of an epoch with this mean loss."""
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
            self._keep(on_backend("numpy", state))
            score = self._score(y, self.predict(X), sample_weight=weights)
            watched, best = -score, -self.best_validation_score_
            self.validation_scores_.append(score)
            if watched < best or self._best is None:
                self.best_validation_score_, self._best = score, on_backend("numpy", state)
            if self.verbose:
                print(f"Validation score: {score:f}")
        self._waited = 0 if watched <= best - self.tol else self._waited + 1

    def _diverged(self, what):
        message = f"epoch {self.n_iter_}: {what}; a lower learning_rate_init helps, or standardize=True"
        return DivergenceError(message, self._state, {"loss": np.array(self.loss_curve_)})

    def _slower(self, state):
        """`(state, whether to stop)` once the loss stops falling: an adaptive rate is lowered before it stops."""
        if self.learning_rate != "adaptive" or (rate := state.optimizer.learning_rate) <= 1e-6:
            return state, True
        self._waited = 0
        return state._replace(optimizer=state.optimizer._replace(learning_rate=rate / 5)), False

    def _keep(self, state):
        """Set the public network, whose first layer standardizes the inputs."""
        self.net_, self.params_ = self._net, state.params
        if self._center is not None:  # in training the inputs were standardized once, in advance
            self.net_ = Serial((Frozen(Standardize()), *self.net_.layers))
            self.params_ = (trees.Fixed(self._center), *self.params_)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "params_")

    def _output(self, X):
        """The outputs of the network, computed for 10,000 examples at a time."""
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


def on_backend(chosen, state):
    """The state on the chosen backend."""
    xp = np if chosen == "numpy" else backend.jnp
    key = random.like(state.key, xp)
    return trees.map(lambda a: xp.asarray(a)[()], state._replace(key=()))._replace(key=key)
