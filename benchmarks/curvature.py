"""Products, diagonals and Kronecker factors, over the time of a gradient, and beside two libraries of PyTorch.

    python benchmarks/curvature.py
    python benchmarks/curvature.py --smoke

First 784-1024-1024-10, batch 512, float32, ReLU and softmax cross-entropy: each one compiled program of fnn, over
fnn's own gradient. Then curvlinops' own benchmark network, 784-1024-512-256-128-64-10, batch 512: the same quantities
by fnn, curvlinops and BackPACK, each as its documentation has it: PyTorch eager, fnn compiled. What one of them does
not have is left out. A side of curvlinops makes its linear operator and multiplies once, or computes its factors.
"""

import functools
import itertools

from common import harness

import fnn
from fnn import curvature

LOSS = fnn.SoftmaxCrossEntropy()


def gradient_and_factors(net):
    """The gradient and the empirical Kronecker factors, from one tape."""

    def run(params, x, y, v):
        tape = fnn.backprop(net, LOSS, need_dx=False)(params, x, y)
        f = net.outer_factors(params, tape.residuals, tape.deltas)
        return fnn.factors.total(params, f, tape.shares), curvature.kronecker(params, f, 1 / len(x))

    return run


def by_jax(net):
    """JAX's own Hessian product, by forward over reverse mode."""
    import jax

    def cost(params, x, y):
        return LOSS.value(net.apply(params, x), y).mean()

    return lambda params, x, y, v: jax.jvp(lambda p: jax.grad(cost)(p, x, y), (params,), (v,))[1]


def without_v(run):
    """`(params, x, y, v) -> ...` of a quantity that is no product."""
    return lambda params, x, y, v: run(params, x, y)


def sampled(make, *kind):
    """One draw for each example."""
    key = fnn.random.key(0)
    return lambda net: lambda p, x, y, v: make(net, LOSS, *kind, samples=1)(p, x, y, sample_key=key)


OURS = {
    "gradient": lambda net: without_v(fnn.grad(net, LOSS)),
    "GGN · v": lambda net: curvature.ggn_product(net, LOSS),
    "Hessian · v": lambda net: curvature.hessian_product(net, LOSS),
    "Hessian · v, by JAX": by_jax,
    "empirical Fisher · v": lambda net: curvature.fisher_product(net, LOSS, empirical=True),
    "diagonal, exact": lambda net: without_v(curvature.diagonal(net, LOSS)),
    "diagonal, one sample": sampled(curvature.diagonal, "fisher"),
    "diagonal, empirical": lambda net: without_v(curvature.diagonal(net, LOSS, "empirical")),
    "K-FAC, one sample": sampled(curvature.kfac, "fisher"),
    "K-FAC, empirical": lambda net: without_v(curvature.kfac(net, LOSS, "empirical")),
    "K-FAC, exact": lambda net: without_v(curvature.kfac(net, LOSS)),
    "gradient and K-FAC, empirical": gradient_and_factors,
    "EK-FAC, one sample": sampled(curvature.ekfac, "fisher"),
}


def programs(sizes, batch, names=tuple(OURS)):
    """`{name: a function without arguments}`, compiled, of a network of these sizes."""
    import jax
    import numpy as np

    net, rng = fnn.mlp(sizes[1:]), np.random.default_rng(0)
    params = net.init(fnn.random.key(0), sizes[:1])
    x, y = rng.random((batch, sizes[0]), np.float32), rng.integers(0, sizes[-1], batch, np.int32)
    arguments = jax.device_put((params, x, y, jax.tree.map(lambda p: rng.normal(size=p.shape).astype(p.dtype), params)))
    made = {name: jax.jit(OURS[name](net)) for name in names}
    return {
        name: functools.partial(lambda run: jax.block_until_ready(run(*arguments)), run) for name, run in made.items()
    }


# ---- the libraries of PyTorch ----------------------------------------------------------------------------------------


def torch_problem(sizes, batch):
    """The same network, cost, data and direction in PyTorch."""
    import torch

    torch.manual_seed(0)
    layers = [torch.nn.Linear(i, o) for i, o in itertools.pairwise(sizes)]
    net = torch.nn.Sequential(*[part for layer in layers for part in (layer, torch.nn.ReLU())][:-1])
    x, y = torch.rand(batch, sizes[0]), torch.randint(sizes[-1], (batch,))
    return net, torch.nn.CrossEntropyLoss(), x, y


def by_torch(sizes, batch):
    """PyTorch's own gradient."""
    import torch

    net, loss, x, y = torch_problem(sizes, batch)
    return {"gradient": lambda: torch.autograd.grad(loss(net(x), y), list(net.parameters()))}


def by_curvlinops(sizes, batch):
    """Its linear operators."""
    import curvlinops
    import torch

    net, loss, x, y = torch_problem(sizes, batch)
    params = [p for p in net.parameters() if p.requires_grad]
    v = torch.rand(sum(p.numel() for p in params))
    made = lambda operator, **options: getattr(curvlinops, f"{operator}LinearOperator")(
        net, loss, params, [(x, y)], check_deterministic=False, **options
    )
    product = lambda operator, **options: lambda: made(operator, **options) @ v
    factors = lambda operator, kind: lambda: made(operator, fisher_type=kind).compute_kronecker_factors()

    def ekfac():
        operator = made("EKFAC", fisher_type="mc")
        operator.compute_kronecker_factors()
        operator.compute_eigenvalue_correction()

    return {
        "GGN · v": product("GGN"),
        "Hessian · v": product("Hessian"),
        "empirical Fisher · v": product("EF"),
        "K-FAC, one sample": factors("KFAC", "mc"),
        "K-FAC, empirical": factors("KFAC", "empirical"),
        "K-FAC, exact": factors("KFAC", "type-2"),
        "EK-FAC, one sample": ekfac,
    }


def by_backpack(sizes, batch):
    """Its extensions of a backward pass, which computes the gradient as well."""
    import backpack
    from backpack import extensions

    net, loss, x, y = torch_problem(sizes, batch)
    net, loss = backpack.extend(net), backpack.extend(loss)

    def side(extension):
        def run():
            with backpack.backpack(extension):
                loss(net(x), y).backward()
            net.zero_grad()

        return run

    return {
        "diagonal, exact": side(extensions.DiagGGNExact()),
        "diagonal, one sample": side(extensions.DiagGGNMC(mc_samples=1)),
        "diagonal, empirical": side(extensions.SumGradSquared()),
        "K-FAC, one sample": side(extensions.KFAC(mc_samples=1)),
        "K-FAC, exact": side(extensions.KFLR()),
    }


PEERS = {"PyTorch": by_torch, "curvlinops": by_curvlinops, "BackPACK": by_backpack}


def main():
    options = harness.parse(harness.parser(__doc__, repeats=11))
    sizes, batch = ((20, 16, 10), 32) if options.smoke else ((784, 1024, 1024, 10), 512)
    timed = lambda sides: harness.turns({name: harness.seconds(run) for name, run in sides.items()}, options)
    own = timed(programs(sizes, batch, tuple(name for name in OURS if "EK-FAC" not in name)))
    text = harness.ratios(("784-1024-1024-10, batch 512", "ms"), own, ["gradient", "Hessian · v, by JAX"], 1e3, 1)

    sizes = (20, 16, 8, 10) if options.smoke else (784, 1024, 512, 256, 128, 64, 10)
    peers = harness.available({name: functools.partial(make, sizes, batch) for name, make in PEERS.items()})
    shared = [name for name in OURS if any(name in sides for sides in peers.values())]
    sides = {(name, "fnn"): run for name, run in programs(sizes, batch, shared).items()}
    sides |= {(name, peer): run for peer, of_peer in peers.items() for name, run in of_peer.items()}
    taken = timed(sides)
    low = {side: harness.lower(times) for side, times in taken.items()}
    rows = []
    for name in shared:
        ours = low[name, "fnn"]
        cells = [f"{ours / low[name, peer]:.2f}" if (name, peer) in low else "" for peer in peers]
        rows.append([name, f"{1e3 * ours:.1f}", *cells])
    heading = ("784-1024-512-256-128-64-10, batch 512", "fnn, ms", *(f"over {peer}" for peer in peers))
    text += "\n\n" + harness.table(heading, rows)
    figures = {"784-1024-1024-10": own, "beside": {f"{name}, {who}": times for (name, who), times in taken.items()}}
    harness.publish("curvature", "Curvature", text, figures, options)


if __name__ == "__main__":
    main()
