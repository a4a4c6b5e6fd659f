"""The error on MNIST's test set of networks that were trained by each learning rule, over seeds.

    FNN_DATA=folder python benchmarks/rules_accuracy.py [--only NAME ...] [--seeds K]
    FNN_DATA=folder python benchmarks/rules_accuracy.py --held-out      on the last 10,000 training images, to choose by
    python benchmarks/rules_accuracy.py --smoke

Every run trains for a fixed number of epochs and looks at the test images once, at the end. All settings were chosen by
`--held-out` runs, which train on the first 50,000 images and never load the others. The learning rate falls linearly
to 0. Pixels are divided by 255; nothing else is done to the images.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import harness

import fnn
from fnn import rules

D, TANH, RELU = fnn.Dense, fnn.Tanh(), fnn.Relu()


class Setting(NamedTuple):
    net: Any
    rule: Any
    rate: float
    epochs: int
    batch: int = 128
    wanted: str = ""


def dropped(units):
    """Layers of tanh units, of which a tenth of the inputs and a quarter of the units drop out."""
    layers = [layer for n in units for layer in (D(n), TANH, fnn.Dropout(0.25))]
    return fnn.Serial((fnn.Dropout(0.1), *layers, D(10)))


PLAIN = fnn.mlp((256, 256, 10), TANH)
SETTINGS = {
    "direct feedback, 2 × 800 tanh": Setting(
        fnn.mlp((800, 800, 10), TANH), rules.DirectFeedbackAlignment(), 1e-3, 30, wanted="≤ 1.8 %"
    ),
    "direct feedback, 2 × 800 tanh, dropout": Setting(
        dropped((800, 800)), rules.DirectFeedbackAlignment(), 1e-3, 60, wanted="≤ 1.5 %"
    ),
    "backpropagation, 2 × 256 tanh": Setting(PLAIN, rules.Backprop(), 1e-3, 15),
    "predictive coding, 2 × 256 tanh": Setting(
        PLAIN, rules.PredictiveCoding(0.2, 10, nudge=0.1), 1e-3, 15, wanted="backpropagation + 0.2"
    ),
    "difference target propagation, 3 × 240 tanh": Setting(
        fnn.mlp((240, 240, 240, 10), TANH),
        rules.TargetPropagation(optimizer=fnn.Adam(1e-3)),
        1e-3,
        30,
        wanted="≤ 2.2 %",
    ),
    "equilibrium propagation, 500-200 tanh and a readout": Setting(
        fnn.Serial((fnn.Hopfield((D(500), TANH, D(200), TANH), steps=12), D(10))),
        rules.EquilibriumPropagation(0.5, 6),
        1e-3,
        20,
        wanted="≤ 2.5 %",
    ),
    "forward gradients by activities, 128 relu": Setting(
        fnn.mlp((128, 10), RELU), rules.ForwardGradient(), 1e-3, 40, wanted="≤ 3.3 %"
    ),
    "forward-forward, 2 × 1000 relu": Setting(
        fnn.Goodness((D(1000), RELU, D(1000), RELU)), rules.ForwardForward(), 1e-3, 30, wanted="≤ 1.6 %"
    ),
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="settings whose names contain one of these")
    parser.add_argument("--seeds", type=int, default=5, help="how many runs of each")
    parser.add_argument("--epochs", type=int, help="instead of those of the settings")
    parser.add_argument("--held-out", action="store_true", help="train on 50,000 images and test on the other 10,000")
    parser.add_argument("--smoke", action="store_true", help="one short run of each on random images")
    parser.add_argument("--write", action="store_true", help="write the table into benchmarks/results")
    parser.add_argument("--log", help="a file of JSON lines, to which each run is added, and which begins the table")
    options = parser.parse_args()
    if not (options.smoke or os.environ.get("FNN_DATA")):
        parser.error("the images have to be MNIST's: set FNN_DATA to their folder")
    from common.sides import images

    train, test = images(256 if options.smoke else None)
    if options.held_out:
        train, test = tuple(a[:50_000] for a in train), tuple(a[50_000:] for a in train)
    names = [n for n in SETTINGS if not options.only or any(part in n for part in options.only)]
    found: dict[str, list] = {}
    if options.log and os.path.exists(options.log):
        for name, seed, error in map(json.loads, Path(options.log).read_text().splitlines()):
            found.setdefault(name, []).append((seed, error))
    at_once = 1 if options.log else options.seeds
    for begin in range(0, 1 if options.smoke else options.seeds, at_once):
        for name in names:
            done = [seed for seed, _ in found.get(name, ())]
            seeds = [seed for seed in range(begin, 1 if options.smoke else begin + at_once) if seed not in done]
            setting, begun = SETTINGS[name], time.perf_counter()
            setting = setting._replace(epochs=1 if options.smoke else options.epochs or setting.epochs)
            errors = errors_of(setting, train, test, seeds) if seeds else []
            found.setdefault(name, []).extend(zip(seeds, errors, strict=True))
            shown = ", ".join(f"{error:.2f}" for error in errors)
            print(f"{name}, seeds {seeds}: {shown} % ({time.perf_counter() - begun:.0f} s)", flush=True)
            if options.log:
                with open(options.log, "a") as file:
                    file.writelines(json.dumps([name, seed, e]) + "\n" for seed, e in zip(seeds, errors, strict=True))
    rows = []
    for name in found:
        errors, setting = [error for _, error in found[name]], SETTINGS[name]
        spread = f"{statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
        row = [name, str(setting.epochs), str(len(errors)), f"{np.mean(errors):.2f}", spread, setting.wanted]
        rows.append(row)
    text = harness.table(("rule and network", "epochs", "seeds", "error, %", "± of seeds", "aim"), rows)
    options.repeats = options.seeds
    harness.publish("rules_accuracy", "Learning rules on MNIST", text, found, options, told="means over the seeds")


if __name__ == "__main__":
    main()
