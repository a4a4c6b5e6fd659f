"""Private training of a convolutional network: accuracy against the ε spent, beside the same network without privacy.

    FNN_DATA=/path/to/data python examples/private_convolution.py

DP-SGD (`fnn.rules.Private`) clips the gradient of each example and adds noise to their sum; `private_mnist.py` says
what the guarantee (ε, δ) means. Nothing about it is special to convolutions: their gradients are products of errors and
patches, so norms are known and clipped sums are made without the gradient of any single example. The images are means
of 2 x 2 pixels, the units are bounded (tanh), as N. Papernot et al., "Tempered sigmoid activations for deep learning
with differential privacy" (2021), found best. The settings of the private run were chosen on 10,000 training images
that were held out; this search is not accounted for. The figure is saved to out/private_convolution/.
"""

import sys
import time
from pathlib import Path

import numpy as np

import fnn

plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")
OUT, EPSILON, DELTA = Path("out/private_convolution"), 2.0, 1e-5
BATCH, EPOCHS, MAX_NORM, MOMENTUM = 2048, 15, 0.1, 0.9


def small(images):
    """28 × 28 pixels to 14 × 14, then less MNIST's mean and over its spread, both long published."""
    pooled = images.reshape(-1, 14, 2, 14, 2, 1).mean(axis=(2, 4))
    return ((pooled / 255 - 0.1307) / 0.3081).astype(np.float32)


train, test = ((small(x), y) for x, y in fnn.datasets.mnist())
n = len(train[0])
steps_of_epoch = -(-n // BATCH)
net = fnn.Serial(
    (
        *(fnn.Conv(16, (5, 5)), fnn.Tanh(), fnn.MaxPool((2, 2)), fnn.Conv(32, (3, 3)), fnn.Tanh()),
        *(fnn.Flatten(), fnn.Dense(10)),
    )
)
print(fnn.summary(net, train[0].shape[1:]))


# 1. The network with and without privacy: parameters, and the accuracy on the test images after each epoch.
def run(rule, rate):
    begun, decreasing = time.perf_counter(), fnn.schedules.PolynomialDecay(rate, 0.0, EPOCHS * steps_of_epoch)
    how = {"epochs": EPOCHS, "batch_size": BATCH, "validation": test, "metrics": {"accuracy": fnn.accuracy}}
    optimizer, key, loss = fnn.Momentum(decreasing, MOMENTUM), fnn.random.key(0), fnn.SoftmaxCrossEntropy()
    state, history = fnn.fit(net, loss, optimizer, train, key=key, rule=rule, **how)
    print(f"{history['validation_accuracy'][-1]:.2%} in {time.perf_counter() - begun:.0f} s", flush=True)
    return state.params, 100 * np.asarray(history["validation_accuracy"])


steps = [epoch * steps_of_epoch for epoch in range(1, EPOCHS + 1)]
sampling = {"batch_size": BATCH, "n": n, "delta": DELTA}
noise = fnn.privacy.noise_multiplier(steps=steps[-1], epsilon=EPSILON, **sampling)
print(f"\nε = {EPSILON}, δ = {DELTA}, C = {MAX_NORM}, noise σ = {noise:.3f}, {steps[-1]} steps: ", end="", flush=True)
private, of_private = run(fnn.rules.Private(max_norm=MAX_NORM, noise_multiplier=noise), 8.0)
print("without privacy: ", end="", flush=True)
public, of_public = run(fnn.rules.Backprop(), 0.1)

# 2. The ε spent after each epoch.
spent = [fnn.privacy.epsilon(steps=done, noise_multiplier=noise, **sampling) for done in steps]
print("ε after each epoch: " + " ".join(f"{epsilon:.2f}" for epsilon in spent))

# 3. The figure.
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained", width_ratios=(1.5, 1, 1))
left.plot(spent, of_private, "o-", color="#0072B2")
left.axhline(of_public[-1], color="black", linestyle="--", linewidth=1)
left.annotate(f"without privacy: {of_public[-1]:.1f}", (spent[0], of_public[-1]), (0, 4), textcoords="offset points")
left.annotate(f"{of_private[-1]:.1f}", (spent[-1], of_private[-1]), (0, -14), textcoords="offset points", ha="center")
left.set(title="One run, epoch by epoch", xlabel=f"ε spent (δ = {DELTA:.0e})", ylabel="accuracy on the test set (%)")
left.set_ylim(top=100)
left.spines[["top", "right"]].set_visible(False)
fnn.plots.first_layer(middle, private).set_title(f"Filters at ε = {EPSILON:g}")
fnn.plots.first_layer(right, public).set_title("Filters without privacy")
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "private_convolution.png", dpi=160)
print(f"picture: {OUT / 'private_convolution.png'}")

if not (95 <= of_private[-1] < of_public[-1] and of_public[-1] >= 97 and abs(spent[-1] - EPSILON) < 0.01):
    sys.exit(f"expected 95 % at ε = {EPSILON} and 97 % without, got {of_private[-1]:.2f} and {of_public[-1]:.2f}")
