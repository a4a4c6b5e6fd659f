"""A real job from end to end: a CSV with categories and gaps, one class in ten, to a model that is served.

    python examples/churn.py

Customers of a telephone company, drawn with seed 0, of whom a tenth leave. The rare class counts as much as the other,
and `fnn.sweep` searches for the learning rate and the penalty. The probabilities are then those of equally frequent
classes, so one more layer, a z + b, is fitted to the validation data (Platt's calibration). One checkpoint has all that
a server needs. With onnx and onnxruntime the network is exported too. The figure is saved to out/churn/churn.png.
"""

import json
import threading
import urllib.request
from pathlib import Path
from wsgiref.simple_server import make_server

import numpy as np

import fnn

needed = ("sklearn.metrics", "sklearn.calibration", "matplotlib.figure")
metrics, calibration, drawing = (fnn.errors.require(name, "examples") for name in needed)
OUT, NAMES = Path("out/churn"), ("age", "months", "calls", "bill", "plan", "region", "left")


def write_table(path, n, rng):
    """The customers: four numbers and two categories, with gaps, and whether they left."""
    plan, region = rng.choice(["basic", "plus", "pro"], n, p=[0.6, 0.3, 0.1]), rng.choice([*"NESW"], n)
    age, months, calls = rng.uniform(18, 80, n).round(), rng.exponential(24, n).round(1), rng.poisson(1.5, n)
    bill = np.exp(rng.normal(3 + 0.4 * (plan == "plus") + 0.9 * (plan == "pro"), 0.4)).round(2)
    z = -4 + 0.9 * calls * (plan != "pro") - 0.05 * months + 0.03 * bill + 0.002 * (age - 45) ** 2 * (region == "N")
    left = (rng.random(n) < 1 / (1 + np.exp(-z))).astype(int)
    table = np.column_stack([np.array(column).astype(str) for column in (age, months, calls, bill, plan, region, left)])
    table[rng.random(table.shape) < [0.1, 0, 0.05, 0, 0, 0.1, 0]] = ""
    np.savetxt(path, table, "%s", ",", header=",".join(NAMES), comments="")


def encoded(table, seen):
    """Text (N, 6) as an array: numbers, gaps as the median, which of them were gaps, and a column of each category."""
    gaps = table[:, :4] == ""
    words = (table[:, [4 + i]] == np.array(kinds) for i, kinds in enumerate(seen["words"]))
    numbers = np.where(gaps, seen["medians"], table[:, :4]).astype(np.float32)
    return np.concatenate([numbers, gaps, *words], axis=1)


# 1. The table, in three parts; what the encoding needs is taken from the first.
OUT.mkdir(parents=True, exist_ok=True)
write_table(OUT / "customers.csv", 10_000, np.random.default_rng(0))
texts = np.split(np.loadtxt(OUT / "customers.csv", str, delimiter=",", skiprows=1), [6000, 8000])
parts = dict(zip(("train", "validation", "test"), texts, strict=True))
medians = [str(np.median(column[column != ""].astype(float))) for column in parts["train"][:, :4].T]
seen = {"medians": medians, "words": [np.unique(column).tolist() for column in parts["train"][:, 4:6].T]}
x = {name: encoded(part[:, :6], seen) for name, part in parts.items()}
y = {name: part[:, 6:].astype(np.float32) for name, part in parts.items()}
data, held = ((x[name], y[name], fnn.class_weights(y[name])) for name in ("train", "validation"))

# 2. The search: nine runs, each with the parameters of its epoch of least validation loss.
loss, key, size = fnn.SigmoidBinaryCrossEntropy(), fnn.random.key(0), x["train"].shape[1:]
net, start = fnn.standardized(fnn.mlp((32, 16, 1)), x["train"], key)


def run(rate, decay):
    state = fnn.init_state(net, fnn.Adam(rate), key, size, params=start)
    how = {"epochs": 20, "batch_size": 250, "validation": held, "penalty": fnn.L2(decay)}
    return fnn.train(net, loss, state, data, **how)[1]["best"]


rates, decays = (grid.ravel().astype(np.float32) for grid in np.meshgrid([1e-3, 3e-3, 1e-2], [1e-3, 1e-2, 0.1]))
best = fnn.sweep(run, rates, decays)
chosen = int(np.asarray(best.loss).argmin())
params = fnn.trees.map(lambda leaf: np.asarray(leaf[chosen]), best.params)
print(f"chosen: learning rate {rates[chosen]:.3f}, penalty {decays[chosen]:.4f}, epoch {int(best.epoch[chosen])}")

# 3. The calibration, as one more layer, which begins as the identity.
platt, z = fnn.Dense(1, initializer=fnn.Ones()), net.apply(params, x["validation"])
how = {"key": fnn.random.key(1, backend="numpy"), "epochs": 50, "batch_size": 500}
state, _ = fnn.fit(platt, loss, fnn.Adam(0.05), (z, y["validation"]), **how)
served, parameters = fnn.Serial((*net.layers, platt)), (*params, state.params)
p, result, scores = {}, {}, ("roc_auc", "average_precision", "neg_log_loss")
for name, (model, weights) in {"trained": (net, params), "calibrated": (served, parameters)}.items():
    p[name] = loss.predict(model.apply(weights, x["test"]))
    result[name] = fnn.evaluate(model, loss, weights, (x["test"], y["test"]), metrics=scores)
    print(f"{name}, on the test part: {p[name].mean():.1%} leave,", {k: round(v, 3) for k, v in result[name].items()})

# 4. One file with all that is needed, another for other runtimes, and a server that knows the first.
fnn.checkpoints.save(OUT / "model.npz", parameters, net=served, metadata=seen)
try:
    fnn.onnx.export(served, parameters, OUT / "model.onnx", size, loss=loss)
    session = fnn.errors.require("onnxruntime", "onnx").InferenceSession(OUT / "model.onnx")
    print(f"onnxruntime: off by {abs(session.run(None, {'x': x['test']})[0] - p['calibrated']).max():.1e} at most")
except ImportError:
    print("no ONNX file, or nothing to run it: pip install onnx onnxruntime")
model = fnn.checkpoints.load(OUT / "model.npz", backend="numpy")


def answering(environ, start):
    row = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    start("200 OK", [])
    leaves = loss.predict(model.net.apply(model.tree, encoded(np.array([row]), model.metadata)))[0, 0]
    return [json.dumps(float(leaves)).encode()]


with make_server("127.0.0.1", 0, answering) as server:
    threading.Thread(target=server.handle_request, daemon=True).start()
    address, body = f"http://127.0.0.1:{server.server_port}", json.dumps(row := parts["test"][0, :6].tolist()).encode()
    answer = json.load(urllib.request.urlopen(address, body, timeout=30))
print(f"served: {row} -> {answer:.3f}")

# 5. The figure: the ROC curve, and how many leave of those with each probability.
figure = drawing.Figure(figsize=(9, 4.5), layout="constrained")
left, right = figure.subplots(1, 2)
metrics.RocCurveDisplay.from_predictions(y["test"], p["calibrated"], ax=left, plot_chance_level=True)
for name, q in p.items():
    curve = calibration.calibration_curve(y["test"][:, 0], q[:, 0], n_bins=10, strategy="quantile")
    calibration.CalibrationDisplay(*curve, q, estimator_name=name).plot(ax=right)
right.legend(loc="upper left")
figure.savefig(OUT / "churn.png", dpi=150)
if abs(answer - p["calibrated"][0, 0]) > 1e-6 or result["calibrated"]["loss"] > 0.8 * result["trained"]["loss"]:
    raise SystemExit(f"expected the served probability, and a calibration that helps: {answer} {result}")
