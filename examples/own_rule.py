"""Writing your own learning rule, in two methods: it runs in `fit` with checkpoints, and in a sweep, on both backends.

    python examples/own_rule.py

Sharpness-aware minimization takes the gradient not at the parameters, but where the cost is highest nearby:

    g = ∇L(θ + ρ ∇L(θ) / ‖∇L(θ)‖)

P. Foret, A. Kleiner, H. Mobahi, B. Neyshabur, "Sharpness-aware minimization" (2021), eq. 3.
"""

import sys
import tempfile
from typing import Annotated, Any, NamedTuple

import numpy as np

import fnn
from fnn.backpropagation import differentiate


class SharpnessAware(NamedTuple):
    """ρ is `radius`. It reports how much the cost rises over that distance, `sharpness`."""

    radius: Annotated[Any, fnn.Interval("[0, ∞)")] = 0.05

    def init(self, problem, params, key):
        return ()

    def gradient(self, problem, params, state, batch, keys):
        value, grads = differentiate(problem, params, batch, keys.net)
        length = fnn.backend.namespace(value).sqrt(sum((g * g).sum() for g in fnn.trees.leaves(grads)) + 1e-12)
        above = fnn.trees.map(lambda p, g: p + self.radius / length * g, params, grads)
        highest, grads = differentiate(problem, above, batch, keys.net)
        return fnn.rules.RuleOutput(value, grads, state, {"sharpness": highest - value})


train, test = fnn.datasets.digits()
net, loss = fnn.Serial((fnn.Scale(1 / 16), *fnn.mlp((64, 10)).layers)), fnn.SoftmaxCrossEntropy()
for backend in ("numpy",) if fnn.backend.jax is None else ("numpy", "jax"):
    key = fnn.random.key(0, backend=backend)
    with tempfile.TemporaryDirectory() as folder:
        options = {"key": key, "rule": SharpnessAware(), "batch_size": 32, "checkpoint": folder}
        fnn.fit(net, loss, fnn.Momentum(0.05), train, epochs=10, **options)
        state, history = fnn.fit(net, loss, fnn.Momentum(0.05), train, epochs=20, resume=True, **options)
    accuracy = fnn.evaluate(net, loss, state.params, test, metrics={"accuracy": fnn.accuracy})["accuracy"]
    first, *_, last = history["sharpness"]
    print(f"{backend}: test accuracy {accuracy:.1%}, sharpness {first:.3f} -> {last:.4f}")
    if accuracy < 0.95 or last > first:
        sys.exit(f"expected 95 % and a cost that becomes flatter, got {accuracy:.2%} and {first} -> {last}")


def run(radius):  # its numbers are leaves, so a sweep over them is one call
    state = fnn.init_state(net, fnn.Momentum(0.05), key, (64,), rule=SharpnessAware(radius))
    return fnn.train(net, loss, state, train, epochs=5, batch_size=32, validation=test)[1]["validation_loss"][-1]


radii = np.float32([0.0, 0.05, 0.2])
print("test loss for the radii", radii, "is", np.asarray(fnn.sweep(run, radii)).round(4))
