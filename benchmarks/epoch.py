"""An epoch of MNIST on a network of one hidden layer: fnn against the frameworks, all in this one process.

    python benchmarks/epoch.py                          784-128-10, batch 128
    python benchmarks/epoch.py --hidden 32 --batch 32   784-32-10, batch 32
    python benchmarks/epoch.py --smoke                  a few hundred examples, to see that it runs

Sgd, softmax cross-entropy, float32 images in memory. Every side trains its own network over whole epochs, shuffled anew
for each. Sides take turns of a few epochs in an order that rotates, with a pause between, the first turn of each is not
counted, and what is printed are medians and ratios of medians. With FNN_DATA=folder the images are MNIST, otherwise
random numbers of the same shape, which take the same time. A side whose package is not installed is left out.
"""

import argparse
import functools
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
    """fnn's `train`, one call a turn, checks of the data included."""
    net, loss = fnn.mlp((hidden, 10)), fnn.SoftmaxCrossEntropy()
    state = fnn.init_state(net, fnn.Sgd(RATE), random.key(0, backend=chosen), (784,))
    data = (backend.jnp.asarray(x), backend.jnp.asarray(y)) if chosen == "jax" else (x, y)

    def run(epochs):
        nonlocal state
        state, history = fnn.train(net, loss, state, data, epochs=epochs, batch_size=batch)
        return float(history["loss"][-1])

    return run


def jax_grad_side(x, y, hidden, batch):
    """The same scan, layout, order and update with `jax.grad` in the place of our backward pass."""
    import jax
    import jax.numpy as jnp

    n, steps = len(x), batching.steps_per_epoch(len(x), batch)
    state = fnn.init_state(fnn.mlp((hidden, 10)), fnn.Sgd(RATE), random.key(0), (784,))
    params, t, x, y = state.params, state.step, jnp.asarray(x), jnp.asarray(y)

    def cost(params, x, y, weights):
        (w1, b1), _, (w2, b2) = params
        logits = jax.nn.relu(x @ w1.T + b1) @ w2.T + b2
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1)[:, 0]
        return -(weights * picked).sum() / weights.sum()

    @functools.partial(jax.jit, static_argnames="epochs")
    def train(params, key, t, x, y, *, epochs):
        def epoch(carry, _):
            params, t = carry
            indices, mask = batching.batches(key, n, batch, t, steps)

            def step(params, chosen):
                i, used = chosen
                of_batch = (x.take(i, axis=0, mode="clip"), y.take(i, mode="clip"), used.astype(np.float32))
                value, grads = jax.value_and_grad(cost)(params, *of_batch)
                return jax.tree.map(lambda p, g: p - RATE * g, params, grads), value

            params, values = jax.lax.scan(step, params, (indices, mask))
            return (params, t + steps), values

        return jax.lax.scan(epoch, (params, t), None, epochs)

    def run(epochs):
        nonlocal params, t
        (params, t), values = train(params, state.key, t, x, y, epochs=epochs)
        return float(values[-1, -1])

    return run


def products_side(x, y, hidden, batch):
    """The floor: the five matrix products of each step, on one batch, and nothing else."""
    import jax
    import jax.numpy as jnp

    (w1, _), _, (w2, _) = fnn.mlp((hidden, 10)).init(random.key(0), (784,))
    a0, a1, d2 = jnp.asarray(x[:batch]), jnp.ones((batch, hidden)), jnp.ones((batch, 10))
    steps = batching.steps_per_epoch(len(x), batch)

    @functools.partial(jax.jit, static_argnames="epochs")
    def products(w1, w2, a0, a1, d2, *, epochs):
        def step(w, _):
            w1, w2 = w
            z1, z2, d1 = a0 @ w1.T, a1 @ w2.T, d2 @ w2
            tiny = 1e-30 * (z1[0, 0] + z2[0, 0])  # each product is used, and no step can begin before the last
            return (w1 + 1e-30 * ((d1 + tiny).T @ a0), w2 + 1e-30 * ((d2 + tiny).T @ a1)), None

        return jax.lax.scan(step, (w1, w2), None, epochs * steps)[0][1].sum()

    return lambda epochs: float(products(w1, w2, a0, a1, d2, epochs=epochs))


def torch_side(x, y, hidden, batch):
    """PyTorch eager, the loop of its tutorials on tensors in memory, all cores."""
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(784, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 10))
    optimizer, cost = torch.optim.SGD(model.parameters(), lr=RATE), torch.nn.CrossEntropyLoss()
    x, y = torch.tensor(x), torch.tensor(y, dtype=torch.int64)

    def run(epochs):
        loss = torch.zeros(())
        for _ in range(epochs):
            for index in torch.randperm(len(x)).split(batch):
                optimizer.zero_grad()
                loss = cost(model(x[index]), y[index])
                loss.backward()
                optimizer.step()
        return loss.item()

    return run


def sklearn_side(x, y, hidden, batch):
    """scikit-learn's MLPClassifier with plain SGD."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    options = {"momentum": 0, "alpha": 0, "learning_rate_init": RATE, "tol": 0, "warm_start": True}
    model = MLPClassifier((hidden,), solver="sgd", batch_size=batch, random_state=0, **options)

    def run(epochs):
        model.max_iter = epochs
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x, y)
        return model.loss_

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=3, help="epochs a turn")
    parser.add_argument("--repeats", type=int, default=9, help="turns that count")
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--smoke", action="store_true", help="tiny data, two turns")
    options = parser.parse_args()
    x, y = images(options.smoke)
    problem = (x, y, options.hidden, options.batch)
    makers = {
        "fnn on JAX": lambda: fnn_side("jax", *problem),
        "jax.grad in the same scan": lambda: jax_grad_side(*problem),
        "its matrix products alone": lambda: products_side(*problem),
        "PyTorch eager": lambda: torch_side(*problem),
        "fnn on NumPy": lambda: fnn_side("numpy", *problem),
        "scikit-learn MLPClassifier": lambda: sklearn_side(*problem),
    }
    sides = {}
    for name, make in makers.items():
        try:
            sides[name] = make()
        except (ImportError, fnn.errors.KindError) as error:
            print(f"left out: {name} ({error})")
    seconds = {name: [] for name in sides}
    for turn in range(1 + (2 if options.smoke else options.repeats)):
        names = list(sides)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            time.sleep(0.0 if options.smoke else 0.3)  # the threads of the side before spin on for a while
            start = time.perf_counter()
            loss = sides[name](options.epochs)
            elapsed = time.perf_counter() - start
            assert np.isfinite(loss), name
            if turn:
                seconds[name].append(elapsed / options.epochs)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print(
        f"\n784-{options.hidden}-10, batch {options.batch}, {len(x):,} examples, float32, "
        f"{os.cpu_count()} cores, {processor()}\n"
    )
    ours = [name for name in ("fnn on JAX", "fnn on NumPy") if name in medians]
    print("| side | seconds an epoch |" + "".join(f" time over {name}'s |" for name in ours))
    print("|---|---|" + "---|" * len(ours))
    for name, median in medians.items():
        print(f"| {name} | {median:.3f} |" + "".join(f" {median / medians[mine]:.2f} |" for mine in ours))
    if options.json:
        figures = {"problem": vars(options), "machine": processor(), "seconds": seconds, "medians": medians}
        with open(options.json, "w") as file:
            json.dump(figures, file, indent=1)


def processor():
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
