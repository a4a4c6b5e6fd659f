"""Underfitting, overfitting and four cures: twenty noisy points, and networks from far too narrow to far too wide.

    python examples/overfitting.py

The points are y = sin 4x + noise of variance 0.09: on new points, no network can expect a smaller squared error.
Too few units cannot follow the curve; too many follow the noise. The cures for the widest, one at a time: weight decay
(A. Krogh, J. Hertz, 1992), dropout (N. Srivastava et al., 2014), stopping early (L. Prechelt, 1998), and more data.
"""

import sys
from pathlib import Path

import numpy as np

import fnn

plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")
OUT, BLUE, ORANGE, GREEN, PINK = Path("out/overfitting"), "#0072B2", "#D55E00", "#009E73", "#CC79A7"
WIDTHS, WIDE, ROUNDS, EPOCHS = (1, 2, 4, 8, 16, 32, 64), 64, 60, 50  # 60 rounds of 50 epochs and an evaluation
key, rng, loss = fnn.random.key(0), np.random.default_rng(0), fnn.MeanSquaredError()


def draw(n):
    x = rng.uniform(-1, 1, (n, 1))
    return x.astype(np.float32), (np.sin(4 * x) + rng.normal(0, 0.3, (n, 1))).astype(np.float32)


few, many, validation, test = draw(20), draw(400), draw(50), draw(1000)


def learn(width, data=few, extra=(), penalty=None):
    """The network, its last parameters, and its costs (ROUNDS, 3) on its training data, for validation, for testing."""
    net = fnn.Serial((fnn.Dense(width), fnn.Tanh(), *extra, fnn.Dense(1)))
    _, *rest = net.init(key, (1,))
    # tanh(w (x − c)) turns at c = −b/w: steep units whose centres are spread over the interval.
    centres, w = np.linspace(-1, 1, width + 2)[1:-1], np.full((width, 1), 5 + width / 4, np.float32)
    first = fnn.DenseParams(w, (-w[:, 0] * centres).astype(np.float32))
    state, costs = fnn.init_state(net, fnn.Adam(0.01), key, (1,), params=(first, *rest)), []
    how = {"epochs": EPOCHS, "batch_size": len(data[0]), "shuffle": False}
    for _ in range(ROUNDS):
        state, _ = fnn.train(net, loss, state, data, penalty=penalty, **how)
        params = fnn.trees.map(np.asarray, state.params)  # on NumPy, where an evaluation needs no compilation
        costs.append([fnn.evaluate(net, loss, params, held)["loss"] for held in (data, validation, test)])
    return net, params, np.array(costs)


# 1. Width: each network after its last round.
runs = {width: learn(width) for width in WIDTHS}
training, tested = ({width: run[-1][-1, i] for width, run in runs.items()} for i in (0, 2))
print("width   training   test")
for width in WIDTHS:
    print(f"{width:>5}   {training[width]:8.3f}   {tested[width]:.3f}")

# 2. The cures for the widest. Early stopping needs no new run: it ends with the round that was best in validation.
uncured = runs[WIDE][-1]
cures = {
    "none": uncured,
    "dropout 0.1": learn(WIDE, extra=(fnn.Dropout(0.1),))[-1],
    "L2, λ = 0.003": learn(WIDE, penalty=fnn.L2(0.003))[-1],
    "early stopping": uncured[: uncured[:, 1].argmin() + 1],
    "20 × the data": learn(WIDE, data=many)[-1],
}
print(f"\ncure of width {WIDE}   training   test")
for name, costs in cures.items():
    print(f"{name:<16}   {costs[-1, 0]:8.3f}   {costs[-1, 2]:.3f}")

# 3. The figure.
plt.rcParams.update(dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False))
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
left.loglog(WIDTHS, list(training.values()), "o-", color=BLUE, label="training")
left.loglog(WIDTHS, list(tested.values()), "s--", color=ORANGE, label="test")
left.set(title="Too narrow, and too wide", xlabel="hidden units W", ylabel="mean squared error")
left.set_xticks(WIDTHS, [str(width) for width in WIDTHS])
x = np.linspace(-1, 1, 500, dtype=np.float32)[:, None]
middle.plot(*few, "ko", markersize=4, label="training points")
for width, color, style in ((1, GREEN, ":"), (4, BLUE, "--"), (WIDE, ORANGE, "-")):
    fitted, params, _ = runs[width]
    middle.plot(x, fitted.apply(params, x), style, color=color, label=f"W = {width}")
middle.set(title="What they make of 20 points", xlabel="x", ylabel="y", ylim=(-2.2, 3.2))
looks = (("black", "-", ""), (PINK, "--", "s"), (BLUE, "-.", "^"), (ORANGE, " ", "*"), (GREEN, ":", "D"))
for (name, costs), (color, style, marker) in zip(cures.items(), looks, strict=True):
    epochs, last = EPOCHS * np.arange(1, len(costs) + 1), name == "early stopping"
    where = {"markevery": [-1], "markersize": 14} if last else {"markevery": 8, "markersize": 4}
    right.semilogy(epochs, costs[:, 2], style + marker, color=color, label=name, **where)
right.set(title=f"Cures of W = {WIDE}", xlabel="epoch", ylabel="mean squared error, test")
right.set_yticks((0.1, 0.2, 0.5, 1))
for axes in (left, middle, right):
    axes.legend()
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:g}")
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "overfitting.png", dpi=160)
print(f"picture: {OUT / 'overfitting.png'}")

if not (training[WIDE] < 0.01 < 0.2 < training[1] and tested[8] < min(tested[1], tested[WIDE]) / 3):
    sys.exit(f"expected test costs that are the least in the middle, got {tested}, in training {training}")
if bad := [name for name, costs in cures.items() if name != "none" and costs[-1, 2] > tested[WIDE] / 3]:
    sys.exit(f"expected each cure to take away two thirds of the test cost, not so: {bad}")
