"""Quantities of a model on a batch, by fnn and from the gradients of all examples, made by JAX; and a side of calls."""

import fnn
from fnn import per_example
from fnn.matrices import exact_products

from .models import LOSS, gradient_of, plain_cost

BOUND = 1.0  # on the norm of an example's gradient


def calls_side(quantity, model, n, times):
    """So many calls of `quantity(model)(params, x, y)` in one compiled loop; each waits for the one before."""
    import jax

    f, params, (x, y) = quantity(model), model.params(), model.batch(n)

    @jax.jit
    def calls(params, x, y):
        def call(_, x):
            results = jax.lax.optimization_barrier(jax.tree.leaves(f(params, x, y)))
            return x + 1e-30 * sum(r.ravel()[0] for r in results)

        return jax.lax.fori_loop(0, times, call, x)

    def turn():
        return float(jax.block_until_ready(calls(params, x, y)).ravel()[0])

    x, y = jax.numpy.asarray(x), jax.numpy.asarray(y)
    return turn


def gradient_by_float32(model):
    """The gradient with float32 products, as clipping makes them."""

    def gradient(*args):
        with exact_products():
            return fnn.grad(model.net, LOSS)(*args)

    return gradient


def each_by_vmap(model):
    """The gradient of each example, by JAX alone, as one matrix for each parameter."""
    import jax

    cost = lambda params, x, y: plain_cost(model.plain)(params, x[None], y[None])
    made = jax.vmap(jax.grad(cost), (None, 0, 0))
    return lambda params, x, y: [g.reshape(len(x), -1) for g in jax.tree.leaves(made(params, x, y))]


def clipped_by_vmap(model):
    import jax.numpy as jnp

    def clipped(params, x, y):
        each = each_by_vmap(model)(params, x, y)
        scale = jnp.minimum(1, BOUND / jnp.sqrt(sum((g * g).sum(axis=1) for g in each))) / len(x)
        return [scale @ g for g in each]

    return clipped


def gram_by_vmap(model):
    return lambda params, x, y: sum(g @ g.T for g in each_by_vmap(model)(params, x, y))


QUANTITIES = {
    "gradient": lambda model: fnn.grad(model.net, LOSS),
    "gradient, float32 products": gradient_by_float32,
    "jax.grad": lambda model: lambda *args: gradient_of(model, "jax.grad")(*args)[1],
    "norms": lambda model: per_example.norms(model.net, LOSS),
    "clipped gradient": lambda model: per_example.clipped_gradient(model.net, LOSS, BOUND),
    "Gram matrix": lambda model: per_example.gram(model.net, LOSS),
    "clipped gradient, vmap of jax.grad": clipped_by_vmap,
    "Gram matrix, vmap of jax.grad": gram_by_vmap,
}
