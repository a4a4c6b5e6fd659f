"""MNIST: 60,000 handwritten digits to learn from, at least 98.3 % of 10,000 others told right after ten epochs.

    python examples/mnist.py --download           fetches the four files (11 MB) into the user's cache, once
    python examples/mnist.py --data FOLDER        or FNN_DATA=FOLDER: the files are there already
    python examples/mnist.py --backend numpy      the same run on NumPy alone

The test images are only looked at: nothing is chosen by them. The picture goes to out/mnist/mnist.png.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

import fnn

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", type=Path, help="folder with the files of MNIST; default: FNN_DATA")
parser.add_argument("--download", action="store_true", help="fetch the files that are missing")
parser.add_argument("--backend", choices=("jax", "numpy"), help="default: jax where it is installed")
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", type=Path, default=Path("out/mnist"), help="folder for the picture")
args = parser.parse_args()

plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")  # draws into files and needs no screen

# 1. The data: images x (N, 784) as stored, uint8 grey levels from 0 to 255, and labels y (N,).
try:
    train, test = fnn.datasets.mnist(args.data, download=args.download)
except (fnn.errors.FnnError, FileNotFoundError) as error:
    sys.exit(f"{error}\nwrite --download, or --data FOLDER")
x_test, y_test = test


# 2. A schedule: a NamedTuple that gives the learning rate of each step. An optimizer takes one in place of a number.
class ToZero(NamedTuple):
    first: float
    steps: int

    def __call__(self, count):
        return self.first * (1 - count / self.steps)


# 3. The network and its training. The images stay uint8 in memory: the first layer scales each batch to [0, 1].
#    The sizes, rates and the batch were chosen with the last 10,000 training images held out.
def hidden(units):
    return fnn.Dense(units, initializer=fnn.HeNormal()), fnn.Relu(), fnn.Dropout(0.2)


net = fnn.Serial((fnn.Scale(1 / 255), *hidden(512), *hidden(256), fnn.Dense(10)))
loss, metrics = fnn.SoftmaxCrossEntropy(), {"accuracy": fnn.accuracy}
print(fnn.summary(net, (784,)))

batch_size = 256
steps = args.epochs * -(-len(x_train := train[0]) // batch_size)
