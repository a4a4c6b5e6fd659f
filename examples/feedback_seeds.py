"""Does it matter which random matrices carry the errors back? 256 of them in one call.

    python examples/feedback_seeds.py

The same network with the same initial weights learns the same batches of digits by feedback alignment, 256 times, each
time with other feedback matrices. They are the rule's state, so that a sweep over them is a `vmap`: one compilation and
one call, which also gives the angle to the gradient of backpropagation at every step. T. Lillicrap et al., "Random
synaptic feedback weights support error backpropagation for deep learning" (2016).
"""

import sys
import time
from pathlib import Path

import numpy as np

import fnn
from fnn import rules

plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")
OUT, BLUE, SEEDS = Path("out/feedback_seeds"), "#0072B2", 256

(x, y), test = fnn.datasets.digits()
x, test = (x / 16).astype(np.float32), ((test[0] / 16).astype(np.float32), test[1])
net, loss, key = fnn.mlp((32, 32, 10), fnn.Tanh()), fnn.SoftmaxCrossEntropy(), fnn.random.key(0)
optimizer, how = fnn.Momentum(0.05), {"epochs": 12, "batch_size": 64, "validation": test}


def run(own, scale):
    """The accuracy and the angles of a run with feedback matrices drawn from this key, of this scale."""
    rule = rules.Aligned(rules.FeedbackAlignment(scale))
    state = fnn.init_state(net, optimizer, key, (64,), rule=rule)
    state = state._replace(rule_state=rule.init(rules.Problem(net), state.params, own))
    _, history = fnn.train(net, loss, state, (x, y), metrics={"accuracy": fnn.accuracy}, **how)
    return history["validation_accuracy"][-1], history["angle_0"], history["angle_2"]


# 1. All in one call, and backpropagation from the same weights.
start = time.perf_counter()
keys, scales = fnn.random.split(fnn.random.key(1), SEEDS), np.ones(SEEDS, np.float32)
accuracies, first, second = (np.asarray(a) for a in fnn.sweep(run, keys, scales, chunk=64))
print(f"{SEEDS} networks 64-32-32-10, {first.size:,} steps: {time.perf_counter() - start:.1f} s")
plain = fnn.init_state(net, optimizer, key, (64,))
_, history = fnn.train(net, loss, plain, (x, y), metrics={"accuracy": fnn.accuracy}, **how)
exact = float(history["validation_accuracy"][-1])
low, middle, high = np.quantile(accuracies, [0, 0.5, 1])
print(f"accuracy on new digits: worst {low:.1%}, median {middle:.1%}, best {high:.1%}; backpropagation {exact:.1%}")

# 2. The angles: at first those of chance, then the weights align with the feedback.
epoch = first.shape[1] // how["epochs"]
for name, angle in (("first", first), ("second", second)):
    begin, end = angle[:, :3].mean(axis=1), angle[:, -epoch:].mean(axis=1)
    print(
        f"angle of the {name} layer: {begin.mean():.0f}° ± {begin.std():.0f}° -> {end.mean():.0f}° ± {end.std():.0f}°"
    )
end = first[:, -epoch:].mean(axis=1)
together = np.corrcoef(first[:, :epoch].mean(axis=1), accuracies)[0, 1]
print(f"correlation of the angle in the first epoch with the accuracy at the end: {together:.2f}")

# 3. The figure.
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
smooth = lambda a: a[:, : epoch * how["epochs"]].reshape(SEEDS, how["epochs"], -1).mean(axis=2)
fnn.plots.alignment(left, {"angle_0": smooth(first), "angle_2": smooth(second)}).set(title="The angles shrink")
right.hist(100 * accuracies, bins=24, color=BLUE)
right.axvline(100 * exact, color="black", linestyle="--")
right.annotate(
    "backpropagation", (100 * exact, 0.95 * right.get_ylim()[1]), (-4, 0), textcoords="offset points", ha="right"
)
right.set(title=f"{SEEDS} feedback matrices", xlabel="accuracy on new digits (%)", ylabel="networks")
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "feedback_seeds.png", dpi=160)
print(f"picture: {OUT / 'feedback_seeds.png'}")
if not (low > 0.8 and middle > 0.9 and end.mean() < first[:, :3].mean() - 10):
    sys.exit(f"expected every one to learn, and the angles to shrink, got {low:.1%} and {end.mean():.0f}°")
