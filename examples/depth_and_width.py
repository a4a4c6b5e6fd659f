"""Depth and width: the accuracy on digits of networks with 1 to 6 hidden layers of 4 to 128 units.

    python examples/depth_and_width.py

All information must pass through every layer, and the narrowest loses the most: a ReLU that is off passes nothing on,
so a deep narrow network may be born dead (L. Lu et al., "Dying ReLU and initialization", 2020). Width costs W²
multiplications per layer. Each cell of the figure is the mean over four networks initialized with different keys.
"""

import os
import sys
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # one thread is faster for matrices this small
import numpy as np

import fnn

plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")
OUT, DEPTHS, WIDTHS, SEEDS = Path("out/depth_and_width"), (1, 2, 3, 4, 5, 6), (4, 8, 16, 32, 64, 128), 4
LOOKS = {4: ("#D55E00", ":", "o"), 8: ("#E69F00", "-.", "D"), 16: ("#009E73", "--", "s"), 128: ("#0072B2", "-", "^")}

# On NumPy, even if JAX is installed: 36 network shapes would be 36 programs, each of which runs only briefly.
keys = fnn.random.split(fnn.random.key(0, backend="numpy"), SEEDS)
(x, y), (x_test, y_test) = fnn.datasets.digits()
train = x[:1344], y[:1344]  # 21 batches of 64: a last batch of 3 examples would make each epoch end noisily
loss = fnn.SoftmaxCrossEntropy()


def accuracy(depth, width, key):
    """On the test set, in per cent."""
    hidden = fnn.mlp((width,) * depth + (10,), activation=fnn.Relu(), initializer=fnn.HeNormal())
    net = fnn.Serial((fnn.Scale(1 / 16), *hidden.layers))
    state = fnn.init_state(net, fnn.Adam(learning_rate=0.005), key, (64,))
    state, _ = fnn.train(net, loss, state, train, epochs=10, batch_size=64)
    return 100 * fnn.accuracy(net.apply(state.params, x_test), y_test)


# 1. Every depth with every width.
found = np.array([[[accuracy(depth, width, key) for key in keys] for width in WIDTHS] for depth in DEPTHS])
mean = found.mean(axis=2)  # (depths, widths)
print("accuracy on the test set (%), mean of", SEEDS, "keys")
print("depth  " + "".join(f"  width {width:<3}" for width in WIDTHS))
for depth, row in zip(DEPTHS, mean, strict=True):
    print(f"{depth:>5}  " + "".join(f"{value:11.1f}" for value in row))

# 2. The figure: all of them, and how much depends on luck.
plt.rcParams.update(dict.fromkeys(("axes.spines.top", "axes.spines.right"), False))
figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.4), layout="constrained")
left.imshow(mean, cmap="cividis", vmin=20, vmax=100, aspect="auto", origin="lower")
for (i, j), value in np.ndenumerate(mean):
    left.text(j, i, f"{value:.1f}", ha="center", va="center", color="white" if value < 65 else "black")
left.set(
    title="Accuracy on the test set (%)", xlabel="width: units in each hidden layer", ylabel="depth: hidden layers"
)
left.set_xticks(range(len(WIDTHS)), WIDTHS)
left.set_yticks(range(len(DEPTHS)), DEPTHS)
left.spines[:].set_visible(False)
for width, (color, style, mark) in LOOKS.items():
    runs = found[:, WIDTHS.index(width)]  # (depths, seeds)
    right.fill_between(DEPTHS, runs.min(axis=1), runs.max(axis=1), color=color, alpha=0.2, linewidth=0)
    right.plot(DEPTHS, runs.mean(axis=1), style + mark, color=color, markersize=5)
    right.annotate(f"width {width}", (6, runs[-1].mean()), (8, 0), textcoords="offset points", color=color, va="center")
right.set(title=f"Mean, best and worst of {SEEDS} keys", xlabel="depth: hidden layers", ylim=(0, 102))
right.set_ylabel("accuracy on the test set (%)")
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "depth_and_width.png", dpi=160)
print(f"picture: {OUT / 'depth_and_width.png'}")

# 3. What it shows.
spread = found.max(axis=2) - found.min(axis=2)
promises = {
    "two wide layers reach 96 %": mean[1, -1] > 96,
    "wide networks gain next to nothing by more layers": mean[:, -1].max() < mean[0, -1] + 1.5,
    "at every depth width helps, by 15 % and more": (mean[:, -1] > mean[:, 0] + 15).all(),
    "the narrowest lose 20 % by depth": mean[-1, 0] < mean[0, 0] - 20,
    "and are a matter of luck": spread[1:, 0].mean() > 5 * spread[1:, -1].mean(),
}
if not all(promises.values()):
    sys.exit(f"expected all to be true, got {promises}")
