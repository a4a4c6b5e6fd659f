"""What the tape gives for each example, against the plain mean gradient and against `jax.vmap(jax.grad)`.

    python benchmarks/per_example.py
    python benchmarks/per_example.py --smoke

784-1024-1024-10, batch 512, float32, each one compiled program, ten calls a turn: the time of a call, and the memory
that the compiler plans (`memory_analysis()`), temporary and with the results: before these are written they serve as
temporary memory too. `vmap` makes the gradient of every example before it takes their norms. Then, compiled but not
run, the clipped gradient of 131,072 examples of 5120-2560-1280 in one batch, and the Gram matrix of 4,096 examples of
784-1024-1024-10.
"""

from common import harness

import fnn
from fnn import per_example

MIB = 2**20
BOUND = 1.0


def by_vmap(net, loss):
    """The clipped gradient from the gradients of all examples, made by JAX."""
    import jax
    import jax.numpy as jnp

    def cost(params, x, y):
        return loss.value(net.apply(params, x[None]), y[None])[0]

    def clipped(params, x, y):
        each = jax.vmap(jax.grad(cost), (None, 0, 0))(params, x, y)
        norms = jnp.sqrt(sum((g.reshape(len(x), -1) ** 2).sum(axis=1) for g in jax.tree.leaves(each)))
        factors = jnp.minimum(1, BOUND / norms) / len(x)
        return jax.tree.map(lambda g: jnp.tensordot(factors, g, 1), each)

    return clipped


def compiled(f, sizes, n):
    """The program of `f(params, x, y)` for n examples, and data for it."""
    import jax
    import numpy as np

    net = fnn.mlp(sizes[1:])
    params = jax.eval_shape(lambda key: net.init(key, sizes[:1]), fnn.random.key(0))
    x, y = jax.ShapeDtypeStruct((n, sizes[0]), np.float32), jax.ShapeDtypeStruct((n,), np.int32)
    return jax.jit(f(net)).lower(params, x, y).compile()


def planned(program):
    """MiB: temporary memory, and that with the results."""
    plan = program.memory_analysis()
    return plan.temp_size_in_bytes / MIB, (plan.temp_size_in_bytes + plan.output_size_in_bytes) / MIB


def main():
    import jax
    import numpy as np

    parser = harness.parser(__doc__, repeats=9)
    options = harness.parse(parser)
    sizes, n = ((20, 16, 10), 32) if options.smoke else ((784, 1024, 1024, 10), 512)
    loss = fnn.SoftmaxCrossEntropy()
    makers = {
        "mean gradient": lambda net: fnn.grad(net, loss),
        "mean gradient, by jax.grad": lambda net: jax.grad(lambda p, x, y: loss.value(net.apply(p, x), y).mean()),
        "norms": lambda net: per_example.norms(net, loss),
        "clipped gradient": lambda net: per_example.clipped_gradient(net, loss, BOUND),
        "second moment": lambda net: per_example.second_moment(net, loss),
        "noise scale": lambda net: per_example.noise_scale(net, loss),
        "Gram matrix": lambda net: per_example.gram(net, loss),
        "clipped gradient, by vmap of jax.grad": lambda net: by_vmap(net, loss),
    }
    rng = np.random.default_rng(0)
    x, y = jax.numpy.asarray(rng.random((n, sizes[0]), np.float32)), jax.numpy.asarray(rng.integers(0, 10, n, np.int32))
    params = fnn.mlp(sizes[1:]).init(fnn.random.key(0), sizes[:1])
    programs = {name: compiled(make, sizes, n) for name, make in makers.items()}

    def calls(program, many):
        for _ in range(many):
            jax.block_until_ready(program(params, x, y))

    many = {name: 1 if "vmap" in name or options.smoke else 10 for name in programs}
    sides = {name: harness.seconds(calls, program, many[name]) for name, program in programs.items()}
    taken = {name: [t / many[name] for t in times] for name, times in harness.turns(sides, options).items()}
    memory = {name: planned(program) for name, program in programs.items()}
    figures = {name: (1e3 * harness.lower(seconds), *memory[name]) for name, seconds in taken.items()}
    plain, rows = figures["mean gradient"], []
    for name, row in figures.items():
        cells = [(f"{value:,.1f}", f"{value / base:.2f}") for value, base in zip(row, plain, strict=True)]
        rows.append([name, *(cell for pair in cells for cell in pair)])
    heading = ("784-1024-1024-10, batch 512", "ms", "ratio", "temporary MiB", "ratio", "with results MiB", "ratio")
    text = harness.table(heading, rows)

    wide, n, pairs = ((50, 20, 10), 64, 64) if options.smoke else ((5120, 2560, 1280), 131_072, 4_096)
    large = {
        f"{n:,} examples of {'-'.join(map(str, wide))}: {name}": planned(compiled(makers[name], wide, n))[0]
        for name in ("mean gradient", "norms", "clipped gradient")
    }
    name = f"{pairs:,} examples of {'-'.join(map(str, sizes))}: Gram matrix"
    large[name] = planned(compiled(makers["Gram matrix"], sizes, pairs))[0]
    text += "\n\n" + harness.table(("compiled only", "temporary MiB"), [[k, f"{v:,.0f}"] for k, v in large.items()])
    harness.publish("per_example", "Per-example quantities", text, {"seconds": taken, "MiB": memory | large}, options)


if __name__ == "__main__":
    main()
