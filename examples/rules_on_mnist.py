"""Learning without the transpose: every learning rule on one small net and on real MNIST, in one table.

    FNN_DATA=/path/to/data python examples/rules_on_mnist.py

Each rule is an argument of the same `train`. The table has the accuracy on the test set, the angle between the rule's
gradient and that of backpropagation at the end, for the first layer and for the second, and the time of a step. Two
rules come with networks of their own: equilibrium propagation with one that settles, forward-forward with one that
compares labels. docs/rules.md says what a neuron would have to know for each.
"""

import sys
import time
from pathlib import Path

import numpy as np

import fnn
from fnn import rules

plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")
OUT, TANH, D = Path("out/rules_on_mnist"), fnn.Tanh(), fnn.Dense

mlp = fnn.mlp((64, 64, 10), TANH)
settling = fnn.Serial((fnn.Hopfield((D(64), TANH, D(64), TANH), steps=8), D(10)))
trying = fnn.Goodness((D(64), fnn.Relu(), D(64), fnn.Relu()))
RULES = {  # the network, the rule, and the least accuracy
    "backpropagation": (mlp, rules.Backprop(), 0.93),
    "feedback alignment": (mlp, rules.FeedbackAlignment(), 0.92),
    "direct feedback alignment": (mlp, rules.DirectFeedbackAlignment(), 0.92),
    "sign symmetry": (mlp, rules.SignSymmetry(), 0.93),
    "Kolen–Pollack": (mlp, rules.KolenPollack(), 0.92),
    "difference target propagation": (mlp, rules.TargetPropagation(), 0.93),
    "predictive coding": (mlp, rules.PredictiveCoding(0.05, 10, nudge=0.1), 0.93),
    "equilibrium propagation": (settling, rules.EquilibriumPropagation(steps=4), 0.93),
    "forward-forward": (trying, rules.ForwardForward(), 0.82),
    "forward gradient, by activities": (mlp, rules.ForwardGradient(), 0.8),
    "forward gradient, by weights": (mlp, rules.ForwardGradient("weights"), 0.4),
}
(x, y), (x_test, y_test) = ((x / np.float32(255), y) for x, y in fnn.datasets.mnist())
loss, key, BATCH, EPOCHS = fnn.SoftmaxCrossEntropy(), fnn.random.key(0), 128, 2


def begin(net, rule):
    return fnn.init_state(net, fnn.Adam(1e-3), key, (784,), rule=rule)


def angles(net, state):
    """Of the layers with weights, on NumPy: the source is the same, and nothing has to be compiled."""
    params, rule, rule_state = fnn.trees.map(np.asarray, (state.params, state.rule, state.rule_state))
    batch = rules.Batch(x[:512], y[:512], None, 512)
    problem, keys = rules.Problem(net, loss), rules.Keys(None, fnn.random.key(1, backend="numpy"))
    ours = rules.base.unwrapped(rule).gradient(problem, params, rule_state, batch, keys).grads
    theirs = fnn.grad(net, loss)(params, x[:512], y[:512])
    return list(rules.alignment(net, ours, theirs).values())[:2]


print(f"784-64-64-10, {len(x):,} images, batches of {BATCH}, {EPOCHS} epochs, Adam\n")
print(f"{'rule':<32} accuracy   angles, layers 1 and 2   ms a step", flush=True)
for name, (net, rule, least) in RULES.items():
    state = begin(net, rule)
    steps = EPOCHS * len(x) // BATCH
    state, _ = fnn.train(net, loss, state, (x, y), steps=steps // 2, batch_size=BATCH)
    start = time.perf_counter()
    state, history = fnn.train(net, loss, state, (x, y), steps=steps // 2, batch_size=BATCH)
    np.asarray(history["loss"])
    taken = 1e3 * (time.perf_counter() - start) / (steps // 2)
    accuracy = float(fnn.accuracy(net.apply(state.params, x_test), y_test))
    first, second = angles(net, state)
    print(f"{name:<32} {accuracy:8.1%} {first:13.0f}° {second:8.0f}° {taken:14.2f}", flush=True)
    if not accuracy >= least:
        sys.exit(f"{name}: expected an accuracy of {least:.0%}, got {accuracy:.1%}")

# How the angles change while a network learns: the weights come to agree with the matrices that carry the errors.
figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for ax, rule in zip(axes, (rules.FeedbackAlignment(), rules.KolenPollack(decay=0.01)), strict=True):
    state = begin(mlp, rules.Aligned(rule))
    _, history = fnn.train(mlp, loss, state, (x, y), epochs=1, batch_size=BATCH)
    every = {n: np.asarray(a)[: 20 * (len(a) // 20)].reshape(-1, 20).mean(axis=1) for n, a in history.items()}
    fnn.plots.alignment(ax, every).set(title=type(rule).__name__, xlabel="steps / 20")
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "rules_on_mnist.png", dpi=160)
print(f"picture: {OUT / 'rules_on_mnist.png'}")
if not every["angle_0"][-1] < 10 < every["angle_0"][0]:
    sys.exit(
        f"expected Kolen and Pollack's feedback to become the weights, got an angle of {every['angle_0'][-1]:.0f}°"
    )
