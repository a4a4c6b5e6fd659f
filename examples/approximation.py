"""What a hidden layer can represent: a wiggly curve, ever better with more units, and two spirals, separated perfectly.

    python examples/approximation.py

One hidden layer of W tanh units, f(x) = Σᵢ vᵢ tanh(wᵢ x + bᵢ) + c, comes arbitrarily close to any continuous curve if
W is large enough: G. Cybenko, "Approximation by superpositions of a sigmoidal function" (1989); K. Hornik,
M. Stinchcombe, H. White (1989). The theorem says that such weights exist; here gradient descent also finds them. The
two spirals are the 194 points of K. Lang and M. Witbrock, "Learning to tell two spirals apart" (1988).
"""

import itertools
import sys
from pathlib import Path

import numpy as np

import fnn

plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")
OUT, BLUE, ORANGE = Path("out/approximation"), "#0072B2", "#D55E00"
key = fnn.random.key(0)

# 1. A curve, learnt from 200 points and evaluated at 2,001.
WIDTHS = (2, 4, 8, 16, 32)


def curve(x):
    return np.sin(10 * x) * np.exp(-2 * (x - 0.2) ** 2) + 0.5 * np.abs(x)


def fit_curve(width):
    """A network of that width, fitted; its values at the points `fine`."""
    net = fnn.mlp((width, 1), activation=fnn.Tanh())
    _, *rest = net.init(key, (1,))
    # tanh(w (x − c)) turns at c = −b/w. Biases of 0 would start all units at c = 0: spread them over the interval.
    centres, w = np.linspace(-1, 1, width + 2)[1:-1], np.full((width, 1), 1 + width / 2, np.float32)
    hidden = fnn.DenseParams(w, (-w[:, 0] * centres).astype(np.float32))
    state = fnn.init_state(net, fnn.Adam(), key, (1,), params=(hidden, *rest))
    x = np.linspace(-1, 1, 200, dtype=np.float32)[:, None]
    for rate in (0.01, 0.001):  # large steps, then small ones to settle; full batches need no shuffling
        state = state._replace(optimizer=fnn.init_state(net, fnn.Adam(rate), key, (1,)).optimizer)
        state, _ = fnn.train(
            net, fnn.MeanSquaredError(), state, (x, curve(x)), epochs=2000, batch_size=len(x), shuffle=False
        )
    return np.asarray(net.apply(state.params, fine))


fine = np.linspace(-1, 1, 2001, dtype=np.float32)[:, None]
fits = {width: fit_curve(width) for width in WIDTHS}
errors = [float(np.abs(fit - curve(fine)).max()) for fit in fits.values()]
print("width   largest error")
for width, error in zip(WIDTHS, errors, strict=True):
    print(f"{width:>5}   {error:.4f}")

# 2. Two spirals, three turns each: a network with two hidden layers and one output, the logit of "first spiral".
i = np.arange(97)
angle, radius = i * np.pi / 16, 6.5 * (104 - i) / 104
spiral = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1).astype(np.float32)
x, y = np.concatenate([spiral, -spiral]), np.repeat([1, 0], 97)[:, None]
net, loss = fnn.mlp((32, 32, 1), activation=fnn.Tanh()), fnn.SigmoidBinaryCrossEntropy()
state = fnn.init_state(net, fnn.Adam(0.005), key, (2,))
state, _ = fnn.train(net, loss, state, (x, y), epochs=3000, batch_size=len(x), shuffle=False)
right = int(((np.asarray(net.apply(state.params, x)) > 0) == y).sum())
print(f"two spirals: {right} of {len(y)} points on the right side")

# 3. The figure.
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 11})
figure, (left, middle, last) = plt.subplots(1, 3, figsize=(12, 3.9), layout="constrained", width_ratios=(1.5, 1, 1.1))
left.plot(fine, curve(fine), color="0.75", linewidth=5, label="the curve")
for width, color, style in ((2, ORANGE, ":"), (4, BLUE, "--"), (32, "black", "-")):
    left.plot(fine, fits[width], style, color=color, linewidth=1.5, label=f"{width} units")
left.set(title="A curve, and what W hidden units make of it", xlabel="x", ylabel="f(x)")
left.legend(frameon=False, loc="upper left", fontsize=9)
middle.loglog(WIDTHS, errors, "o-", color=BLUE)
middle.set(title="More units, smaller error", xlabel="hidden units W", ylabel="largest error |f(x) − curve|")
middle.set_xticks(WIDTHS, [str(width) for width in WIDTHS])
middle.minorticks_off()
side = np.linspace(-7, 7, 200, dtype=np.float32)
grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
probability = np.asarray(loss.predict(net.apply(state.params, grid))).reshape(200, 200)
last.contourf(side, side, probability, levels=(0, 0.5, 1), colors=("#FBE3D6", "#D6E8F5"))
last.plot(*spiral.T, "o", color=BLUE, markersize=4)
last.plot(*-spiral.T, "^", color=ORANGE, markersize=4)
last.set(title="Two spirals, learnt without error", xlabel="x₁", ylabel="x₂", aspect="equal")
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "approximation.png", dpi=160)
print(f"picture: {OUT / 'approximation.png'}")

if not all(wider < narrower for narrower, wider in itertools.pairwise(errors)) or errors[-1] > 0.01:
    sys.exit(f"expected errors that fall with the width, to at most 0.01, got {errors}")
if right < len(y):
    sys.exit(f"expected all {len(y)} points of the spirals on the right side, got {right}")
