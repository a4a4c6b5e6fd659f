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
        PLAIN, rules.PredictiveCoding(0.2, 10), 1e-3, 15, wanted="backpropagation + 0.2"
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


def error_of(setting, train, test, seed):
    """`(error in per cent, seconds)` of one run."""
    begun, steps = time.perf_counter(), setting.epochs * -(-len(train[0]) // setting.batch)
    optimizer = fnn.Adam(fnn.schedules.PolynomialDecay(setting.rate, 0.0, steps))
    state = fnn.init_state(setting.net, optimizer, fnn.random.key(seed), (784,), rule=setting.rule)
    loss = fnn.SoftmaxCrossEntropy()
    state, _ = fnn.train(setting.net, loss, state, train, epochs=setting.epochs, batch_size=setting.batch)
    accuracy = fnn.evaluate(setting.net, loss, state.params, test, metrics={"accuracy": fnn.accuracy})["accuracy"]
    return 100 * (1 - accuracy), time.perf_counter() - begun


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
    for seed in range(1 if options.smoke else options.seeds):
        for name in names:
            if any(s == seed for s, _ in found.get(name, ())):
                continue
            setting = SETTINGS[name]
            setting = setting._replace(epochs=1 if options.smoke else options.epochs or setting.epochs)
            error, seconds = error_of(setting, train, test, seed)
            found.setdefault(name, []).append((seed, error))
            print(f"{name}, seed {seed}: {error:.2f} % ({seconds:.0f} s)", flush=True)
            if options.log:
                with open(options.log, "a") as file:
                    print(json.dumps([name, seed, error]), file=file)
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
