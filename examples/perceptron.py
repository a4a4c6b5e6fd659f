"""Rosenblatt's perceptron: it finds a line between two classes if there is one, and never settles if there is none.

    python examples/perceptron.py

One unit with the output sign(w x + b). For each example on the wrong side, or on the line, w ← w + y x and b ← b + y,
y = ±1: stochastic gradient descent with rate 1 on the cost max(0, −y z), example by example (F. Rosenblatt, 1958). If
some line leaves a margin γ, and no (x, 1) is longer than R, this happens at most (R/γ)² times (A. Novikoff, 1962). XOR
has no such line (M. Minsky, S. Papert, 1969). The figure is saved to out/perceptron/perceptron.png.
"""

import sys
from pathlib import Path

import numpy as np

import fnn

plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")  # draws to files and needs no screen

OUT, BLUE, ORANGE = Path("out/perceptron"), "#0072B2", "#D55E00"
net = fnn.Serial((fnn.Dense(1, initializer=fnn.Zeros()),))
loss = fnn.Perceptron()  # on z; what it predicts is the sign of z, 1 or −1


def learn(x, y, epochs):
    """After each epoch the line w₁, w₂, b (epochs, 3) and its mistakes (epochs,); and the cost of each step."""
    state, lines, mistakes, costs = fnn.init_state(net, fnn.Sgd(1.0), fnn.random.key(0), (2,)), [], [], []
    for _ in range(epochs):
        state, history = fnn.train(net, loss, state, (x, y), epochs=1, batch_size=1)
        lines.append(np.concatenate([np.ravel(p) for p in state.params[0]]))
        mistakes.append(int((np.asarray(loss.predict(net.apply(state.params, x))) != y).sum()))
        costs.extend(np.asarray(history["loss"]))
    return np.array(lines), np.array(mistakes), np.array(costs)


# 1. Two classes on the two sides of the line 2 x₁ + x₂ = ½, with no point closer to it than 0.02.
rng, truth = np.random.default_rng(0), np.array([2.0, 1.0, -0.5])
x = rng.uniform(-1, 1, size=(200, 2))
side = np.column_stack((x, np.ones(200))) @ truth / np.linalg.norm(truth[:2])
x, y = x[abs(side) > 0.02], np.sign(side[abs(side) > 0.02])[:, None]
lines, mistakes, costs = learn(x, y, epochs=20)
updates = 1 + int((costs > 0).sum())  # at first w = 0 and z = 0: on the line, which costs nothing but causes an update
rest = int(np.argmin(mistakes)) + 1
longer = np.column_stack((x, np.ones(len(x))))  # a bias is a weight on a constant 1
radius, margin = np.linalg.norm(longer, axis=1).max(), (y[:, 0] * (longer @ truth)).min() / np.linalg.norm(truth)
bound = (radius / margin) ** 2
print(f"two classes   {mistakes[-1]} mistakes in {len(x)} examples from epoch {rest} on")
print(f"              {updates} updates; Novikoff allows (R/γ)² = ({radius:.2f} / {margin:.4f})² = {bound:.0f}")

# 2. XOR. If (0, 1) and (1, 0) are on one side of a line, so is their midpoint (½, ½), which is also the midpoint of
#    (0, 0) and (1, 1), which should be on the other side. So with any weights, some example is wrong or undecided.
x_xor = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
y_xor = np.array([[-1.0], [1.0], [1.0], [-1.0]])
lines_xor, mistakes_xor, costs_xor = learn(x_xor, y_xor, epochs=1000)
fewest, largest = mistakes_xor.min(), abs(lines_xor).max()
print(f"XOR           never fewer than {fewest} mistakes in 4 examples after any of {len(mistakes_xor)} epochs;")
print(f"              the weights go round and round among few values, none beyond ±{largest:.0f}")
print("              no line will do: (½, ½) is halfway between the two of each class, so it would be on both sides")

# 3. The figure: the line as it moves, the remaining mistakes, and why XOR has no line.
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10})
figure, (of_line, of_mistakes, of_xor) = plt.subplots(1, 3, figsize=(11, 3.7), layout="constrained")
for axes, points, labels, size in ((of_line, x, y[:, 0], 4), (of_xor, x_xor, y_xor[:, 0], 11)):
    axes.plot(*points[labels > 0].T, "o", color=BLUE, markersize=size)
    axes.plot(*points[labels < 0].T, "s", color=ORANGE, markersize=size, mfc="none")
    axes.set(xlabel="input x₁", ylabel="input x₂", aspect="equal")
of_line.set(title="the line, as it moves", xlim=(-1.05, 1.05), ylim=(-1.05, 1.45))
for epoch, style in ((1, ":"), (2, "--"), (rest, "-")):
    (w1, w2, b), ends = lines[epoch - 1], np.array([-1.05, 1.05])
    of_line.plot(-(w2 * ends + b) / w1, ends, style, color="black", label=f"epoch {epoch}")
of_line.legend(loc="upper center", ncols=3, frameon=False, columnspacing=0.8, handlelength=1.6, fontsize=8)
of_mistakes.plot(range(1, 21), mistakes, "o-", color=BLUE, markersize=4)
of_mistakes.plot(range(1, 21), mistakes_xor[:20], "s--", color=ORANGE, markersize=4)
of_mistakes.annotate(f"two classes: 0 of {len(x)}", (20, 0.5), ha="right", color=BLUE)
of_mistakes.annotate(f"XOR: {fewest} or more of 4", (20, 2.5), ha="right", color=ORANGE)
of_mistakes.set(title="mistakes after each epoch", xlabel="epoch", ylabel="mistakes", xticks=(1, 5, 10, 15, 20))
of_xor.plot([0, 1], [1, 0], "-", color=BLUE)
of_xor.plot([0, 1], [0, 1], "--", color=ORANGE)
of_xor.annotate("(½, ½) would be on both sides", (0.5, 0.5), (0.5, -0.12), ha="center", arrowprops={"arrowstyle": "->"})
of_xor.set(title="why no line does XOR", xlim=(-0.2, 1.2), ylim=(-0.2, 1.2), xticks=(0, 1), yticks=(0, 1))
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "perceptron.png", dpi=160)
print(f"picture: {OUT / 'perceptron.png'}")

if not (mistakes[-1] == 0 and updates <= bound):
    sys.exit(f"expected no mistakes after at most {bound:.0f} updates, got {mistakes[-1]} after {updates}")
if not (fewest >= 1 and (costs_xor.reshape(-1, 4).sum(axis=1) > 0).all()):
    sys.exit(f"expected at least a mistake after each epoch of XOR, and an error within it, got {fewest}")
