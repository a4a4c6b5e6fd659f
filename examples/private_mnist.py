"""Private training: what a privacy guarantee costs on MNIST, with a plain network and no pretraining.

    FNN_DATA=/path/to/data python examples/private_mnist.py

(ε, δ) guarantees that nobody who sees the trained network can easily tell whether an example was among the data: any
outcome is at most e^ε times as likely with it as without it, except with probability δ. The gradient of each example is
clipped to the norm C, and noise is added to their sum (DP-SGD, `fnn.rules.Private`). M. Abadi et al., "Deep learning
with differential privacy" (2016), reached 95 % at ε = 2, δ = 10⁻⁵ with 1,000 hidden units on 60 principal components.
Here there are 256 units, on images of 14 × 14, whose pixels are means of four. The search for these settings is not
accounted for, neither there nor here.
"""

import sys
import time
from pathlib import Path

import numpy as np

import fnn

plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")
OUT, DELTA, EPSILONS = Path("out/private_mnist"), 1e-5, (0.5, 1.0, 2.0, 8.0)
BATCH, EPOCHS, MAX_NORM, RATE, MOMENTUM = 2048, 40, 1.0, 0.7, 0.9


def small(images):
    """28 × 28 pixels to 14 × 14, then less MNIST's mean and over its spread, both long published."""
    pooled = images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(-1, 196)
    return ((pooled / 255 - 0.1307) / 0.3081).astype(np.float32)


(x, y), (x_test, y_test) = fnn.datasets.mnist()
x, x_test, n = small(x), small(x_test), len(x)
steps = EPOCHS * n // BATCH
rate = fnn.schedules.PolynomialDecay(RATE, 0.0, steps)  # decreases linearly to 0
net, loss = fnn.mlp((256, 10), activation=fnn.Relu()), fnn.SoftmaxCrossEntropy()
key = fnn.random.key(0)
print(f"196-256-10 with ReLU, {n:,} images, batches of {BATCH:,} expected, {steps:,} steps ({EPOCHS} epochs)")
print(f"C = {MAX_NORM}, momentum {MOMENTUM}, learning rate {RATE} falling to 0, δ = {DELTA}\n")


def train(noise_multiplier, max_norm=MAX_NORM):
    """Parameters before and after, and the accuracy on the test set, in per cent."""
    rule = fnn.rules.Private(max_norm=max_norm, noise_multiplier=noise_multiplier)
    start = fnn.init_state(net, fnn.Momentum(rate, MOMENTUM), key, (196,), rule=rule)
    state, _ = fnn.train(net, loss, start, (x, y), steps=steps, batch_size=BATCH)
    return start.params, state.params, 100 * float(fnn.accuracy(net.apply(state.params, x_test), y_test))


# 1. For each ε, the noise needed and the accuracy that remains.
found = {}
print("    ε  noise σ  accuracy")
for epsilon in EPSILONS:
    noise = fnn.privacy.noise_multiplier(steps=steps, batch_size=BATCH, n=n, epsilon=epsilon, delta=DELTA)
    begun = time.perf_counter()
    first, last, found[epsilon] = train(noise)
    print(f"{epsilon:5.1f}  {noise:7.3f}  {found[epsilon]:6.2f} %   ({time.perf_counter() - begun:.0f} s)", flush=True)
*_, without = train(0.0, max_norm=np.inf)
print(f"    ∞        0  {without:6.2f} %   neither clipped nor noisy")

# 2. The effect of clipping: the norms of the examples' gradients at the first and at the last step.
norms = fnn.backend.jit(fnn.per_example.norms(net, loss))
lengths = {
    "first step": norms(first, x[:10_000], y[:10_000]),
    "last step": norms(last, x[:10_000], y[:10_000]),
}

# 3. The figure.
plt.rcParams.update(dict.fromkeys(("axes.spines.top", "axes.spines.right"), False))
figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
left.plot(EPSILONS, list(found.values()), "o-", color="#0072B2")
left.axhline(without, color="black", linestyle="--", linewidth=1)
left.annotate("without privacy", (EPSILONS[0], without), (0, 5), textcoords="offset points")
left.plot(2, 95, "D", color="#D55E00")
left.annotate("Abadi et al. (2016)", (2, 95), (8, -14), textcoords="offset points", color="#D55E00")
left.set(
    title="Less privacy, more accuracy", xlabel="ε (δ = 10⁻⁵)", ylabel="accuracy on the test set (%)", xscale="log"
)
left.set_xticks(EPSILONS, EPSILONS)
left.minorticks_off()
for (label, values), color, style in zip(lengths.items(), ("#0072B2", "#D55E00"), ("-", "--"), strict=True):
    values = np.maximum(np.asarray(values), 1e-4)
    how = {"histtype": "step", "color": color, "linestyle": style, "linewidth": 1.8}
    right.hist(values, np.geomspace(1e-4, 1e2, 60), label=label, **how)
right.axvline(MAX_NORM, color="black", linewidth=1)
right.text(MAX_NORM * 0.8, 0.97 * right.get_ylim()[1], "C: what is longer is cut to it", ha="right")
right.set(title="Lengths of the examples' gradients, ε = 8", xlabel="‖gradient‖", ylabel="examples", xscale="log")
right.legend(frameon=False, loc="center left")
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "private_mnist.png", dpi=160)
print(f"picture: {OUT / 'private_mnist.png'}")

if not (found[2.0] >= 95 and found[0.5] < found[2.0] < without):
    sys.exit(f"expected 95 % at ε = 2, and more for less privacy, got {found} and {without} without")
