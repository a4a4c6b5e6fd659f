"""Gradients through time: how they vanish and explode in a recurrent network, and what cures them.

    python examples/through_time.py

The task is to remember: the class of a sequence is its first symbol, and random numbers follow. Whether a network can
learn it depends on the error that arrives at the first position, and this error is on the tape: `deltas` of a recurrent
layer is ∂ℓ/∂z at every position. An Elman network multiplies it by U and tanh' at each step, so it shrinks or grows
like a power; an LSTM passes it on through its cell, as long as the forget gate is open. Gradients that explode are cut
to a length by `ClipByGlobalNorm`. The figure is saved to out/through_time/through_time.png.
"""

import sys
from pathlib import Path

import numpy as np

import fnn

plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")
OUT, LENGTH, UNITS, CLASSES, EPOCHS = Path("out/through_time"), 40, 32, 4, 15
key, loss, rng = fnn.random.key(0), fnn.SoftmaxCrossEntropy(), np.random.default_rng(0)


def sequences(n):
    """x (N, T, C + 1), the first symbol as a one-hot row and then noise in the last column, and the symbol, y (N,)."""
    y = rng.integers(0, CLASSES, n)
    x = np.zeros((n, LENGTH, CLASSES + 1), np.float32)
    x[:, 0, :CLASSES] = np.eye(CLASSES)[y]
    x[:, 1:, -1] = 0.3 * rng.normal(size=(n, LENGTH - 1))
    return x, y


def network(layer):
    return fnn.Serial((layer, fnn.Dense(CLASSES)))


# 1. The error at each position, before any training: ‖δ_t‖, the mean over 256 sequences.
x, y = sequences(256)
rnn = lambda scale: fnn.Rnn(UNITS, recurrent_initializer=fnn.Normal(scale / np.sqrt(UNITS)))
layers = {"Elman, small U": rnn(0.35), "Elman, large U": rnn(1.5), "Elman, orthogonal U": fnn.Rnn(UNITS)}
layers["LSTM"] = fnn.Lstm(UNITS)
errors = {}
for name, layer in layers.items():
    net = network(layer)
    params = net.init(key, x.shape[1:])
    delta = np.asarray(fnn.backprop(net, loss)(params, x, y).deltas[0])  # (N, T, units of all gates)
    errors[name] = np.sqrt((delta**2).sum(axis=2)).mean(axis=0)
    ratio = errors[name][0] / errors[name][-1]
    print(f"{name:20} error at the first position over that at the last: {ratio:.1e}")

# 2. Who learns it, in the same number of steps; and exploding gradients with and without clipping. Each is trained from
# three starts at once, for where gradients explode a run depends on its last digits.
train, test, keys = sequences(2048), sequences(512), fnn.random.split(key, 3)
plain, clipped = fnn.Sgd(0.1), fnn.ClipByGlobalNorm(fnn.Sgd(0.1), 0.3)
runs = {
    "Elman, small U": (layers["Elman, small U"], fnn.Adam(3e-3)),
    "LSTM": (layers["LSTM"], fnn.Adam(3e-3)),
    "Elman, large U": (layers["Elman, large U"], plain),
    "Elman, large U, clipped": (layers["Elman, large U"], clipped),
}
curves, accuracy = {}, {}
for name, (layer, optimizer) in runs.items():
    net = network(layer)

    def run(key, net=net, optimizer=optimizer):
        state = fnn.init_state(net, optimizer, key, x.shape[1:])
        state, history = fnn.train(net, loss, state, train, epochs=EPOCHS, batch_size=64)
        return history["loss"], fnn.accuracy(net.apply(state.params, test[0]), test[1])

    losses, accuracies = map(np.asarray, fnn.sweep(run, keys))
    curves[name] = losses.mean(axis=0).reshape(EPOCHS, -1).mean(axis=1)
    accuracy[name] = round(float(accuracies.mean()), 3)
    print(f"{name:24} loss {curves[name][-1]:.3f}, test accuracy {accuracy[name]:.1%}, means of three runs")

# 3. The figure.
plt.rcParams.update(dict.fromkeys(("axes.spines.top", "axes.spines.right"), False))
figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
for (name, values), style in zip(errors.items(), ("-", "--", "-.", ":"), strict=True):
    left.plot(np.arange(1, LENGTH + 1), np.maximum(values, 1e-30), style, linewidth=1.8, label=name)
left.set(title="The error on its way back, before training", xlabel="position", ylabel="‖δ‖, mean", yscale="log")
left.legend(frameon=False)
fnn.plots.learning_curves(right, curves).set(title="Training", xlabel="epoch", ylabel="cross-entropy (nats)")
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "through_time.png", dpi=160)
print(f"picture: {OUT / 'through_time.png'}")

vanished, kept = (errors[name][0] / errors[name][-1] for name in ("Elman, small U", "LSTM"))
learnt = accuracy["LSTM"] > 0.9 and accuracy["Elman, large U, clipped"] > accuracy["Elman, large U"] + 0.15
if not (vanished < 1e-10 < kept and learnt and accuracy["Elman, small U"] < 0.75):
    sys.exit(f"expected errors to vanish and explode in Elman networks, and both cures to work, got {accuracy}")
