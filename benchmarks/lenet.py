"""The accuracy of a LeNet on MNIST's test set after ten epochs, for several seeds.

    FNN_DATA=folder python benchmarks/lenet.py
    python benchmarks/lenet.py --smoke

The network of `examples/lenet.py`: two convolutions of 20 and 40 filters, 5 x 5, each with ReLU and max-pooling, then
128 units and dropout. Adam with cosine decay, batch 64, the images as they are. The rate and the dropout were chosen
with one seed and three epochs, on 10,000 of the training images that were held out. Each run then has all 60,000, and
the test images are looked at once, after its last epoch.
"""

import os
import statistics
import time

from common import harness
from common.sides import images

import fnn

LOSS, BATCH = fnn.SoftmaxCrossEntropy(), 64


def lenet():
    he = fnn.HeNormal()
    first = (fnn.Conv(20, (5, 5), initializer=he), fnn.Relu(), fnn.MaxPool((2, 2)))
    second = (fnn.Conv(40, (5, 5), initializer=he), fnn.Relu(), fnn.MaxPool((2, 2)))
    head = (fnn.Flatten(), fnn.Dense(128, initializer=he), fnn.Relu(), fnn.Dropout(0.25), fnn.Dense(10))
    return fnn.Serial((*first, *second, *head))


def run(seed, train, test, epochs):
    """The accuracy on the test set, and the seconds of the training."""
    net, start = lenet(), time.perf_counter()
    rate = fnn.schedules.CosineAnnealing(2e-3, epochs * -(-len(train[0]) // BATCH))
    state = fnn.init_state(net, fnn.Adam(rate), fnn.random.key(seed), (28, 28, 1))
    state, _ = fnn.train(net, LOSS, state, train, epochs=epochs, batch_size=BATCH)
    found = fnn.evaluate(net, LOSS, state.params, test, metrics={"accuracy": fnn.accuracy})
    return {"accuracy": float(found["accuracy"]), "seconds": time.perf_counter() - start}


def main():
    parser = harness.parser(__doc__, repeats=3)
    parser.add_argument("--epochs", type=int, default=10)
    options = harness.parse(parser)
    if not (options.smoke or os.environ.get("FNN_DATA")):
        parser.error("the images have to be MNIST's: set FNN_DATA to their folder")
    train, test = ((x.reshape(-1, 28, 28, 1), y) for x, y in images(200 if options.smoke else None))
    runs = []
    for seed in range(options.repeats):
        runs.append(run(seed, train, test, 1 if options.smoke else options.epochs))
        print(f"seed {seed}: {runs[-1]['accuracy']:.2%} in {runs[-1]['seconds']:.0f} s", flush=True)
    mean = statistics.mean(one["accuracy"] for one in runs)
    rows = [[str(seed), f"{one['accuracy']:.2%}"] for seed, one in enumerate(runs)]
    table = harness.table(("seed", "accuracy on the test set"), [*rows, ["mean", f"{mean:.3%}"]])
    harness.publish("lenet", "LeNet on MNIST", table, {"fnn on JAX": runs}, options, told="mean")


if __name__ == "__main__":
    main()
