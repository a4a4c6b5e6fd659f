"""LeNet: a convolutional network on MNIST, its filters, and what they make of a digit.

    FNN_DATA=/path/to/data python examples/lenet.py
    FNN_DATA=/path/to/data python examples/lenet.py --seeds 3     the mean of three runs

Two convolutions, each with a maximum over 2 x 2 windows, and two dense layers, after Y. LeCun et al., "Gradient-based
learning applied to document recognition" (1998), with today's units (ReLU), more of them, and dropout. The
test images are used only for reporting. The figure is saved to out/lenet/lenet.png.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

import fnn

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--seeds", type=int, default=1)
args = parser.parse_args()
plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")
OUT, BATCH = Path("out/lenet"), 64

# 1. The data: images (N, 28, 28, 1), the channel last, as stored.
(x, y), (x_test, y_test) = ((images.reshape(-1, 28, 28, 1), labels) for images, labels in fnn.datasets.mnist())

# 2. The network.
layers = (
    *(fnn.Scale(1 / 255), fnn.Conv(20, (5, 5), initializer=fnn.HeNormal()), fnn.Relu(), fnn.MaxPool((2, 2))),
    *(fnn.Conv(40, (5, 5), initializer=fnn.HeNormal()), fnn.Relu(), fnn.MaxPool((2, 2))),
    *(fnn.Flatten(), fnn.Dense(128, initializer=fnn.HeNormal()), fnn.Relu(), fnn.Dropout(0.5), fnn.Dense(10)),
)
net, loss, metrics = fnn.Serial(layers), fnn.SoftmaxCrossEntropy(), {"accuracy": fnn.accuracy}
print(fnn.summary(net, (28, 28, 1)))
optimizer = fnn.Adam(fnn.schedules.CosineAnnealing(1e-3, args.epochs * -(-len(x) // BATCH)))
accuracies = []
for seed in range(args.seeds):
    begun = time.perf_counter()
    state, history = fnn.fit(
        net, loss, optimizer, (x, y), key=fnn.random.key(seed), epochs=args.epochs, batch_size=BATCH
    )
    accuracies.append(fnn.evaluate(net, loss, state.params, (x_test, y_test), metrics=metrics)["accuracy"])
    seconds = (time.perf_counter() - begun) / args.epochs
    print(f"seed {seed}: test accuracy {accuracies[-1]:.2%} after {args.epochs} epochs of {seconds:.1f} s", flush=True)
mean = float(np.mean(accuracies))
print(f"mean of {args.seeds}: {mean:.2%}")

# 3. The figure: filters, and the maps that they make of one digit.
figure, axes = plt.subplots(1, 4, figsize=(12, 3.4), layout="constrained")
digit = x_test[:1]
axes[0].imshow(digit[0, :, :, 0], cmap="gray_r")
axes[0].set(title=f"a digit, predicted {int(net.apply(state.params, digit)[0].argmax())}", xticks=[], yticks=[])
fnn.plots.first_layer(axes[1], state.params).set_title("the 20 filters of the first layer")
fnn.plots.feature_maps(axes[2], net, state.params, digit[0], layer="2").set_title("what they find in it")
fnn.plots.feature_maps(axes[3], net, state.params, digit[0], layer="5").set_title("the 40 maps of the second")
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "lenet.png", dpi=160)
print(f"picture: {OUT / 'lenet.png'}")

if mean < 0.991:
    sys.exit(f"expected a test accuracy of at least 99.1 %, got {mean:.2%}")
