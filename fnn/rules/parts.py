"""A batch in parts: what is a sum over the examples is computed for a few of them at a time."""

from typing import Annotated, Any, NamedTuple

import numpy as np  # noqa: F401 - for the example

from .. import random, trees
from ..backend import at_least_float32, cast, is_floating, namespace
from ..backpropagation import normalized
from ..errors import KindError, shorten
from ..per_example import check_separable
from ..pieces import sum_of_parts
from ..static import Choice, Interval
from .base import Keys, RuleOutput, of_inner


class InParts(NamedTuple):
    """Another rule, computed for a few examples of a batch at a time: gradient accumulation, which needs less memory.

        g = Σₖ Σ_{n in part k} wₙ gₙ / Σ w        Σ w is over the whole batch

    The gradient is that of the whole batch, up to rounding; the last part may be smaller than the others, and weights
    count as they do without parts. The residuals and errors of one part at a time are in memory, and a step takes about
    as long as before. Sums are in float32 or wider. It works with every rule that is a function of sums over the
    examples and says so with two more methods (see `fnn.rules.base`): `Backprop`, `Private`, whose noise is added once,
    to the whole sum, and `KFac`. The cost must be a mean over the examples.

    Layers that draw, such as `Dropout`, and targets that are drawn, draw from `fold_in(key, k)` in part k: other
    numbers than for the whole batch at once, from the same distribution. A batch of at most `size` examples is not
    divided, and its numbers are the same as without this rule. With Poisson sampling, what is divided is the room that
    a batch has. To spread a batch over several steps of the loop instead, use the optimizer `fnn.Accumulate`.

    Args:
        rule: the rule.
        size: the number of examples in a part, at least 1.

    >>> import fnn
    >>> net, data, rule = fnn.mlp((3, 1)), (np.eye(10), np.ones((10, 1))), InParts(fnn.rules.Backprop(), 4)
    >>> key = fnn.random.key(0, backend="numpy")
    >>> states = [fnn.init_state(net, fnn.Sgd(0.1), key, (10,), rule=r) for r in (rule, None)]
    >>> a, b = (fnn.make_step(net, fnn.Quadratic())(state, data)[0] for state in states)
    >>> bool(abs(a.params[0].w - b.params[0].w).max() < 1e-6)
    True
    """

    rule: Any
    size: Choice[Annotated[int, Interval("[1, ∞)")]]

    sampling, weighted = of_inner("sampling", "shuffled"), of_inner("weighted", True)
    draws, private = of_inner("draws", True), of_inner("private", False)
    scales = of_inner("scales", False)

    def check(self):
        """Raise unless the rule is a function of sums."""
        if not all(callable(getattr(self.rule, name, None)) for name in ("sums", "from_sums")):
            raise KindError(
                "InParts.rule: expected a rule with methods sums and from_sums, such as fnn.rules.Backprop(), "
                f"fnn.rules.Private(...) or fnn.rules.KFac(), got {shorten(self.rule)}"
            )

    def init(self, problem, params, key):
        """The state of the rule."""
        return self.rule.init(problem, params, key)

    def gradient(self, problem, params, state, batch, keys) -> RuleOutput:
        """That of the rule, from its sums over the parts."""
        n = len(trees.leaves(batch.x)[0])
        if n <= self.size:
            return self.rule.gradient(problem, params, state, batch, keys)
        check_separable(problem.loss)
        whole, scaled = with_denominator(self.rule, problem, batch, n)

        def of_part(k, x, y, weights, magnitudes):
            share = len(trees.leaves(x)[0]) / n if weights is None else magnitudes.sum()
            own = Keys(*(key if key is None else random.fold_in(key, k) for key in keys))
            sums = self.rule.sums(whole, params, state, batch._replace(x=x, y=y, weights=weights), own, share)
            return trees.map(lambda a: cast(a, at_least_float32(a.dtype)) if is_floating(a.dtype) else a, sums)

        magnitudes = None if batch.weights is None else normalized(abs(batch.weights))
        sums = sum_of_parts(of_part, self.size, batch.x, batch.y, scaled, magnitudes)
        output = self.rule.from_sums(problem, params, state, batch, keys, sums)
        return output._replace(grads=trees.map(lambda g, p: cast(g, p.dtype), output.grads, params))


def with_denominator(rule, problem, batch, n) -> tuple[Any, Any]:
    """The problem with the denominator of the whole batch, and the weights (N,) that it divides, or None."""
    weights = batch.weights
    if problem.denominator is not None:
        return problem, weights
    if weights is None:
        return problem._replace(denominator=n), None
    if getattr(rule, "weighted", True):
        return problem._replace(denominator=1), normalized(weights)
    xp, total = namespace(weights), weights.sum()  # those of a sampler: 1, or 0 where no example joined
    return problem._replace(denominator=xp.where(total == 0, 1, total)), weights
