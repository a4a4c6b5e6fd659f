"""Rematerialization: what a layer keeps for its backward pass is computed again instead of kept.

    forward     y = f(x; θ)                            keeps x (and the key of a training step), and nothing from inside
    propagate   r = the residuals of f at x, again     dx, deltas of f from r and δ
    gradient    r, again                               dθ from r and the deltas

A compiler that saw the same computation twice would do it once and keep its results, and so undo all this. The second
one therefore waits for δ (`pieces.once_known`); the third is then the same as the second, and a compiler does share
these two. So a compiled step computes f twice, and NumPy, which does as it is told, three times.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from . import backend, random, trees  # noqa: F401 - random for the example
from .backend import Unbatched
from .composition import Recorder
from .errors import usage
from .layers import Dense  # noqa: F401 - for the example
from .networks import Around
from .pieces import once_known


class KeptInput(NamedTuple):
    """The residuals of `Remat`: its input, the key (`Unbatched`), and those of f only where a tape records outputs."""

    x: Any
    key: Any
    inner: Any


@usage("fnn.Remat(fnn.Serial((fnn.Dense(32), fnn.Relu()))), with one layer or network")
@dataclass(frozen=True)
class Remat(Around):
    """A layer or network f that keeps only its input for the backward pass, where it computes the rest again.

        y = f(x; θ)        dx = δ ∂f/∂x        dθ = Σₙ δ ∂f/∂θ        dy = ∂f/∂x dx + ∂f/∂θ dθ

    Its parameters are those of f, and every number is the same as without it. Wrap several layers together: a compiled
    step keeps the input of each such block, and the residuals of one block at a time, the last block first. So blocks
    may be longer the nearer they are to the input; with about √(2 L) layers in the first, L layers need the least
    memory. A step has one more forward pass, and takes about a third longer. The last block needs no `Remat`, since its
    backward pass follows its forward pass at once.

    Quantities that need the factors of all layers together, such as clipped gradients, hold them in any case; there,
    use smaller parts of a batch (`fnn.rules.InParts`). On NumPy, and on JAX outside a compiled function, the errors
    of all layers are computed before the first gradient, so only about half of the memory is saved. A tape records the
    outputs of all layers inside. Layers that draw, such as `Dropout`, draw the same numbers again.

    Args:
        layer: f.

    Source: T. Chen et al., "Training deep nets with sublinear memory cost" (2016), §3 and §4.

    >>> from fnn import Relu, Serial, mlp
    >>> net = Serial((Remat(mlp((8, 8))), Relu(), Dense(1)))
    >>> params = net.init(random.key(0, backend="numpy"), (8,))
    >>> y, residuals = net.forward(params, np.ones((4, 8), np.float32))
    >>> [leaf.shape for leaf in trees.leaves(residuals[0])]  # its input; without Remat, two activations more
    [(4, 8)]
    """

    keeps: ClassVar[type] = KeptInput

    @property
    def parts(self):
        return self.layer

    def output_shape(self, input_shape):
        return self.layer.output_shape(input_shape)

    def init(self, key, input_shape, dtype: Any = np.float32):
        return self.layer.init(key, input_shape, dtype)

    def forward(self, params, x, key=None):
        y, residuals = self.layer.forward(params, x, key)
        recorded = isinstance(self.layer, Recorder)  # the outputs inside are asked for
        return y, KeptInput(x, Unbatched(key), residuals if recorded else None)

    def propagate(self, params, residuals, dy, need_dx=True):
        return self.layer.propagate(params, self._again(params, residuals, dy), dy, need_dx)

    def factors(self, params, residuals, delta):
        return self.layer.factors(params, self._from_errors(params, residuals, delta), delta)

    def outer_factors(self, params, residuals, delta):
        return self.layer.outer_factors(params, self._from_errors(params, residuals, delta), delta)

    def gradient(self, params, residuals, delta):
        return self.layer.gradient(params, self._from_errors(params, residuals, delta), delta)

    def tangent(self, params, residuals, dparams, dx):  # it follows the forward pass, so a compiler may share the two
        return self.layer.tangent(params, self._again(params, residuals, None), dparams, dx)

    def _again(self, params, residuals, dy):
        """The residuals of f, computed again, once dy is known."""
        return self.layer.forward(params, once_known(residuals.x, dy), residuals.key.value)[1]

    def _from_errors(self, params, residuals, delta):
        """The same from the deltas: the last one is dy, if f ends with a layer whose parameters act on its output."""
        errors = trees.leaves(delta)
        return self._again(params, residuals, errors[-1]) if errors else None
