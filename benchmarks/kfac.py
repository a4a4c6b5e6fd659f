"""K-FAC against Adam on a deep autoencoder of MNIST, in steps and in seconds; and a step beside kfac-jax's.

    FNN_DATA=/path/to/data python benchmarks/kfac.py
    python benchmarks/kfac.py --smoke

784-250-100-30-100-250-784 with tanh and a sigmoid cross-entropy for each pixel, 20,000 images, batches of 1,000: a
smaller form of the autoencoder of G. Hinton and R. Salakhutdinov (2006), for two cores. Adam has EPOCHS epochs with
each of three rates, and its lowest loss of an epoch is the goal; K-FAC has half as many with each of three rates. The
seconds are those of an epoch, one compiled call of `train`, of which both take turns, times the epochs. Beneath is what
a step of K-FAC is made of.

Then kfac-jax (J. Botev, J. Martens, 2022) from the same initial parameters, with the same rate, momentum, damping,
bound, decay and periods, in a loop over the batches as its documentation has it. Its release 0.0.8 fails with JAX 0.10;
where both are wanted in one process, JAX 0.8.3 runs both.
"""

import functools
import sys

import numpy as np
from common import harness

import fnn
from fnn import curvature, rules
from fnn.rules import kfac, natural

LOSS, WIDTHS, BATCH, EPOCHS = fnn.SigmoidBinaryCrossEntropy(), (250, 100, 30, 100, 250), 1000, 24
RATES = {"Adam": (1e-3, 3e-3, 1e-2), "K-FAC": (0.1, 0.2, 0.3)}
DAMPING, DECAY, MOMENTUM, PEER_RATE = 0.1, 0.95, 0.9, 0.1


def side(name, rate):
    """`(optimizer, rule)`."""
    if name == "Adam":
        return fnn.Adam(rate), None
    return fnn.Momentum(rate, MOMENTUM), rules.KFac(DAMPING, DECAY, every=10, factors_every=10)


def begin(net, inputs, optimizer, rule):
    return fnn.init_state(net, optimizer, fnn.random.key(0), (inputs,), rule=rule)


def trained(net, x, optimizer, rule, batch, epochs):
    """The mean loss of each epoch."""
    state = begin(net, x.shape[1], optimizer, rule)
    losses = fnn.train(net, LOSS, state, (x, x), epochs=epochs, batch_size=batch)[1]["loss"]
    return np.asarray(losses).reshape(epochs, -1).mean(axis=1).tolist()


def epoch(net, x, optimizer, rule, batch):
    """A turn: an epoch."""
    state = begin(net, x.shape[1], optimizer, rule)
    return lambda: float(fnn.train(net, LOSS, state, (x, x), epochs=1, batch_size=batch)[1]["loss"][-1])


def pieces(net, x, rule):
    """What a step is made of, each compiled, as functions without arguments."""
    import jax

    key = fnn.random.key(0)
    problem, keys = rules.Problem(net, LOSS, input_shape=x.shape[1:]), rules.Keys(None, key)
    params, of = net.init(key, x.shape[1:]), lambda x: rules.Batch(x, x, None, len(x))
    state = rule.gradient(problem, params, rule.init(problem, params, key), of(x), keys).state

    def factors(x, params, state):
        _, grads, pass_, columns = natural.measured(rule, problem, params, of(x), keys)
        return grads, kfac.blocks_of(pass_, columns, rule.positions)

    made = {
        "gradient": lambda x, params, state: fnn.backpropagation.differentiate(problem, params, of(x)),
        "gradient, and the factors of a batch": factors,
        "inverses": lambda x, params, state: curvature.damped_inverse(state.factors, rule.damping),
        "products with the inverses": lambda x, params, state: curvature.block_product(params, state.inverses, params),
    }
    made = {name: jax.jit(f) for name, f in made.items()}
    run = lambda f: jax.block_until_ready(f(x, params, state))
    return {name: functools.partial(run, f) for name, f in made.items()}


# ---- beside kfac-jax -------------------------------------------------------------------------------------------------


def steps_of_ours(net, x, batch, every):
    """`steps -> losses`, which goes on where it was, in one compiled call; the first step is taken already."""
    rule = rules.KFac(DAMPING, DECAY, every=every)
    state = begin(net, x.shape[1], fnn.Momentum(PEER_RATE, MOMENTUM), rule)

    def run(steps):
        nonlocal state
        state, history = fnn.train(net, LOSS, state, (x, x), steps=steps, batch_size=batch)
        return np.asarray(history["loss"])

    run(1)
    return run


def steps_of_kfac_jax(net, x, batch, every):
    """The same by kfac-jax."""
    import jax
    import kfac_jax

    jnp = jax.numpy
    layers = [p for p in net.init(fnn.random.split(fnn.random.key(0))[0], x.shape[1:]) if p]
    params = [(p.w.T, p.b) for p in layers]

    def cost(params, images):
        z = images
        for i, (w, b) in enumerate(params):
            z = z @ w + b
            z = z if i + 1 == len(params) else jnp.tanh(z)
        kfac_jax.register_multi_bernoulli_predictive_distribution(z, images)
        return (jax.nn.softplus(z) - images * z).sum(axis=1).mean()

    optimizer = kfac_jax.Optimizer(
        value_and_grad_func=jax.value_and_grad(cost),
        l2_reg=0.0,
        estimation_mode="fisher_gradients",
        curvature_ema=DECAY,
        inverse_update_period=every,
        norm_constraint=PEER_RATE**2,
        num_burnin_steps=0,
    )
    order = np.random.default_rng(0)
    state = optimizer.init(params, jax.random.key(0), x[:batch])
    numbers = {"learning_rate": PEER_RATE, "momentum": MOMENTUM, "damping": DAMPING}
    numbers = {name: jnp.asarray(value) for name, value in numbers.items()}
    rng, queue = jax.random.key(1), []

    def run(steps):
        nonlocal params, state, rng
        losses = []
        for _ in range(steps):
            if not queue:
                queue.extend(np.split(order.permutation(len(x)), len(x) // batch))
            rng, key = jax.random.split(rng)
            params, state, stats = optimizer.step(params, state, key, batch=x[queue.pop()], **numbers)
            losses.append(stats["loss"])
        return np.asarray([float(loss) for loss in losses])

    try:
        run(1)
    except ValueError as error:
        raise ImportError(f"kfac-jax fails with JAX {jax.__version__}: {error}") from error
    return run


def peers(net, x, batch, steps, options):
    """The losses of both in some steps, and the seconds of each of more."""
    makers = {"fnn": steps_of_ours, "kfac-jax": steps_of_kfac_jax}
    runs = harness.available({name: functools.partial(make, net, x, batch, 5) for name, make in makers.items()})
    more = 2 if options.smoke else 40  # at each call `train` checks all data again, which takes half a step
    losses = {name: run(steps).tolist() for name, run in runs.items()}
    taken = harness.turns(
        {name: harness.seconds(lambda run=run: float(run(more)[-1])) for name, run in runs.items()}, options
    )
    return losses, {name: [seconds / more for seconds in times] for name, times in taken.items()}


# ---- what is said of it ----------------------------------------------------------------------------------------------


def main():
    options = harness.parse(harness.parser(__doc__, repeats=5))
    if options.smoke:
        rng = np.random.default_rng(0)
        x, widths, batch, epochs = rng.random((60, 12), np.float32), (8, 3, 8), 20, 2
    else:
        x, widths, batch, epochs = fnn.datasets.mnist()[0][0][:20_000] / np.float32(255), WIDTHS, BATCH, EPOCHS
    x, net = fnn.backend.jnp.asarray(x), fnn.mlp((*widths, x.shape[1]), fnn.Tanh())
    curves = {name: {} for name in RATES}
    for name, rates in RATES.items():
        for rate in rates:
            curves[name][rate] = trained(net, x, *side(name, rate), batch, epochs if name == "Adam" else epochs // 2)
            print(f"{name}, {rate:g}: {curves[name][rate][-1]:.1f} after the last epoch", flush=True)
    best = {name: min(of, key=lambda rate, of=of: min(of[rate])) for name, of in curves.items()}
    goal = min(curves["Adam"][best["Adam"]])
    needed = {name: next((i + 1 for i, v in enumerate(curves[name][best[name]]) if v <= goal), None) for name in curves}
    taken = harness.turns(
        {name: harness.seconds(epoch(net, x, *side(name, best[name]), batch)) for name in curves}, options
    )
    of_epoch = {name: harness.lower(times) for name, times in taken.items()}
    rows = []
    for name in curves:
        n, curve = needed[name], curves[name][best[name]]
        reached = ["not reached"] * 2 if n is None else [str(n * len(x) // batch), f"{n * of_epoch[name]:.1f}"]
        rows.append(
            [name, f"{best[name]:g}", f"{min(curve):.1f}", *reached, f"{1e3 * of_epoch[name] * batch / len(x):.1f}"]
        )
    heading = ("", "best rate", "lowest loss of an epoch", f"steps to {goal:.1f}", "seconds", "ms a step")
    text = harness.table(heading, rows)
    parts = {name: harness.seconds(f) for name, f in pieces(net, x[:batch], side("K-FAC", 0.1)[1]).items()}
    of_parts = harness.turns(parts, options)
    text += "\n\n" + harness.ratios(("part of a step", "ms"), of_parts, ["gradient"], 1e3, 1)

    losses, seconds = peers(net, x, batch, 20 if options.smoke else 100, options)
    low, count = {name: harness.lower(times) for name, times in seconds.items()}, len(losses["fnn"])
    rows = [
        [
            name,
            *(f"{np.mean(losses[name][a : a + 10]):.1f}" for a in (0, count // 2, count - 10)),
            f"{1e3 * t:.1f}",
        ]
        for name, t in low.items()
    ]
    heading = (
        "",
        "loss of steps 2 to 11",
        f"of 10 from step {count // 2 + 2}",
        f"of the last 10 of {count + 1}",
        "ms a step",
    )
    text += "\n\n" + harness.table(heading, rows)
    figures = {"losses": curves, "epoch": taken, "parts": of_parts, "beside": {"losses": losses, "step": seconds}}
    harness.publish("kfac", "K-FAC", text, figures, options)
    if needed["K-FAC"] is None and not options.smoke:
        sys.exit("expected K-FAC to reach Adam's best loss in half of its steps")


if __name__ == "__main__":
    main()
