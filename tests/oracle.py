"""What the tests compare with: networks and costs written a second time, for JAX to differentiate.

Nothing here is fnn's. Every activation and cost stands as JAX's own function, or as the formula of a textbook, so an
error in a forward formula is found as well as one in its derivative.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import fnn

jax = fnn.backend.jax  # None on NumPy alone, where the tables serve without their second column


def quick_jit(f):
    """`jax.jit` of a large program that runs once, compiled in a third of the time."""
    return jax.jit(f, compiler_options={"xla_backend_optimization_level": 0, **_fewer_passes()})


@functools.cache
def _fewer_passes():
    """An option that not every release of JAX knows."""
    options = {"xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda x: x + 1, compiler_options=options).lower(1.0).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options


def sin(z):
    return jax.numpy.sin(z)


def quartic(a, y):
    return ((a - y) ** 4).sum(axis=1)


def _bent(z, below):
    return jax.numpy.where(z >= 0, z, below)


# By name: fnn's layer, and JAX's function of a batch.
ACTIVATIONS = {
    "identity": (fnn.Identity(), lambda z: z),
    "step": (fnn.BinaryStep(0.1), lambda z: (z > 0.1).astype(z.dtype)),
    "sign": (fnn.Sign(), lambda z: 2 * (z >= 0).astype(z.dtype) - 1),
    "sigmoid": (fnn.Sigmoid(), lambda z: jax.nn.sigmoid(z)),
    "bipolar_sigmoid": (fnn.BipolarSigmoid(), lambda z: 2 * jax.nn.sigmoid(z) - 1),
    "tanh": (fnn.Tanh(), lambda z: jax.numpy.tanh(z)),
    "hard_tanh": (fnn.HardTanh(), lambda z: jax.nn.hard_tanh(z)),
    "hard_sigmoid": (fnn.HardSigmoid(), lambda z: jax.nn.hard_sigmoid(z)),
    "arctan": (fnn.ArcTan(), lambda z: jax.numpy.arctan(z)),
    "softsign": (fnn.Softsign(), lambda z: jax.nn.soft_sign(z)),
    "relu": (fnn.Relu(), lambda z: jax.nn.relu(z)),
    "relu6": (fnn.Relu6(), lambda z: jax.nn.relu6(z)),
    "leaky_relu": (fnn.LeakyRelu(), lambda z: jax.nn.leaky_relu(z)),
    "leaky_relu_down": (fnn.LeakyRelu(-0.5), lambda z: jax.nn.leaky_relu(z, -0.5)),
    "rrelu": (fnn.RRelu(), lambda z: jax.nn.leaky_relu(z, (1 / 8 + 1 / 3) / 2)),
    "elu": (fnn.Elu(), lambda z: jax.nn.elu(z)),
    "elu_half": (fnn.Elu(0.5), lambda z: jax.nn.elu(z, 0.5)),
    "celu": (fnn.Celu(2.0), lambda z: jax.nn.celu(z, 2.0)),
    "selu": (fnn.Selu(), lambda z: jax.nn.selu(z)),
    "softplus": (fnn.Softplus(), lambda z: jax.nn.softplus(z)),
    "squareplus": (fnn.Squareplus(), lambda z: jax.nn.squareplus(z)),
    "squareplus_sharp": (fnn.Squareplus(0.1), lambda z: jax.nn.squareplus(z, 0.1)),
    "isrlu": (fnn.Isrlu(), lambda z: _bent(z, z / jax.numpy.sqrt(1 + z * z))),
    "isrlu_3": (fnn.Isrlu(3.0), lambda z: _bent(z, z / jax.numpy.sqrt(1 + 3 * z * z))),
    "log_sigmoid": (fnn.LogSigmoid(), lambda z: jax.nn.log_sigmoid(z)),
    "gelu": (fnn.Gelu(), lambda z: jax.nn.gelu(z, approximate=False)),
    "gelu_tanh": (fnn.Gelu(approximate=True), lambda z: jax.nn.gelu(z, approximate=True)),
    "swish": (fnn.Swish(), lambda z: jax.nn.silu(z)),
    "swish_2": (fnn.Swish(2.0), lambda z: z * jax.nn.sigmoid(2 * z)),
    "hard_swish": (fnn.HardSwish(), lambda z: jax.nn.hard_swish(z)),
    "mish": (fnn.Mish(), lambda z: jax.nn.mish(z)),
    "softmax": (fnn.Softmax(), lambda z: jax.nn.softmax(z)),
    "softmax_hot": (fnn.Softmax(2.0), lambda z: jax.nn.softmax(z / 2)),
    "log_softmax": (fnn.LogSoftmax(), lambda z: jax.nn.log_softmax(z)),
    "log_softmax_cold": (fnn.LogSoftmax(0.5), lambda z: jax.nn.log_softmax(2 * z)),
    "glu": (fnn.Glu(), lambda z: jax.nn.glu(z)),
    "scale": (fnn.Scale(1.7), lambda z: 1.7 * z),
    "function": (fnn.Function(sin), sin),
}
STEPS = ["step", "sign"]  # no error passes them


def _pelu(p, z):
    return p.alpha * jax.numpy.where(z >= 0, z / p.beta, jax.numpy.exp(jax.numpy.minimum(z, 0) / p.beta) - 1)


def _exponential(p, z):
    return (jax.numpy.exp(p.alpha * z) - 1) / p.alpha + p.alpha


def _logarithm(p, z):
    return -jax.numpy.log(1 - p.alpha * (z + p.alpha)) / p.alpha


# By name: fnn's layer with parameters of its own, and JAX's function of parameters and a batch.
LEARNT = {
    "prelu": (fnn.PRelu(), lambda p, z: _bent(z, p.slope * z)),
    "prelu_each": (fnn.PRelu(per_unit=True), lambda p, z: _bent(z, p.slope * z)),
    "pelu": (fnn.PElu(), _pelu),
    "pelu_each": (fnn.PElu(per_unit=True), _pelu),
    "swish_learnt": (fnn.Swish(learnt=True), lambda p, z: z * jax.nn.sigmoid(p.beta * z)),
    "swish_each": (fnn.Swish(0.5, learnt=True, per_unit=True), lambda p, z: z * jax.nn.sigmoid(p.beta * z)),
    "soft_exponential": (fnn.SoftExponential(0.4), _exponential),
    "soft_exponential_each": (fnn.SoftExponential(0.4, per_unit=True), _exponential),
    "soft_logarithm": (fnn.SoftExponential(-0.05, per_unit=True), _logarithm),  # for z > −19.95
}


def _cross_entropy(z, y):
    return -(y * jax.nn.log_softmax(z)).sum(axis=1)


def _hot(z, y):
    return jax.nn.one_hot(y, z.shape[1], dtype=z.dtype)


def _binary(z, y):
    return -(y * jax.nn.log_sigmoid(z) + (1 - y) * jax.nn.log_sigmoid(-z)).sum(axis=1)


def _log(a):
    return jax.numpy.log(a)


def _squared(a, y):
    return ((a - y) ** 2).mean(axis=1)


def real(rng, n, k):
    return rng.normal(size=(n, k))


def positive(rng, n, k):
    return 0.02 + 0.96 * rng.random((n, k))


def distribution(rng, n, k):
    return rng.dirichlet(np.ones(k), n)


def labels(rng, n, k):
    return rng.integers(0, k, n)


def bits(rng, n, k):
    return rng.integers(0, 2, (n, k))


def signs(rng, n, k):
    return rng.choice([-1, 1], (n, k))


def several(count):
    """Predictions of so many numbers for each of a target."""
    return lambda rng, n, k: rng.normal(size=(n, count * k))


def _pinball(a, y, levels):
    """Σ of max(τ u, (τ − 1) u), u = y − a, over the levels; a has those of the first level first."""
    each = jax.numpy.split(a, len(levels), axis=-1)
    return sum(
        jax.numpy.maximum(t * (y - q), (t - 1) * (y - q)).sum(axis=-1) for t, q in zip(levels, each, strict=True)
    )


def _gaussian(a, y):
    mean, s = jax.numpy.split(a, 2, axis=-1)
    return -(jax.scipy.stats.norm.logpdf(y, mean, jax.numpy.exp(s / 2)) + math.log(2 * math.pi) / 2).sum(axis=-1)


def _focal(z, y):
    log_p = (_hot(z, y) * jax.nn.log_softmax(z)).sum(axis=-1)
    return -((1 - jax.numpy.exp(log_p)) ** 0.5) * log_p


def _binary_focal(z, y):
    p = jax.nn.sigmoid(z)
    yes = -0.25 * (1 - p) ** 1.5 * jax.nn.log_sigmoid(z)
    no = -0.75 * p**1.5 * jax.nn.log_sigmoid(-z)
    return (y * yes + (1 - y) * no).sum(axis=-1)


class Cost(NamedTuple):
    """fnn's cost, the function (N, K), target -> (N,) for JAX, how target and prediction are drawn, and F(mean)."""

    loss: fnn.Loss
    function: Callable
    target: Callable
    prediction: Callable = real
    outer: Callable = lambda mean: mean

    def width(self, k):
        """How many outputs a network has for targets of k numbers (or classes)."""
        return self.prediction(np.random.default_rng(0), 1, k).shape[1]

    @property
    def of_probabilities(self):
        return self.prediction in (positive, distribution)


LOSSES = {
    "quadratic": Cost(fnn.Quadratic(), lambda a, y: 0.5 * ((a - y) ** 2).sum(axis=1), real),
    "mean_squared": Cost(fnn.MeanSquaredError(), _squared, real),
    "root_mean_squared": Cost(fnn.RootMeanSquaredError(), _squared, real, outer=lambda m: m**0.5),
    "mean_absolute": Cost(fnn.MeanAbsoluteError(), lambda a, y: jax.numpy.abs(a - y).mean(axis=1), real),
    "huber": Cost(
        fnn.Huber(0.7),
        lambda a, y: jax.numpy.where(abs(a - y) < 0.7, (a - y) ** 2 / 2, 0.7 * (abs(a - y) - 0.35)).sum(axis=1),
        real,
    ),
    "exponential": Cost(fnn.ExponentialCost(9.0), lambda a, y: 9 * jax.numpy.exp(((a - y) ** 2).sum(axis=1) / 9), real),
    "quantile": Cost(fnn.Quantile(0.3), lambda a, y: _pinball(a, y, (0.3,)), real),
    "quantiles": Cost(fnn.Quantile((0.1, 0.5, 0.9)), lambda a, y: _pinball(a, y, (0.1, 0.5, 0.9)), real, several(3)),
    "gaussian": Cost(fnn.GaussianNll(), _gaussian, real, several(2)),
    "focal_labels": Cost(fnn.Focal(gamma=0.5), _focal, labels, lambda rng, n, k: real(rng, n, max(k, 2))),
    "binary_focal": Cost(fnn.BinaryFocal(gamma=1.5, alpha=0.25), _binary_focal, bits),
    "softmax_labels": Cost(fnn.SoftmaxCrossEntropy(), lambda z, y: _cross_entropy(z, _hot(z, y)), labels),
    "softmax_probabilities": Cost(fnn.SoftmaxCrossEntropy(), _cross_entropy, distribution),
    "softmax_labels_smooth": Cost(
        fnn.SoftmaxCrossEntropy(label_smoothing=0.1),
        lambda z, y: _cross_entropy(z, 0.9 * _hot(z, y) + 0.1 / z.shape[1]),
        labels,
    ),
    "softmax_smooth": Cost(
        fnn.SoftmaxCrossEntropy(label_smoothing=0.3),
        lambda z, y: _cross_entropy(z, 0.7 * y + 0.3 / z.shape[1]),
        distribution,
    ),
    "sigmoid_bits": Cost(fnn.SigmoidBinaryCrossEntropy(), _binary, bits),
    "sigmoid_probabilities": Cost(fnn.SigmoidBinaryCrossEntropy(), _binary, positive),
    "sigmoid_smooth": Cost(
        fnn.SigmoidBinaryCrossEntropy(label_smoothing=0.2), lambda z, y: _binary(z, 0.8 * y + 0.1), bits
    ),
    "sigmoid_weighted": Cost(
        fnn.SigmoidBinaryCrossEntropy(pos_weight=3.0),
        lambda z, y: -(3 * y * jax.nn.log_sigmoid(z) + (1 - y) * jax.nn.log_sigmoid(-z)).sum(axis=1),
        positive,
    ),
    "poisson": Cost(
        fnn.PoissonNll(),
        lambda z, y: (jax.numpy.exp(z) - y * z).sum(axis=1),
        lambda rng, n, k: rng.integers(0, 9, (n, k)),
    ),
    "hinge": Cost(fnn.Hinge(), lambda z, y: jax.nn.relu(1 - y * z).sum(axis=1), signs),
    "perceptron": Cost(fnn.Perceptron(), lambda z, y: jax.nn.relu(-y * z).sum(axis=1), signs),
    "cross_entropy": Cost(fnn.CrossEntropy(), lambda a, y: -(y * _log(a)).sum(axis=1), distribution, positive),
    "cross_entropy_labels": Cost(
        fnn.CrossEntropy(), lambda a, y: -(_hot(a, y) * _log(a)).sum(axis=1), labels, positive
    ),
    "binary_cross_entropy": Cost(
        fnn.BinaryCrossEntropy(), lambda a, y: -(y * _log(a) + (1 - y) * _log(1 - a)).sum(axis=1), bits, positive
    ),
    "kullback_leibler": Cost(fnn.KullbackLeibler(), lambda a, y: (y * _log(y / a)).sum(axis=1), positive, positive),
    "generalized_kullback_leibler": Cost(
        fnn.GeneralizedKullbackLeibler(), lambda a, y: (y * _log(y / a) - y + a).sum(axis=1), positive, positive
    ),
    "hellinger": Cost(fnn.Hellinger(), lambda a, y: ((a**0.5 - y**0.5) ** 2).sum(axis=1) / 2**0.5, positive, positive),
    "itakura_saito": Cost(fnn.ItakuraSaito(), lambda a, y: (y / a - _log(y / a) - 1).sum(axis=1), positive, positive),
    "function": Cost(fnn.FunctionLoss(quartic), quartic, real),
}


def apply(layers, params, x):
    """A network given as ("dense", bias), an activation's function, or a list of those, nested as fnn nests."""
    for layer, p in zip(layers, params, strict=True):
        if isinstance(layer, list):
            x = apply(layer, p, x)
        elif layer == "dense":
            x = x @ p.w.T + p.b if len(p.b) else x @ p.w.T
        else:
            x = layer(x)
    return x


def mean(losses, weights=None, outer=lambda mean: mean):
    return outer(losses.mean() if weights is None else (weights * losses).sum() / weights.sum())


def relative_error(found, wanted):
    """The largest error over the leaf's own largest entry: normwise. Infinite if a leaf of zeros is not met exactly."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    assert found.shape == wanted.shape, (found.shape, wanted.shape)
    if found.size == 0:
        return 0.0
    error, size = np.abs(found - wanted).max(), np.abs(wanted).max()
    return 0.0 if error == 0 else error / size if size else np.inf


def assert_close(found, wanted, tolerance):
    """Every leaf of `found` is normwise within the tolerance of that of `wanted`, and the structures are the same."""
    f, w = fnn.trees.paths(found, "tree"), fnn.trees.paths(wanted, "tree")
    assert [place for place, _ in f] == [place for place, _ in w]
    for (place, a), (_, b) in zip(f, w, strict=True):
        error = relative_error(a, b)
        assert error <= tolerance, f"{place}: relative error {error:.2e} > {tolerance:.0e}\n{a}\n{b}"
