"""Flat and sharp minima: the learning rate and the batch size choose how curved the cost is where training ends.

    python examples/sharp_minima.py

Gradient descent with a rate η is unstable along directions of curvature above 2/η. Where the largest eigenvalue of the
Hessian, the sharpness, is above 2/η, training leaves for where it is less; where it is below and rises, it stops at
2/η: the rate chooses how sharp the minimum is. (J. Cohen, S. Kaur, Y. Li, J. Kolter, A. Talwalkar, "Gradient descent on
neural networks typically occurs at the edge of stability", 2021.) Small batches end where the cost is flatter than
large ones of the same rate. (N. Keskar, D. Mudigere, J. Nocedal, M. Smelyanskiy, P. Tang, "On large-batch training for
deep learning", 2017.)

A network of 3,466 parameters learns 1,000 of scikit-learn's digits with the quadratic cost, on NumPy. Its Hessian is
never made: `fnn.curvature` takes products with it, for the largest eigenvalues, the trace and the density of the whole
spectrum. The figure is saved to out/sharp_minima/sharp_minima.png.
"""

import os
import sys
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # one thread is faster for matrices this small

import numpy as np

import fnn

plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")
OUT, N, TIMES = Path("out/sharp_minima"), 1000, (0.5, 1, 2, 4, 8, 16, 32, 64, 80, 96, 112, 128)  # rate times steps
RUNS = {  # rate, batch size, color
    "all images, η = 0.05": (0.05, N, "#000000"),
    "all images, η = 0.1": (0.1, N, "#0072B2"),
    "all images, η = 0.2": (0.2, N, "#D55E00"),
    "batches of 10, η = 0.05": (0.05, 10, "#009E73"),
}
(x, y), (x_test, y_test) = ((x / np.float32(16), np.eye(10, dtype=np.float32)[y]) for x, y in fnn.datasets.digits())
x, y = x[:N], y[:N]
net, loss = fnn.mlp((32, 32, 10), fnn.Tanh()), fnn.Quadratic()
hessian = fnn.curvature.hessian_product(net, loss)
sharpness = fnn.curvature.eigenvalues(hessian, steps=12)  # the largest one needs few
spectrum, trace = fnn.curvature.eigenvalues(hessian, steps=60), fnn.curvature.trace(hessian, samples=30)


def learn(rate, batch_size):
    """The sharpness at all times, and the parameters at the end."""
    state, path = fnn.init_state(net, fnn.Sgd(rate), fnn.random.key(0, backend="numpy"), x.shape[1:]), []
    for time in TIMES:
        steps = round(time / rate) - int(state.step)
        state, _ = fnn.train(net, loss, state, (x, y), steps=steps, batch_size=batch_size)
        path.append(float(sharpness(state.params, x, y).values[0]))
    return np.array(path), state.params


# 1. The runs, and what the Hessian is where they end.
runs = {name: learn(*run[:2]) for name, run in RUNS.items()}
spectra = {name: spectrum(params, x, y) for name, (_, params) in runs.items()}
print(f"{'':<26}sharpness   2/η        trace   cost, training   test")
for name, (path, params) in runs.items():
    of_trace, rate = trace(params, x, y), RUNS[name][0]
    cost, unseen = (fnn.evaluate(net, loss, params, of)["loss"] for of in ((x, y), (x_test, y_test)))
    found = f"{path[-1]:>9.1f}{2 / rate:>6.0f}{of_trace.value:>8.0f} ± {of_trace.error:.0f}"
    print(f"{name:<26}{found:<32}{cost:.3f}{unseen:>9.3f}")

# 2. The figure: the sharpness on the way, and the spectra at the end.
plt.rcParams.update(dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False))
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
size = sum(p.size for p in fnn.trees.leaves(runs["all images, η = 0.1"][1]))
for name, (path, _) in runs.items():
    (rate, _, color), found = RUNS[name], spectra[name]
    left.semilogx(TIMES, path, "o-", markersize=4, color=color, label=name)
    left.axhline(2 / rate, color=color, linestyle=":", linewidth=1)
    right.loglog(found.values, size * np.cumsum(found.weights), drawstyle="steps-post", color=color, label=name)
left.set(title="Training ends at 2/η (dotted) or below", xlabel="steps × η", ylabel="largest eigenvalue", ylim=(0, 55))
right.set(title="The spectrum at the end", xlabel="v", ylabel=f"eigenvalues above v, of {size:,}", xlim=(1e-2, 50))
left.legend(loc="upper left")
right.set_ylim(0.5, size)
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "sharp_minima.png", dpi=160)
print(f"picture: {OUT / 'sharp_minima.png'}")

ends = {name: path[-4:].mean() for name, (path, _) in runs.items()}
full = [ends[f"all images, η = {rate}"] * rate / 2 for rate in (0.1, 0.2)]
if not (max(abs(r - 1) for r in full) < 0.1 and ends["batches of 10, η = 0.05"] < 0.8 * ends["all images, η = 0.05"]):
    sys.exit(f"expected a sharpness of 2/η, and less of small batches; got {ends}")
