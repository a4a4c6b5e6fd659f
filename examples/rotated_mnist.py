"""Rotated digits: an overfitted network grows surer the further it errs; its Laplace approximation does not.

    python examples/rotated_mnist.py              with FNN_DATA=FOLDER, where the files of MNIST are
    python examples/rotated_mnist.py --download

A network 784-256-10 learns 3,000 images by heart. A Gaussian around the weights of its last layer (`fnn.laplace`), with
Kronecker factors, then says how uncertain the logits are, and the probabilities are averaged over it. On unrotated test
images the expected calibration error is at most half; on images rotated by more than 15 degrees, of which none was
learnt, the negative log-likelihood is lower at every angle. The marginal likelihood chooses too weak a prior here, as
the weights are at no mode, so 5,000 other training images choose the prior precision. The test images choose nothing.
The figure is saved to out/rotated_mnist/rotated_mnist.png.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

import fnn
from fnn import laplace, plots

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", type=Path, help="folder with the files of MNIST; default: FNN_DATA")
parser.add_argument("--download", action="store_true", help="fetch the files that are missing")
args = parser.parse_args()
plt = fnn.errors.require("matplotlib.pyplot", "examples")
ndimage = fnn.errors.require("scipy.ndimage", "examples")
plt.switch_backend("agg")  # draws to files and needs no screen
OUT, ANGLES, LEARNT, HELD = Path("out/rotated_mnist"), range(0, 181, 15), slice(0, 3000), slice(55_000, 60_000)

# 1. An overfitted network.
try:
    (x, y), (x_test, y_test) = fnn.datasets.mnist(args.data, args.download)
except (fnn.errors.FnnError, FileNotFoundError) as error:
    sys.exit(f"{error}\nuse --download, or --data FOLDER")
net, loss = fnn.Serial((fnn.Scale(1 / 255), *fnn.mlp((256, 10)).layers)), fnn.SoftmaxCrossEntropy()
data, key = (x[LEARNT], y[LEARNT]), fnn.random.key(0)
state, history = fnn.fit(net, loss, fnn.Adam(1e-3), data, key=key, epochs=60, batch_size=100)
right = fnn.evaluate(net, loss, state.params, data, metrics={"accuracy": fnn.accuracy})["accuracy"]
print(f"{len(data[0]):,} images learnt, {right:.1%} right, the cost is {history['loss'][-1]:.4f} nats")

# 2. The posterior, and its prior precision.
posterior = laplace.fit(net, loss, state.params, data, last_layer=True)
print(f"by the marginal likelihood the prior precision is {laplace.tuned(posterior).prior_precision:.1f}")
probabilities = fnn.backend.jit(laplace.probabilities)
of = lambda tau: posterior._replace(prior_precision=np.float32(tau))
unlikely = lambda p, y: float(fnn.negative_log_likelihood(np.asarray(p), y))
costs = {tau: unlikely(probabilities(of(tau), x[HELD]), y[HELD]) for tau in np.geomspace(1, 1000, 19)}
tau = min(costs, key=lambda tau: costs[tau])
print(f"by {len(y[HELD]):,} held-out images it is {tau:.1f}")

# 3. Test images at every angle.
sides = {
    "point estimate": lambda x: loss.predict(net.apply(state.params, x)),
    "Laplace, last layer": lambda x: probabilities(of(tau), x),
}
images, found = x_test.reshape(-1, 28, 28).astype(np.float32), {name: [] for name in sides}
print("degrees  " + "  ".join(f"{name:>20}" for name in sides) + "   (nats)")
for angle in ANGLES:
    turned = ndimage.rotate(images, angle, axes=(2, 1), reshape=False, order=1).reshape(-1, 784)
    for name, predict in sides.items():
        found[name].append(np.asarray(predict(turned)))
    print(f"{angle:7}  " + "  ".join(f"{unlikely(found[name][-1], y_test):20.3f}" for name in sides))
nll = {name: np.array([unlikely(p, y_test) for p in of_side]) for name, of_side in found.items()}
right = {name: float(fnn.accuracy(of_side[0], y_test)) for name, of_side in found.items()}
curves = {name: fnn.reliability(of_side[0], y_test) for name, of_side in found.items()}
ece = {name: float(fnn.expected_calibration_error(of_side[0], y_test)) for name, of_side in found.items()}
for name in sides:
    print(f"{name}: accuracy {right[name]:.1%}, expected calibration error {ece[name]:.4f}")

# 4. The figure.
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10})
figure, (of_angle, of_bins) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained", width_ratios=(1.3, 1))
for name, style, color in zip(sides, ("-o", "--^"), plots.common.COLORS, strict=False):
    of_angle.plot(ANGLES, nll[name], style, color=color, label=name, markersize=4)
of_angle.axhline(np.log(10), color="0.4", linestyle=":", linewidth=1)
of_angle.annotate("a guess", (180, np.log(10)), ha="right", va="bottom", color="0.3", size="small")
of_angle.set(title="test images, rotated", xlabel="degrees", ylabel="negative log-likelihood (nats)")
of_angle.legend(frameon=False)
plots.reliability(of_bins, curves).set(title="not rotated: as right as it is sure?")
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "rotated_mnist.png", dpi=160)
print(f"picture: {OUT / 'rotated_mnist.png'}")

point, ours = sides
if not ((nll[ours] < nll[point])[np.array(ANGLES) > 15].all() and ece[ours] <= ece[point] / 2):
    sys.exit("expected a lower NLL at every angle over 15 degrees, and half of the calibration error")
