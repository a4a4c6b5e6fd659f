"""fnn in research code: a loop, a cost and a layer of your own, and fnn together with other libraries. Needs JAX.

    python examples/own_loop.py

Each part is a self-contained function that checks its own result and prints one line. Optax and Equinox are used if
they are installed.
"""

import importlib.util
import sys
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

import fnn

if fnn.backend.jax is None:
    sys.exit("this example needs JAX: pip install 'fnn[jax]'")
jax = fnn.backend.jax
jnp = jax.numpy

KEY = fnn.random.key(0)
(X, Y), (X_TEST, Y_TEST) = fnn.datasets.digits()
X, X_TEST = jnp.float32(X) / 16, jnp.float32(X_TEST) / 16
LOSS = fnn.SoftmaxCrossEntropy()


def accuracy(net, params):
    return float(fnn.accuracy(net.apply(params, X_TEST), jnp.asarray(Y_TEST)))


def largest_difference(tree, other):
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), tree, other)))


def own_loop():
    """Your own `lax.scan` over value_and_grad and an optimizer, with your own batches and state."""
    net, optimizer = fnn.mlp((64, 10)), fnn.Momentum(learning_rate=0.1)
    run = fnn.value_and_grad(net, LOSS, penalty=fnn.L2(1e-4))
    params = net.init(KEY, (64,))

    @jax.jit
    def train(params):
        def step(carry, key):
            params, opt_state = carry
            batch = jax.random.randint(key, (64,), 0, len(X))
            value, grads = run(params, X[batch], jnp.asarray(Y)[batch])
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return (fnn.apply_updates(params, updates), opt_state), value

        return jax.lax.scan(step, (params, optimizer.init(params)), fnn.random.split(KEY, 600))

    (params, _), values = train(params)
    assert accuracy(net, params) > 0.95, accuracy(net, params)
    return f"cost {values[0]:.2f} -> {values[-1]:.4f}, test accuracy {accuracy(net, params):.1%}"


@dataclass(frozen=True)
class Focal(fnn.Loss):
    """The focal loss on the logit z of a binary decision (Lin et al. 2017, γ = 1), y in {0, 1}, s = ±z, p = σ(s).

    ℓ = −(1 − p) log p        δ = ± (1 − p) (p log p − (1 − p))
    """

    def value(self, z, y):
        log_p = -jnp.logaddexp(0, (1 - 2 * y) * z)  # never log 0
        return ((jnp.exp(log_p) - 1) * log_p).sum(axis=1)

    def delta(self, z, y):
        log_p = -jnp.logaddexp(0, (1 - 2 * y) * z)
        p = jnp.exp(log_p)
        return (2 * y - 1) * (1 - p) * (p * log_p - (1 - p))


def focal(z, y):
    return Focal().value(z, y)


def own_cost():
    """A cost with a hand-written derivative and the same through `FunctionLoss` give the same run. Is a digit even?"""
    net, even, even_test = fnn.mlp((64, 1)), (Y % 2 == 0)[:, None], (Y_TEST % 2 == 0)[:, None]
    params, found = [], []
    for loss in (Focal(), fnn.FunctionLoss(focal)):
        state = fnn.init_state(net, fnn.Momentum(0.05), KEY, (64,))
        state, _ = fnn.train(net, loss, state, (X, jnp.float32(even)), epochs=20, batch_size=50)
        params.append(state.params)
        found.append(float(((net.apply(state.params, X_TEST) > 0) == even_test).mean()))
    error = largest_difference(*params)
    assert error < 1e-4, error
    assert min(found) > 0.95, found
    return f"by hand and by jax.vjp: test accuracy {found[0]:.1%} and {found[1]:.1%}, params within {error:.0e}"


class PReluParams(NamedTuple):
    slope: jax.Array


@dataclass(frozen=True)
class PRelu(fnn.Layer):
    """A ramp whose slope below 0 is learnt for each unit (He et al. 2015).

    a = z if z > 0 else s z        dz = δ if z > 0 else s δ        ds = Σₙ δ min(z, 0)
    """

    def init(self, key, input_shape, dtype=np.float32):
        return PReluParams(fnn.Constant(0.25)(key, input_shape, dtype))

    def forward(self, params, z, key=None):
        return jnp.where(z > 0, z, params.slope * z), z

    def backward(self, params, z, da):
        return jnp.where(z > 0, da, params.slope * da)

    def gradient(self, params, z, da):
        return PReluParams((da * jnp.minimum(z, 0)).sum(axis=0))


def own_layer():
    """A layer with its own parameters and a hand-written gradient, in a network like any other."""
    net = fnn.mlp((64, 10), activation=PRelu())
    params = net.init(KEY, (64,))
    grads = fnn.grad(net, LOSS)(params, X[:99], Y[:99])
    wanted = jax.grad(lambda p: LOSS.value(net.apply(p, X[:99]), jnp.asarray(Y[:99])).mean())(params)
    error = largest_difference(grads, wanted)
    assert error < 1e-6, error
    state, _ = fnn.fit(net, LOSS, fnn.Adam(3e-3), (X, Y), key=KEY, epochs=20, batch_size=50, progress=False)
    assert accuracy(net, state.params) > 0.95, accuracy(net, state.params)
    return f"differs from jax.grad by {error:.0e}, learns to a test accuracy of {accuracy(net, state.params):.1%}"


def optax_both_ways():
    """An Optax optimizer in fnn, and an fnn optimizer in an Optax chain."""
    if importlib.util.find_spec("optax") is None:
        return "Optax is not installed: skipped"
    import optax

    net = fnn.mlp((64, 10))
    found = []
    for optimizer in (fnn.Adam(1e-3), optax.adam(1e-3), optax.chain(optax.clip_by_global_norm(1e6), fnn.Adam(1e-3))):
        state = fnn.init_state(net, optimizer, KEY, (64,))
        state, history = fnn.train(net, LOSS, state, (X, Y), epochs=5, batch_size=50)
        found.append(float(history["loss"][-1]))
    assert max(found) - min(found) < 1e-4, found
    return "Adam of fnn, of Optax, and of fnn in an Optax chain end at {:.4f}, {:.4f}, {:.4f}".format(*found)


def block_in_another_library():
    """fnn inside an Equinox model (or a JAX function): with `custom_vjp`, JAX's grad is fnn's backward pass."""
    net = fnn.mlp((32, 10))
    params = net.init(KEY, (64,))
    ours, theirs = fnn.custom_vjp(net), net.apply
    if importlib.util.find_spec("equinox") is None:
        where = "a JAX function"
        gradient = lambda apply: jax.grad(lambda p: (apply(p, jnp.tanh(X)) ** 2).mean())(params)
    else:
        import equinox

        class Model(equinox.Module):
            block: tuple
            scale: jax.Array

            def __call__(self, apply, x):
                return apply(self.block, jnp.tanh(self.scale * x))

        model = Model(params, jnp.ones(()))
        where = "an Equinox model"
        gradient = lambda apply: equinox.filter_grad(lambda m: (m(apply, X) ** 2).mean())(model)
    error = largest_difference(gradient(ours), gradient(theirs))
    assert error < 1e-5, error
    return f"inside {where} our gradient differs from JAX's by {error:.0e}"


def feedback_alignment():
    """Errors propagated through fixed random weights: `propagate` with other weights, `gradient` with the true ones.

    T. Lillicrap, D. Cownden, D. Tweed, C. Akerman, "Random synaptic feedback weights support error backpropagation"
    (2016).
    """
    net = fnn.mlp((128, 10), activation=fnn.Tanh())
    params, feedback = net.init(KEY, (64,)), net.init(fnn.random.key(1), (64,))

    @jax.jit
    def step(params, _):
        prediction, residuals = net.forward(params, X)
        delta = LOSS.delta(prediction, jnp.asarray(Y)) / len(X)
        _, deltas = net.propagate(feedback, residuals, delta, need_dx=False)
        _, true = net.propagate(params, residuals, delta, need_dx=False)
        a, b = deltas[0], true[0]  # the error at the hidden units, random and true: the angle between the two
        angle = jnp.degrees(jnp.arccos((a * b).sum() / jnp.sqrt((a * a).sum() * (b * b).sum())))
        grads = net.gradient(params, residuals, deltas)
        return jax.tree.map(lambda p, g: p - 0.5 * g, params, grads), angle

    params, angles = jax.lax.scan(step, params, None, 400)
    assert accuracy(net, params) > 0.9, accuracy(net, params)
    assert angles[-1] < 75, angles[-1]
    return (
        f"test accuracy {accuracy(net, params):.1%} without the transposed weights; "
        f"its errors turn from {angles[0]:.0f}° to {angles[-1]:.0f}° off the true ones"
    )


def sweep():
    """Sixteen learning rates in one compilation and one call."""
    net = fnn.mlp((64, 10))

    def run(learning_rate):
        state = fnn.init_state(net, fnn.Sgd(learning_rate=learning_rate), KEY, (64,))
        state, _ = fnn.train(net, LOSS, state, (X, Y), epochs=10, batch_size=50)
        return fnn.accuracy(net.apply(state.params, X_TEST), jnp.asarray(Y_TEST))

    rates = np.logspace(-4, 1, 16, dtype=np.float32)
    found = jax.vmap(run)(rates)
    best = int(found.argmax())
    assert found[best] > 0.95 > found[0], found
    return f"of 16 learning rates {rates[best]:.2g} is best, with a test accuracy of {found[best]:.1%}"


if __name__ == "__main__":
    for part in (own_loop, own_cost, own_layer, optax_both_ways, block_in_another_library, feedback_alignment, sweep):
        print(f"{part.__name__.replace('_', ' '):<26}{part()}")
