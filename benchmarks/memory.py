"""Memory of an epoch of 784-1024-1024-10, batch 512, 60,000 images: what the compiler plans, and what a process takes.

    python benchmarks/memory.py
    python benchmarks/memory.py --smoke

First the compiler's own figures for the whole run as one program, `memory_analysis()`: temporary memory is what is
needed beyond arguments and results. The same scan with `jax.grad` has the same layout, order and blocks. Then the
resident memory of fresh processes that train for an epoch, each with its own libraries and the same images: before
training, when they have been imported and the images are in memory, and at the peak.
"""

import argparse
import functools
import importlib
import json

from common import harness

MIB = 2**20
NUMPY = {"FNN_BACKEND": "numpy"}  # where JAX has no part it is not to be loaded either
SIDES = {  # what is imported before training, the environment
    "fnn on JAX": ("jax", {}),
    "fnn on JAX, images as uint8": ("jax", {}),
    "jax.grad in the same scan": ("jax", {}),
    "fnn on NumPy": ("numpy", NUMPY),
    "PyTorch eager": ("torch", NUMPY),
}


def planned(sizes, batch, n):
    """The compiler's figures, in bytes, of a run of fnn and of the same by `jax.grad`."""
    import jax
    import numpy as np
    from common.sides import RATE, train_by_jax_grad

    import fnn
    from fnn.gate import Data
    from fnn.order import Plan
    from fnn.training.loop import run_epochs

    net, loss = fnn.mlp(sizes[1:]), fnn.SoftmaxCrossEntropy()
    state = fnn.init_state(net, fnn.Sgd(RATE), fnn.random.key(0), sizes[:1])
    x, y = (jax.ShapeDtypeStruct(*of) for of in (((n, sizes[0]), np.float32), ((n,), np.int32)))
    how = {"net": net, "loss": loss, "plan": Plan(n, batch), "epochs": 1, "metrics": ()}
    ours = run_epochs.compiled.lower(state, None, None, Data(x, y), None, **how)
    theirs = jax.jit(train_by_jax_grad, static_argnames=("epochs", "batch"))
    theirs = theirs.lower(state.params, state.key, state.epoch, x, y, epochs=1, batch=batch)
    found = {}
    for name, program in (("fnn on JAX", ours), ("jax.grad in the same scan", theirs)):
        sizes = program.compile().memory_analysis()
        found[name] = {kind: getattr(sizes, f"{kind}_size_in_bytes") for kind in ("temp", "argument", "output")}
    return found


def resident(what):
    """A line of the kernel's account of this process, in bytes; `ru_maxrss` would begin at the peak of the parent."""
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith(what))


def child(name, n, batch, *sizes):
    """What a fresh process does: imports, the images, an epoch."""
    from common import sides

    importlib.import_module(SIDES[name][0])
    (x, y), _ = sides.images(n)
    before = resident("VmRSS")
    sides.SIDES[name](sides.Problem(sizes, batch, x, y))(1)
    print(json.dumps({"before": before, "peak": resident("VmHWM")}))


def side(name, *numbers):
    package, environment = SIDES[name]
    importlib.import_module(package)  # raises where it is missing
    resident("VmHWM")  # raises where there is no such account
    return harness.fresh(__file__, "--child", name, *map(str, numbers), **environment)


def main():
    parser = harness.parser(__doc__, repeats=3)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = harness.parse(parser)
    if options.child:
        name, *numbers = options.child
        child(name, *map(int, numbers))
        return
    sizes, batch, n = ((784, 16, 10), 64, 640) if options.smoke else ((784, 1024, 1024, 10), 512, 60_000)
    chosen = list(SIDES)[:1] if options.smoke else list(SIDES)
    plan = planned(sizes, batch, n)
    makers = {name: functools.partial(side, name, n, batch, *sizes) for name in chosen}
    samples = harness.turns(harness.available(makers), options)

    rows = [[name, *(f"{size / MIB:.1f}" for size in sizes.values())] for name, sizes in plan.items()]
    text = harness.table(("one program", "temporary, MiB", "arguments, MiB", "results, MiB"), rows)
    low = {
        name: [harness.lower([run[key] for run in runs]) for key in ("before", "peak")]
        for name, runs in samples.items()
    }
    rows = [[name, *(f"{size / MIB:.0f}" for size in (*pair, pair[1] - pair[0]))] for name, pair in low.items()]
    text += "\n\n" + harness.table(("process", "before training, MiB", "peak, MiB", "difference, MiB"), rows)
    harness.publish("memory", "Memory of an epoch", text, {"planned": plan, "resident": samples}, options)


if __name__ == "__main__":
    main()
