"""Two moons, learnt with scalar automatic differentiation in plain Python; and what fnn's hand-written gradient gains.

    python examples/two_moons.py

A network 2-8-1 of tanh units with the cost of logistic regression, log(1 + eᶻ) − t z for the targets t = 0 and 1,
learns by stochastic gradient descent. The first part uses only Python's numbers and lists and `fnn.autodiff`, where
each of about 60 operations per point is a node of a graph. The second computes the gradient at the weights found with
fnn: the same chain rule, by hand, for whole arrays. The figure is saved to out/two_moons/two_moons.png.
"""

import math
import random
import sys
import time
from pathlib import Path
from timeit import timeit

import numpy as np

import fnn
from fnn import autodiff

plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")  # draws to files and needs no screen
OUT, HIDDEN, RATE, EPOCHS, BATCH = Path("out/two_moons"), 8, 0.5, 60, 10

# 1. The data: (x₁, x₂, t), two interleaving half circles, with noise.
rng, points = random.Random(0), []
for i in range(200):
    angle, t = math.pi * rng.random(), i % 2
    x1, x2 = (1 - math.cos(angle), 0.5 - math.sin(angle)) if t else (math.cos(angle), math.sin(angle))
    points.append((x1 + rng.gauss(0, 0.12), x2 + rng.gauss(0, 0.12), t))


# 2. The network and its cost; the same code works for plain numbers and for Values.
def network(params, x1, x2):
    (w1, b1), (w2, b2) = params
    hidden = [autodiff.tanh(row[0] * x1 + row[1] * x2 + b) for row, b in zip(w1, b1, strict=True)]
    return sum(w * a for w, a in zip(w2[0], hidden, strict=True)) + b2[0]


def cost(params, batch):
    logits = [(network(params, x1, x2), t) for x1, x2, t in batch]
    return sum(autodiff.log(1 + autodiff.exp(z)) - t * z for z, t in logits) / len(batch)


def descend(p, g):
    """w ← w − η ∂C/∂w, whatever the nesting."""
    return p - RATE * g if isinstance(p, float) else [descend(*pair) for pair in zip(p, g, strict=True)]


# 3. Training: the gradient of each batch, with respect to all parameters, by one reverse pass.
gradient = lambda params, batch: autodiff.value_and_grad(lambda params: cost(params, batch))(params)
draw = lambda rows, columns: [[rng.gauss(0, 1 / math.sqrt(columns)) for _ in range(columns)] for _ in range(rows)]
params, history, start = [[draw(HIDDEN, 2), [0.0] * HIDDEN], [draw(1, HIDDEN), [0.0]]], [], time.perf_counter()
for _ in range(EPOCHS):
    shuffled, values = rng.sample(points, len(points)), []
    for i in range(0, len(points), BATCH):
        value, grads = gradient(params, shuffled[i : i + BATCH])
        params = descend(params, grads)
        values.append(value)
    history.append(sum(values) / len(values))
right = sum((network(params, x1, x2) > 0) == t for x1, x2, t in points)
print(f"plain Python: {EPOCHS} epochs in {time.perf_counter() - start:.1f} s, {right} of {len(points)} points right")
print(f"cost {history[0]:.3f} -> {history[-1]:.3f}")

# 4. The same gradient from fnn, on NumPy in float64, for all points at the weights found.
net, loss = fnn.Serial((fnn.Dense(HIDDEN), fnn.Tanh(), fnn.Dense(1))), fnn.SigmoidBinaryCrossEntropy()
first, second = (fnn.DenseParams(*(np.array(p) for p in layer)) for layer in params)
x, t = np.split(np.array(points), [2], axis=1)
in_arrays = lambda: fnn.value_and_grad(net, loss)((first, (), second), x, t)
flat = lambda grads: [np.ravel(np.array(g)) for layer in grads for g in layer]
pairs = zip(flat(gradient(params, points)[1]), flat(in_arrays()[1]), strict=True)
error = max(abs(a - b).max() / abs(a).max() for a, b in pairs)
slow, fast = timeit(lambda: gradient(params, points), number=3) / 3, timeit(in_arrays, number=100) / 100
print(f"fnn's gradient of the {len(points)} points is the same, to {error:.0e},")
print(f"in {1e3 * fast:.2f} ms for {1e3 * slow:.0f} ms: about {float(f'{slow / fast:.1g}'):.0f} times as fast")

# 5. The figure: the points, and the region that the network assigns to each class.
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10})
figure, (of_cost, plane) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained", width_ratios=(1, 1.6))
of_cost.plot(range(1, EPOCHS + 1), history, color="#0072B2")
of_cost.set(title="how it learnt", xlabel="epoch", ylabel="cost (nats per point)")
across, up = np.meshgrid(np.linspace(-1.5, 2.5, 161), np.linspace(-1.1, 1.5, 105))
grid = np.column_stack((across.ravel(), up.ravel()))
p = loss.predict(net.apply((first, (), second), grid)).reshape(across.shape)
plane.contourf(across, up, p, (0, 0.5, 1), colors=("#D55E00", "#0072B2"), alpha=0.13)
plane.contour(across, up, p, (0.05, 0.5, 0.95), colors="0.3", linestyles=(":", "-", ":"), linewidths=1)
plane.plot(*x[t[:, 0] == 0].T, "s", color="#D55E00", markersize=4, mfc="none")
plane.plot(*x[t[:, 0] == 1].T, "o", color="#0072B2", markersize=4)
plane.annotate("t = 0", (-1.4, 1.2), color="#D55E00", weight="bold")
plane.annotate("t = 1", (1.9, -0.9), color="#0072B2", weight="bold")
plane.set(title="where it says which (dotted: 95 % sure)", xlabel="input x₁", ylabel="input x₂", aspect="equal")
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "two_moons.png", dpi=160)
print(f"picture: {OUT / 'two_moons.png'}")

if not (right >= 0.97 * len(points) and error <= 1e-12):
    sys.exit(f"expected at least 97 % right, and gradients that agree to 1e-12; got {right / len(points):.1%}, {error}")
