"""On an accelerator: gradients, epochs, wide and narrow networks, sweeps, clipping and rules, in ten minutes.

    python benchmarks/device.py --out device.md               everything, and a table of it in a file
    python benchmarks/device.py --sections wide,narrow        some sections
    python benchmarks/device.py --smoke                       tiny sizes, to see that it runs

    gradients   largest error of any leaf, relative to its largest entry: against `jax.grad` on the same device, and
                against the same source on NumPy in float64; float32 with full products and with the default, float64
    epochs      an epoch of 60,000 images of MNIST's shape (or MNIST, with FNN_DATA=folder) at three sizes
    layers      a step of a convolutional and of a recurrent network, and an epoch of the former
    wide        a step of four hidden layers of 8,192 in bfloat16: product rate, as a share of that of products alone
    narrow      a step of eight hidden layers of 64 and 128: bytes a second, as a share of that of one large array
    sweeps      a step of a 2-16-16-2 network, as one of many thousand in a sweep
    clipping    the clipped gradient and the Gram matrix, over one gradient
    rules       an epoch by each learning rule, and by biotorch

Each section has a process and a time of its own, see `common/apart.py`; within it all sides take turns, and the medians
are told. `fnn` and `jax.grad` are the same loop of steps on one batch; `fnn.train` draws and gathers it, too. Float32
products are TF32 where that is JAX's default, and PyTorch is allowed it, too.
"""

import argparse
import functools
import itertools
import os

import numpy as np
import rules
from common import apart
from common.models import LOSS, TORCH, embedded, gradient_of, lenet, lstm, mlp, sides
from common.quantities import QUANTITIES, calls_side
from common.sides import RATE, Problem, fnn_side, images, jax_grad_side, loop, torch_side, train_by_jax_grad
from images_sequences import fnn_epoch, torch_epoch

import fnn
from fnn import random

# ---- gradients -------------------------------------------------------------------------------------------------------


def gradients(report):
    """fnn's gradient against `jax.grad`'s and against NumPy's, in three precisions."""
    import jax

    units = 8 if report.smoke else 64
    cases = {
        f"784-{2 * units}-10": (mlp(784, 2 * units, 10), 64),
        "Conv 20, Conv 40, Dense 128": (lenet(), 4),
        f"Lstm {units}, 32 positions": (lstm(32, units, 32), 8),
        "Embedding, LayerNorm, RMSNorm": (embedded(), 32),
    }
    bounds = {"float32, highest": 2e-5, "float32, default": None, "float64": 1e-12}
    if report.smoke:
        del bounds["float32, default"]
    rows, worst = [], {}
    for name, (model, n) in cases.items():
        x, y = model.batch(n)
        params = model.net.init(random.key(0, backend="numpy"), model.shape)
        wide = lambda tree: fnn.trees.map(lambda a: a.astype(np.float64) if a.dtype == np.float32 else a, tree)
        exact = gradient_of(model, "fnn")(wide(params), wide(x), y)
        for setting, bound in bounds.items():
            dtype, _, precision = setting.partition(", ")
            try:
                with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision(precision or "highest"):
                    given = (params, x, y) if dtype == "float32" else (wide(params), wide(x), y)
                    both = jax.jit(lambda *a, m=model: [gradient_of(m, by)(*a) for by in ("fnn", "jax.grad")])
                    ours, theirs = jax.block_until_ready(both(*jax.tree.map(jax.numpy.asarray, given)))
                errors = error_of(ours, theirs), error_of(ours, exact)
            except Exception as error:
                rows.append([name, setting, report.failed(f"{name}, {setting}", error), "", ""])
                continue
            worst[f"{name}, {setting}"] = errors
            rows.append([name, setting, *(f"{error:.1e}" for error in errors), f"{bound:.0e}" if bound else "none"])
            print("  ", *rows[-1], flush=True)
            if bound and not max(errors) <= bound:
                report.failed(f"{name}, {setting}", f"errors of {errors[0]:.1e} and {errors[1]:.1e}, over {bound:.0e}")
    heading = ("network", "precision", "over `jax.grad`", "over NumPy in float64", "bound")
    report.table("Largest relative errors of gradients", heading, rows, worst)


def error_of(ours, theirs):
    """The largest difference of any leaf, over the largest entry of that leaf."""
    pairs = zip(fnn.trees.leaves(ours), fnn.trees.leaves(theirs), strict=True)
    pairs = [[np.asarray(a, np.float64) for a in pair] for pair in pairs]
    return max(float(abs(a - b).max() / abs(b).max()) for a, b in pairs)


# ---- epochs and layers -----------------------------------------------------------------------------------------------


def epochs(report):
    """Seconds of an epoch, at three sizes."""
    (x, y), _ = images(1000 if report.smoke else None)
    problems = (((16,), 128, 1),) if report.smoke else (((128,), 128, 5), ((32,), 32, 2), ((1024, 1024), 512, 5))
    for hidden, batch, many in problems:
        problem = Problem((784, *hidden, 10), batch, x, y)
        makers = {
            "fnn.train": fnn_side,
            "jax.grad in the same scan": jax_grad_side,
            "jax.grad in a scan, `jax.random.permutation`": plain_epoch_side,
            "jax.grad, a jitted step in a loop": plain_loop_side,
            "PyTorch eager": torch_side,
        }
        modes = () if report.smoke else TORCH[1:] if len(hidden) > 1 else TORCH[2:]
        makers |= {f"PyTorch compiled, {m}": functools.partial(torch_side, compiled=True, mode=m) for m in modes}
        many_of = {name: many if "scan" in name or "fnn" in name else 1 for name in makers}
        makers = {name: functools.partial(epoch_turn, make, problem, many_of[name]) for name, make in makers.items()}
        report.compare(f"An epoch of {problem}", makers, many_of, "fnn.train", ("ms an epoch", 1e3))


def epoch_turn(make, problem, many):
    run = make(problem)
    return lambda: run(many)


def plain_epoch_side(problem):
    """An epoch as a user of JAX writes it: a permutation, one gather, a scan over steps; without the ragged rest."""
    import jax

    sizes, batch, x, y = problem
    model, steps = mlp(*sizes), len(x) // batch
    params, key, x, y = model.params(), jax.random.key(0), jax.numpy.asarray(x), jax.numpy.asarray(y)
    gradient = gradient_of(model, "jax.grad")

    @functools.partial(jax.jit, static_argnames="many")
    def train(params, key, x, y, many):
        def step(params, of_batch):
            value, grads = gradient(params, *of_batch)
            return jax.tree.map(lambda p, g: p - RATE * g, params, grads), value

        def epoch(params, key):
            order = jax.random.permutation(key, len(x))[: steps * batch].reshape(steps, batch)
            params, values = jax.lax.scan(step, params, (x[order], y[order]))
            return params, values[-1]

        return jax.lax.scan(epoch, params, jax.random.split(key, many))

    def run(many):
        nonlocal params, key
        key, now = jax.random.split(key)
        params, values = train(params, now, x, y, many)
        return float(values[-1])

    return run


def plain_loop_side(problem):
    """A jitted step in a loop of Python, which gathers its batch from data on the device."""
    import jax

    model = mlp(*problem.sizes)
    gradient = gradient_of(model, "jax.grad")

    @functools.partial(jax.jit, donate_argnums=0)
    def step(params, x, y, index):
        value, grads = gradient(params, x[index], y[index])
        return jax.tree.map(lambda p, g: p - RATE * g, params, grads), value

    return loop(problem, step, model.params(), "JAX")


def layers(report):
    """Steps of a convolutional and of a recurrent network."""
    batches, steps = ((2,), 1) if report.smoke else ((64, 512), 100)
    for n in batches:
        makers = sides(lenet(), n, steps, 0.01, torch=TORCH[:1] if report.smoke else TORCH)
        report.compare(f"A step of Conv 20, Conv 40, Dense 128, batch {n}", makers, steps, "fnn")
    units, n, steps = (8, 4, 2) if report.smoke else (128, 32, 20)
    makers = sides(lstm(64, units, units), n, steps, 0.01, torch=TORCH[:1])
    report.compare(f"A step of Lstm {units}, {units} positions of 64 inputs, batch {n}", makers, steps, "fnn")
    model, batch = lenet(), batches[0]
    x, y = model.batch(4 if report.smoke else 60_000)
    makers = {"fnn.train": functools.partial(fnn_epoch, model, x, y, batch, "jax")}
    makers["PyTorch eager"] = functools.partial(torch_epoch, model, x, y, batch)
    title = f"An epoch of Conv 20, Conv 40, Dense 128, batch {batch}, {len(x):,} examples"
    report.compare(title, makers, 1, "fnn.train", ("ms an epoch", 1e3))


# ---- wide and narrow -------------------------------------------------------------------------------------------------


def wide(report):
    """The rate of products in a step of wide layers."""
    width, steps, times = (64, 2, 4) if report.smoke else (8192, 5, 30)
    model = mlp(*[width] * 5, 10)
    flop = 2 * width**3 * 11 + 6 * width * 10 * width  # 4 forward, 4 for dW, 3 for dx; and the last layer's three
    makers = {f"{width}³ products alone": functools.partial(products_side, width, times)}
    makers |= sides(model, width, steps, 0.01, "bfloat16", () if report.smoke else TORCH)
    per = {name: times * 2 * width**3 / flop if "alone" in name else steps for name in makers}  # seconds for a step's
    alone, rates = next(iter(makers)), {}

    def share(name, seconds):
        rates[name] = flop / seconds / 1e12
        return f"{rates[name] / rates[alone]:.1%}" if alone in rates else ""

    more = {"TFLOP/s": lambda name, seconds: f"{flop / seconds / 1e12:.0f}", "share of products alone": share}
    title = f"A step of 4 hidden layers of {width:,}, batch {width:,}, bfloat16, {flop / 1e12:.2f} TFLOP"
    report.compare(title, makers, per, "fnn.train", more=more)


def products_side(width, times):
    """x ← x W in bfloat16, on random data, in one compiled loop; W keeps the length of a random x."""
    import jax

    keys = jax.random.split(jax.random.key(0))
    x, w = (jax.random.normal(key, (width, width), "bfloat16") for key in keys)
    w = w / np.sqrt(width).astype(w.dtype)
    multiply = jax.jit(lambda x, w: jax.lax.fori_loop(0, times, lambda _, x: x @ w, x))

    def turn():
        return float(jax.block_until_ready(multiply(x, w))[0, 0])

    return turn


def narrow(report):
    """The share of the memory's bandwidth in a step of narrow layers.

    Layer by layer a step moves, for each example: forward, the input and the output of every layer; backward, δ and the
    input (of which dW and the mask of ReLU are made), and δ below, but for the first layer. A ReLU and its mask move
    nothing of their own. Parameters are few.
    """
    n, steps, gib = (256, 2, 2**-8) if report.smoke else (2**16, 100, 1)
    floats = int(gib * 2**28)
    for width in (8,) if report.smoke else (64, 128):
        sizes = (*[width] * 9, 10)
        moved = 4 * n * sum(2 * (i + o) + (i if l else 0) for l, (i, o) in enumerate(itertools.pairwise(sizes)))
        makers = {"a x + b in one large array": functools.partial(copy_side, floats, 20)}
        makers |= sides(mlp(*sizes), n, steps, 0.01, torch=() if report.smoke else TORCH)
        alone, rates = next(iter(makers)), {}
        per = {name: 20 * 8 * floats / moved if name == alone else steps for name in makers}

        def share(name, seconds, moved=moved, rates=rates, alone=alone):
            rates[name] = moved / seconds
            return f"{rates[name] / rates[alone]:.1%}" if alone in rates else ""

        more = {
            "GB/s": lambda name, seconds, moved=moved: f"{moved / seconds / 1e9:,.0f}",
            "share of bandwidth": share,
        }
        title = f"A step of 8 hidden layers of {width}, batch {n:,}, float32, {moved / 1e6:,.0f} MB to move"
        report.compare(title, makers, per, "fnn.train", more=more)


def copy_side(floats, times):
    """x ← a x + b, which reads and writes 8 bytes a number, in one compiled loop."""
    import jax

    x = jax.numpy.ones(floats, np.float32)
    move = jax.jit(lambda x: jax.lax.fori_loop(0, times, lambda _, x: np.float32(0.999) * x + np.float32(0.001), x))

    def turn():
        return float(jax.block_until_ready(move(x))[0])

    return turn


# ---- sweeps ----------------------------------------------------------------------------------------------------------


def sweeps(report):
    """A step of one small network among many."""
    import jax

    rng, epochs = np.random.default_rng(0), 1 if report.smoke else 5
    x = rng.standard_normal((512, 2), np.float32)
    problem = Problem((2, 16, 16, 2), 32, x, (x[:, 0] * x[:, 1] > 0).astype(np.int32))
    net, steps = fnn.mlp(problem.sizes[1:]), epochs * len(x) // problem.batch
    data = jax.numpy.asarray(problem.x), jax.numpy.asarray(problem.y)

    def by_fnn(key):
        state = fnn.init_state(net, fnn.Sgd(RATE), key, (2,))
        state, history = fnn.train(net, LOSS, state, data, epochs=epochs, batch_size=problem.batch)
        return state.params, history["loss"][-1]

    def by_jax_grad(key):
        state = fnn.init_state(net, fnn.Sgd(RATE), key, (2,))
        run = functools.partial(train_by_jax_grad, epochs=epochs, batch=problem.batch)
        params, _, values = run(state.params, state.key, state.epoch, *data)
        return params, values[-1]

    def turn(nets, call):
        keys = random.split(random.key(0), nets)
        return lambda: float(jax.block_until_ready(call(keys))[1].mean())

    makers, per = (
        {"PyTorch eager": functools.partial(epoch_turn, torch_side, problem, epochs)},
        {"PyTorch eager": steps},
    )
    if not report.smoke:
        name, how = f"PyTorch compiled, {TORCH[2]}", {"compiled": True, "mode": TORCH[2]}
        makers[name] = functools.partial(epoch_turn, functools.partial(torch_side, **how), problem, epochs)
        per[name] = steps
    for nets in (4,) if report.smoke else (1024, 8192, 65536):
        makers[f"fnn.sweep, {nets:,}"] = lambda nets=nets: turn(nets, lambda keys: fnn.sweep(by_fnn, keys))
        makers[f"jax.vmap of jax.grad, {nets:,}"] = lambda nets=nets: turn(nets, jax.jit(jax.vmap(by_jax_grad)))
        per |= dict.fromkeys([*makers][-2:], steps * nets)
    title = f"A step of one {'-'.join(map(str, problem.sizes))} network among many, batch {problem.batch}"
    eager = []

    def faster(name, seconds):
        eager.extend([seconds] if name == "PyTorch eager" else [])
        return f"{eager[0] / seconds:,.0f} ×" if eager else ""

    report.compare(title, makers, per, "PyTorch eager", ("µs", 1e6), {"PyTorch eager takes": faster})


# ---- clipping --------------------------------------------------------------------------------------------------------


def clipping(report):
    """Clipped gradients and Gram matrices, over one gradient."""
    few, conv = ("gradient", "clipped gradient", "clipped gradient, vmap of jax.grad"), "Conv 20, Conv 40, Dense 128"
    cases = [("784-1024-1024-10", mlp(784, 1024, 1024, 10), 512, QUANTITIES)]
    cases += [(conv, lenet(), 64, few), (conv, lenet(), 256, QUANTITIES)]
    if report.smoke:
        cases = [("20-16-10", mlp(20, 16, 10), 32, QUANTITIES)]
    for name, model, n, shown in cases:
        times = {side: 2 if report.smoke or "vmap" in side else 50 for side in shown}
        makers = {side: functools.partial(calls_side, QUANTITIES[side], model, n, times[side]) for side in shown}
        report.compare(f"{name}, batch {n}", makers, times, "gradient")


# ---- learning rules --------------------------------------------------------------------------------------------------


def of_rules(report):
    """An epoch by each learning rule."""
    hidden, batch, n = (32, 16, 64) if report.smoke else (1024, 512, 60_000)
    (x, y), _ = images(n)
    title = f"An epoch of 784-{hidden}-{hidden}-10 with tanh, batch {batch}, {len(x):,} examples"
    ours = {}

    def beside(name, seconds):
        ours[name] = seconds
        return f"{seconds / ours[name.removeprefix('biotorch, ')]:.1f}" if name in rules.THEIRS else ""

    makers, more = rules.makers_of(hidden, x, y, batch), {"over fnn's own": beside}
    report.compare(title, makers, 1, "backpropagation", ("ms an epoch", 1e3), more)


SECTIONS = {  # and the seconds that each may take
    "gradients": (gradients, 90),
    "epochs": (epochs, 150),
    "layers": (layers, 130),
    "wide": (wide, 100),
    "narrow": (narrow, 110),
    "sweeps": (sweeps, 80),
    "clipping": (clipping, 120),
    "rules": (of_rules, 110),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", help=f"some of {','.join(SECTIONS)}; default: all")
    parser.add_argument("--out", help="a file for the tables; the figures go beside it, as .json")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes and one turn, to see that it runs")
    options = parser.parse_args()
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")  # the other half is PyTorch's
    if options.smoke:  # all that takes long is to compile
        os.environ |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "OMP_NUM_THREADS": "1"}
    apart.run("device", "On an accelerator", SECTIONS, options, seconds=590)


if __name__ == "__main__":
    main()
