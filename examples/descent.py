"""Gradient descent: the effects of batch size, order of the data, learning rate, and momentum.

    python examples/descent.py

On a quadratic cost with Hessian H, descent w ← w − η ∇C multiplies the error along each eigenvector of H by 1 − η λ in
every step: it converges if η < 2 / λmax, and is slow where λ is small. With κ = λmax / λmin it needs about κ steps, or
√κ with momentum: B. Polyak, "Some methods of speeding up the convergence of iteration methods" (1964).
"""

from pathlib import Path

import numpy as np

import fnn

plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")
OUT = Path("out/descent")
LOOKS = (("#0072B2", "-", "o"), ("#D55E00", "--", "s"), ("#009E73", "-.", "^"), ("#CC79A7", ":", "D"))
key, EPOCHS = fnn.random.key(0), 10

# 1. Batch, mini-batch and stochastic descent on digits: the noisier the gradient, the smaller the right step.
(x, y), test = fnn.datasets.digits()
x, y = x[:1344], y[:1344]  # 42 batches of 32: a last batch of 3 examples would make each epoch end noisily
net, loss = fnn.Serial((fnn.Scale(1 / 16), fnn.Dense(32), fnn.Tanh(), fnn.Dense(10))), fnn.SoftmaxCrossEntropy()


def costs(rate, size, data, held, shuffle=True):
    """The cost on `held` after each epoch."""
    how = {"key": key, "epochs": EPOCHS, "batch_size": size, "validation": held, "shuffle": shuffle}
    return fnn.fit(net, loss, fnn.Sgd(rate), data, **how)[1]["validation_loss"]


settings = {"batch": (0.5, len(x)), "mini-batch": (0.1, 32), "stochastic": (0.01, 1)}
sizes = {f"{name}: {size:,}, η = {rate}": costs(rate, size, (x, y), (x, y)) for name, (rate, size) in settings.items()}

# 2. The same digits sorted by class: the network remembers what was in the last batches.
by_class = np.argsort(y, kind="stable")
orders = {name: costs(0.1, 32, (x[by_class], y[by_class]), test, name == "shuffled") for name in ("shuffled", "sorted")}

# 3. A narrow valley: a linear unit z = w₁ x₁ + w₂ x₂ whose second input is small, so that its cost
#    C = 1/(2N) Σₙ (zₙ − yₙ)² = ½ (w − w*)ᵀ H (w − w*) is a quadratic in w, with H = XᵀX / N.
inputs = (np.random.default_rng(0).normal(size=(100, 2)) * (1, 0.1)).astype(np.float32)
data, hessian = (inputs, inputs @ np.float32([[1], [1]])), inputs.T @ inputs / len(inputs)
low, high = np.linalg.eigvalsh(hessian).tolist()
unit, start = fnn.Dense(1, bias=False), fnn.DenseParams(np.float32([[3, -1.5]]), ())
step = fnn.make_step(unit, fnn.Quadratic())


def descend(optimizer, steps):
    """What is passed on the way, (steps + 1, 3): w₁, w₂ and the cost."""
    state, passed = fnn.init_state(unit, optimizer, key, (2,), params=start), []
    for _ in range(steps + 1):
        w, (state, metrics) = state.params.w, step(state, data)
        passed.append((*np.asarray(w)[0], metrics["loss"]))
    return np.array(passed, np.float64)


rates = {f"η = {factor:g} / λmax": descend(fnn.Sgd(factor / high), 60)[:, 2] for factor in (0.02, 1, 1.95, 2.05)}

# 4. Momentum in that valley: the same learning rate with it and without.
found = {"plain": descend(fnn.Sgd(1.6 / high), 900), "momentum 0.8": descend(fnn.Momentum(1.6 / high, 0.8), 900)}
plain, fast = (int(np.argmax(way[:, 2] < 1e-8 * way[0, 2])) for way in found.values())  # steps to 10⁻⁸ of the cost

# 5. The figure, and the numbers in it.
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "legend.fontsize": 9})
figure, ((first, second), (third, valley)) = plt.subplots(2, 2, figsize=(10, 7.2), layout="constrained")
seen, epochs = range(len(x), EPOCHS * len(x) + 1, len(x)), range(1, EPOCHS + 1)
for axes, title, lines, at, xlabel, ylabel, ylim in (
    (first, "Examples in a step", sizes, seen, "examples seen", "training cost", (0.05, 5)),
    (second, "Data by class: shuffled, or left sorted", orders, epochs, "epoch", "held-out cost", (0.1, 10)),
    (third, "The learning rate: the limit is 2 / λmax", rates, range(61), "step", "cost", (0.001, 1000)),
):
    for (name, cost), (color, style, mark) in zip(lines.items(), LOOKS, strict=False):
        axes.semilogy(at, cost, style + mark, color=color, markersize=4, markevery=len(at) // 10, label=name)
        print(f"{name:<25} {ylabel} {cost[0]:.2f} → {cost[-1]:.3g} at {xlabel} {at[-1]:,}")
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel, ylim=ylim)
    axes.legend()
print(f"2 / λmax = {2 / high:.3f}, κ = {high / low:.0f}: {plain} steps to 10⁻⁸ of the cost, with momentum {fast}")
w = np.mgrid[-1.8:3.6:100j, -2:2.8:100j]
valley.contour(*w, np.einsum("iab,ij,jab->ab", w - 1, hessian, w - 1), levels=np.geomspace(0.002, 8, 10), colors="0.8")
for (name, way), (color, look, mark), total in zip(found.items(), LOOKS, (plain, fast), strict=False):
    valley.plot(*way[:41, :2].T, look + mark, color=color, markersize=3, linewidth=1, label=f"{name}: {total} in all")
valley.plot(1, 1, "k*", markersize=12)
valley.set(title="A narrow valley: the first 40 steps", xlabel="w₁", ylabel="w₂")
valley.legend()
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "descent.png", dpi=160)
print(f"picture: {OUT / 'descent.png'}")
batch, mini, single = (cost[-1] for cost in sizes.values())
slow, good, edge, wild = (cost[-1] / cost[0] for cost in rates.values())
promises = {
    "batch descent ends at three times the cost of the others": batch > 3 * max(mini, single),
    "sorted, the cost is three times as high": orders["sorted"][-1] > 3 * orders["shuffled"][-1],
    "below 2 / λmax it converges, above it diverges": edge < 0.1 and wild > 100 and 1 > slow > 10 * good,
    "momentum needs at most a quarter of the steps": 0 < 4 * fast <= plain,
}
if not all(promises.values()):
    raise SystemExit(f"expected all to be true, got {promises}")
