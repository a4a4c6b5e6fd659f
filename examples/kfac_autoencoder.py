"""K-FAC against Adam on a deep autoencoder of MNIST: the training loss by step, and by second.

    FNN_DATA=/path/to/data python examples/kfac_autoencoder.py

Errors have to pass a narrow layer, which makes the cost steep in some directions and flat in others. Adam has a rate
for each weight; K-FAC divides the gradient of each layer by the curvature of that layer, of which `fnn.rules.KFac`
keeps two small factors. A step takes longer and gets further: J. Martens, R. Grosse (2015), §13.
"""

import sys
import time
from pathlib import Path

import jax
import numpy as np

import fnn

plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")
OUT, BATCH = Path("out/kfac_autoencoder"), 500

# 1. The images are both input and target, as grey levels from 0 to 1.
(x, _), (x_test, _) = fnn.datasets.mnist()
x, x_test = (x[:10_000] / 255).astype(np.float32), (x_test[:8] / 255).astype(np.float32)
data = tuple(jax.device_put((x, x)))
net, loss = fnn.mlp((250, 100, 30, 100, 250, 784), fnn.Tanh()), fnn.SigmoidBinaryCrossEntropy()

# 2. The rule is an argument, and any optimizer goes with it. Both have the best of a few rates.
kfac = fnn.rules.KFac(damping=0.1, every=5, factors_every=5)
SIDES = {"Adam": (fnn.Adam(0.003), None, 16), "K-FAC": (fnn.Momentum(0.2), kfac, 8)}


def trained(optimizer, rule, epochs):
    """`(state, losses of each step, seconds after each epoch)`, without the time to compile."""
    state = fnn.init_state(net, optimizer, fnn.random.key(0), (784,), rule=rule)
    step = lambda state: jax.block_until_ready(fnn.train(net, loss, state, data, epochs=1, batch_size=BATCH))
    step(state)
    losses, seconds, start = [], [], time.perf_counter()
    for _ in range(epochs):
        state, history = step(state)
        losses.append(np.asarray(history["loss"]))
        seconds.append(time.perf_counter() - start)
    return state, np.concatenate(losses), np.array(seconds)


runs = {name: trained(*side) for name, side in SIDES.items()}
per_epoch = {name: losses.reshape(len(seconds), -1).mean(axis=1) for name, (_, losses, seconds) in runs.items()}
goal, steps = per_epoch["Adam"][-1], len(x) // BATCH
after = int(np.argmax(per_epoch["K-FAC"] <= goal)) if per_epoch["K-FAC"].min() <= goal else None
print("       steps   loss of the last epoch   ms a step")
for name, (_, losses, seconds) in runs.items():
    print(f"{name:<6} {len(losses):5d}   {per_epoch[name][-1]:22.1f}   {1e3 * seconds[-1] / len(losses):9.0f}")

# 3. The figure: the loss by step and by second, and digits as both draw them.
figure = plt.figure(figsize=(10, 5.6), layout="constrained")
above, below = figure.subfigures(2, 1, height_ratios=(3, 2))
left, right = above.subplots(1, 2, sharey=True)
for name, (_, losses, seconds) in runs.items():
    left.plot(np.arange(1, len(losses) + 1), losses, label=name)
    right.plot(seconds, per_epoch[name], "o-", ms=3, label=name)
left.set(xlabel="steps", ylabel="training loss of an image", yscale="log", yticks=[100, 200, 400])
left.yaxis.set_major_formatter("{x:.0f}")
left.minorticks_off()
right.set(xlabel="seconds (means of epochs)")
for axes in (left, right):
    axes.axhline(goal, color="0.6", lw=1, ls="--")
    axes.spines[["top", "right"]].set_visible(False)
left.legend(frameon=False)
pictures = {"image": x_test} | {
    name: np.asarray(loss.predict(net.apply(state.params, x_test))) for name, (state, _, _) in runs.items()
}
for row, (name, images) in zip(below.subplots(3, 8), pictures.items(), strict=True):
    for axes, image in zip(row, images, strict=True):
        axes.imshow(image.reshape(28, 28), cmap="gray_r", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color="0.8")
    row[0].set_ylabel(name, rotation=0, ha="right", va="center")
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "kfac_autoencoder.png", dpi=160)
print(f"picture: {OUT / 'kfac_autoencoder.png'}")

if after is None or 2 * (after + 1) > len(per_epoch["Adam"]):
    sys.exit(f"expected K-FAC to reach Adam's loss of {goal:.1f} in half of its steps, got {per_epoch['K-FAC']}")
print(f"K-FAC reaches Adam's last loss after {(after + 1) * steps} steps, Adam after {len(runs['Adam'][1])}")
