"""What narrow numbers cost in accuracy: MNIST with products, parameters and errors of 16 and 8 bits.

    FNN_DATA=folder python benchmarks/precision.py
    python benchmarks/precision.py --smoke

784-256-256-10 with tanh (rounding flips some slopes of a ReLU), softmax cross-entropy, Adam from 0.001, falling to 0
along a cosine, batch 128. A turn is a run from a seed, the same seeds for all. The first column says how far the
gradient of the first batch is from the one in float32 at the same parameters, norm over norm. On a CPU float8 is
emulated, and TF32 is float32; run it on a GPU to see these two.
"""

import statistics
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from common import harness, sides

import fnn
from fnn import rules

SIZES, BATCH, RATE = (256, 256, 10), 128, 1e-3
LOSS = fnn.SoftmaxCrossEntropy()


class Setting(NamedTuple):
    """How products round, the dtype of the parameters, what is around Adam, and the rule."""

    precision: str | None = None
    dtype: str = "float32"
    around: Any = lambda optimizer: optimizer
    rule: Any = rules.Backprop()


SKIPPING = lambda optimizer: fnn.Masters(fnn.SkipNonFinite(optimizer))
SETTINGS = {
    "float32": Setting("float32"),
    "products in TF32": Setting("tensorfloat32"),
    "products in bfloat16": Setting("bfloat16"),
    "products in float8": Setting("float8"),
    "parameters in bfloat16": Setting(None, "bfloat16"),
    "parameters in bfloat16, Masters": Setting(None, "bfloat16", fnn.Masters),
    "parameters in float16": Setting(None, "float16"),
    "parameters in float16, Masters": Setting(None, "float16", fnn.Masters),
    "parameters in float16, Masters, LossScale": Setting(None, "float16", SKIPPING, rules.LossScale()),
}


def gradient_of(net, rule, params, batch):
    """What a rule gives the optimizer for a batch, in float32."""
    x, y = jax.numpy.asarray(batch[0], params[0].w.dtype), jax.numpy.asarray(batch[1])
    problem = rules.Problem(net, LOSS)
    run = lambda params, x, y: rule.gradient(
        problem, params, rule.init(problem, params, None), rules.Batch(x, y, None, len(y)), rules.Keys(None, None)
    )
    return [np.asarray(g, np.float32) for g in fnn.trees.leaves(jax.jit(run)(params, x, y).grads)]


def run(setting, epochs, seed, train, test):
    """The distance of the first gradient from that in float32, and of the run the loss, the error and the seconds."""
    key, net = fnn.random.key(seed), fnn.mlp(SIZES, fnn.Tanh(), precision=setting.precision)
    steps = epochs * -(-len(train[0]) // BATCH)
    optimizer = setting.around(fnn.Adam(fnn.schedules.CosineAnnealing(RATE, steps)))
    state = fnn.init_state(net, optimizer, key, (784,), setting.dtype, rule=setting.rule)
    batch, wide = tuple(a[:BATCH] for a in train), fnn.trees.map(lambda p: p.astype(np.float32), state.params)
    found = gradient_of(net, setting.rule, state.params, batch)
    wanted = gradient_of(fnn.mlp(SIZES, fnn.Tanh(), precision="float32"), rules.Backprop(), wide, batch)
    distance = np.sqrt(sum(((f - w) ** 2).sum() for f, w in zip(found, wanted, strict=True)))
    begun = time.perf_counter()
    state, history = fnn.train(net, LOSS, state, train, epochs=epochs, batch_size=BATCH)
    final = float(history["loss"][-steps // epochs :].mean())
    elapsed = time.perf_counter() - begun
    accuracy = fnn.evaluate(net, LOSS, state.params, test, metrics={"accuracy": fnn.accuracy})["accuracy"]
    return float(distance / np.sqrt(sum((w**2).sum() for w in wanted))), final, 100 * (1 - accuracy), elapsed


def main():
    parser = harness.parser(__doc__, repeats=3)
    parser.add_argument("--epochs", type=int, default=3)
    options = harness.parse(parser)
    train, test = sides.images(256 if options.smoke else None)
    train = tuple(map(jax.numpy.asarray, train))
    epochs, seeds = (1, 1) if options.smoke else (options.epochs, options.repeats)
    figures = {name: [run(s, epochs, seed, train, test) for seed in range(seeds)] for name, s in SETTINGS.items()}
    rows = []
    for name, runs in figures.items():
        distances, losses, errors, _ = zip(*runs, strict=True)
        spread = f"{statistics.stdev(errors):.2f}" if seeds > 1 else ""
        means = [f"{np.mean(distances):.1e}", f"{np.mean(losses):.4f}", f"{np.mean(errors):.2f}", spread]
        rows.append([name, *means])
    heading = ("", "distance of the first gradient", "loss of the last epoch", "test error, %", "± of seeds")
    harness.publish("precision", "Precision", harness.table(heading, rows), figures, options, "means over seeds, all")


if __name__ == "__main__":
    main()
