"""Any function of parameters, minimized by any optimizer: where the cost is not that of a network on examples."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import backend, trees
from ..backend import at_least_float32, namespace
from ..devices import on_any_axes
from ..errors import KindError, ShapeError, integer, shorten
from ..optimizers import apply_updates, prepare
from ..optimizers.extras import check_extras, extra_arguments
from ..rules import Backprop


@on_any_axes
def minimize(
    value_and_grad: Callable[..., tuple[Any, Any]], params: Any, optimizer: Any, *, steps: int = 1, args: tuple = ()
) -> tuple[Any, dict[str, Any]]:
    """Minimize a function of parameters, as one compiled call.

        params ← params + optimizer's update, `steps` times

    This is `train` without network and data: for physics-informed losses, and for all else that is not a mean over
    examples. On JAX, `jax.value_and_grad(f)` makes the function of f. One step of `fnn.Lbfgs(iterations=1000)` is up to
    1,000 iterations. Calling it again with the same function, and arrays of the same shapes, does not recompile.

    Args:
        value_and_grad: `(params, *args) -> (value, grads)`, where grads has the structure of params. On JAX it is
            compiled.
        params: the first parameters, a tree of arrays in float32 or float64.
        optimizer: an optimizer such as `fnn.Lbfgs()` or `fnn.Adam()`, or one of Optax's.
        steps: the number of steps, at least 1. Default: 1.
        args: further arguments of the function, trees of arrays that are not learnt. Default: none.

    Returns:
        `(params, history)`. The history is a dict with `loss`, the value before each step, (steps,), and what the
        optimizer reports of each, as `Lbfgs` does.

    Raises:
        FnnError: before any step, if the optimizer or what the function returns is invalid.

    >>> from fnn import Lbfgs
    >>> def bowl(x):
    ...     return ((x - 3) ** 2).sum(), 2 * (x - 3)
    >>> x, history = minimize(bowl, np.zeros(2), Lbfgs())
    >>> x, history["loss"], history["loss_after"]
    (array([3., 3.]), array([18.]), array([0.]))
    """
    steps = integer("steps", steps, least=1)
    if not callable(value_and_grad):
        raise KindError(f"value_and_grad: expected a function, got {shorten(value_and_grad)}")
    arrays = trees.leaves(params)
    if not all(backend.is_floating(getattr(leaf, "dtype", None)) for leaf in arrays) or not arrays:
        raise KindError(f"params: expected a tree of arrays of floating-point numbers, got {shorten(params)}")
    xp = namespace(*arrays)
    params = trees.lock(backend.ready(trees.map(xp.array, params)))
    optimizer = prepare(optimizer, params)
    check_extras(optimizer, Backprop(), params)
    _check_output(value_and_grad, params, args)
    return _minimized(params, optimizer, args, value_and_grad=value_and_grad, steps=steps)


def _check_output(value_and_grad, params, args):
    """Raise unless the function gives a number and a gradient."""
    shaped = backend.jax.eval_shape if any(map(backend.is_jax, trees.leaves(params))) else lambda f, *args: f(*args)
    output = shaped(value_and_grad, params, *args)
    if not isinstance(output, tuple) or len(output) != 2:
        raise KindError(f"value_and_grad: expected it to return (value, grads), got {shorten(output)}")
    if np.shape(output[0]) != ():
        raise ShapeError(f"value_and_grad: expected a value of shape (), got {np.shape(output[0])}")
    trees.same_structure("value_and_grad's gradient", output[1], params)


@backend.jit(static=("value_and_grad", "steps"))
def _minimized(params, optimizer, args, *, value_and_grad, steps):
    """`steps` steps."""
    xp, rule = namespace(*trees.leaves(params)), Backprop()
    wide = at_least_float32(np.result_type(*(w.dtype for w in trees.leaves(params))))

    def cost(params):
        value, grads = value_and_grad(params, *args)
        return xp.asarray(value, dtype=wide)[()], grads

    def step(carry, _):
        params, opt_state = carry
        value, grads = cost(params)
        extra = extra_arguments(optimizer, rule, value, grads, cost)
        updates, opt_state = optimizer.update(grads, opt_state, params, **extra)
        return (apply_updates(params, updates), opt_state), {"loss": value} | getattr(opt_state, "metrics", {})

    (params, _), history = backend.scan(step, (params, optimizer.init(params)), None, steps)
    return params, history
