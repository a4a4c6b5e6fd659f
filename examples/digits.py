"""Handwritten digits: train a network in seconds, then see how it learnt, what its units respond to and where it errs.

    python examples/digits.py
    python examples/digits.py --backend numpy     the same run on NumPy alone

The data are scikit-learn's 1,797 images of 8 x 8 grey levels. A fixed quarter is held out and only used for reporting:
neither the weights nor the time to stop depend on it. The figure is saved to out/digits/digits.png.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

import fnn

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--backend", choices=("jax", "numpy"), help="default: jax where it is installed")
parser.add_argument("--epochs", type=int, default=60)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", type=Path, default=Path("out/digits"), help="folder for the picture")
args = parser.parse_args()

plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")  # draws to files and needs no screen

# 1. The data: images x (N, 64) as stored, uint8 grey levels from 0 to 16, and labels y (N,).
train, test = fnn.datasets.digits()
x_test, y_test = test

# 2. The network. Weights that start near 0 show in the figure what was learnt, not where they started. Its size, the
#    learning rate and the number of epochs were chosen by five-fold cross-validation on the training images.
dense = fnn.Dense(256, initializer=fnn.Normal(0.05))
net = fnn.Serial((fnn.Scale(1 / 16), dense, fnn.Relu(), fnn.Dropout(0.4), fnn.Dense(10)))
loss = fnn.SoftmaxCrossEntropy()  # on logits, the outputs of the last layer
print(fnn.summary(net, (64,)))

# 3. Training. All randomness follows from the key, which also determines the backend on which everything runs.
key, start = fnn.random.key(args.seed, args.backend), time.perf_counter()
optimizer, metrics = fnn.Momentum(learning_rate=0.025), {"accuracy": fnn.accuracy}
state, history = fnn.fit(
    net, loss, optimizer, train, key=key, epochs=args.epochs, batch_size=16, validation=test, metrics=metrics
)
on = "NumPy" if isinstance(key, np.ndarray) else "JAX"
print(f"\n{args.epochs} epochs in {time.perf_counter() - start:.1f} s on {on}")

# 4. The result on the held-out quarter, and the mistakes, the most confident ones first.
accuracy = fnn.evaluate(net, loss, state.params, test, metrics=metrics)["accuracy"]
probability = np.asarray(loss.predict(net.apply(state.params, x_test)))  # (450, 10)
found, sure = probability.argmax(axis=1), probability.max(axis=1)
wrong = np.flatnonzero(found != y_test)
wrong = wrong[np.argsort(-sure[wrong])]
print(f"test accuracy {accuracy:.2%}, {len(wrong)} mistakes in {len(y_test)} images")


# 5. The figure: learning curves, what the units of the first layer respond to, and the mistakes.
def curve(axes, values, label, color, style="-"):
    epochs = np.arange(1, len(values) + 1)
    axes.plot(epochs, values, style, color=color)
    axes.annotate(label, (epochs[-1], values[-1]), (4, 0), textcoords="offset points", color=color, va="center")
    axes.set_xlabel("epoch")
    axes.yaxis.set_major_formatter("{x:g}")


def images(figure, rows, columns, pixels, color_map, low, high, above=None, below=None):
    for i, axes in enumerate(figure.subplots(rows, columns).flat):
        axes.imshow(pixels[i].reshape(8, 8), cmap=color_map, vmin=low, vmax=high)
        axes.set(xticks=[], yticks=[], title=above and above[i], xlabel=below and below[i])
        axes.spines[:].set(visible=True, color="0.8")


plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10})
plt.rcParams.update({"figure.titlesize": 11, "figure.titleweight": "bold", "figure.constrained_layout.h_pad": 0.07})
figure = plt.figure(figsize=(10, 5.6), layout="constrained")
upper, lower = figure.subfigures(2, 1, height_ratios=(2.2, 1))
left, right = upper.subfigures(1, 2, width_ratios=(1.1, 1))
left.suptitle("How it learnt")
of_loss, of_accuracy = left.subplots(1, 2)
of_loss.set(title="cross-entropy", yscale="log")
curve(of_loss, history["loss"], "training", "#0072B2")
curve(of_loss, history["validation_loss"], "held out", "#D55E00", "--")
of_accuracy.set(title="accuracy, held out (%)", ylim=(88, 100))
curve(of_accuracy, 100 * history["validation_accuracy"], f"{100 * accuracy:.1f}", "#D55E00", "--")
weights = np.asarray(state.params[1].w)  # (256, 64): of layer 1, the first Dense, a row for each unit
weights = weights[np.argsort(-np.linalg.norm(weights, axis=1))[:40]]
right.suptitle("What its units look for (red excites, blue inhibits)")
images(right, 5, 8, weights, "RdBu_r", -np.abs(weights).max(), np.abs(weights).max())
if len(shown := wrong[:10]):
    lower.suptitle(f"Where it errs (true → predicted, its probability; {len(shown)} of {len(wrong)} mistakes)")
    above, below = [f"{y_test[i]} → {found[i]}" for i in shown], [f"{100 * sure[i]:.1f} %" for i in shown]
    images(lower, 1, len(shown), x_test[shown], "gray_r", 0, 16, above, below)
args.out.mkdir(parents=True, exist_ok=True)
figure.savefig(args.out / "digits.png", dpi=160, bbox_inches="tight")
print(f"picture: {args.out / 'digits.png'}")

if accuracy < 0.97:
    sys.exit(f"expected a test accuracy of at least 97 %, got {accuracy:.2%}")
