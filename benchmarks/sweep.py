"""A sweep: 1,024 small networks trained in one call, against one after the other.

    python benchmarks/sweep.py
    python benchmarks/sweep.py --smoke

2-16-16-2, 512 examples of two classes, batch 32, Sgd, 10 epochs, each network with initial values of its own, made
within the turn. fnn and `jax.grad` train all of them in one compiled call, `jax.vmap` of one run: with one order of
examples for all, so that every batch is gathered once, or with an order for each. `fnn.sweep` does so in chunks, on two
CPU devices. PyTorch and scikit-learn train a few networks, one after the other: the time of one is taken to be that of
any. Compilation is in the first turn, which is not counted.
"""

import functools

import jax
import numpy as np
from common import harness
from common.sides import RATE, Problem, sklearn_side, torch_side, train_by_jax_grad

import fnn
from fnn import random


def in_one_call(run, keys):
    """All runs as one compiled call."""
    program = jax.jit(jax.vmap(run))
    return lambda: float(program(keys)[-1].mean())


def in_chunks(run, keys, chunk):
    """The same through `fnn.sweep`, so many at a time on each device."""
    return lambda: float(fnn.sweep(run, keys, chunk=chunk)[-1].mean())


def one_by_one(make, problem, nets, epochs):
    """So many networks, each made and trained before the next."""
    make(problem)  # raises where its package is missing
    return lambda: [make(problem)(epochs) for _ in range(nets)][-1]


def main():
    parser = harness.parser(__doc__)
    parser.add_argument("--nets", type=int, default=1024)
    parser.add_argument("--sample", type=int, default=4, help="networks trained one after the other")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--chunk", type=int, default=128, help="networks at a time on a device")
    options = harness.parse(parser)
    if options.smoke:
        options.nets, options.sample, options.epochs, options.chunk = 8, 1, 2, 2
    jax.config.update("jax_num_cpu_devices", 2)

    rng = np.random.default_rng(0)
    x = rng.normal(size=(512, 2)).astype(np.float32)
    problem = Problem((2, 16, 16, 2), 32, x, (x[:, 0] * x[:, 1] > 0).astype(np.int32))
    net, loss, shared = fnn.mlp(problem.sizes[1:]), fnn.SoftmaxCrossEntropy(), random.key(1)
    how = {"epochs": options.epochs}

    def by_fnn(key, one_order):
        state = fnn.init_state(net, fnn.Sgd(RATE), key, (2,))
        state = state._replace(key=shared) if one_order else state
        state, history = fnn.train(net, loss, state, problem[2:], batch_size=problem.batch, **how)
        return state.params, history["loss"][-1]

    def by_jax_grad(key, one_order):
        state = fnn.init_state(net, fnn.Sgd(RATE), key, (2,))
        order = shared if one_order else state.key
        data = (jax.numpy.asarray(a) for a in problem[2:])
        params, _, values = train_by_jax_grad(state.params, order, state.epoch, *data, batch=problem.batch, **how)
        return params, values[-1]

    keys = random.split(random.key(0), options.nets)
    makers = {}
    for order, one_order in (("one order", True), ("own orders", False)):
        ours, theirs = (functools.partial(run, one_order=one_order) for run in (by_fnn, by_jax_grad))
        makers[f"fnn, {order}"] = functools.partial(in_one_call, ours, keys)
        makers[f"fnn.sweep, {order}"] = functools.partial(in_chunks, ours, keys, options.chunk)
        makers[f"jax.grad, {order}"] = functools.partial(in_one_call, theirs, keys)
    for name, make in (("PyTorch eager", torch_side), ("scikit-learn", sklearn_side)):
        few = functools.partial(one_by_one, make, problem, options.sample, options.epochs)
        makers[f"{name}, one after the other"] = few

    taken = harness.turns({n: harness.seconds(run) for n, run in harness.available(makers).items()}, options)
    steps = options.epochs * len(x) // problem.batch
    figures = {
        name: [s / steps / (options.sample if "one after" in name else options.nets) for s in times]
        for name, times in taken.items()
    }
    over = [name for name in figures if name.startswith("fnn")]
    text = harness.ratios(("side", "µs for a network and step"), figures, over, scale=1e6, digits=2)
    text = f"{options.nets:,} networks {problem}, {options.epochs} epochs:\n\n{text}"
    harness.publish("sweep", "A sweep over 1,024 networks", text, figures, options)


if __name__ == "__main__":
    main()
