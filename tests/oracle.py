"""What the tests compare with: networks and costs written a second time, for JAX to differentiate.

Nothing here is fnn's. Every activation and cost stands as JAX's own function, or as the formula of a textbook, so an
error in a forward formula is found as well as one in its derivative.
"""

import numpy as np

import fnn

jax = fnn.backend.jax  # None on NumPy alone, where the tables serve without their second column


def sin(z):
    return jax.numpy.sin(z)


def quartic(a, y):
    return ((a - y) ** 4).sum(axis=1)


# By name: fnn's layer, and JAX's function of a batch.
ACTIVATIONS = {
    "identity": (fnn.Identity(), lambda z: z),
    "relu": (fnn.Relu(), lambda z: jax.nn.relu(z)),
    "leaky_relu": (fnn.LeakyRelu(), lambda z: jax.nn.leaky_relu(z)),
    "leaky_relu_down": (fnn.LeakyRelu(-0.5), lambda z: jax.nn.leaky_relu(z, -0.5)),
    "sigmoid": (fnn.Sigmoid(), lambda z: jax.nn.sigmoid(z)),
    "tanh": (fnn.Tanh(), lambda z: jax.numpy.tanh(z)),
    "softmax": (fnn.Softmax(), lambda z: jax.nn.softmax(z)),
    "scale": (fnn.Scale(1.7), lambda z: 1.7 * z),
    "function": (fnn.Function(sin), sin),
}


def _cross_entropy(z, y):
    return -(y * jax.nn.log_softmax(z)).sum(axis=1)


def _cross_entropy_of_labels(z, y):
    return _cross_entropy(z, jax.nn.one_hot(y, z.shape[1], dtype=z.dtype))


def _binary(z, y):
    return -(y * jax.nn.log_sigmoid(z) + (1 - y) * jax.nn.log_sigmoid(-z)).sum(axis=1)


def _real(rng, n, k):
    return rng.normal(size=(n, k))


# By name: fnn's cost, the function (N, K), target -> (N,) for JAX, and a target for (rng, N, K).
LOSSES = {
    "quadratic": (fnn.Quadratic(), lambda a, y: 0.5 * ((a - y) ** 2).sum(axis=1), _real),
    "mean_squared": (fnn.MeanSquaredError(), lambda a, y: ((a - y) ** 2).mean(axis=1), _real),
    "softmax_labels": (fnn.SoftmaxCrossEntropy(), _cross_entropy_of_labels, lambda rng, n, k: rng.integers(0, k, n)),
    "softmax_probabilities": (
        fnn.SoftmaxCrossEntropy(),
        _cross_entropy,
        lambda rng, n, k: rng.dirichlet(np.ones(k), n),
    ),
    "sigmoid_bits": (fnn.SigmoidBinaryCrossEntropy(), _binary, lambda rng, n, k: rng.integers(0, 2, (n, k))),
    "sigmoid_probabilities": (fnn.SigmoidBinaryCrossEntropy(), _binary, lambda rng, n, k: rng.random((n, k))),
    "function": (fnn.FunctionLoss(quartic), quartic, _real),
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


def mean(losses, weights=None):
    return losses.mean() if weights is None else (weights * losses).sum() / weights.sum()


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
