"""The parameters of the estimators: their ranges, and the network and optimizer that they mean."""

import functools
import math
from typing import Annotated, Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator

from .. import backend
from ..backend import namespace
from ..callbacks import check_callbacks
from ..errors import ArgumentError, KindError, integer, shape, shorten
from ..initializers import GlorotUniform
from ..layers import Dense, Dropout, Layer
from ..layers.activations import Identity, Relu, Sigmoid, Tanh
from ..networks import Serial
from ..optimizers import Adam, Lbfgs, Momentum, Nesterov, Sgd
from ..static import Interval, declared

ACTIVATIONS = {"identity": Identity(), "logistic": Sigmoid(), "tanh": Tanh(), "relu": Relu()}
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


class Parameters(BaseEstimator):
    """The parameters of both estimators, and what they mean."""

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
    dropout: Annotated[float, Interval("[0, 1)")]

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
    callbacks: Any
    backend: Any

    n_outputs_: int
    t_: int
    _state: Any
    _restarted: int

    def __init__(self, **parameters):
        for name, value in parameters.items():
            setattr(self, name, value)

    def _check_parameters(self):
        """Raise, before any work, if a parameter is invalid."""
        sizes: Any = self.hidden_layer_sizes
        shape("hidden_layer_sizes", tuple(sizes) if isinstance(sizes, tuple | list | np.ndarray) else (sizes,))
        if not isinstance(self.activation, Layer) and self.activation not in list(ACTIVATIONS):
            raise ArgumentError(
                f"activation: expected one of {', '.join(ACTIVATIONS)}, or a layer such as fnn.Gelu(), "
                f"got {shorten(self.activation)}"
            )
        if self.solver not in ("adam", "sgd", "lbfgs") and not callable(self.solver):
            raise ArgumentError(
                "solver: expected 'adam', 'sgd', 'lbfgs', or an optimizer's class such as fnn.AdamW, "
                f"got {shorten(self.solver)}"
            )
        if self.learning_rate not in ("constant", "invscaling", "adaptive"):
            raise ArgumentError(
                f"learning_rate: expected 'constant', 'invscaling' or 'adaptive', got {shorten(self.learning_rate)}"
            )
        if self.backend not in (None, "jax", "numpy"):
            raise ArgumentError(f"backend: expected None, 'jax' or 'numpy', got {shorten(self.backend)}")
        if self.backend == "jax":
            backend.need_jax("backend='jax'")
        for name in ("shuffle", "verbose", "warm_start", "nesterovs_momentum", "early_stopping", "standardize"):
            if not isinstance(value := getattr(self, name), bool | np.bool):
                raise KindError(f"{name}: expected True or False, got {shorten(value)}")
        check_callbacks(self.callbacks)
        if self.solver == "lbfgs" and self.dropout:
            raise ArgumentError(
                f"dropout: expected 0 with solver='lbfgs', which needs a cost without noise, got {self.dropout}"
            )
        for name, field in declared(type(self)).items():
            if field.interval is not None:
                field.interval.check(name, getattr(self, name), field.whole)
        if self.n_iter_no_change != math.inf:
            integer("n_iter_no_change", self.n_iter_no_change, least=1)
        if self.batch_size != "auto":
            integer("batch_size", self.batch_size, least=1)

    def _network(self):
        """The network of the present parameters."""
        sizes = *np.ravel(self.hidden_layer_sizes).astype(int).tolist(), self.n_outputs_
        activation = ACTIVATIONS[self.activation] if isinstance(self.activation, str) else self.activation
        return _network_of(sizes, activation, self.dropout)

    def _recipe_for(self, n):
        """All that determines the optimizer, for n examples."""
        if self.solver == "lbfgs":
            return ["lbfgs", self.tol]
        names = ("solver", "learning_rate", "learning_rate_init", "power_t", "momentum", "nesterovs_momentum")
        numbers = [getattr(self, name) for name in (*names, "beta_1", "beta_2", "epsilon")]
        return [*numbers, n, self._batch(n)] if self.learning_rate == "invscaling" else numbers

    def _new_optimizer(self, n):
        """A new optimizer, for n examples."""
        if self.solver == "lbfgs":
            return Lbfgs(gtol=self.tol)
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
        if self.solver == "lbfgs":
            return n
        if self.batch_size == "auto":
            return -(-n // max(1, round(n / USUAL_BATCH)))
        return min(self.batch_size, n)


@functools.lru_cache(maxsize=128)
def _network_of(sizes, activation, dropout):
    """Dense layers of these sizes, with what follows each but the last: it takes longer to make than to remember."""
    after = (activation, Dropout(dropout)) if dropout else (activation,)
    layers = [layer for size in sizes for layer in (Dense(size, initializer=GlorotUniform()), *after)]
    return Serial(tuple(layers[: -len(after)]))
