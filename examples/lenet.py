"""LeNet on MNIST: a convolutional network, its filters, and what they find in an image.

    python examples/lenet.py --download           downloads the four files (11 MB) to the user's cache, once
    python examples/lenet.py --data FOLDER        (or FNN_DATA=FOLDER) uses files that are there already
    python examples/lenet.py --epochs 10          more accurate, in three times the time

Each unit of a convolution sees 5 x 5 pixels, and applies the same weights at every place of the image: a filter, whose
outputs are a map of where it fits. Pooling halves the maps, and a second convolution looks for patterns in them. The
test images are only used for reporting: the rate and the dropout were chosen on training images that were held out.
The figure is saved to out/lenet/lenet.png.

Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition" (1998).
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

import fnn

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", type=Path, help="folder with the files of MNIST; default: FNN_DATA")
parser.add_argument("--download", action="store_true", help="fetch the files that are missing")
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")  # draws to files and needs no screen
OUT, BATCH = Path("out/lenet"), 64

# 1. The data: images x (N, 28, 28, 1) as stored, uint8 grey levels from 0 to 255, and labels y (N,). The last axis is
#    that of the channels, of which grey images have one.
try:
    train, test = ((x.reshape(-1, 28, 28, 1), y) for x, y in fnn.datasets.mnist(args.data, args.download))
except (fnn.errors.FnnError, FileNotFoundError) as error:
    sys.exit(f"{error}\nuse --download, or --data FOLDER")

# 2. The network and its training.
he = fnn.HeNormal()
first = (fnn.Conv(20, (5, 5), initializer=he), fnn.Relu(), fnn.MaxPool((2, 2)))
second = (fnn.Conv(40, (5, 5), initializer=he), fnn.Relu(), fnn.MaxPool((2, 2)))
head = (fnn.Flatten(), fnn.Dense(128, initializer=he), fnn.Relu(), fnn.Dropout(0.25), fnn.Dense(10))
net, loss = fnn.Serial((fnn.Scale(1 / 255), *first, *second, *head)), fnn.SoftmaxCrossEntropy()
print(fnn.summary(net, (28, 28, 1)))
rate = fnn.schedules.CosineAnnealing(2e-3, args.epochs * -(-len(train[0]) // BATCH))  # decreases to 0
key, begun = fnn.random.key(args.seed), time.perf_counter()
state, history = fnn.fit(net, loss, fnn.Adam(rate), train, key=key, epochs=args.epochs, batch_size=BATCH)
seconds = time.perf_counter() - begun
print(f"\n{args.epochs} epochs in {seconds:.1f} s, {seconds / args.epochs:.1f} s each")

# 3. The result on the test images, and the mistakes, the most confident ones first.
z = np.concatenate([np.asarray(net.apply(state.params, test[0][i : i + 1000])) for i in range(0, len(test[0]), 1000)])
probability = np.asarray(loss.predict(z))  # (10000, 10)
found, sure = probability.argmax(axis=1), probability.max(axis=1)
accuracy, wrong = float(fnn.accuracy(z, test[1])), np.flatnonzero(found != test[1])
wrong = wrong[np.argsort(-sure[wrong])]
print(f"test accuracy {accuracy:.2%}, {len(wrong)} mistakes in {len(found):,} images")

# 4. The figure: the filters, where they fit in one image, and the mistakes.
plt.rcParams.update({"axes.titlesize": 10, "figure.titlesize": 10})
figure = plt.figure(figsize=(11, 5), layout="constrained")
upper, lower = figure.subfigures(2, 1, height_ratios=(2.4, 1))
filters, maps, deeper = upper.subplots(1, 3)
image = test[0][np.flatnonzero(test[1] == 4)[0]]
fnn.plots.first_layer(filters, state.params).set_title("The filters of the first convolution")
fnn.plots.feature_maps(maps, net, state.params, image, layer="2").set_title("Where they fit in a 4, after ReLU")
fnn.plots.feature_maps(deeper, net, state.params, image, layer="5").set_title("Where those of the second do")
lower.suptitle("Where it errs (true → predicted; the most confident mistakes)")
for axes, i in zip(lower.subplots(1, 10), wrong, strict=False):
    axes.imshow(test[0][i, :, :, 0], cmap="gray_r", vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[], title=f"{test[1][i]} → {found[i]}", xlabel=f"{np.floor(1000 * sure[i]) / 10:.1f} %")
    axes.spines[:].set(visible=True, color="0.8")
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "lenet.png", dpi=160)
print(f"picture: {OUT / 'lenet.png'}")

if accuracy < 0.985:
    sys.exit(f"expected a test accuracy of at least 98.5 %, got {accuracy:.2%}")
