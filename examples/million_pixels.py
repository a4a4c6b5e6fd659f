"""Images of a million pixels and a single unit: on which side is the faint disc?

    python examples/million_pixels.py

Logistic regression, p = σ(Σᵢ wᵢ xᵢ + b), is a network without hidden layers, here on images that stay uint8 in memory
until a batch of them is used. The disc adds 10 to noise of grey levels 0 to 199, whose standard deviation is 58: no
single pixel reveals it, but the 31,000 pixels of the disc together do.
"""

import sys
import time
from pathlib import Path

import numpy as np

import fnn

plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")
OUT, SIDE, RADIUS, FAINT = Path("out/million_pixels"), 1000, 100, 10

# 1. The images: every other one has its disc at the lower right (label 1), the rest at the upper left (label 0).
rng = np.random.default_rng(0)
row, column = np.ogrid[:SIDE, :SIDE]
discs = [(row - centre) ** 2 + (column - centre) ** 2 < RADIUS**2 for centre in (300, 700)]


def draw(n):
    """x (n, SIDE, SIDE), uint8, and y (n, 1)."""
    x, y = rng.integers(0, 200, (n, SIDE, SIDE), dtype=np.uint8), np.arange(n) % 2
    for picture, label in zip(x, y, strict=True):
        picture[discs[label]] += np.uint8(FAINT)
    return x, y[:, None]


train, test = draw(64), draw(80)  # 144 MB in all; as float32 it would be four times as much

# 2. The network. Zeros are a good start for one unit, since its cost is convex. Random values are needed if there are
#    several units, which would otherwise all learn the same. With zeros, everything visible in the weights was learnt.
net = fnn.Serial((fnn.Flatten(), fnn.Scale(1 / 255), fnn.Dense(1, initializer=fnn.Zeros())))
loss = fnn.SigmoidBinaryCrossEntropy()
# Many inputs need a small step: η < 2 / λmax, and λmax is at most about ¼ ‖x‖², a sum of a million terms.
rate = 1 / (0.25 * np.square(train[0][0] / 255).sum())
state = fnn.init_state(net, fnn.Sgd(rate), fnn.random.key(0), (SIDE, SIDE))
parameters = sum(leaf.size for leaf in fnn.trees.leaves(state.params))

# 3. Training in batches of 8, unshuffled, so that each has as many discs on one side as on the other, and the grey
#    common to all images cancels in the gradient. Two calls of 5 epochs equal one of 10; the second need not compile.
for _ in range(2):
    start = time.perf_counter()
    state, history = fnn.train(net, loss, state, train, epochs=5, batch_size=8, shuffle=False)
    steps = len(np.asarray(history["loss"]))  # np.asarray waits for the result
    seconds = time.perf_counter() - start


def right(probability, label):
    return ((probability > 0.5) == label).mean()


found = fnn.evaluate(net, loss, state.params, test, batch_size=8, metrics={"accuracy": right})
print(f"{parameters:,} parameters, {len(train[0])} pictures to learn from, {int(state.step)} steps with η = {rate:.2g}")
print(f"time per step of 8 pictures: {1000 * seconds / steps:.0f} ms")
print(f"held-out accuracy: {found['accuracy']:.1%} of {len(test[0])} pictures")

# 4. The figure. A single weight is mostly noise, but the mean of 20 x 20 of them is not.
weights = np.asarray(state.params[-1].w).reshape(SIDE, SIDE)
blocks = 1e6 * weights.reshape(SIDE // 20, 20, SIDE // 20, 20).mean(axis=(1, 3))
plt.rcParams.update({"axes.titlesize": 11})
figure, (left, middle, last) = plt.subplots(1, 3, figsize=(11, 3.9), layout="constrained")
left.imshow(test[0][0], cmap="gray", vmin=0, vmax=255)
left.set(title="A picture, its disc at the upper left")
middle.imshow(test[0][0][200:250, 200:250], cmap="gray", vmin=0, vmax=255, extent=(200, 250, 250, 200))
middle.set(title="50 x 50 pixels at the disc's edge")
limit = float(np.abs(blocks).max())
shown = last.imshow(blocks, cmap="RdBu_r", vmin=-limit, vmax=limit, extent=(0, SIDE, SIDE, 0))
last.set(title="What the unit looks for")
figure.colorbar(shown, ax=last, label="weight × 10⁶, mean of 20 x 20 pixels", shrink=0.8)
for axes in (left, last):
    axes.set(xticks=(0, 500, 1000), yticks=(0, 500, 1000))
for axes in (left, middle, last):
    axes.set_xlabel("column")
    axes.set_ylabel("row")
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "million_pixels.png", dpi=160)
print(f"picture: {OUT / 'million_pixels.png'}")

if found["accuracy"] < 0.95 or parameters != SIDE**2 + 1:
    sys.exit(f"expected an accuracy of at least 95 % with 1,000,001 parameters, got {found} with {parameters:,}")
