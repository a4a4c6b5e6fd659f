"""The common part of the estimators: parameters, the training run, and the resulting network."""

import functools
import math
import warnings
from typing import Annotated, Any, NamedTuple

import numpy as np

from .. import backend, checks, gate, random, trees
from ..backend import namespace
from ..backpropagation import Problem
from ..errors import (
    ArgumentError,
    DataError,
    DivergenceError,
    KindError,
    MissingExtraError,
    integer,
    same_shape,
    shape,
    shorten,
)
from ..initializers import GlorotUniform
from ..layers import DenseParams, Layer, Standardize, StandardizeParams
from ..layers.activations import Identity, Relu, Sigmoid, Tanh
from ..layers.standardize import constants, mean_and_std, weighted_pieces
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
QUICK = WORTH_COMPILING / 100  # operations that are not worth an interruption
USUAL_BATCH = 200  # about the batch size "auto"


class InverseScaling(NamedTuple):
    """The schedule of `learning_rate="invscaling"`, which falls with a power of the number of examples seen.

    η(t) = η / (1 + m + n ⌊(t − c) / S⌋)ᵖ        S steps an epoch of n examples, after m examples in c steps
    """

    rate: Any
    power: Any
    examples: Any
    steps: Any
    seen: Any = 0.0
    count: Any = 0.0

    def __call__(self, count):
        epochs = namespace(count).maximum(count - self.count, 0) // self.steps
        return self.rate / (1 + self.seen + self.examples * epochs) ** self.power


class Seen(NamedTuple):
    """The mean μ and standard deviation σ of n examples, feature by feature, and how those of two parts are merged.

        μ = μ₁ + s (μ₂ − μ₁)        σ² = σ₁² + s (σ₂² − σ₁²) + s (1 − s) (μ₂ − μ₁)²        s = n₂ / (n₁ + n₂)

    If the second part equals the first, this changes nothing, to the last digit.
    """

    n: int
    mean: Any
    std: Any

    @classmethod
    def of(cls, x, weights, before=None):
        """Those of x (N, K), merged with those before."""
        weights = np.ones(len(x)) if weights is None else weights
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by `constants`
            new = cls(int(np.count_nonzero(weights)), *mean_and_std(weighted_pieces("", x, weights)))
            if before is None:
                return new
            n = before.n + new.n
            share, step = new.n / n, new.mean - before.mean
            variance = before.std**2 + share * (new.std**2 - before.std**2) + share * (1 - share) * step**2
            return cls(n, before.mean + share * step, np.sqrt(variance))

    def close_to(self, used):
        """The μ and σ in use, with these in place of those that are off by more than σ, or by a factor of 3.

        As long as they are kept, the network's outputs for the same inputs change by training only.
        """
        far = (abs(self.mean - used.mean) > self.std) | (self.std > 3 * used.std) | (used.std > 3 * self.std)
        return Seen(self.n, np.where(far, self.mean, used.mean), np.where(far, self.std, used.std))

    def constants(self, dtype, name):
        """The parameters of a `Standardize`."""
        with np.errstate(over="ignore", invalid="ignore"):
            return trees.lock(constants(self.mean, self.std, dtype, name))


def knows_its_parameters(init):
    """A constructor that says what to write instead of a parameter that it does not have."""

    @functools.wraps(init)  # so that scikit-learn finds the parameters in its signature
    def checked(self, *values, **named):
        known = self._get_param_names()
        unknown = [name for name in named if name not in known]
        if unknown:
            hint = f"expected some of {', '.join(known)}"
            raise KindError(f"{type(self).__name__} has no parameter {', '.join(unknown)}; {hint}")
        init(self, *values, **named)

    return checked


class Network(BaseEstimator):
    """Base class of the two estimators, which define `predict` and

    _labels     y, checked, in the form in which it is learnt
    _targets    the cost and its targets
    _outputs    the number of outputs that the targets need
    _decided    the prediction for outputs of the network
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

    hidden_layer_sizes: Any
    activation: Any
    solver: Any
    batch_size: Any
    learning_rate: Any
    shuffle: bool
    random_state: Any
    verbose: Any
    warm_start: bool
    nesterovs_momentum: bool
    early_stopping: bool
    n_iter_no_change: Any
    standardize: bool
    backend: Any

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

    def __init__(self, **parameters):
        for name, value in parameters.items():
            setattr(self, name, value)

    def fit(self, X, y, sample_weight=None):
        """Fit the network to the data.

        With `warm_start` it continues from where the last call ended, with the present parameters; otherwise it starts
        afresh. Ctrl-C ends training with a warning, as in scikit-learn, and the network of the last whole epoch is
        kept (with early stopping that of the best; before the end of the first epoch, the one it began with).

        Args:
            X: the inputs (n_samples, n_features).
            y: the targets.
            sample_weight: (n_samples,), at least 0. Only their ratios matter. Default: None, equal weights.

        Returns:
            The estimator.
        """
        return self._fit(X, y, sample_weight, anew=not (self.warm_start and hasattr(self, "params_")))

    def _fit(self, X, y, weights, anew, epochs=None, classes=None):
        """`fit`, or `epochs` more epochs."""
        self._check_parameters()
        if not anew:
            self._check_continued()
        X, y = self._checked(X, y, multi_output=True, y_numeric=not isinstance(self, ClassifierMixin), reset=anew)
        weights = None if weights is None else relative(weights, len(X))
        if anew:
            vars(self).pop("params_", None)  # if this fit fails, there is no network
            self._seen, self._dtype = {}, X.dtype
        chance = check_random_state(self.random_state)
        y, held = self._labels(y, anew, classes), None
        if self.early_stopping:
            if epochs is not None:
                raise ArgumentError("early_stopping: expected False for partial_fit, got True")
            X, y, weights, *held = self._split(X, y, weights, chance)
        weights = self._weighted(y, weights, epochs)
        loss, targets = self._targets(y)
        X, targets, seen = self._standardized(X, targets, weights)
        if anew:
            self._begin(X, targets, chance)
        else:
            self._continue(X, epochs)
        self._learn(X, targets, weights, loss, held, epochs)
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
            arrays[name] = Standardize().apply(self._constants[name], arrays[name].astype(self._dtype))
        return arrays["X"], arrays["y"], seen

    def _to_standardize(self) -> tuple[str, ...]:
        return ("X",)

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
        try:
            split = train_test_split(*arrays, **options)
        except ValueError as error:  # a class of one example, or fewer examples held out than there are classes
            hint = "another validation_fraction may help; early_stopping=False holds out nothing"
            raise ArgumentError(f"early_stopping: {error} ({hint})") from None
        if len(split[1]) < 2:
            raise ArgumentError(
                f"validation_fraction: expected a fraction that holds out at least 2 examples, got {len(split[1])}"
            )
        for part in split[4:]:
            if not np.any(part):
                raise ArgumentError("sample_weight: expected weights above 0 in training and held out, got only zeros")
        return *(*split[::2], None)[:3], *(*split[1::2], None)[:3]

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
        net = self._network()
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

    def _network(self):
        """The network of the present parameters."""
        hidden = np.ravel(self.hidden_layer_sizes).astype(int).tolist()
        activation = ACTIVATIONS[self.activation] if isinstance(self.activation, str) else self.activation
        return mlp((*hidden, self.n_outputs_), activation, GlorotUniform())

    def _recipe_for(self, n):
        """All that determines the optimizer, for n examples."""
        names = ("solver", "learning_rate", "learning_rate_init", "power_t", "momentum", "nesterovs_momentum")
        numbers = [getattr(self, name) for name in (*names, "beta_1", "beta_2", "epsilon")]
        return [*numbers, n, self._batch(n)] if self.learning_rate == "invscaling" else numbers

    def _new_optimizer(self, n):
        """A new optimizer, for n examples."""
        rate: Any = float(self.learning_rate_init)
        if self.learning_rate == "invscaling":
            steps, count = -(-n // self._batch(n)), int(self._state.step) - self._restarted if self.t_ else 0
            rate = InverseScaling(rate, *(float(f) for f in (self.power_t, n, steps, self.t_, count)))
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
            return -(-n // max(1, round(n / USUAL_BATCH)))
        return min(self.batch_size, n)

    def _learn(self, X, targets, weights, loss, held, epochs):
        """Train for `epochs` epochs, or until it stops, and set the attributes."""
        most, size = self.max_iter if epochs is None else epochs, self._batch(len(X))
        chosen, work = self.backend, 6 * sum(p.size for p in trees.leaves(self._state.params)) * len(X)
        if chosen is None:
            chosen = "jax" if work * most > WORTH_COMPILING and backend.jax is not None else "numpy"
        state = on_backend(chosen, self._state)
        data = gate.dataset(self._net, loss, state.params, (X, targets, weights))
        state = next_epoch(state)
        per_epoch, plan = -(-len(X) // size), Plan(len(X), size, self.shuffle)
        nominal = USUAL_BATCH if self.batch_size == "auto" else self.batch_size
        penalty = L2(data[0].dtype.type(self.alpha / nominal)) if self.alpha else None
        problem = Problem(self._net, loss, penalty)
        if epochs is None or self.best_loss_ is None:  # what was best on other data is no measure for these
            self.best_loss_, self.best_validation_score_ = (None, -math.inf) if held else (math.inf, None)
            self.validation_scores_ = (self.validation_scores_ or []) if held else None
        self.n_iter_, self._waited, self._best, stopped = 0, 0, None, False
        try:
            while self.n_iter_ < most and not stopped:
                at_once = 1
                if chosen == "numpy" and held is None and not self.verbose:  # it cannot stop before these are done
                    at_once = min(self.n_iter_no_change + 1 - self._waited, most - self.n_iter_, 1 + QUICK // work)
                state, history = advance(problem, state, data, plan, int(at_once) * per_epoch)
                losses, sizes = (np.asarray(history[k], np.float64).reshape(-1, per_epoch) for k in ("loss", "weight"))
                for value in (losses * sizes).sum(axis=1) / sizes.sum(axis=1):
                    self._end_epoch(float(value), len(X), state, held)
                if epochs is None and self._waited > self.n_iter_no_change:
                    state, stopped = self._slower(state)
        except KeyboardInterrupt:
            if epochs is not None:  # so that a loop of partial_fit can be stopped; the network remains that of before
                raise
            message = f"training was interrupted after {self.n_iter_} epochs, whose network is kept"
            warnings.warn(message, stacklevel=4)
            stopped = True
        except DivergenceError as error:
            if self._best is None:
                raise
            warnings.warn(f"{error}; the best epoch's network is kept", ConvergenceWarning, stacklevel=4)
            stopped = True
        if epochs is None and not stopped:
            message = f"max_iter: {most} epochs are done, and training has not converged yet"
            warnings.warn(message, ConvergenceWarning, stacklevel=4)
        state = on_backend("numpy", state) if held is None or not self.n_iter_ else self._best
        if state is None or not all(np.isfinite(p).all() for p in trees.leaves(state.params)):
            raise self._diverged("a parameter is not finite")
        self._state = state
        self.net_, self.params_ = self._public(state.params)

    def _end_epoch(self, value, n, state, held):
        """Record the end of an epoch with this mean loss."""
        if held is None and not math.isfinite(value):
            raise self._diverged(f"the loss is {value:g}")
        self.n_iter_ += 1
        self.t_ += n
        self.loss_ = value
        self.loss_curve_.append(value)
        if self.verbose:
            print(f"Iteration {self.n_iter_}, loss = {value:.8f}")
        if held is None:
            watched, best = value, self.best_loss_
            self.best_loss_ = min(value, best)
        else:
            X, y, weights = held
            state = on_backend("numpy", state)
            output = applied(*self._public(state.params), X)
            finite = np.isfinite(output).all()
            score = float(self._score(y, self._decided(output), sample_weight=weights)) if finite else math.nan
            watched, best = -score, -self.best_validation_score_
            self.validation_scores_.append(score)
            if score > self.best_validation_score_:
                self.best_validation_score_, self._best = score, state
            if self.verbose:
                print(f"Validation score: {score:f}")
            if not math.isfinite(value):
                raise self._diverged(f"the loss is {value:g}")
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

    def _public(self, params):
        """The network and its parameters, with first and last layers that standardize X and restore y."""
        net = self._net  # in training the inputs and targets were standardized once, in advance
        if "X" in self._constants:
            net, params = Serial((Frozen(Standardize()), *net.layers)), (trees.Fixed(self._constants["X"]), *params)
        if "y" in self._constants:  # (z − (−μ/σ)) / (1/σ) = σ z + μ
            mean, std = self._constants["y"]
            back = trees.Fixed(StandardizeParams(-mean / std, 1 / std))
            net, params = Serial((*net.layers, Frozen(Standardize()))), (*params, back)
        return net, params

    def __sklearn_is_fitted__(self):
        return hasattr(self, "params_")

    def _output(self, X):
        """The outputs of the network."""
        check_is_fitted(self)
        return applied(self.net_, self.params_, self._checked(X, reset=False))

    def _checked(self, *data, **options) -> Any:
        """X, or X and y, as arrays, checked by scikit-learn."""
        try:
            return validate_data(self, *data, dtype=(np.float64, np.float32), **options)
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


def applied(net, params, X):
    """The outputs of the network, computed for 10,000 examples at a time."""
    return np.concatenate([net.apply(params, X[i : i + 10_000]) for i in range(0, len(X), 10_000)])


def relative(weights, n, name="sample_weight"):
    """The weights of n examples, checked, relative to the largest, so that only their ratios matter."""
    weights = checks.as_array(name, weights, np)
    if weights.dtype.kind == "c":
        raise KindError(f"{name}: expected real numbers, got dtype {weights.dtype}")
    same_shape(name, weights, (n,))
    checks.finite(name, weights)
    checks.not_negative(name, weights)
    if not weights.any():
        raise ArgumentError(f"{name}: expected at least one weight above 0, and all are zero")
    return weights / weights.max().astype(np.float64)


def on_backend(chosen, state):
    """The state on the chosen backend."""
    xp = np if chosen == "numpy" else backend.jnp
    key = random.like(state.key, xp)
    return trees.map(lambda a: xp.asarray(a)[()], state._replace(key=()))._replace(key=key)
