"""An epoch of MNIST on a network of one hidden layer: fnn against the frameworks, all in this one process.

    python benchmarks/epoch.py                          784-128-10, batch 128
    python benchmarks/epoch.py --hidden 32 --batch 32   784-32-10, batch 32
    python benchmarks/epoch.py --smoke                  a few hundred examples, to see that it runs

Sgd, softmax cross-entropy, float32 images in memory. Every side trains its own network over whole epochs, shuffled
anew for each; sides take turns, the first call of each is not counted, and what is printed are medians and ratios of
medians. With FNN_DATA=folder the images are MNIST, otherwise random numbers of the same shape, which take the same
time. A side whose package is not installed is left out.
"""

import argparse
import json
import os
import platform
import statistics
import time
import warnings

import numpy as np

import fnn
from fnn import backend, batching, datasets, random

RATE = 0.1


def images(smoke):
    if os.environ.get("FNN_DATA") and not smoke:
        (x, y), _ = datasets.mnist()
        return x / np.float32(255), y
    n = 600 if smoke else 60_000
    rng = np.random.default_rng(0)
    return rng.random((n, 784), np.float32), rng.integers(0, 10, n).astype(np.int32)


def fnn_side(chosen, x, y, hidden, batch):
    """fnn's `train`, one call an epoch, checks of the data included."""
    net, loss = fnn.mlp((hidden, 10)), fnn.SoftmaxCrossEntropy()
    state = fnn.init_state(net, fnn.Sgd(RATE), random.key(0, backend=chosen), (784,))
    data = (backend.jnp.asarray(x), backend.jnp.asarray(y)) if chosen == "jax" else (x, y)

    def epoch():
        nonlocal state
        state, history = fnn.train(net, loss, state, data, epochs=1, batch_size=batch)
        return float(history["loss"][-1])

    return epoch


def jax_grad_side(x, y, hidden, batch):
    """The same scan, layout, order and update with `jax.grad` in the place of our backward pass."""
    import jax
    import jax.numpy as jnp

    n, steps = len(x), batching.steps_per_epoch(len(x), batch)
    net = fnn.mlp((hidden, 10))
    state = fnn.init_state(net, fnn.Sgd(RATE), random.key(0), (784,))
    x, y = jnp.asarray(x), jnp.asarray(y)

    def cost(params, x, y, weights):
        (w1, b1), _, (w2, b2) = params
        logits = jax.nn.relu(x @ w1.T + b1) @ w2.T + b2
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1)[:, 0]
        return -(weights * picked).sum() / weights.sum()

    @jax.jit
    def run(params, key, t, x, y):
        indices, mask = batching.batches(key, n, batch, t, steps)

        def step(params, chosen):
            i, used = chosen
            of_batch = (x.take(i, axis=0, mode="clip"), y.take(i, mode="clip"), used.astype(np.float32))
            value, grads = jax.value_and_grad(cost)(params, *of_batch)
            return jax.tree.map(lambda p, g: p - RATE * g, params, grads), value

        params, values = jax.lax.scan(step, params, (indices, mask))
        return params, t + steps, values

    params, t = state.params, state.step

    def epoch():
        nonlocal params, t
        params, t, values = run(params, state.key, t, x, y)
        return float(values[-1])

    return epoch


def torch_side(x, y, hidden, batch):
    """PyTorch eager, the loop of its tutorials on tensors in memory, all cores."""
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(784, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 10))
    optimizer, cost = torch.optim.SGD(model.parameters(), lr=RATE), torch.nn.CrossEntropyLoss()
    x, y = torch.tensor(x), torch.tensor(y, dtype=torch.int64)

    def epoch():
        loss = torch.zeros(())
        for index in torch.randperm(len(x)).split(batch):
            optimizer.zero_grad()
            loss = cost(model(x[index]), y[index])
            loss.backward()
            optimizer.step()
        return loss.item()

    return epoch


def sklearn_side(x, y, hidden, batch):
    """scikit-learn's MLPClassifier with plain SGD, one iteration a call."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    options = {"momentum": 0, "alpha": 0, "learning_rate_init": RATE, "max_iter": 1, "warm_start": True}
    model = MLPClassifier((hidden,), solver="sgd", batch_size=batch, random_state=0, **options)

    def epoch():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x, y)
        return model.loss_

    return epoch


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--smoke", action="store_true", help="tiny data, two repeats")
    options = parser.parse_args()
    x, y = images(options.smoke)
    problem = (x, y, options.hidden, options.batch)
    makers = {
        "fnn on JAX": lambda: fnn_side("jax", *problem),
        "jax.grad in the same scan": lambda: jax_grad_side(*problem),
        "PyTorch eager": lambda: torch_side(*problem),
        "fnn on NumPy": lambda: fnn_side("numpy", *problem),
        "scikit-learn MLPClassifier": lambda: sklearn_side(*problem),
    }
    sides = {}
    for name, make in makers.items():
        try:
            sides[name] = make()
        except (ImportError, TypeError) as error:
            print(f"left out: {name} ({error})")
    seconds = {name: [] for name in sides}
    first = {}
    for turn in range(1 + (2 if options.smoke else options.repeats)):
        for name, epoch in sides.items():
            start = time.perf_counter()
            loss = epoch()
            (seconds[name].append if turn else first.__setitem__)(
                *([time.perf_counter() - start] if turn else [name, 0.0])
            )
            assert np.isfinite(loss), name
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print(
        f"\n784-{options.hidden}-10, batch {options.batch}, {len(x):,} examples, float32, "
        f"{os.cpu_count()} cores, {processor()}\n"
    )
    print("| side | seconds an epoch (median) | against fnn on JAX | against fnn on NumPy |\n|---|---|---|---|")
    for name, median in medians.items():
        ratios = [
            median / medians[ours] if ours in medians else float("nan") for ours in ("fnn on JAX", "fnn on NumPy")
        ]
        print(f"| {name} | {median:.3f} | {ratios[0]:.2f} | {ratios[1]:.2f} |")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(
                {"problem": vars(options), "machine": processor(), "seconds": seconds, "medians": medians},
                file,
                indent=1,
            )


def processor():
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
