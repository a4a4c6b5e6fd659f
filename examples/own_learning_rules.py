"""Two learning rules as you would write them: Oja's Hebbian rule, and perturbed weights, in ten lines each.

    python examples/own_learning_rules.py

A rule is a NamedTuple with two methods, and its gradient need not be one. Oja's rule has no cost at all: a unit
strengthens what it sees when it is active, and forgets in proportion to its activity. With several units it finds the
principal subspace of the data. SPSA knows nothing but the cost: it shakes all weights at once, and compares.

E. Oja, "A simplified neuron model as a principal component analyzer" (1982), and "Neural networks, principal components
and subspaces" (1989); J. Spall, "Multivariate stochastic approximation using a simultaneous perturbation gradient
approximation" (1992).
"""

import sys
from typing import Annotated, Any, NamedTuple

import numpy as np

import fnn
from fnn.backpropagation import differentiate
from fnn.rules import RuleOutput


class Oja(NamedTuple):
    """ΔW = yᵀx − yᵀy W, the mean over the batch, for one layer y = x Wᵀ. The value is ½ ‖x − y W‖²."""

    def init(self, problem, params, key):
        return ()

    def gradient(self, problem, params, state, batch, keys):
        (w, b), x = params, batch.x
        y = x @ w.T
        rest = x - y @ w
        return RuleOutput((rest**2).sum() / 2 / len(x), fnn.DenseParams(-y.T @ rest / len(x), b), state)


class Perturbation(NamedTuple):
    """SPSA: g = (L(θ + c Δ) − L(θ − c Δ)) / 2c · Δ, with Δ a random sign for each weight. c is `size`."""

    size: Annotated[Any, fnn.Interval("(0, ∞)")] = 1e-2

    def init(self, problem, params, key):
        return ()

    def gradient(self, problem, params, state, batch, keys):
        place = iter(range(len(fnn.trees.leaves(params))))
        signs = lambda p: 2 * fnn.random.bernoulli(fnn.random.fold_in(keys.rule, next(place)), 0.5, p.shape) - 1.0
        shake = fnn.trees.map(lambda p: signs(p).astype(p.dtype), params)
        cost = lambda c: differentiate(problem, fnn.trees.map(lambda p, s: p + c * s, params, shake), batch, keys.net)[
            0
        ]
        above, below = cost(self.size), cost(-self.size)
        slope = (above - below) / (2 * self.size)
        return RuleOutput((above + below) / 2, fnn.trees.map(lambda s: slope * s, shake), state)


train, test = ((x.astype(np.float32) / 16, y) for x, y in fnn.datasets.digits())
for backend in ("numpy",) if fnn.backend.jax is None else ("numpy", "jax"):
    key, x = fnn.random.key(0, backend=backend), train[0] - train[0].mean(axis=0)

    how = {"key": key, "batch_size": 32, "epochs": 60, "rule": Oja()}
    state, history = fnn.fit(
        fnn.Dense(3, bias=False), fnn.Quadratic(), fnn.Sgd(0.05), (x, np.zeros((len(x), 3))), **how
    )
    w, principal = np.asarray(state.params.w), np.linalg.svd(x)[2][:3]
    shared = np.linalg.svd(np.linalg.qr(w.T)[0].T @ principal.T)[1]  # the cosines of the angles between the subspaces
    print(
        f"{backend}: Oja's units span the principal subspace up to {np.degrees(np.arccos(min(1, shared.min()))):.0f}°"
    )

    how |= {"rule": Perturbation()}
    net, loss = fnn.mlp((10,)), fnn.SoftmaxCrossEntropy()
    state, _ = fnn.fit(net, loss, fnn.Adam(0.01), train, **how)
    accuracy = fnn.evaluate(net, loss, state.params, test, metrics={"accuracy": fnn.accuracy})["accuracy"]
    print(f"{backend}: with perturbed weights alone {accuracy:.1%} of new digits are recognized")
    if shared.min() < 0.9 or accuracy < 0.85:
        sys.exit(f"expected the principal subspace and 85 %, got a cosine of {shared.min():.2f} and {accuracy:.1%}")
