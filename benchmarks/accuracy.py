"""Seconds to 98 % on MNIST's test set, from the imports on, with all compilation.

    FNN_DATA=folder python benchmarks/accuracy.py
    python benchmarks/accuracy.py --smoke

784-256-256-10, batch 128, Adam with a learning rate of 0.001, each library's own initial values. The test set is looked
at after every epoch, and the run ends with the first one at 98 % or more. Every run is a process of its own, with the
clock started before the imports; the pixels come as uint8, unpacked. In each turn all sides take the next seed, and
since seeds differ in the epochs that they need, what is told here are medians.
"""

import argparse
import functools
import importlib
import itertools
import json
import os
import statistics
import tempfile
import time

from common import harness

EPOCHS = 60  # at most


def by_fnn(train, test, seed):
    """One call of `train` an epoch, which also looks at the test set, in the same program."""
    import fnn

    net, loss = fnn.Serial((fnn.Scale(1 / 255), fnn.mlp((256, 256, 10)))), fnn.SoftmaxCrossEntropy()
    state = fnn.init_state(net, fnn.Adam(1e-3), fnn.random.key(seed), (784,))
    how = {"epochs": 1, "batch_size": 128, "validation": test, "metrics": {"accuracy": fnn.accuracy}}
    while True:
        state, history = fnn.train(net, loss, state, train, **how)
        yield float(history["validation_accuracy"][-1])


def by_torch(train, test, seed):
    """The loop of PyTorch's tutorials, tensors in memory."""
    import torch
    from torch.nn import Linear, ReLU

    torch.manual_seed(seed)
    model = torch.nn.Sequential(Linear(784, 256), ReLU(), Linear(256, 256), ReLU(), Linear(256, 10))
    optimizer, cost = torch.optim.Adam(model.parameters(), lr=1e-3), torch.nn.CrossEntropyLoss()
    (x, y), (x_test, y_test) = ((torch.tensor(x) / 255, torch.tensor(y, dtype=torch.int64)) for x, y in (train, test))
    while True:
        for index in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            cost(model(x[index]), y[index]).backward()
            optimizer.step()
        with torch.no_grad():
            yield (model(x_test).argmax(1) == y_test).float().mean().item()


def by_linen(train, test, seed):
    """A jitted step of Flax Linen with Optax in a loop, the batches gathered by NumPy."""
    import flax.linen as nn
    import jax
    import numpy as np
    import optax
    from flax.training.train_state import TrainState

    @jax.jit
    def step(state, x, y):
        def cost(params):
            logits = state.apply_fn(params, x / np.float32(255))
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        return state.apply_gradients(grads=jax.grad(cost)(state.params))

    @jax.jit
    def accuracy(state, x, y):
        return (state.apply_fn(state.params, x / np.float32(255)).argmax(1) == y).mean()

    model = nn.Sequential([nn.Dense(256), nn.relu, nn.Dense(256), nn.relu, nn.Dense(10)])
    params = model.init(jax.random.key(seed), np.zeros((1, 784), np.float32))
    state = TrainState.create(apply_fn=model.apply, params=params, tx=optax.adam(1e-3))
    (x, y), test, rng = train, jax.device_put(test), np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(x))
        for index in (order[start : start + 128] for start in range(0, len(x), 128)):
            state = step(state, x[index], y[index])
        yield float(accuracy(state, *test))


NUMPY = {"FNN_BACKEND": "numpy"}
SIDES = {  # how, the package it needs, the environment
    "fnn on JAX": (by_fnn, "jax", {}),
    "PyTorch eager": (by_torch, "torch", {}),
    "Flax Linen": (by_linen, "flax", {}),
    "fnn on NumPy": (by_fnn, "numpy", NUMPY),
}


def child(name, folder, seed, target):
    """What a fresh process does: the seconds and the epochs until the target."""
    start = time.perf_counter()
    import numpy as np

    x, y, x_test, y_test = (np.load(f"{folder}/{i}.npy") for i in range(4))
    accuracies = itertools.islice(SIDES[name][0]((x, y), (x_test, y_test), int(seed)), EPOCHS)
    epochs = next(epoch for epoch, accuracy in enumerate(accuracies, 1) if accuracy >= float(target))
    print(json.dumps({"seconds": time.perf_counter() - start, "epochs": epochs}))


def side(name, folder, target):
    _, package, environment = SIDES[name]
    importlib.import_module(package)  # raises where it is missing
    seeds = itertools.count()
    return lambda: harness.fresh(__file__, "--child", name, folder, str(next(seeds)), str(target), **environment)()


def main():
    parser = harness.parser(__doc__)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = harness.parse(parser)
    if options.child:
        child(*options.child)
        return
    if not (options.smoke or os.environ.get("FNN_DATA")):
        parser.error("the images have to be MNIST's: set FNN_DATA to their folder")
    import numpy as np
    from common.sides import images

    data, target = images(600 if options.smoke else None), 0.0 if options.smoke else 0.98
    with tempfile.TemporaryDirectory() as folder:
        for i, array in enumerate(array for part in data for array in part):
            np.save(f"{folder}/{i}.npy", np.rint(255 * array).astype(np.uint8) if array.ndim == 2 else array)
        makers = {name: functools.partial(side, name, folder, target) for name in SIDES}
        samples = harness.turns(harness.available(makers), options)

    harness.publish("accuracy", "Seconds to 98 % on MNIST", table(samples), samples, options, told="medians")


def table(samples):
    """Seconds and epochs until the target, and their quotient: what is left when the luck of a seed is taken out."""

    figures = (lambda run: run["seconds"], lambda run: run["epochs"], lambda run: run["seconds"] / run["epochs"])
    middle = {name: [statistics.median(map(figure, runs)) for figure in figures] for name, runs in samples.items()}
    base, _, base_of_epoch = middle.get("fnn on JAX", [float("nan")] * 3)
    rows = []
    for name, (seconds, epochs, of_epoch) in middle.items():
        needed = [run["epochs"] for run in samples[name]]
        counted = f"{epochs:g} ({min(needed)} to {max(needed)})"
        ratios = f"{seconds / base:.2f}", f"{of_epoch / base_of_epoch:.2f}"
        rows.append([name, f"{seconds:.2f}", ratios[0], counted, f"{of_epoch:.2f}", ratios[1]])
    ours = "over fnn on JAX"
    heading = ("side", "seconds", ours, "epochs needed (range)", "seconds an epoch, start included", ours)
    return harness.table(heading, rows)


if __name__ == "__main__":
    main()
