"""Four sick networks, their diagnoses by `fnn.diagnose`, and the cures that it suggests, on digits.

    python examples/sick_networks.py

    a stack of sigmoids        each passes on at most ¼ of the error, so almost nothing reaches the first layers
    ReLU and a long step       a single one switches the units off for every image, permanently
    weights of spread 1        each layer of 64 makes outputs and errors about six times larger
    sigmoid, squared error     an output that is confidently wrong gets no error, since the sigmoid is flat there

`fnn.diagnose` needs only one forward and one backward pass. X. Glorot, Y. Bengio, "Understanding the difficulty of
training deep feedforward neural networks" (2010); M. Nielsen, "Neural networks and deep learning" (2015), chapters 3
and 5.
"""

import os
import sys
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # one thread is faster for matrices this small
import numpy as np

import fnn

plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")
OUT, EPOCHS = Path("out/sick_networks"), 15

(x, y), (x_test, y_test) = fnn.datasets.digits()
x, y, x_test = x[:1344] / np.float32(16), y[:1344], x_test / np.float32(16)
labels, rows = (y, y_test), tuple(np.eye(10, dtype=np.float32)[classes] for classes in (y, y_test))
logits, squares, each = fnn.SoftmaxCrossEntropy(), fnn.Quadratic(), fnn.SigmoidBinaryCrossEntropy()
sure = fnn.Serial((fnn.Dense(32), fnn.Sigmoid(), fnn.Dense(10, initializer=fnn.Normal(5.0))))


def deep(units, activation, initializer=None):
    return fnn.mlp((units,) * 6 + (10,), activation, initializer), logits, 0.05


# For each problem: the epochs before the diagnosis, the targets, and the sick and the cured network, each with its cost
# and learning rate.
well, wild = fnn.mlp((64, 64, 10)), fnn.Normal(1.0)
CASES = {
    "vanishing gradient": (0, labels, deep(32, fnn.Sigmoid()), deep(32, fnn.Relu(), fnn.HeNormal())),
    "dead units": (1, labels, (well, logits, 20.0), (well, logits, 0.1)),
    "exploding gradient": (0, labels, deep(64, fnn.Relu(), wild), deep(64, fnn.Relu(), fnn.HeNormal())),
    "saturated output": (0, rows, (fnn.Serial((*sure.layers, fnn.Sigmoid())), squares, 0.1), (sure, each, 0.1)),
}
sick, cured = {}, {}


def run(epochs, targets, problem):
    """The diagnosis after so many epochs; accuracy on the test set (%) and telemetry after each of the whole run."""
    net, loss, rate = problem
    state = fnn.init_state(net, fnn.Sgd(rate), fnn.random.key(0, backend="numpy"), (64,))
    data = {"batch_size": 64, "validation": (x_test, targets[1]), "metrics": {"accuracy": fnn.accuracy}}
    with np.errstate(over="ignore", invalid="ignore"):
        now = fnn.train(net, loss, state, (x, targets[0]), epochs=epochs, batch_size=64)[0] if epochs else state
        found = fnn.diagnose(net, loss, now.params, x, targets[0])
        try:
            _, history = fnn.fit(net, loss, state, (x, targets[0]), epochs=EPOCHS, telemetry=512, **data)
        except fnn.errors.DivergenceError as error:
            print(f"\nfit stopped at {error}")
            return found, np.zeros(0), None
    return found, 100 * history["validation_accuracy"], history["telemetry"]


# 1. The diagnoses.
for illness, (epochs, targets, *problems) in CASES.items():
    for name, found, problem in zip(("SICK", "CURED"), (sick, cured), problems, strict=True):
        print(f"\n======== {illness}: the {name} network")
        found[illness] = run(epochs, targets, problem)
        if len(found[illness][1]):
            print(f"\nAccuracy on the test set after {EPOCHS} epochs: {found[illness][1][-1]:.1f} %")

# 2. The figure: the symptoms above, and the effects below.
plt.rcParams.update(dict.fromkeys(("axes.spines.top", "axes.spines.right"), False))
figure, axes = plt.subplots(2, 4, figsize=(13, 5.6), layout="constrained")
epochs = np.arange(1, EPOCHS + 1)
for (above, below), illness in zip(axes.T, CASES, strict=True):
    above.set_title(illness[0].upper() + illness[1:])
    for runs, label, look in ((sick, "sick", {"color": "#D55E00", "ls": "--"}), (cured, "cured", {"color": "#0072B2"})):
        found, accuracy, telemetry = runs[illness]
        if "gradient" in illness:
            above.plot(found.statistics.delta[::2], marker="o", label=label, **look)
            above.set(xlabel="dense layer", ylabel="‖δ‖", yscale="log", xticks=range(7))
        elif illness == "dead units":
            above.plot(epochs, 100 * telemetry.dead[:, 1], label=label, **look)
            above.set(xlabel="epoch", ylabel="dead units of the first ReLU (%)", ylim=(-3, 103))
        else:
            stuck = np.nan_to_num(telemetry.stuck[:, -1])
            above.plot(epochs, 100 * stuck, label=label, **look)
            above.set(xlabel="epoch", ylabel="examples stuck (%)", ylim=(-3, 103))
        below.plot(epochs[: len(accuracy)], accuracy, label=label, **look)
        if not len(accuracy):
            below.text(1, 5, f"{label}: stopped in the first epoch, not finite", color=look["color"], size="small")
    below.set(xlabel="epoch", ylabel="accuracy on the test set (%)", ylim=(0, 100))
axes[1, 0].legend(frameon=False)
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "sick_networks.png", dpi=160)
print(f"\npicture: {OUT / 'sick_networks.png'}")

# 3. What this shows.
for illness in CASES:
    named = [[finding.illness for finding in runs[illness][0].findings] for runs in (sick, cured)]
    before, after = (runs[illness][1][-1] if len(runs[illness][1]) else 0 for runs in (sick, cured))
    if named != [[illness], []] or not before < 50 < 85 < after:
        sys.exit(f"expected {illness} named, and cured, got {named}, accuracies {before:.1f} % and {after:.1f} %")
