"""Initializers of parameters: frozen dataclasses that are called as `initializer(key, shape, dtype)`.

A weight W has the shape (O, I): each unit receives fan_in = I inputs, and each input feeds fan_out = O units. Further
axes, if any, count as a receptive field (their product multiplies both). On NumPy the values are read-only.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from . import backend, errors, random
from .errors import ArgumentError, KindError, ShapeError, shorten
from .static import Interval, Static, instead
from .trees import lock

Finite = Annotated[float, Interval("(-∞, ∞)")]


@dataclass(frozen=True)
class Initializer(Static):
    """Base class of the initializers, which define `draw(key, shape, dtype)`."""

    def draw(self, key, shape, dtype):
        raise NotImplementedError

    def __call__(self, key, shape, dtype=np.float32):
        """Draw values of the given shape, on the backend of the key; those of 16 bits are rounded once, at the end."""
        key, shape = random.check_key(key), errors.shape("shape", shape)
        if random.is_blank(key):
            return np.broadcast_to(np.zeros((), dtype), shape)
        xp = backend.namespace(key)
        dtype = backend.check_dtype(xp, dtype)
        return lock(backend.cast(xp.asarray(self.draw(key, shape, backend.at_least_float32(dtype))), dtype))


@dataclass(frozen=True)
class Constant(Initializer):
    """Sets every entry to `value`.

    Args:
        value: a finite number.

    >>> Constant(0.1)(random.key(0, backend="numpy"), (2,))
    array([0.1, 0.1], dtype=float32)
    """

    value: Finite

    def draw(self, key, shape, dtype):
        return backend.namespace(key).full(shape, self.value, dtype)


@dataclass(frozen=True)
class Zeros(Constant):
    """Sets every entry to 0: suitable for biases, and for the weights of a network without hidden layers.

    >>> from fnn import random
    >>> Zeros()(random.key(0, backend="numpy"), (1, 2))
    array([[0., 0.]], dtype=float32)
    """

    value: Finite = 0.0


@dataclass(frozen=True)
class Ones(Constant):
    """Sets every entry to 1: suitable for gains.

    >>> from fnn import random
    >>> Ones()(random.key(0, backend="numpy"), (1, 2))
    array([[1., 1.]], dtype=float32)
    """

    value: Finite = 1.0


@dataclass(frozen=True)
class Uniform(Initializer):
    """Uniform on [low, high).

    Args:
        low: the lower bound. Default: −0.05.
        high: the upper bound, greater than `low`. Default: 0.05.

    >>> from fnn import random
    >>> w = Uniform()(random.key(0, backend="numpy"), (200, 100))
    >>> w.shape, round(float(w.std()), 2)
    ((200, 100), 0.03)
    """

    low: Finite = -0.05
    high: Finite = 0.05

    def __post_init__(self):
        super().__post_init__()
        if not self.low < self.high:
            raise ArgumentError(f"{self}: expected low < high, got {self.low} and {self.high}")

    def draw(self, key, shape, dtype):
        return random.uniform(key, shape, dtype, self.low, self.high)


@dataclass(frozen=True)
class Normal(Initializer):
    """Normal with mean 0 and standard deviation `stddev`.

    Args:
        stddev: the standard deviation, at least 0. Default: 0.01.

    >>> from fnn import random
    >>> w = Normal()(random.key(0, backend="numpy"), (200, 100))
    >>> w.shape, round(float(w.std()), 2)
    ((200, 100), 0.01)
    """

    stddev: Annotated[float, Interval("[0, ∞)")] = 0.01

    def draw(self, key, shape, dtype):
        return random.normal(key, shape, dtype) * self.stddev


@dataclass(frozen=True)
class TruncatedNormal(Normal):
    """`stddev` times a standard normal truncated to (−2, 2), so the standard deviation is 0.8796 `stddev`.

    Args:
        stddev: the scale, at least 0. Default: 0.01.

    >>> from fnn import random
    >>> w = TruncatedNormal()(random.key(0, backend="numpy"), (200, 100))
    >>> w.shape, round(float(w.std()), 2)
    ((200, 100), 0.01)
    """

    def draw(self, key, shape, dtype):
        return random.truncated_normal(key, -2, 2, shape, dtype) * self.stddev


_TRUNCATED_STD = 0.87962566103423978  # of a standard normal on (−2, 2): √(1 − 4φ(2) / (2Φ(2) − 1))


@dataclass(frozen=True)
class VarianceScaling(Initializer):
    """Mean 0 and variance scale / n, so that the spread of a layer's output does not depend on its width.

    The named initializers below are special cases.

    Args:
        scale: the factor of the variance, greater than 0. Default: 1.
        mode: which number n is: "fan_in", "fan_out", or "fan_avg", their average. Default: "fan_in".
        distribution: "normal", "truncated_normal" (at two standard deviations, then rescaled to the variance given
            above), or "uniform" on ±√(3 scale / n). Default: "normal".

    >>> from fnn import random
    >>> w = VarianceScaling()(random.key(0, backend="numpy"), (200, 100))
    >>> w.shape, round(float(w.std()), 2)
    ((200, 100), 0.1)
    """

    scale: Annotated[float, Interval("(0, ∞)")] = 1.0
    mode: str = "fan_in"
    distribution: str = "normal"

    def __post_init__(self):
        super().__post_init__()
        _one_of("mode", self.mode, ("fan_in", "fan_out", "fan_avg"))
        _one_of("distribution", self.distribution, ("normal", "truncated_normal", "uniform"))

    def draw(self, key, shape, dtype):
        if len(shape) < 2:
            raise ShapeError(f"{self}: expected the shape of a weight, (O, I), got {shape}")
        field = math.prod(shape[2:])
        fan_out, fan_in = shape[0] * field, shape[1] * field
        n = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        std = math.sqrt(self.scale / n)
        if self.distribution == "uniform":
            return random.uniform(key, shape, dtype, -math.sqrt(3) * std, math.sqrt(3) * std)
        if self.distribution == "truncated_normal":
            return random.truncated_normal(key, -2, 2, shape, dtype) * (std / _TRUNCATED_STD)
        return random.normal(key, shape, dtype) * std


@dataclass(frozen=True)
class LecunNormal(VarianceScaling):
    """N(0, 1 / fan_in): preserves the variance through a linear layer.

    Source: Y. LeCun, L. Bottou, G. Orr, K.-R. Müller, "Efficient BackProp" (1998), §4.6.

    >>> from fnn import random
    >>> w = LecunNormal()(random.key(0, backend="numpy"), (200, 100))
    >>> w.shape, round(float(w.std()), 2)
    ((200, 100), 0.1)
    """


@dataclass(frozen=True)
class LecunUniform(VarianceScaling):
    """U(±√(3 / fan_in)): preserves the variance through a linear layer.

    Source: Y. LeCun et al. (1998), as for `LecunNormal`.

    >>> from fnn import random
    >>> w = LecunUniform()(random.key(0, backend="numpy"), (200, 100))
    >>> w.shape, round(float(w.std()), 2)
    ((200, 100), 0.1)
    """

    distribution: str = "uniform"


@dataclass(frozen=True)
class GlorotNormal(VarianceScaling):
    """N(0, 2 / (fan_in + fan_out)), also called Xavier: a compromise between forward and backward variance.

    Source: X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010),
    eq. 12.

    >>> from fnn import random
    >>> w = GlorotNormal()(random.key(0, backend="numpy"), (200, 100))
    >>> w.shape, round(float(w.std()), 2)
    ((200, 100), 0.08)
    """

    mode: str = "fan_avg"


@dataclass(frozen=True)
class GlorotUniform(VarianceScaling):
    """U(±√(6 / (fan_in + fan_out))), also called Xavier: a compromise between forward and backward variance.

    Source: X. Glorot, Y. Bengio (2010), as for `GlorotNormal`, eq. 16.

    >>> from fnn import random
    >>> w = GlorotUniform()(random.key(0, backend="numpy"), (200, 100))
    >>> w.shape, round(float(w.std()), 2)
    ((200, 100), 0.08)
    """

    mode: str = "fan_avg"
    distribution: str = "uniform"


@dataclass(frozen=True)
class HeNormal(VarianceScaling):
    """N(0, 2 / fan_in), also called Kaiming: preserves the variance through a layer of ReLUs, which drop half of it.

    Source: K. He, X. Zhang, S. Ren, J. Sun, "Delving deep into rectifiers" (2015), eq. 10.

    >>> from fnn import random
    >>> w = HeNormal()(random.key(0, backend="numpy"), (200, 100))
    >>> w.shape, round(float(w.std()), 2)
    ((200, 100), 0.14)
    """

    scale: Annotated[float, Interval("(0, ∞)")] = 2.0


@dataclass(frozen=True)
class HeUniform(VarianceScaling):
    """U(±√(6 / fan_in)), also called Kaiming: preserves the variance through a layer of ReLUs.

    Source: K. He et al. (2015), as for `HeNormal`.

    >>> from fnn import random
    >>> w = HeUniform()(random.key(0, backend="numpy"), (200, 100))
    >>> w.shape, round(float(w.std()), 2)
    ((200, 100), 0.14)
    """

    scale: Annotated[float, Interval("(0, ∞)")] = 2.0
    distribution: str = "uniform"


@dataclass(frozen=True)
class Orthogonal(Initializer):
    """`gain` times a random orthogonal matrix: W Wᵀ = gain² 1 if it is wide, Wᵀ W = gain² 1 if it is tall.

    The matrix is Q of the QR decomposition of a normal matrix, with the signs that make R's diagonal positive, which is
    uniformly distributed among the orthogonal matrices (F. Mezzadri, 2007).

    Args:
        gain: the factor. Default: 1.

    Source: A. Saxe, J. McClelland, S. Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear
    neural networks" (2014).

    >>> from fnn import random
    >>> w = Orthogonal()(random.key(0, backend="numpy"), (2, 3))
    >>> (w @ w.T).round(5) + 0.0
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """

    gain: Finite = 1.0

    def draw(self, key, shape, dtype):
        if len(shape) < 2:
            raise ShapeError(f"{self}: expected the shape of a weight, (O, I), got {shape}")
        xp = backend.namespace(key)
        rows, columns = shape[0], math.prod(shape[1:])
        tall = random.normal(key, (max(rows, columns), min(rows, columns)), backend.at_least_float32(dtype))
        q, r = xp.linalg.qr(tall)
        q = q * xp.where(xp.diagonal(r) < 0, -1, 1).astype(q.dtype)
        return (self.gain * (q if rows >= columns else q.T)).reshape(shape).astype(dtype)


def check_initializer(name, value, such_as="fnn.HeNormal()"):
    """Raise unless `value`, a field of a layer, is an initializer or another function, not a class or a name."""
    if not callable(value) or isinstance(value, type):
        raise KindError(f"{name}: expected one such as {such_as}, got {shorten(value)}{instead(value, Initializer)}")


def _one_of(name, value, choices):
    if value not in choices:
        raise ArgumentError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}")
