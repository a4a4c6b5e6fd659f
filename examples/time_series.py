"""A time series: a recurrent network predicts a chaotic one, step by step and then on its own.

    python examples/time_series.py
    python examples/time_series.py --backend numpy     the same run on NumPy alone

The Mackey-Glass equation dx/dt = 0.2 x(t − 17) / (1 + x(t − 17)¹⁰) − 0.1 x(t) is a model of the number of blood cells,
and never repeats. A GRU sees 32 values, 3 time units apart, and predicts the next one. It is compared with the last
value and with the best linear function of the same 32 values. The figure is saved to out/time_series/time_series.png.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

import fnn

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--backend", choices=("jax", "numpy"), help="default: jax where it is installed")
parser.add_argument("--epochs", type=int, default=30)
args = parser.parse_args()
plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")
OUT, WINDOW, AHEAD = Path("out/time_series"), 32, 60


# 1. The series, by steps of 0.1 (M. Mackey, L. Glass, "Oscillation and chaos in physiological control systems", 1977).
def mackey_glass(length, delay=170, step=0.1, spacing=30):
    x = np.full(delay + 1 + 2000 + length * spacing, 1.2)
    for t in range(delay, len(x) - 1):
        x[t + 1] = x[t] + step * (0.2 * x[t - delay] / (1 + x[t - delay] ** 10) - 0.1 * x[t])
    return x[-length * spacing :: spacing].astype(np.float32)


series = mackey_glass(4000)
windows = np.lib.stride_tricks.sliding_window_view(series, WINDOW + 1)
x, y = windows[:, :-1, None], windows[:, -1:]  # (N, T, 1) and (N, 1)
train, test = (x[:3000], y[:3000]), (x[3000 + WINDOW :], y[3000 + WINDOW :])

# 2. The network and its training.
net = fnn.Serial((fnn.Gru(32), fnn.Dense(1)))
steps = args.epochs * -(-len(train[0]) // 32)
optimizer = fnn.ClipByGlobalNorm(fnn.Adam(fnn.schedules.CosineAnnealing(5e-3, steps)), 1.0)
print(fnn.summary(net, (WINDOW, 1)))
key = fnn.random.key(0, args.backend)
state, history = fnn.fit(
    net, fnn.Quadratic(), optimizer, train, key=key, epochs=args.epochs, batch_size=32, validation=test
)


# 3. The errors on the last quarter of the series, beside two simple predictions.
def error(prediction):
    """The root of the mean squared error over the spread of the series."""
    return float(np.sqrt(((np.asarray(prediction) - test[1]) ** 2).mean()) / series.std())


columns = lambda x: np.c_[x[:, :, 0], np.ones(len(x))]
linear = np.linalg.lstsq(columns(train[0]), train[1], rcond=None)[0]
errors = {"last value": error(test[0][:, -1]), "linear": error(columns(test[0]) @ linear)}
errors["GRU"] = error(net.apply(state.params, test[0]))
for name, value in errors.items():
    print(f"{name:10}  {value:.4f} of the spread")

# 4. On its own: each prediction becomes the next input.
alone = test[0][:1]
for _ in range(AHEAD):
    alone = np.concatenate([alone, np.asarray(net.apply(state.params, alone[:, -WINDOW:]))[:, None]], axis=1)

plt.rcParams.update(dict.fromkeys(("axes.spines.top", "axes.spines.right"), False))
figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.8), layout="constrained", width_ratios=(1, 2))
curves = {"training": history["loss"], "held out": history["validation_loss"]}
fnn.plots.learning_curves(left, curves).set(title="Training", xlabel="epoch", ylabel="½ (error)²", yscale="log")
time = np.arange(-WINDOW, AHEAD)
right.plot(time, np.r_[test[0][0, :, 0], test[1][:AHEAD, 0]], color="black", linewidth=1, label="series")
right.plot(time[WINDOW:], alone[0, WINDOW:, 0], "--", color="#D55E00", linewidth=1.8, label="network on its own")
right.axvline(-0.5, color="0.7", linewidth=1)
right.set(title="From 32 values on, the network feeds itself", xlabel="value")
right.set(ylim=(0.35, 1.55))
right.legend(frameon=False, loc="upper right", ncols=2)
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "time_series.png", dpi=160)
print(f"picture: {OUT / 'time_series.png'}")

if not errors["GRU"] < 0.5 * errors["linear"]:
    sys.exit(f"expected less than half of the linear prediction's error, got {errors}")
