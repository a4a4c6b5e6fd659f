"""The error on MNIST's test set of networks that were trained by each learning rule, over seeds.

    FNN_DATA=folder python benchmarks/rules_accuracy.py [--only NAME ...] [--seeds K] [--share S]
    FNN_DATA=folder python benchmarks/rules_accuracy.py --held-out      on the last 10,000 training images, to choose by
    python benchmarks/rules_accuracy.py --smoke

Every run trains for a fixed number of epochs and looks at the test images once, at the end. All settings were chosen by
`--held-out` runs, which train on the first 50,000 images and never load the others. The learning rate falls linearly
to 0. Pixels are divided by 255; nothing else is done to the images. The epochs are meant for an accelerator, where all
seeds are one `vmap`; `--share 0.25` is a quarter of them, for a CPU.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import harness, sides

import fnn
from fnn import rules

D, TANH, RELU = fnn.Dense, fnn.Tanh(), fnn.Relu()


class Setting(NamedTuple):
    """A network, how it is trained, and the error that is aimed at."""

    net: Any
    rule: Any
    rate: float
    epochs: int
    aim: str = ""
    batch: int = 128


def dropped(units):
    """Layers of tanh units; a tenth of the inputs drops out, and a quarter of the units."""
    layers = [layer for n in units for layer in (D(n), TANH, fnn.Dropout(0.25))]
    return fnn.Serial((fnn.Dropout(0.1), *layers, D(10)))


WIDE, SMALL, DEEP = (fnn.mlp((*units, 10), TANH) for units in ((800, 800), (256, 256), (240, 240, 240)))
SETTLING = fnn.Serial((fnn.Hopfield((D(400), TANH, D(100), TANH), steps=8), D(10)))
TRYING = fnn.Goodness((D(2000), RELU, D(2000), RELU))
DIRECT, CODING = rules.DirectFeedbackAlignment(), rules.PredictiveCoding(0.05, 10, nudge=0.1)
TARGETS, SETTLED = rules.TargetPropagation(optimizer=fnn.Adam(1e-3)), rules.EquilibriumPropagation(0.5, 4)
SETTINGS = {
    "direct feedback, 2 × 800 tanh": Setting(WIDE, DIRECT, 1e-3, 60, "≤ 1.8"),
    "direct feedback, 2 × 800 tanh, dropout": Setting(dropped((800, 800)), DIRECT, 1e-3, 90, "≤ 1.5"),
    "backpropagation, 2 × 256 tanh": Setting(SMALL, rules.Backprop(), 1e-3, 40),
    "predictive coding, 2 × 256 tanh": Setting(SMALL, CODING, 1e-3, 40, "backpropagation's + 0.2"),
    "equilibrium propagation, 400-100 tanh": Setting(SETTLING, SETTLED, 1e-3, 40, "≤ 2.5"),
    "difference target propagation, 3 × 240 tanh": Setting(DEEP, TARGETS, 1e-3, 60, "≤ 2.2"),
    "forward gradients by activities, 128 relu": Setting(
        fnn.mlp((128, 10)), rules.ForwardGradient(), 3e-3, 160, "≤ 3.3"
    ),
    "forward-forward, 2 × 2000 relu": Setting(TRYING, rules.ForwardForward(1.0, 60.0, hard=True), 1e-3, 60, "≤ 1.6"),
}


def errors_of(setting, train, test, seeds) -> list[float]:
    """The errors in per cent of runs of these seeds: together, as one `vmap`, where there is an accelerator."""
    import jax

    net, loss, steps = setting.net, fnn.SoftmaxCrossEntropy(), setting.epochs * -(-len(train[0]) // setting.batch)
    optimizer = fnn.Adam(fnn.schedules.PolynomialDecay(setting.rate, 0.0, steps))

    def run(key, data):
        state = fnn.init_state(net, optimizer, key, (784,), rule=setting.rule)
        return fnn.train(net, loss, state, data, epochs=setting.epochs, batch_size=setting.batch)[0].params

    def error(params):
        return 100 * (1 - fnn.evaluate(net, loss, params, test, metrics={"accuracy": fnn.accuracy})["accuracy"])

    keys, data = [fnn.random.key(seed) for seed in seeds], jax.device_put(train)
    if jax.default_backend() == "cpu":
        return [error(run(key, data)) for key in keys]
    params = jax.jit(jax.vmap(run, in_axes=(0, None)))(jax.numpy.stack(keys), data)
    return [error(fnn.trees.map(lambda leaf, i=i: leaf[i], params)) for i in range(len(keys))]


def table(found):
    """The means, of runs as `(epochs, error)` by name; runs of other lengths have rows of their own."""
    rows = []
    for name, runs in found.items():
        for epochs in sorted({epochs for epochs, _ in runs}):
            errors = [error for length, error in runs if length == epochs]
            spread = f"{statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
            rows.append([name, str(epochs), str(len(errors)), f"{np.mean(errors):.2f}", spread, SETTINGS[name].aim])
    return harness.table(("rule and network", "epochs", "seeds", "error, %", "± of seeds", "aim"), rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="settings whose names contain one of these")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--share", type=float, default=1.0, help="of the epochs of each setting")
    parser.add_argument("--held-out", action="store_true", help="train on 50,000 images and test on the other 10,000")
    parser.add_argument("--smoke", action="store_true", help="one epoch of each on a few random images")
    parser.add_argument("--write", action="store_true", help="write the table into benchmarks/results")
    parser.add_argument("--log", type=Path, help="a file that keeps the runs; the table is of all runs in it")
    options = parser.parse_args()
    if not (options.smoke or os.environ.get("FNN_DATA")):
        parser.error("the images have to be MNIST's: set FNN_DATA to their folder")
    train, test = sides.images(256 if options.smoke else None)
    if options.held_out:
        train, test = tuple(a[:50_000] for a in train), tuple(a[50_000:] for a in train)
    lines = options.log.read_text().splitlines() if options.log and options.log.exists() else []
    runs = [tuple(json.loads(line)) for line in lines]
    for name, setting in SETTINGS.items():
        if options.only and not any(part in name for part in options.only):
            continue
        epochs, begun = 1 if options.smoke else max(1, round(options.share * setting.epochs)), time.perf_counter()
        errors = errors_of(setting._replace(epochs=epochs), train, test, options.seeds[: 1 if options.smoke else None])
        runs += [(name, epochs, error) for error in errors]
        shown = ", ".join(f"{error:.2f}" for error in errors)
        print(f"{name}, {epochs} epochs: {shown} % ({time.perf_counter() - begun:.0f} s)", flush=True)
        if options.log:
            options.log.write_text("".join(json.dumps(run) + "\n" for run in runs))
    found: dict[str, list] = {}
    for name, *figures in runs:
        found.setdefault(name, []).append(figures)
    options.repeats, options.log = len(options.seeds), None
    harness.publish(
        "rules_accuracy", "Learning rules on MNIST", table(found), found, options, told="means over the seeds"
    )


if __name__ == "__main__":
    main()
