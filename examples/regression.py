"""One layer is regression: linear, logistic and softmax regression by gradient descent, beside the textbook solutions.

    python examples/regression.py

A single Dense layer covers the linear models of statistics; only the cost differs. The quadratic cost gives least
squares, which has a closed form. Cross-entropy gives logistic regression (D. Cox, 1958) and, for several classes,
softmax regression, both of which scikit-learn solves: it minimizes C Σ ℓ + ½ ‖W‖² with free biases; divided by C N,
this is the mean cost plus `fnn.L2(1 / (C N))`. The figure is saved to out/regression/regression.png.
"""

import sys
from pathlib import Path

import numpy as np

import fnn

plt = fnn.errors.require("matplotlib.pyplot", "examples")
plt.switch_backend("agg")  # draws to files and needs no screen
datasets = fnn.errors.require("sklearn.datasets", "examples")
linear_model = fnn.errors.require("sklearn.linear_model", "examples")
if fnn.backend.jax is not None:
    fnn.backend.jax.config.update("jax_enable_x64", True)  # agreement to 1e-6 is beyond float32
OUT, COLORS, MARKERS = Path("out/regression"), ("#0072B2", "#D55E00", "#009E73"), "os^"
C = 1.0  # scikit-learn's inverse strength of the penalty


def descend(net, loss, x, y, penalty=None):
    """Batch gradient descent with momentum, from weights 0: the costs are convex, so all starts end in one place."""
    state = fnn.init_state(net, fnn.Momentum(learning_rate=0.3), fnn.random.key(0), x.shape[1:], np.float64)
    state, _ = fnn.train(net, loss, state, (x, y), epochs=2000, batch_size=len(x), penalty=penalty)
    return state.params


one, three = (fnn.Serial((fnn.Dense(units, initializer=fnn.Zeros()),)) for units in (1, 3))
quadratic, yes_or_no, which = fnn.Quadratic(), fnn.SigmoidBinaryCrossEntropy(), fnn.SoftmaxCrossEntropy()

# 1. A line: the progression of diabetes in a year, from the body mass index. Standardized inputs learn fastest.
patients = datasets.load_diabetes(scaled=False)
bmi, score = patients.data[:, 2:3], patients.target[:, None]
x = (bmi - bmi.mean()) / bmi.std()
line = descend(one, quadratic, x, score)
closed_form, *_ = np.linalg.lstsq(np.hstack((x, np.ones_like(x))), score)  # weights on x and on a constant 1

# 2. Two kinds of iris, then three, from the length and width of their petals.
flowers = datasets.load_iris()
petals, kinds = flowers.data[:, 2:], flowers.target
mean, spread = petals.mean(axis=0), petals.std(axis=0)
inputs, two = (petals - mean) / spread, kinds > 0  # versicolor and virginica, which overlap
logistic = descend(one, yes_or_no, inputs[two], (kinds[two] == 2)[:, None], fnn.L2(1 / (C * two.sum())))
softmax = descend(three, which, inputs, kinds, fnn.L2(1 / (C * len(kinds))))
of_two, of_three = (linear_model.LogisticRegression(C=C, tol=1e-10, max_iter=10_000) for _ in range(2))
of_two.fit(inputs[two], kinds[two] == 2)
of_three.fit(inputs, kinds)

# 3. Each parameter, found and expected. A constant added to all biases of a softmax changes nothing: subtract the mean.
cases = {
    "linear": (line, closed_form[:1], closed_form[1], 1e-6),
    "logistic": (logistic, of_two.coef_, of_two.intercept_, 1e-3),
    "softmax": (softmax, of_three.coef_, of_three.intercept_, 1e-3),
}
print(f"{'regression':<12}{'parameter':<10}{'found':>12}{'wanted':>12}{'difference':>12}")
worst = {}
for name, (params, w, b, _) in cases.items():
    free = name == "softmax"
    found, wanted = (np.column_stack((w, b - free * np.mean(b))) for w, b in (params[0], (w, b)))
    worst[name] = float(abs(found - wanted).max())
    for (o, i), a in np.ndenumerate(found):
        label = f"w[{o}, {i}]" if i < w.shape[1] else f"b[{o}]"
        print(f"{name:<12}{label:<10}{a:>12.6f}{wanted[o, i]:>12.6f}{abs(a - wanted[o, i]):>12.0e}")

# 4. The figure: the line, and the probabilities over the plane of the petals.
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10})
figure, (of_line, of_kinds, of_all) = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
ends = np.array([[bmi.min()], [bmi.max()]])
of_line.plot(bmi, score, ".", color="0.6", markersize=4)
of_line.plot(ends, np.asarray(one.apply(line, (ends - bmi.mean()) / bmi.std())), color=COLORS[1], linewidth=2)
of_line.set(title="linear: the least squares", xlabel="body mass index (kg/m²)", ylabel="progression in a year (score)")
plane = np.stack(np.meshgrid(np.linspace(0.7, 7.2, 300), np.linspace(-0.1, 2.7, 300)), axis=-1)
on_plane = (plane.reshape(-1, 2) - mean) / spread
chance = np.asarray(yes_or_no.predict(one.apply(logistic, on_plane))).reshape(300, 300)
of_kinds.set(title="logistic: the probability of virginica", xlim=(2.6, 7.2))
of_kinds.contourf(*plane.T, chance.T, levels=np.linspace(0, 1, 11), cmap="Greys", vmax=2)
levels = of_kinds.contour(*plane.T, chance.T, (0.1, 0.5, 0.9), colors="black", linestyles=("--", "-", "--"))
of_kinds.clabel(levels, manual=((3.1, 1.7), (3.1, 2.3), (4.0, 2.5)), fontsize=9)
best = np.asarray(three.apply(softmax, on_plane)).argmax(axis=1).reshape(300, 300)  # the largest logit, too
of_all.contourf(*plane.T, best.T, levels=(-0.5, 0.5, 1.5, 2.5), colors=COLORS, alpha=0.25)
for axes, shown in ((of_kinds, (1, 2)), (of_all, (0, 1, 2))):
    for kind in shown:
        axes.plot(*petals[kinds == kind].T, MARKERS[kind], color=COLORS[kind], markersize=4, mec="white", mew=0.4)
        place = ((2.1, 0.2), (4.4, 0.75), (4.6, 2.55))[kind]
        axes.annotate(flowers.target_names[kind], place, color=COLORS[kind], weight="bold")
    axes.set(xlabel="length of petals (cm)", ylabel="width of petals (cm)", ylim=(-0.1, 2.7))
of_all.set(title="softmax: the likeliest of three", xlim=(0.7, 7.2))
OUT.mkdir(parents=True, exist_ok=True)
figure.savefig(OUT / "regression.png", dpi=160)
print(f"picture: {OUT / 'regression.png'}")
if too_far := [name for name, (*_, tolerance) in cases.items() if not worst[name] <= tolerance]:
    sys.exit(f"expected the textbook's parameters, to 1e-6 and 1e-3; got differences of {worst}: {too_far}")
