"""The natural gradient: the gradient of a batch, divided by the curvature of the same batch."""

from typing import Annotated, Any, NamedTuple

import numpy as np

from .. import backend, factors, trees
from ..backend import cast, namespace, widened
from ..backpropagation import penalised, sent_back
from ..curvature.columns import Columns, Pass, begun, shared
from ..curvature.output import check_kind
from ..curvature.spectrum import flat, like
from ..numerics import root
from ..per_example import check_separable
from ..static import Choice, Interval
from .base import RuleOutput, unwrapped


class NaturalGradient(NamedTuple):
    """The gradient times the inverse of the damped curvature of the batch: for networks of few parameters.

        d = (F + λ)⁻¹ g        F = Σₙ sₙ Σᵣ gₙᵣ gₙᵣᵀ = Uᵀ U        U (N R, P), the gradients gₙᵣ times √sₙ
                               = (g − Uᵀ (U Uᵀ + λ)⁻¹ U g) / λ     if there are fewer rows than parameters P

    F is the generalized Gauss-Newton matrix or the Fisher matrix, with R errors for each example: one for each number
    of the output, or as many as are drawn. A penalty is part of g, not of F. With a learning rate of 1 and a small λ it
    solves linear least squares in one step. A step takes R backward passes, memory for N R P numbers, and time in
    proportion to N R P min(N R, P) + min(N R, P)³. For larger networks there is `KFac`.

    The metric `fisher_norm` is √(gᵀ d): to second order a step of length η changes what the model predicts by a
    Kullback-Leibler divergence of ½ (η √(gᵀ d))².

    Args:
        damping: λ, greater than 0. Default: 0.001.
        kind: "ggn", "fisher" or "empirical", as for `fnn.curvature.kfac`. Default: "ggn".
        samples: how many targets ("fisher") or random signs ("ggn") are drawn for each example. Default: None, exact.
        max_norm: C, greater than 0: where √(gᵀ d) is larger, d is shortened to it. Default: ∞.

    Source: S. Amari, "Natural gradient works efficiently in learning" (1998); damped as in K. Levenberg, "A method for
    the solution of certain non-linear problems in least squares" (1944).

    >>> import fnn
    >>> net, data = fnn.Dense(1), (np.array([[0.0], [1.0], [2.0]]), np.array([[1.0], [3.0], [5.0]]))
    >>> key, rule = fnn.random.key(0, backend="numpy"), NaturalGradient(damping=1e-6)
    >>> state = fnn.init_state(net, fnn.Sgd(1.0), key, (1,), np.float64, rule=rule)
    >>> state, _ = fnn.train(net, fnn.Quadratic(), state, data, steps=1, batch_size=3)
    >>> state.params.w.round(3).tolist(), state.params.b.round(3).tolist()
    ([[2.0]], [1.0])
    """

    damping: Annotated[Any, Interval("(0, ∞)")] = 1e-3
    kind: Choice[str] = "ggn"
    samples: Choice[int | None] = None
    max_norm: Annotated[Any, Interval("(0, ∞]")] = np.inf

    def check(self):
        """Raise unless there is such a curvature."""
        rule = unwrapped(self)
        check_kind(rule.kind, rule.samples, where="NaturalGradient.")

    def init(self, problem, params, key):
        """No state."""
        return ()

    def gradient(self, problem, params, state, batch, keys) -> RuleOutput:
        """The value, and the gradient divided by the damped curvature."""
        value, grads, pass_, columns = measured(self, problem, params, batch, keys)
        value, grads = penalised(problem.penalty, params, value, grads)
        u, g = weighted_gradients(pass_, columns), flat(grads)
        eye = namespace(u).eye(min(u.shape), dtype=u.dtype) * self.damping
        solve = namespace(u).linalg.solve
        d = (g - u.T @ solve(u @ u.T + eye, u @ g)) / self.damping if len(u) < len(g) else solve(u.T @ u + eye, g)
        return shortened(self, value, grads, like(params, d), state)


def measured(rule, problem, params, batch, keys, share=1) -> tuple[Any, Any, Pass, Columns]:
    """`(value, grads)` of a batch without penalty, and what its curvature comes from, of one forward pass.

    Curvature has to be positive, so it takes the magnitude of a weight that is negative. For a part of a batch with
    that share of all weight, the curvature is 1 / share times as large as what the part adds to that of the batch.
    """
    check_separable(problem.loss)
    forward = problem.net.forward(params, batch.x, keys.net)
    value, grads = sent_back(problem._replace(penalty=None), params, batch, *forward)
    data = batch if batch.weights is None else batch._replace(weights=abs(batch.weights))
    net, loss, _, denominator = problem[:4]
    if denominator is not None:
        denominator = denominator * namespace(share).where(share == 0, 1, share)
    of = rule.kind, rule.samples, denominator, keys.net, keys.rule
    return value, grads, *begun(net, loss, params, data, *of, forward=forward)


def weighted_gradients(pass_: Pass, columns: Columns) -> Any:
    """U (R N, P), the gradients of all columns r and examples n times √sₙ."""
    net, params, residuals, shares, dtype = pass_

    def of_column(i):
        e = columns.column(i)
        deltas = net.propagate(params, residuals, cast(e, dtype), need_dx=False)[1]
        made = factors.made(params, net.factors(params, residuals, deltas), len(e))
        rows = [widened(leaf).reshape(len(e), -1) for leaf in trees.leaves(made)]
        return namespace(e).concatenate(rows, axis=1)

    indices = namespace(*trees.leaves(params)).arange(columns.number, dtype=np.int32)
    u = backend.vmap(of_column)(indices)
    u = shared(u, shares**0.5 if isinstance(shares, float) else root(shares), axis=1)
    return u.reshape(-1, u.shape[-1])


def shortened(rule, value, grads, d, state) -> RuleOutput:
    """The output of a rule for a direction d, of which √(gᵀ d) is at most `max_norm`."""
    square = sum((widened(g) * widened(v)).sum() for g, v in zip(trees.leaves(grads), trees.leaves(d), strict=True))
    xp = namespace(value)
    norm = root(xp.maximum(square + 0 * value, 0))
    longer = norm > rule.max_norm
    scale = xp.where(longer, rule.max_norm, 1) / xp.where(longer, norm, 1)
    return RuleOutput(value, trees.map(lambda v: cast(v * scale, v.dtype), d), state, {"fisher_norm": norm})
