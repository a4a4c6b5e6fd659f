"""Memory of an epoch of 784-1024-1024-10, batch 512, 60,000 images: what the compiler plans, and what a process takes.

    python benchmarks/memory.py
    python benchmarks/memory.py --smoke

First the compiler's own figures for the whole run as one program, `memory_analysis()`: temporary memory is what is
needed beyond arguments and results. The same scan with `jax.grad` has the same layout, order and blocks. Then the
resident memory of fresh processes that train for an epoch, each with its own libraries and the same images: before
training, when they have been imported and the images are in memory, and at the peak.

Of larger networks the plan is made, which takes no memory: of a gradient of one of 100 million parameters at batch
4,096 beside `jax.grad`, and of 32 layers of 1,024 at batch 8,192 with and without `fnn.Remat`, and beside
`jax.checkpoint`. The first of them then trains for three steps; alone: `--large`. The time of Remat is measured on
layers of 512 at batch 2,048.
"""

import argparse
import functools
import importlib
import json
import time

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
    from fnn.examples import Data
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


LARGE = 5700, 784, 4096  # units of each of four layers, inputs, batch: 100 million parameters
DEEP = (8, 7, 6, 5, 4, 2)  # layers in each block, fewer towards the output; the last block is kept as it is


def deep(width, remat):
    """32 dense layers in blocks."""
    import fnn

    *blocks, last = (fnn.Serial((fnn.Dense(width), fnn.Relu()) * count) for count in DEEP)
    return fnn.Serial((*(fnn.Remat(block) if remat else block for block in blocks), last))


def by_jax(checkpoint=lambda f: f):
    """`jax.value_and_grad` of blocks of dense layers with Relu, nested as those of fnn, and half the sum of squares."""
    import jax

    @checkpoint
    def block(params, x):
        for layer in params[::2]:
            x = jax.nn.relu(x @ layer.w.T + layer.b)
        return x

    def cost(params, x, y):
        for of_block in params:
            x = block(of_block, x)
        return ((x - y) ** 2).sum(axis=1).mean() / 2

    return jax.value_and_grad(cost)


def planned_gradients(width, n, large, inputs, batch):
    """The compiler's temporary memory, in bytes, of gradients of the deep network, and of one of many parameters."""
    import jax
    import numpy as np

    import fnn

    def temporary(gradient, net, n, width):
        params = jax.eval_shape(lambda key: net.init(key, (width,)), jax.random.key(0))
        x, y = (jax.ShapeDtypeStruct((n, *shape), np.float32) for shape in ((width,), net.output_shape((width,))))
        return jax.jit(gradient).lower(params, x, y).compile().memory_analysis().temp_size_in_bytes

    of = lambda net: fnn.value_and_grad(net, fnn.Quadratic())
    plain, remat = deep(width, False), deep(width, True)
    wide = fnn.Serial((fnn.Serial((fnn.Dense(large), fnn.Relu()) * 4),))
    return {
        "32 layers: fnn": temporary(of(plain), plain, n, width),
        "32 layers: fnn with Remat": temporary(of(remat), remat, n, width),
        "32 layers: jax.grad": temporary(by_jax(), plain, n, width),
        "32 layers: jax.grad with jax.checkpoint": temporary(by_jax(jax.checkpoint), plain, n, width),
        "100 million parameters: fnn": temporary(of(wide), wide, batch, inputs),
        "100 million parameters: jax.grad": temporary(by_jax(), wide, batch, inputs),
    }


def remat_times(width, n, options):
    """Seconds of a gradient of the deep network, with and without Remat, in turns."""
    import jax

    import fnn

    params = deep(width, False).init(fnn.random.key(0), (width,))
    x = jax.random.normal(jax.random.key(1), (n, width))

    def side(remat):
        step = jax.jit(fnn.value_and_grad(deep(width, remat), fnn.Quadratic()))
        jax.block_until_ready(step(params, x, x))
        return harness.seconds(lambda: jax.block_until_ready(step(params, x, x)))

    return harness.turns({"fnn": side(False), "fnn with Remat": side(True)}, options)


def trained(large, inputs, batch, steps=3):
    """Three steps of the network of many parameters: their number, the losses, the seconds, the memory at the peak."""
    import jax
    import numpy as np

    import fnn

    net, loss = fnn.Serial((*(fnn.Dense(large), fnn.Relu()) * 4, fnn.Dense(10))), fnn.SoftmaxCrossEntropy()
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, batch)
    x = (rng.normal(size=(10, inputs))[y] + rng.normal(size=(batch, inputs))).astype(np.float32)
    state = fnn.init_state(net, fnn.Sgd(0.02), fnn.random.key(0), (inputs,))
    step = jax.jit(fnn.make_step(net, loss), donate_argnums=0)  # the new parameters take the place of the old ones
    losses, seconds = [], []
    for _ in range(steps):
        begun = time.perf_counter()
        state, metrics = step(state, (x, y))
        losses.append(float(metrics["loss"]))
        seconds.append(time.perf_counter() - begun)
    size = sum(p.size for p in fnn.trees.leaves(state.params))
    return {"parameters": size, "losses": losses, "seconds": seconds, "peak": resident("VmHWM")}


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
    parser.add_argument("--large", action="store_true", help="train the network of 100 million parameters, and no more")
    options = harness.parse(parser)
    if options.child:
        name, *numbers = options.child
        child(name, *map(int, numbers))
        return
    if options.large:
        print(json.dumps(trained(*((64, 8, 32) if options.smoke else LARGE))))
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

    gradients = planned_gradients(*((16, 64, 32, 8, 64) if options.smoke else (1024, 8192, *LARGE)))
    rows = [[name, f"{size / MIB:.1f}"] for name, size in gradients.items()]
    text += "\n\n" + harness.table(("one gradient", "temporary, MiB"), rows)
    times = remat_times(*((16, 64) if options.smoke else (512, 2048)), options)
    rows = [[name, f"{harness.lower(runs):.3f}"] for name, runs in times.items()]
    text += "\n\n" + harness.table(("32 layers of 512, batch 2,048", "seconds"), rows)
    run = harness.fresh(__file__, "--large", *["--smoke"] * options.smoke)()
    heading = (f"{run['parameters']:,} parameters, batch 4,096", "loss", "seconds", "peak of the process, MiB")
    peak = f"{run['peak'] / MIB:.0f}"
    rows = [[f"step {i + 1}", f"{run['losses'][i]:.3f}", f"{run['seconds'][i]:.1f}", peak] for i in range(3)]
    text += "\n\n" + harness.table(heading, rows)
    figures = {"planned": plan, "resident": samples, "gradients": gradients, "remat": times, "large": run}
    harness.publish("memory", "Memory of an epoch", text, figures, options)


if __name__ == "__main__":
    main()
