"""A loss scale: errors in float16 are multiplied by a number, so that small ones do not become 0."""

from typing import Annotated, Any, NamedTuple

import numpy as np

from .. import trees
from ..backend import namespace
from ..backpropagation import penalised
from ..errors import KindError, shorten
from ..static import Interval
from .backprop import Backprop
from .base import RuleOutput, of_inner

LARGEST = 2.0**15  # the first error of each example is S, and float16 ends at 65,504


class Scaling(NamedTuple):
    """State of LossScale: S, the number of steps without overflow since it last changed, and the inner rule's state."""

    scale: Any
    steps: Any
    inner: Any


class LossScale(NamedTuple):
    """Backpropagation with errors scaled by S, which is as large as it can be without overflow: for float16.

        δ ← S δ at the output        g ← g / S in float32
        S ← S / 2, if an entry of g is NaN or infinite; S ← 2 S, after k steps in a row where none is

    The backward pass is linear in δ, so scaling the cost is scaling the first errors. In float16 an error below 6·10⁻⁸
    is 0, and one above 65,504 infinite. Without this rule each example's largest error is 1 where it begins; with it S,
    which makes room for what becomes small on its way through the layers, and for small entries of the gradient.

    A step whose gradient has overflowed must be skipped, so the optimizer needs `fnn.SkipNonFinite`, and `fnn.Masters`
    around it where parameters are to keep small changes: `fnn.Masters(fnn.SkipNonFinite(fnn.Adam()))`. The metric
    `loss_scale` is the S of a step. In bfloat16, whose range is that of float32, no scale is needed.

    Args:
        rule: a rule that backpropagates the cost, such as `Backprop()` or `InParts(Backprop(), size)`. Default:
            `Backprop()`.
        scale: the first S, from 1 to 2¹⁵, within which it stays. Default: 2¹⁰.
        steps: k, at least 1. Default: 1,000.

    Source: P. Micikevicius et al., "Mixed precision training" (2018), §3.2; the rule for S is that of NVIDIA's
    "Training with mixed precision" guide, with its factor of 2.

    >>> import fnn
    >>> net, data = fnn.mlp((3, 1)), (np.eye(4), np.ones((4, 1)))
    >>> optimizer, key = fnn.Masters(fnn.SkipNonFinite(fnn.Sgd(0.1))), fnn.random.key(0, backend="numpy")
    >>> state = fnn.init_state(net, optimizer, key, (4,), "float16", rule=LossScale(steps=2))
    >>> state, history = fnn.train(net, fnn.Quadratic(), state, data, epochs=3, batch_size=2)
    >>> history["loss_scale"]
    array([1024., 1024., 2048., 2048., 4096., 4096.], dtype=float32)
    """

    rule: Any = Backprop()
    scale: Annotated[Any, Interval("[1, 32768]")] = 2.0**10
    steps: Annotated[int, Interval("[1, ∞)")] = 1000

    draws, of_cost = of_inner("draws", True), of_inner("of_cost", False)
    overflows = True

    def check(self):
        """Raise unless the rule's gradient is scaled with the errors."""
        if not getattr(self.rule, "scales", False):
            raise KindError(
                "LossScale.rule: expected a rule whose gradient is scaled with the errors, such as "
                f"fnn.rules.Backprop(), got {shorten(self.rule)}"
            )

    def init(self, problem, params, key):
        """The first scale."""
        xp = namespace(*trees.leaves(params), self.scale)
        return Scaling(xp.asarray(self.scale, np.float32), xp.zeros((), np.int32), self.rule.init(problem, params, key))

    def gradient(self, problem, params, state, batch, keys) -> RuleOutput:
        """That of the rule, in float32, and the next scale."""
        scale, steps, inner = state
        with np.errstate(over="ignore", invalid="ignore"):
            own = problem._replace(penalty=None, scale=scale)
            value, grads, inner, metrics = self.rule.gradient(own, params, inner, batch, keys)
            grads = trees.map_learnt(lambda g: g / scale, grads)  # in float32, as S is
        finite = trees.all_finite(trees.learnt(grads))
        value, grads = penalised(problem.penalty, params, value, grads)
        xp, steps = namespace(scale, finite), steps + 1
        larger = xp.where(steps < self.steps, scale, xp.minimum(2 * scale, LARGEST))
        new = Scaling(
            xp.where(finite, larger, xp.maximum(scale / 2, 1)), xp.where(finite & (larger == scale), steps, 0), inner
        )
        return RuleOutput(value, grads, new, {**metrics, "loss_scale": scale})
