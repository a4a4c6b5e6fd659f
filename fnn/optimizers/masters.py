"""Masters: float32 copies of parameters of 16 bits, from which rounding would take all small updates."""

from typing import Any, NamedTuple

import numpy as np  # noqa: F401 - for the example

from .. import trees
from ..backend import at_least_float32, cast, namespace, widened
from ..errors import usage
from .base import apply_updates, no_update, own_state
from .descent import Sgd  # noqa: F401 - for the example


class Mastered(NamedTuple):
    """State of Masters: the masters, a tree of parameters in float32 or wider, and the inner state."""

    masters: Any
    inner: Any


@usage("fnn.Masters(fnn.Adam())")
class Masters(NamedTuple):
    """Applies the inner optimizer to float32 copies of the parameters, the masters, which the parameters follow.

        m ← m + u(g, m)        w ← m rounded to the dtype of w

    For parameters in bfloat16 or float16: w + u is w if u is less than half the spacing of numbers at w, 2⁻⁹ w in
    bfloat16, so training stops when the steps become small. The masters add up what rounding would lose. Everything
    inside, such as weight decay, clipping or an average, works in float32; place other combinators inside. The masters
    are `opt_state.masters`, and take 4 bytes for each parameter.

    Args:
        optimizer: the inner optimizer.

    Source: P. Micikevicius et al., "Mixed precision training" (2018), §3.1.

    >>> params, grads = np.float16([1.0]), np.float16([-0.0002])  # float16 has no number from 1 to 1.00098
    >>> optimizer = Masters(Sgd(learning_rate=1.0))
    >>> state = optimizer.init(params)
    >>> for _ in range(4):
    ...     updates, state = optimizer.update(grads, state, params)
    ...     params = params + updates
    >>> params.astype(np.float16), state.masters
    (array([1.001], dtype=float16), array([1.0008], dtype=float32))
    """

    optimizer: Any

    def init(self, params: Any) -> Any:
        masters = trees.map(lambda w: namespace(w).array(w, dtype=at_least_float32(w.dtype)), params)
        return Mastered(masters, self.optimizer.init(masters))

    def update(self, grads: Any, opt_state: Any, params: Any) -> tuple[Any, Any]:
        masters, inner = own_state(self, opt_state, Mastered)
        wide = trees.map_learnt(lambda g, m: cast(g, m.dtype), grads, masters)
        updates, inner = self.optimizer.update(wide, inner, masters)
        masters = apply_updates(masters, updates)
        follow = lambda m, w: widened(cast(m, w.dtype)) - cast(w, m.dtype)  # in float32, where the difference is exact
        return trees.map_learnt(follow, masters, params, fixed=no_update), Mastered(masters, inner)
