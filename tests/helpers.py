"""What several test modules share: small problems, arrays on either backend, and layers as a user writes them."""

import contextlib
import math
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import oracle
from hypothesis import settings

import fnn
from fnn import trees
from fnn.backend import jax
from fnn.composition import Kept
from fnn.layers import convolution

THOROUGH = settings().max_examples >= 100  # pytest --hypothesis-profile=thorough: all that takes long, too
BACKENDS = ("numpy",) if jax is None else ("numpy", "jax")


# ---- processes -------------------------------------------------------------------------------------------------------


def run_python(code, *arguments, **environment):
    """Run Python code in a process of its own."""
    kept = {name: value for name, value in os.environ.items() if name not in ("FNN_BACKEND", "XLA_FLAGS")}
    paths = os.pathsep.join(filter(None, (str(Path(fnn.__file__).parents[1]), kept.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env={**kept, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


# ---- arrays and keys -------------------------------------------------------------------------------------------------


def key(backend="numpy", seed=0):
    """A random key on that backend."""
    return fnn.random.key(seed, backend=backend)


def on(backend, tree):
    """The arrays of a tree on that backend."""
    return trees.map(np.asarray if backend == "numpy" else jax.numpy.asarray, tree)


def wide():
    """A context in which JAX, where it is installed, knows float64."""
    return contextlib.nullcontext() if jax is None else jax.enable_x64(True)


def compiled(backend, f):
    """The function itself, on JAX compiled: one program instead of many small ones, which take longer."""
    return f if backend == "numpy" else oracle.quick_jit(f)


# ---- how a convolution is computed -----------------------------------------------------------------------------------


def blocks_of(size, layer, input_shape):
    """A context in which a convolution works on that many examples at a time (on JAX at most half of them)."""
    params = layer.init(key(), input_shape)
    of_patches = 4 * size * math.prod(layer.output_shape(input_shape)[:-1]) * params.w[0].size * layer.groups
    return mock.patch.multiple(convolution, _BLOCK_OF_GRADIENTS=of_patches, _BLOCK_OF_PRODUCTS=of_patches)


def as_on_a_gpu():
    """A context in which a convolution of JAX's arrays is computed as on a GPU."""
    return mock.patch.object(convolution, "by_platform", lambda cpu, other, *args: other(*args))


# ---- problems --------------------------------------------------------------------------------------------------------


class Problem(NamedTuple):
    """A network, a cost, parameters off their initial values, and examples with weights."""

    net: Any
    loss: Any
    params: Any
    x: Any
    y: Any
    weights: Any


def problem(net=None, loss=None, input_shape=(5,), n=6, *, backend="numpy", dtype=np.float32, seed=0) -> Problem:
    """A small problem; for a cost on classes the targets are labels. On JAX float64 needs `wide()` around it."""
    net, loss = net or fnn.mlp((4, 3), fnn.Tanh()), loss or fnn.Quadratic()
    rng = np.random.default_rng(seed)
    outputs = net.output_shape(input_shape)
    of_classes = isinstance(loss, fnn.SoftmaxCrossEntropy)
    y = rng.integers(0, outputs[-1], (n, *outputs[:-1])) if of_classes else rng.normal(size=(n, *outputs)).astype(dtype)
    x, weights = rng.normal(size=(n, *input_shape)).astype(dtype), rng.integers(1, 4, n).astype(dtype)
    return Problem(net, loss, *on(backend, (moved(net, input_shape, dtype, seed), x, y, weights)))


def moved(net, input_shape, dtype=np.float64, seed=0):
    """Parameters of a network off their initial values (biases too), on NumPy."""
    rng = np.random.default_rng(seed)
    params = net.init(key(seed=seed), input_shape, dtype)
    return trees.map(lambda p: (p + 0.1 * rng.normal(size=p.shape)).astype(dtype), params)


def blobs(n=50, inputs=6, classes=3, seed=0):
    """Examples around one centre for each class, and their labels: `(x, y)`."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    return rng.normal(size=(classes, inputs))[y] * 2 + rng.normal(size=(n, inputs)), y


def run_problem(backend, optimizer=None, net=None, **options):
    """A run to train: `(net, loss, state, data)`, classes of blobs; options are those of `init_state`."""
    net = net or fnn.mlp((8, 3))
    state = fnn.init_state(net, optimizer or fnn.Sgd(0.1), key(backend), (6,), **options)
    return net, fnn.SoftmaxCrossEntropy(), state, blobs()


def descent_problem(steps=100, shapes=((4,), (3, 2), (2, 4)), dtype=np.float64, spread=1.0, bias=0.0):
    """Parameters, and gradients of very different lengths for them, one for each step: `(params, gradients)`.

    The lengths are those of exp(spread · normal), and `bias` is what the directions have in common.
    """
    rng = np.random.default_rng(0)
    params = tuple(rng.normal(size=shape).astype(dtype) for shape in shapes)
    lengths = np.exp(spread * rng.normal(size=steps))
    gradients = [(bias + rng.normal(size=(steps, *s))) * lengths.reshape(-1, *[1] * len(s)) for s in shapes]
    return params, tuple(g.astype(dtype) for g in gradients)


# ---- layers and networks as a user writes them -----------------------------------------------------------------------


class GainParams(NamedTuple):
    gain: Any


@dataclass(frozen=True)
class Gain(fnn.Layer):
    """A layer as a user writes it: y = g x, with a learnt g for each unit."""

    def init(self, key, input_shape, dtype=np.float32):
        return GainParams(fnn.Ones()(key, input_shape, dtype))

    def forward(self, params, x, key=None):
        return params.gain * x, x

    def backward(self, params, x, dy):
        return params.gain * dy

    def gradient(self, params, x, dy):
        return GainParams((dy * x).sum(axis=0))


@dataclass(frozen=True)
class Mean(fnn.Layer):
    """The mean over the positions: (N, T, I) -> (N, I), without parameters, and without a tangent of its own."""

    def output_shape(self, input_shape):
        return input_shape[1:]

    def forward(self, params, x, key=None):
        return x.mean(axis=1), x

    def backward(self, params, x, dy):
        return fnn.backend.namespace(x).broadcast_to(dy[:, None] / x.shape[1], x.shape)


class Sides(NamedTuple):
    value: Any
    gates: Any


@dataclass(frozen=True)
class Gated(fnn.Composition):
    """A composition as a user writes one, by the five methods alone: y = f(x) g(x) + h(x)."""

    value: fnn.Layer
    scale: fnn.Layer
    shift: fnn.Layer

    @property
    def parts(self):
        return Sides(self.value, {"shift": self.shift, "scale": self.scale})

    def output_shape(self, input_shape):
        return self.value.output_shape(input_shape)

    def init(self, key, input_shape, dtype=np.float32):
        value, *gates = (layer.init(k, input_shape, dtype) for layer, k in zip(self._layers(), _keys(key), strict=True))
        return Sides(value, dict(zip(("scale", "shift"), gates, strict=True)))

    def forward(self, params, x, key=None):
        keys = (None,) * 3 if key is None else _keys(key)
        of = params.value, params.gates["scale"], params.gates["shift"]
        runs = [layer.forward(p, x, k) for layer, p, k in zip(self._layers(), of, keys, strict=True)]
        (f, value), (g, scale), (h, shift) = runs
        return f * g + h, Kept((f, g), Sides(value, {"scale": scale, "shift": shift}))

    def propagate(self, params, residuals, dy, need_dx=True):
        (f, g), inner = residuals
        dx, value = self.value.propagate(params.value, inner.value, dy * g, need_dx)
        by_scale, scale = self.scale.propagate(params.gates["scale"], inner.gates["scale"], dy * f, need_dx)
        by_shift, shift = self.shift.propagate(params.gates["shift"], inner.gates["shift"], dy, need_dx)
        return (dx + by_scale + by_shift if need_dx else None), Sides(value, {"scale": scale, "shift": shift})

    def _layers(self):
        return self.value, self.scale, self.shift


def _keys(key):
    return [fnn.random.fold_in(key, i) for i in range(3)]


GATED = Gated(fnn.Dense(4), fnn.Serial((fnn.Dense(4), fnn.Sigmoid())), fnn.Dense(4))


calls: list[int] = []  # of a CountingDense: the number of its units for each backward pass


@dataclass(frozen=True)
class CountingDense(fnn.Dense):
    """A Dense layer that counts its backward passes."""

    factors, gradient = fnn.Dense.factors, fnn.Dense.gradient

    def backward(self, params, x, dy):
        calls.append(self.units)
        return super().backward(params, x, dy)
