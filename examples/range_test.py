"""Finding a learning rate in one short run: let it grow from far too small to far too large, and watch the cost.

    python examples/range_test.py

The rate at step t is η(t) = η₀ (η₁/η₀)^(t/s), growing by the same factor in each step, and the cost is plotted against
it. Below some rate nothing happens, above another it diverges; a good rate lies between them, where the cost falls most
steeply: L. Smith, "Cyclical learning rates for training neural networks" (2017), §3.3, where the rate grows linearly.
"""

import sys
from pathlib import Path

import numpy as np

import fnn

plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")
OUT, BLUE, ORANGE, GREEN = Path("out/range_test"), "#0072B2", "#D55E00", "#009E73"


def smooth(values, width):
    """The mean over a window around each value: one that looked back only would find everything too late."""
    padded = np.pad(values, width // 2, mode="edge")
    return np.convolve(padded, np.full(width, 1 / width), "valid")


# 1. The range test, on digits. There are 42 batches of 32, since a last batch of 3 examples would be noisy.
(x, y), test = fnn.datasets.digits()
train = x[:1344], y[:1344]
net = fnn.Serial((fnn.Scale(1 / 16), fnn.Dense(64), fnn.Relu(), fnn.Dense(10)))
loss, key = fnn.SoftmaxCrossEntropy(), fnn.random.key(0)
rates, costs = fnn.range_test(net, loss, fnn.Sgd(0.1), train, key=key, epochs=10, batch_size=32, low=1e-4, high=10.0)
cost = smooth(costs, 27)
least = int(cost.argmin())
steepest = int(np.gradient(cost, np.log(rates))[:least].argmin())
diverges = least + int(np.argmax(cost[least:] > 2 * cost[least]))
suggested = float(rates[steepest])
print(f"one run of {len(rates)} steps, the learning rate from {rates[0]:.4f} to {rates[-1]:.1f}")
found = " / ".join(f"{rates[i]:.2g}" for i in (steepest, least, diverges))
print(f"where the cost falls most steeply / is least / is twice that: {found}")

# 2. Does it train well? The suggested rate, and rates 30 times smaller and 30 times larger.
runs = {}
print("\nlearning rate   accuracy on the test set after 10 epochs")
for rate in (suggested / 30, suggested, suggested * 30):
    how = {"key": key, "epochs": 10, "batch_size": 32, "validation": test, "metrics": {"accuracy": fnn.accuracy}}
    runs[rate] = fnn.fit(net, loss, fnn.Sgd(rate), train, **how)[1]["validation_accuracy"]
    print(f"{rate:13.2g}   {runs[rate][-1]:.1%}")

# 3. The figure.
plt.rcParams.update(dict.fromkeys(("axes.spines.top", "axes.spines.right"), False))
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
left.semilogx(rates, costs, color="0.8", linewidth=1)
left.semilogx(rates, cost, color="black")
for i, text, color, style, mark in ((steepest, "steepest", BLUE, "-", "o"), (diverges, "diverges", ORANGE, "--", "s")):
    left.axvline(rates[i], color=color, linestyle=style, linewidth=1)
    left.plot(rates[i], cost[i], mark, color=color)
    left.text(rates[i] * 0.9, 4.0, f"{text}\n{rates[i]:.2g}", color=color, ha="right", va="top", size=8.5)
left.set(title="One run, its rate growing", xlabel="learning rate η", ylabel="cost of the batch", ylim=(0, 4.1))
looks = (("30 × smaller", GREEN, "-.", "^"), ("suggested", BLUE, "-", "o"), ("30 × larger", ORANGE, "--", "s"))
for (rate, accuracy), (text, color, style, mark) in zip(runs.items(), looks, strict=True):
    right.plot(range(1, 11), 100 * accuracy, style + mark, color=color, markersize=4)
    where = {"xytext": (8, 0), "textcoords": "offset points", "va": "center"}
    right.annotate(f"{text}\nη = {rate:.2g}", (10, 100 * accuracy[-1]), color=color, **where)
right.set(title="Three runs", xlabel="epoch", ylabel="accuracy on the test set (%)", ylim=(0, 102))
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "range_test.png", dpi=160)
print(f"picture: {OUT / 'range_test.png'}")

small, good, large = (accuracy[-1] for accuracy in runs.values())
if not (good > 0.95 and good > small + 0.1 and good > large + 0.1):
    sys.exit(f"expected the suggested rate to reach 95 %, others 10 % less, got {good:.1%}, {small:.1%}, {large:.1%}")
