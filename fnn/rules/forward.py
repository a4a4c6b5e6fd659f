"""Forward gradients: a random direction, and how fast the cost rises along it, found without a backward pass."""

from typing import Any, NamedTuple

import numpy as np  # noqa: F401 - for the example

from .. import random, trees
from ..backend import cast
from ..backpropagation import penalised
from ..errors import ArgumentError
from ..static import Choice
from .base import RuleOutput
from .chain import at_output, maps, nested, shared, whole


class ForwardGradient(NamedTuple):
    """The derivative along a random direction, times the direction: in the mean over directions it is the gradient.

        by weights         g = (∇L · v) v                v ~ 𝒩(0, 1), one for all parameters and examples
        by activities      δˡₙ = (Σₘ δ*ᵐₙ · uᵐₙ) uˡₙ       u ~ 𝒩(0, 1), at the output of each layer that learns
                           dW = Σₙ δ aᵀ                  δ* = ∂ℓ/∂z, of which only the sum is known

    Both are unbiased. The variance by weights grows with their number; that by activities with the number of units,
    which is far smaller. By activities the last linear map has its error exactly, since the cost gives it. The
    derivatives are computed forwards, by `tangent`, beside the values; a penalty's gradient is exact.

    Args:
        by: "activities" or "weights". Default: "activities".

    Source: A. Baydin, B. Pearlmutter, D. Syme, F. Wood, P. Torr, "Gradients without backpropagation" (2022), by
    weights; M. Ren, S. Kornblith, R. Liao, G. Hinton, "Scaling forward gradient with local losses" (2022), §3, by
    activities, with the global cost alone.

    >>> import fnn
    >>> net, data = fnn.mlp((3, 1)), (np.eye(2), np.ones((2, 1)))
    >>> state = fnn.init_state(net, fnn.Sgd(0.1), random.key(0, backend="numpy"), (2,), rule=ForwardGradient())
    >>> _, history = fnn.train(net, fnn.Quadratic(), state, data, epochs=20, batch_size=2)
    >>> bool(history["loss"][-1] < history["loss"][0])
    True
    """

    by: Choice[str] = "activities"

    def check(self):
        """Raise unless there is such a kind of direction."""
        if getattr(self.by, "thing", self.by) not in ("activities", "weights"):
            raise ArgumentError(f"ForwardGradient.by: expected 'activities' or 'weights', got {self.by!r}")

    def init(self, problem, params, key):
        """No state."""
        return ()

    def gradient(self, problem, params, state, batch, keys) -> RuleOutput:
        """The value, and the derivative along a direction that is drawn anew, times the direction."""
        along = along_weights if self.by == "weights" else along_units
        return RuleOutput(*along(problem, params, batch, keys), state)


def along_weights(problem, params, batch, keys) -> tuple[Any, Any]:
    """`(value, grads)`, with the derivative along one direction of all parameters that are learnt."""
    prediction, residuals = problem.net.forward(params, batch.x, keys.net)
    top, place = at_output(problem, prediction, batch), iter(range(len(trees.leaves(params))))
    draw = lambda p: random.normal(random.fold_in(keys.rule, next(place)), p.shape, p.dtype)
    v = trees.map_learnt(draw, params, fixed=lambda p: p * 0)
    tangent = problem.net.tangent(params, residuals, v, None)  # None where nothing is learnt
    rise: Any = 0 if tangent is None else (shared(top.delta, top.shares) * tangent).sum()
    return penalised(problem.penalty, params, top.value, trees.map(lambda d: cast(rise * d, d.dtype), v))


def along_units(problem, params, batch, keys) -> tuple[Any, Any]:
    """`(value, grads)`, with the derivative along a direction of the output of each layer that learns."""
    chain = whole(problem.net, params, keys.net)
    last = max((i for i, p in enumerate(chain.params) if maps(p)), default=0)
    below, above = chain.cut(0, last), chain.cut(last, len(chain.layers))
    x, dx, residuals, directions = batch.x, None, [], {}
    for i in range(last):
        x, (kept,) = chain.cut(i, i + 1).forward(x)
        residuals.append(kept)
        dx = None if dx is None else below.layers[i].tangent(below.params[i], kept, None, dx)
        if trees.learnt(below.params[i]):
            directions[i] = random.normal(random.fold_in(keys.rule, i), x.shape, x.dtype)
            dx = directions[i] if dx is None else dx + directions[i]
    prediction, kept = above.forward(x)
    top = at_output(problem, prediction, batch)
    delta = shared(top.delta, top.shares)
    for i in range(last, len(chain.layers)):
        dx = None if dx is None else chain.layers[i].tangent(chain.params[i], kept[i - last], None, dx)
    rise: Any = 0 if dx is None else (delta * dx).reshape(len(dx), -1).sum(axis=1)
    grads = [trees.map(lambda p: p * 0, p) for p in below.params]
    for i, u in directions.items():
        grads[i] = chain.cut(i, i + 1).gradient([residuals[i]], u * rise.reshape(-1, *(1,) * (u.ndim - 1)))[0]
    grads += above.gradient(kept, delta)
    return penalised(problem.penalty, params, top.value, nested(problem.net, grads))
