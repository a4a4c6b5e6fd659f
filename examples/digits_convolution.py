"""Digits, wherever they are: a convolutional network beside a dense one, also on NumPy alone.

    python examples/digits_convolution.py
    python examples/digits_convolution.py --backend numpy     the same run on NumPy alone

Both learn scikit-learn's 1,797 images of 8 x 8 grey levels, all of them centred, and are then tested on images that are
moved sideways. The weights of the dense network belong to fixed pixels. The convolutional one applies the same filters
everywhere and averages their outputs over all positions, so it recognizes most digits in places where it has never seen
one. Sizes and rates were chosen by five-fold cross-validation on the training images; the held-out quarter is only used
for reporting. The figure is saved to out/digits_convolution/digits_convolution.png.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

import fnn

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--backend", choices=("jax", "numpy"), help="default: jax where it is installed")
args = parser.parse_args()
plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")  # draws to files and needs no screen
OUT, EPOCHS, BATCH, MOVES = Path("out/digits_convolution"), 20, 32, range(-2, 3)

# 1. The data: images x (N, 8, 8, 1), uint8 grey levels from 0 to 16, and labels y (N,).
train, test = ((x.reshape(-1, 8, 8, 1), y) for x, y in fnn.datasets.digits())


def moved(x, columns):
    """The images, moved to the right by that many columns; what leaves the image is lost."""
    padded = np.pad(x, ((0, 0), (0, 0), (2, 2), (0, 0)))
    return padded[:, :, 2 - columns : 10 - columns]


# 2. The two networks.
def conv(channels):
    return fnn.Conv(channels, (3, 3), padding="same", initializer=fnn.HeNormal())


convolutional = fnn.Serial(
    (
        *(fnn.Scale(1 / 16), conv(16), fnn.Relu(), conv(32), fnn.Relu(), fnn.MaxPool((2, 2)), conv(64), fnn.Relu()),
        *(fnn.GlobalAvgPool(), fnn.Dropout(0.3), fnn.Dense(10)),
    )
)
hidden = fnn.Dense(256, initializer=fnn.HeNormal())
dense = fnn.Serial((fnn.Scale(1 / 16), fnn.Flatten(), hidden, fnn.Relu(), fnn.Dropout(0.4), fnn.Dense(10)))
print(fnn.summary(convolutional, (8, 8, 1)))


# 3. Their training, and the accuracy on the held-out images, moved or not.
def run(net, rate, epochs):
    """Parameters, and the accuracy for each of the moves."""
    begun, steps = time.perf_counter(), epochs * -(-len(train[0]) // BATCH)
    optimizer, key = fnn.Adam(fnn.schedules.CosineAnnealing(rate, steps)), fnn.random.key(0, args.backend)
    state, _ = fnn.fit(net, fnn.SoftmaxCrossEntropy(), optimizer, train, key=key, epochs=epochs, batch_size=BATCH)
    outputs = (net.apply(state.params, moved(test[0], columns)) for columns in MOVES)
    accuracy = {columns: float(fnn.accuracy(z, test[1])) for columns, z in zip(MOVES, outputs, strict=True)}
    on = "NumPy" if isinstance(key, np.ndarray) else "JAX"
    print(f"\n{epochs} epochs in {time.perf_counter() - begun:.1f} s on {on}; accuracy for images moved by")
    print("   ".join(f"{columns:+d} pixels: {value:.1%}" for columns, value in accuracy.items()))
    return state.params, accuracy


params, of_convolutional = run(convolutional, 5e-3, EPOCHS)
_, of_dense = run(dense, 2e-3, 30)

# 4. The figure: filters, what they find in one digit, and the accuracy.
plt.rcParams.update({"axes.titlesize": 10})
figure = plt.figure(figsize=(11, 3.6), layout="constrained")
left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1.4, 1.4))
fnn.plots.first_layer(left, params).set_title("Filters of the first layer")
shown = test[0][np.flatnonzero(test[1] == 3)[0]]
fnn.plots.feature_maps(middle, convolutional, params, shown, layer="4").set_title("Outputs of the second layer for a 3")
for (name, accuracy), color, style in zip(
    {"convolutional": of_convolutional, "dense": of_dense}.items(), ("#0072B2", "#D55E00"), ("o-", "s--"), strict=True
):
    right.plot(list(accuracy), [100 * value for value in accuracy.values()], style, color=color, label=name)
right.set(title="Images that are moved sideways", xlabel="pixels", ylabel="accuracy, held out (%)", ylim=(0, 102))
right.set_xticks(MOVES)
right.legend(frameon=False, loc="lower center")
right.spines[["top", "right"]].set_visible(False)
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "digits_convolution.png", dpi=160)
print(f"\npicture: {OUT / 'digits_convolution.png'}")

aside = min(of_convolutional[-1], of_convolutional[1])
if not (of_convolutional[0] >= 0.98 and aside >= 0.9 > 0.7 > max(of_dense[-1], of_dense[1])):
    sys.exit(f"expected at least 98 %, and 90 % one pixel aside, got {of_convolutional} and {of_dense}")
