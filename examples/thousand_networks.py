"""A thousand networks in one call: forty learning rates with twenty-five keys each, and an ensemble of the best.

    python examples/thousand_networks.py

A run is a function of its key and its learning rate, so a sweep is `jax.vmap` of it, here in chunks of 32 runs: one
compilation, one call. The twenty-five networks of the best rate form an ensemble, whose spread shows where they
disagree, and so where each of them is overconfident: B. Lakshminarayanan, A. Pritzel, C. Blundell, "Simple and scalable
predictive uncertainty estimation using deep ensembles" (2017). On NumPy alone they train one after the other.
"""

import sys
import time
from pathlib import Path

import numpy as np

import fnn

plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")
OUT, BLUE = Path("out/thousand_networks"), "#0072B2"


def spirals(n, noise, rng):
    """Two spirals, wound once around each other: (2n, 2) points and their labels."""
    angle = np.sqrt(rng.random(n)) * 2.5 * np.pi
    arm = np.stack([np.cos(angle), np.sin(angle)], axis=1) * angle[:, None] / (2.5 * np.pi)
    x = np.concatenate([arm, -arm]) + noise * rng.normal(size=(2 * n, 2))
    return x.astype(np.float32), np.repeat([0, 1], n)


def run(key, learning_rate):
    """One run: its parameters, and after each epoch its accuracy on points that it has not seen."""
    state = fnn.init_state(net, fnn.Momentum(learning_rate), key, (2,))
    how = {"epochs": 60, "batch_size": 32, "validation": test, "metrics": {"accuracy": fnn.accuracy}}
    state, history = fnn.train(net, loss, state, train, **how)
    return state.params, history["validation_accuracy"]


# 1. A thousand runs.
rng = np.random.default_rng(0)
train, test = spirals(256, 0.03, rng), spirals(256, 0.03, rng)
net, loss = fnn.mlp((16, 16, 2)), fnn.SoftmaxCrossEntropy()
rates, keys = np.repeat(np.geomspace(1e-3, 3, 40, dtype=np.float32), 25), fnn.random.split(fnn.random.key(0), 1000)
start = time.perf_counter()
params, accuracies = fnn.sweep(run, keys, rates, chunk=32)
final = np.asarray(accuracies[:, -1])
print(f"{len(final):,} networks 2-16-16-2, {60 * 16 * len(final):,} steps: {time.perf_counter() - start:.1f} s")

# 2. The results by learning rate, and the ensemble of the best.
of_rate, rate = final.reshape(40, 25), rates[::25]
best = int(np.median(of_rate, axis=1).argmax())
print("\nlearning rate   accuracy of 25 keys: worst  median  best")
for i in range(0, 40, 3):
    low, middle, high = np.quantile(of_rate[i], [0, 0.5, 1])
    print(f"{rate[i]:13.4f} {low:26.1%} {middle:7.1%} {high:6.1%}")
members = np.arange(25 * best, 25 * best + 25)
predict = fnn.ensemble(net, loss)
chosen = fnn.trees.map(lambda leaf: leaf[members], params)
together = float(fnn.accuracy(predict(chosen, test[0])[0], test[1]))
print(
    f"\nthe 25 networks of the best rate, {rate[best]:.3f}: alone {final[members].mean():.1%}, together {together:.1%}"
)

# 3. The figure.
grid = np.stack(np.meshgrid(*[np.linspace(-1.6, 1.6, 200, dtype=np.float32)] * 2), axis=-1)
mean, spread = (np.asarray(a)[:, 1].reshape(200, 200) for a in predict(chosen, grid.reshape(-1, 2)))
figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
axes[0].semilogx(rates, 100 * final, ".", color=BLUE, markersize=3, alpha=0.5)
axes[0].semilogx(rate, 100 * np.median(of_rate, axis=1), color="black")
axes[0].set(title="1,000 networks", xlabel="learning rate η", ylabel="accuracy on new points (%)")
axes[0].annotate(
    "median\nof 25 keys", (rate[10], 100 * np.median(of_rate[10])), (0.02, 70), arrowprops={"arrowstyle": "-"}
)
shown = ((axes[1], mean, "Mean of 25 networks", 1), (axes[2], spread, "Their spread", 0.5))
for ax, values, title, most in shown:
    image = ax.imshow(values, origin="lower", extent=(-1.6, 1.6) * 2, cmap="cividis", vmin=0, vmax=most)
    figure.colorbar(image, ax=ax, label="probability of class 1" if most == 1 else "standard deviation")
    for label, marker, color in ((0, "o", "white"), (1, "^", "#D55E00")):
        ax.plot(*train[0][train[1] == label].T, marker, color=color, markersize=2)
    ax.set(title=title, xlabel="x₁", ylabel="x₂")
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "thousand_networks.png", dpi=160)
print(f"picture: {OUT / 'thousand_networks.png'}")

right = np.asarray(predict(chosen, test[0])[1])[:, 1]
print(f"spread of the probability on the points {right.mean():.3f}, at its largest in the plane {spread.max():.2f}")
if not (together > 0.98 and together >= final[members].mean() and np.median(of_rate[0]) < 0.9):
    sys.exit(f"expected the ensemble to reach 98 %, and the smallest rate to fail, got {together:.1%}")
