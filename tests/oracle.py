"""What the tests compare with: networks and costs written a second time, for JAX to differentiate.

Nothing here is fnn's. Every activation and cost stands as JAX's own function, or as the formula of a textbook, so an
error in a forward formula is found as well as one in its derivative.
"""

import numpy as np

import fnn


def activations():
    """By name: fnn's layer, and JAX's function of a batch."""
    import jax

    return {
        "identity": (fnn.Identity(), lambda z: z),
        "relu": (fnn.Relu(), jax.nn.relu),
        "leaky_relu": (fnn.LeakyRelu(), jax.nn.leaky_relu),
        "leaky_relu_down": (fnn.LeakyRelu(-0.5), lambda z: jax.nn.leaky_relu(z, -0.5)),
        "sigmoid": (fnn.Sigmoid(), jax.nn.sigmoid),
        "tanh": (fnn.Tanh(), jax.numpy.tanh),
        "softmax": (fnn.Softmax(), jax.nn.softmax),
        "scale": (fnn.Scale(1.7), lambda z: 1.7 * z),
        "function": (fnn.Function(jax.numpy.sin), jax.numpy.sin),
    }


def _quartic(a, y):
    return ((a - y) ** 4).sum(axis=1)


def losses():
    """By name: fnn's cost, JAX's function (N, K), target -> (N,), and a target for (rng, N, K)."""
    import jax
    import jax.numpy as jnp

    def labels(rng, n, k):
        return rng.integers(0, k, n)

    def probabilities(rng, n, k):
        return rng.dirichlet(np.ones(k), n)

    def real(rng, n, k):
        return rng.normal(size=(n, k))

    def bits(rng, n, k):
        return rng.integers(0, 2, (n, k))

    def cross_entropy(z, y):
        return -(y * jax.nn.log_softmax(z)).sum(axis=1)

    def binary(z, y):
        return -(y * jax.nn.log_sigmoid(z) + (1 - y) * jax.nn.log_sigmoid(-z)).sum(axis=1)

    return {
        "quadratic": (fnn.Quadratic(), lambda a, y: 0.5 * ((a - y) ** 2).sum(axis=1), real),
        "mean_squared": (fnn.MeanSquaredError(), lambda a, y: ((a - y) ** 2).mean(axis=1), real),
        "softmax_labels": (
            fnn.SoftmaxCrossEntropy(),
            lambda z, y: cross_entropy(z, jax.nn.one_hot(y, z.shape[1], dtype=z.dtype)),
            labels,
        ),
        "softmax_probabilities": (fnn.SoftmaxCrossEntropy(), cross_entropy, probabilities),
        "sigmoid_bits": (fnn.SigmoidBinaryCrossEntropy(), binary, bits),
        "sigmoid_probabilities": (fnn.SigmoidBinaryCrossEntropy(), binary, lambda rng, n, k: rng.random((n, k))),
        "function": (fnn.FunctionLoss(_quartic), lambda a, y: jnp.sum((a - y) ** 4, axis=1), real),
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
