"""Two moons: where a network does not know, by the posterior of its weights.

    python examples/two_moons_uncertainty.py

A network 2-16-16-1 of ReLU units separates two interleaving half circles. Trained alone it is sure everywhere but in a
narrow strip, also far from all data. Laplace's approximation (`fnn.laplace`) makes the weights a Gaussian, whose prior
precision maximizes the marginal likelihood of the training data. Averaged over it, the probability of a class is closer
to a half away from the data, the most so with all of the curvature. All arrays are NumPy's: for so small a network
nothing has to be compiled. The figure is saved to out/two_moons_uncertainty/two_moons_uncertainty.png.
"""

import sys
from pathlib import Path

import numpy as np

import fnn
from fnn import laplace

plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")  # draws to files and needs no screen
OUT, SIDES = Path("out/two_moons_uncertainty"), ("diagonal", "kronecker", "full")

# 1. The data, and a network that is trained with a weak penalty, the prior that it starts from.
rng, n = np.random.default_rng(0), 200
angle, y = np.pi * rng.random(n), np.arange(n)[:, None] % 2
x = np.where(y, [1, 0.5], 0) + np.where(y, -1, 1) * np.column_stack((np.cos(angle), np.sin(angle)))
x = (x + 0.12 * rng.normal(size=(n, 2))).astype(np.float32)
net, loss, key = fnn.mlp((16, 16, 1)), fnn.SigmoidBinaryCrossEntropy(), fnn.random.key(0, backend="numpy")
options = {"key": key, "epochs": 300, "batch_size": 50, "penalty": fnn.L2(1e-3)}
params = fnn.fit(net, loss, fnn.Adam(0.01), (x, y), **options)[0].params

# 2. The posteriors, and their prior precision by the marginal likelihood.
posteriors = {side: laplace.tuned(laplace.fit(net, loss, params, (x, y), side)) for side in SIDES}
for side, posterior in posteriors.items():
    evidence = float(laplace.log_marginal_likelihood(posterior))
    print(f"{side:>9}: prior precision {float(posterior.prior_precision):.3f}, log marginal likelihood {evidence:.1f}")

# 3. The probability of a class, far and near.
across, up = np.meshgrid(np.linspace(-4, 5, 121), np.linspace(-3.5, 4, 101))
grid = np.column_stack((across.ravel(), up.ravel())).astype(np.float32)
maps = {"the network alone": loss.predict(net.apply(params, grid))[:, 0]}
maps |= {side: laplace.probabilities(posterior, grid)[:, 0] for side, posterior in posteriors.items()}
distance = np.sqrt(((grid[:, None] - x) ** 2).sum(axis=2)).min(axis=1)
far, sure = distance > 2, {}
for side, p in maps.items():
    sure[side] = np.maximum(p, 1 - p)[far].mean()
    print(f"{side}: mean confidence {sure[side]:.3f} more than 2 from the data")
p = laplace.probabilities(posteriors["full"], x)
right = float(fnn.accuracy(p, y))
print(f"averaged over the full posterior, {right:.1%} of the points are right")

# 4. The figure: the confidence as colour, the line between the classes, and the points.
figure, axes = plt.subplots(2, 2, figsize=(8.5, 6.8), layout="constrained", sharex=True, sharey=True)
for axis, (side, p) in zip(axes.flat, maps.items(), strict=True):
    p = p.reshape(across.shape)
    levels = np.linspace(0.5, 1, 11)
    filled = axis.contourf(across, up, np.maximum(p, 1 - p), levels, cmap="cividis", extend="neither")
    axis.contour(across, up, p, (0.5,), colors="white", linewidths=1)
    for label, color, marker in ((0, "#E69F00", "s"), (1, "white", "o")):
        axis.plot(*x[y[:, 0] == label].T, marker, color=color, markersize=2.5, mec="black", mew=0.3)
    axis.set(title=f"{side}" if side == "the network alone" else f"Laplace, {side}", aspect="equal")
figure.colorbar(filled, ax=axes, label="confidence: the larger probability", shrink=0.8)
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "two_moons_uncertainty.png", dpi=150)
print(f"picture: {OUT / 'two_moons_uncertainty.png'}")

if not (right >= 0.97 and sure["full"] < 0.8 < 0.95 < sure["the network alone"]):
    sys.exit(
        f"expected 97 % right, less confidence far away with the posterior and much without it; got {right}, {sure}"
    )
