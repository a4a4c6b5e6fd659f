"""What a step by each learning rule costs, over one by backpropagation; and an epoch beside biotorch's.

    python benchmarks/rules.py
    python benchmarks/rules.py --smoke

784-1024-1024-10 with tanh, batch 512, plain Sgd, 20,480 random images: an epoch of 40 steps in one compiled call of
`train`. `Hopfield` and `Goodness` have the same hidden layers; the former makes 10 sweeps freely and 5 for each nudge.
biotorch (A. Sanfiz, M. Akrout, 2021) trains the same network as its examples do, tensors in memory. On an accelerator,
these are the section "rules" of `device.py`.
"""

import functools

import numpy as np
from common import harness, sides

import fnn
from fnn import rules
from fnn.matrices import contract

D, T = fnn.Dense, fnn.Tanh()


def networks(hidden):
    """`{name: (network, rule)}`."""
    mlp = fnn.mlp((hidden, hidden, 10), T)
    settling = fnn.Serial((fnn.Hopfield((D(hidden), T, D(hidden), T), steps=10), D(10)))
    return {
        "backpropagation": (mlp, rules.Backprop()),
        "feedback alignment": (mlp, rules.FeedbackAlignment()),
        "direct feedback alignment": (mlp, rules.DirectFeedbackAlignment()),
        "sign symmetry": (mlp, rules.SignSymmetry()),
        "Kolen-Pollack": (mlp, rules.KolenPollack()),
        "forward gradients by activities": (mlp, rules.ForwardGradient()),
        "forward gradients by weights": (mlp, rules.ForwardGradient("weights")),
        "predictive coding, 5 steps": (mlp, rules.PredictiveCoding(steps=5)),
        "target propagation": (mlp, rules.TargetPropagation()),
        "equilibrium propagation": (settling, rules.EquilibriumPropagation(steps=5)),
        "forward-forward": (fnn.Goodness((D(hidden), T, D(hidden), T)), rules.ForwardForward()),
        "feedback alignment, and its angles": (mlp, rules.Aligned(rules.FeedbackAlignment())),
    }


def by_fnn(net, rule, x, y, batch):
    """An epoch, which gives its last loss."""
    state = fnn.init_state(net, fnn.Sgd(0.01), fnn.random.key(0), (784,), rule=rule)
    x, y = fnn.backend.jnp.asarray(x), fnn.backend.jnp.asarray(y)

    def run():
        return float(
            fnn.train(net, fnn.SoftmaxCrossEntropy(), state, (x, y), epochs=1, batch_size=batch)[1]["loss"][-1]
        )

    return run


def products(hidden, x, batch):
    """The matrix products of an epoch of backpropagation, and nothing else: the limit of what float32 allows."""
    import jax

    normal = np.random.default_rng(0).standard_normal
    steps, shapes = len(x) // batch, ((batch, 784), (hidden, 784), (hidden, hidden), (10, hidden))
    x, w, v, u = (np.float32(normal(shape) / shape[-1]) for shape in shapes)

    @jax.jit
    def run(x, w, v, u):
        def step(x, _):
            a = x @ w.T
            b = a @ v.T
            c = b @ u.T
            db = c @ u
            made = contract(c, b), contract(db, a), contract(db @ v, x)
            return x + 1e-30 * sum(m[0, 0] for m in made), None

        return jax.lax.scan(step, x, None, steps)[0][0, 0]

    return lambda: float(run(x, w, v, u))


def by_biotorch(mode, hidden, x, y, batch):
    """The same epoch by biotorch's modules."""
    import torch
    from biotorch.module.biomodule import BioModule
    from torch.nn import Linear, Tanh

    device = sides.torch_device()
    layers = Linear(784, hidden), Tanh(), Linear(hidden, hidden), Tanh(), Linear(hidden, 10)
    model = BioModule(torch.nn.Sequential(*layers), mode=mode, output_dim=10).to(device)
    optimizer, cost = torch.optim.SGD(model.parameters(), lr=0.01), torch.nn.CrossEntropyLoss()
    x, y = torch.tensor(x, device=device), torch.tensor(y, dtype=torch.int64, device=device)

    def run():
        for index in torch.randperm(len(x), device=device).split(batch):
            optimizer.zero_grad()
            loss = cost(model(x[index], y[index], cost) if mode == "dfa" else model(x[index]), y[index])
            loss.backward()
            optimizer.step()
        return loss.item()

    return run


THEIRS = {"biotorch, feedback alignment": "fa", "biotorch, direct feedback alignment": "dfa"}
THEIRS |= {"biotorch, sign symmetry": "usf"}
PRODUCTS = "the products of backpropagation alone"


def makers_of(hidden, x, y, batch):
    """What makes each side, by name."""
    ours = {name: functools.partial(by_fnn, *own, x, y, batch) for name, own in networks(hidden).items()}
    ours[PRODUCTS] = functools.partial(products, hidden, x, batch)
    return ours | {name: functools.partial(by_biotorch, mode, hidden, x, y, batch) for name, mode in THEIRS.items()}


def main():
    options = harness.parse(harness.parser(__doc__))
    hidden, batch, n = (32, 16, 64) if options.smoke else (1024, 512, 20_480)
    (x, y), _ = sides.images(n)
    made = harness.available(makers_of(hidden, x, y, batch))
    taken = harness.turns({name: harness.seconds(side) for name, side in made.items()}, options)
    steps = n // batch
    text = harness.ratios(("rule", "ms a step"), taken, ["backpropagation"], 1000 / steps, 2)
    ours = {name: harness.lower(times) for name, times in taken.items()}
    pairs = [[name, ours[name], ours[name.removeprefix("biotorch, ")]] for name in taken if name in THEIRS]
    beside = [[name, f"{them:.2f}", f"{us:.2f}", f"{them / us:.2f}"] for name, them, us in pairs]
    if beside:
        text += "\n\n" + harness.table(("an epoch of 20,480", "seconds", "fnn", "ratio"), beside)
    harness.publish("rules", "Learning rules", text, taken, options)


if __name__ == "__main__":
    main()
