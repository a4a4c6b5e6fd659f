"""A gallery of twelve figures that `fnn.plots` draws, for two small networks trained here.

    python examples/gallery.py

A network 2-16-16-2 learns two moons, from five keys; one of 64-30-16-10 learns the digits, as do a convolutional one
and a recurrent one, which reads them row by row. Each figure has the width of a printed column and is saved in
out/gallery/; gallery.png is a sheet of all twelve.
"""

import sys
from pathlib import Path

import numpy as np

import fnn
from fnn import diagnostics, plots

Figure = fnn.errors.require("matplotlib.figure", "plots").Figure  # draws to files and needs neither pyplot nor a screen
OUT, EPOCHS, SEEDS = Path("out/gallery"), 40, 5
# On NumPy, even if JAX is installed: many small programs that run once would take longer to compile than to run.
keys = fnn.random.split(fnn.random.key(0, backend="numpy"), SEEDS + 3)


# 1. Two moons: interleaving half circles; five networks in one call.
def moons(seed, n):
    rng, y = np.random.default_rng(seed), np.arange(n) % 2
    angle = np.pi * rng.random(n)
    x = np.where(y, (1 - np.cos(angle), 0.5 - np.sin(angle)), (np.cos(angle), np.sin(angle))).T
    return (x + 0.12 * rng.normal(size=x.shape)).astype(np.float32), y


train, test = moons(3, 200), moons(4, 1000)
net, loss, optimizer = fnn.mlp((16, 16, 2), activation=fnn.Tanh()), fnn.SoftmaxCrossEntropy(), fnn.Adam(0.005)


def run(key):
    state = fnn.init_state(net, optimizer, key, (2,))
    state, history = fnn.train(net, loss, state, train, epochs=EPOCHS, batch_size=20, validation=test)
    return state.params, history["loss"].reshape(EPOCHS, -1).mean(axis=1), history["validation_loss"]


found, losses, validation_losses = fnn.sweep(run, keys[:SEEDS])
params = fnn.trees.map(lambda leaf: leaf[0], found)
in_moons = float(fnn.accuracy(net.apply(params, test[0]), test[1]))

# 2. Digits: a network deep enough to be interesting, with weights that start near 0 in its first layer.
(x, y), (x_test, y_test) = fnn.datasets.digits()
first = fnn.Dense(30, initializer=fnn.Normal(0.02))
deep = fnn.Serial((fnn.Scale(1 / 16), first, fnn.Tanh(), fnn.Dense(16), fnn.Relu(), fnn.Dense(10)))
state, _ = fnn.fit(deep, loss, fnn.Adam(0.003), (x, y), key=keys[-1], penalty=fnn.L2(1e-3), epochs=30, batch_size=32)
predicted = deep.apply(state.params, x_test)
of_digits, names = diagnostics.statistics(deep, loss)(state.params, x, y), diagnostics.layer_names(deep)
small = fnn.mlp((4, 3, 2), activation=fnn.Tanh())
of_small, _ = fnn.fit(small, loss, fnn.Adam(0.02), train, key=keys[-2], epochs=EPOCHS, batch_size=20)
# 3. The same digits as images, and as sequences of eight rows.
images, rows = x.reshape(-1, 8, 8, 1) / 16, x.reshape(-1, 8, 8) / 8 - 1
conv = fnn.Serial((fnn.Conv(6, (3, 3)), fnn.Relu(), fnn.MaxPool((2, 2)), fnn.Flatten(), fnn.Dense(10)))
rnn = fnn.Serial((fnn.Rnn(12), fnn.Dense(10)))
of_conv, of_rnn = (
    fnn.fit(n, loss, fnn.Adam(0.005), (x, y), key=keys[-1], epochs=5, batch_size=32)[0].params
    for n, x in ((conv, images), (rnn, rows))
)


# 4. The twelve figures, each as a function of the Axes it is drawn into.
def curves(axes):
    axes.set(yscale="log", ylim=(0.01, 1))
    plots.learning_curves(axes, {"training": losses, "held out": validation_losses}).set_ylabel("cross-entropy (nats)")


figures = {
    "Learning curves": curves,
    "Decision regions": lambda axes: plots.decision_regions(axes, net, loss, params, *train),
    "The plane, bent by hidden layers": lambda axes: plots.hidden_plane(axes, net, params, *train),
    "Loss surface": lambda axes: plots.loss_surface(axes, net, loss, params, *train, key=keys[-3]),
    "A network": lambda axes: plots.network(axes, small, (2,), of_small.params),
    "Weights of the first layer": lambda axes: plots.first_layer(axes, state.params, shape=(8, 8)),
    "Filters of a convolution": lambda axes: plots.first_layer(axes, of_conv),
    "What they find in an image": lambda axes: plots.feature_maps(axes, conv, of_conv, images[0], layer="1"),
    "A recurrent layer through time": lambda axes: plots.unrolled(axes, rnn, of_rnn, rows[0], loss=loss, y=y[0]),
    "Outputs of each layer": lambda axes: plots.activations(axes, deep, state.params, x),
    "Errors and gradients": lambda axes: plots.gradient_flow(axes, of_digits, names),
    "Confusion matrix": lambda axes: plots.confusion(axes, fnn.confusion_matrix(predicted, y_test)),
}
OUT.mkdir(parents=True, exist_ok=True)
sheet = Figure(figsize=(14, 9), layout="constrained")
for (title, draw), panel in zip(figures.items(), sheet.subfigures(3, 4).flat, strict=True):
    alone = Figure(figsize=(3.15, 2.7), layout="constrained")  # inches: 8 cm wide
    draw(alone.subplots())
    alone.savefig(OUT / f"{title.lower().replace(',', '').replace(' ', '_')}.png", dpi=200)
    draw(panel.subplots())
    panel.suptitle(title, fontsize=11, weight="bold")
sheet.savefig(OUT / "gallery.png", dpi=100)
print(f"pictures: {len(figures)} and a sheet of all, {OUT / 'gallery.png'}")

in_digits = float(fnn.accuracy(predicted, y_test))
print(f"accuracy on what they have not seen: moons {in_moons:.1%}, digits {in_digits:.1%}")
if not (in_moons > 0.95 and in_digits > 0.93):
    sys.exit(f"expected 95 % and 93 % at least, got {in_moons:.1%} and {in_digits:.1%}")
