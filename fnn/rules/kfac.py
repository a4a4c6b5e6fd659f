"""K-FAC: the natural gradient with a curvature that is a Kronecker product for each weight, averaged over batches."""

from typing import Annotated, Any, NamedTuple

import numpy as np

from .. import backend, gate, trees
from ..backend import floating, namespace
from ..backpropagation import penalised
from ..composition import zeros_like
from ..curvature.blocks import block_product, damped_inverse
from ..curvature.factored import blocks_of, check_positions, kronecker
from ..curvature.output import check_kind
from ..static import Choice, Interval
from .base import RuleOutput, unwrapped
from .natural import measured, shortened


class KFacState(NamedTuple):
    """The state of `KFac`.

    factors     the running averages of A and G: a tree of `fnn.curvature.Kronecker`, nested as the parameters
    inverses    the inverses of the damped factors, computed each so many steps
    weight      the weight of the batches in the averages, Σ w of each, which decays
    count       steps taken
    """

    factors: Any
    inverses: Any
    weight: Any
    count: Any


class KFac(NamedTuple):
    """The gradient of each weight W (O, I) between the inverses of two small matrices (K-FAC).

        D = (G + √λ/π)⁻¹ dW (A + π√λ)⁻¹        π = √((tr A / I) / (tr G / O))
        A ← mean of a aᵀ (I, I)        G ← mean of δ δᵀ (O, O), for targets drawn from the model's own likelihood

    It approximates (F + λ)⁻¹ g, with the block A ⊗ G of each weight in place of the Fisher matrix F
    (`fnn.curvature.kfac`). A bias belongs to its weight's block. What has no factors, such as gains and slopes, has its
    full block; a parameter of which no curvature is known keeps its plain gradient. A penalty is part of g, not of F.

    The averages are over the batches so far, the weight of each decaying by `decay` whenever another is added: the
    first average is that of the first batch, and a batch counts by the sum of its weights (the magnitude of those that
    are negative). A step costs a gradient and the products with A⁻¹ and G⁻¹, which take about as long as the gradient
    of some (I + O) / 3 examples, so it pays where batches are large; adding to the averages takes another backward pass
    and the products a aᵀ and δ δᵀ, about as much as a gradient again.

    How far to go is up to the optimizer. A step of length η along D changes what the model predicts, to second order,
    by a Kullback-Leibler divergence of ½ (η √(gᵀ D))², and `max_norm` is a bound C of √(gᵀ D): where it is larger, D is
    shortened. Early in a run it nearly always is, and without a bound K-FAC diverges easily. The metric `fisher_norm`
    is √(gᵀ D) before that. `fnn.Momentum(0.03)` is a good beginning.

    Args:
        damping: λ, greater than 0, in the units of curvature. Default: 0.01.
        decay: in [0, 1): how much of the weight of earlier batches is left when another is added. Default: 0.95.
        max_norm: C, greater than 0; ∞ for no bound. Default: 1.
        every: the inverses are computed at the first step and each `every` steps, at least 1. Default: 10.
        factors_every: likewise how often a batch is added to the averages. Default: 1.
        kind: "fisher", "ggn" or "empirical", as for `fnn.curvature.kfac`. Default: "fisher".
        samples: how many targets ("fisher") or random signs ("ggn") are drawn for each example; None for the exact
            matrix, and for "empirical". Default: 1.
        positions: how weights are counted that are shared over positions, "expand" or "reduce". Default: "expand".

    Source: J. Martens, R. Grosse, "Optimizing neural networks with Kronecker-factored approximate curvature" (2015),
    §3, §5 and, for π, §6.3; J. Ba, R. Grosse, J. Martens, "Distributed second-order optimization using
    Kronecker-factored approximations" (2017), §5, for the bound. Block-diagonal, with fixed damping, and without the
    rescaling and momentum of the exact Fisher matrix.

    >>> import fnn
    >>> net, data = fnn.mlp((3, 1)), (np.eye(2), np.ones((2, 1)))
    >>> state = fnn.init_state(net, fnn.Sgd(0.1), fnn.random.key(0, backend="numpy"), (2,), rule=KFac())
    >>> state, history = fnn.train(net, fnn.Quadratic(), state, data, epochs=20, batch_size=2)
    >>> bool(history["loss"][-1] < history["loss"][0]), state.rule_state.factors[0].w.a.shape
    (True, (3, 3))
    """

    damping: Annotated[Any, Interval("(0, ∞)")] = 0.01
    decay: Annotated[Any, Interval("[0, 1)")] = 0.95
    max_norm: Annotated[Any, Interval("(0, ∞]")] = 1.0
    every: Choice[Annotated[int, Interval("[1, ∞)")]] = 10
    factors_every: Choice[Annotated[int, Interval("[1, ∞)")]] = 1
    kind: Choice[str] = "fisher"
    samples: Choice[int | None] = 1
    positions: Choice[str] = "expand"

    def check(self):
        """Raise unless there is such a curvature."""
        rule = unwrapped(self)
        check_kind(rule.kind, rule.samples, where="KFac.")
        check_positions(rule.positions, where="KFac.")

    def init(self, problem, params, key):
        """No factors yet."""
        xp = namespace(*trees.leaves(params))
        dtypes = [p.dtype for p in trees.leaves(params)]

        def blocks(x):
            prediction, residuals = problem.net.forward(params, trees.map(xp.asarray, x))
            deltas = problem.net.propagate(params, residuals, floating(prediction) * 0, need_dx=False)[1]
            return kronecker(params, problem.net.outer_factors(params, residuals, deltas), 1.0)

        shaped = gate.on_zeros(blocks, problem.input_shape, next(iter(dtypes), np.float32))
        zeros = lambda: trees.map(xp.zeros_like, shaped)
        return KFacState(zeros(), zeros(), xp.zeros((), np.result_type(np.float32, *dtypes)), np.int32(0))

    def gradient(self, problem, params, state, batch, keys) -> RuleOutput:
        """The value, the preconditioned gradient, and the averages with this batch."""
        return self.from_sums(problem, params, state, batch, keys, self.sums(problem, params, state, batch, keys))

    def sums(self, problem, params, state, batch, keys, share=1):
        """The value, the gradient, and the blocks of the batch times its share (zeros in steps that need none)."""
        value, grads, pass_, columns = measured(self, problem, params, batch, keys, share)
        measure = lambda: trees.map(lambda a: a * share, blocks_of(pass_, columns, self.positions))
        return value, grads, each(self.factors_every, state.count, measure, zeros_like(state.factors))

    def from_sums(self, problem, params, state, batch, keys, sums) -> RuleOutput:
        """The penalty, the averages with this batch, and the gradient divided by them."""
        value, grads, blocks = sums
        value, grads = penalised(problem.penalty, params, value, grads)
        measure = lambda: averaged(self.decay, state, blocks, batch)
        average, weight = each(self.factors_every, state.count, measure, (state.factors, state.weight))
        inverted = each(self.every, state.count, lambda: damped_inverse(average, self.damping), state.inverses)
        direction = block_product(params, inverted, grads, elsewhere=grads)
        state = KFacState(average, inverted, weight, state.count + 1)
        return shortened(self, value, grads, direction, state)


def each(period, count, f, otherwise) -> Any:
    """`f()` at the first step and each so many steps, computed only then; otherwise what there is."""
    return f() if period == 1 else backend.cond(count % period == 0, lambda _: f(), lambda kept: kept, otherwise)


def averaged(decay, state, blocks, batch) -> tuple[Any, Any]:
    """The averages with the blocks of a batch, and their weight; a batch without weight changes nothing."""
    xp = namespace(state.weight, batch.weights)
    own = len(trees.leaves(batch.x)[0]) if batch.weights is None else abs(batch.weights).sum()
    weight = decay * state.weight + own
    share = own / xp.where(weight == 0, 1, weight)
    return trees.map(lambda old, new: old + share * (new - old), state.factors, blocks), weight
