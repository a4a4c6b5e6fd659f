"""`solver="lbfgs"` of `FNNClassifier` and `FNNRegressor` beside that of scikit-learn's, which is SciPy's L-BFGS-B.

    python benchmarks/lbfgs.py
    python benchmarks/lbfgs.py --smoke

Five data sets of scikit-learn's, each split by forty seeds (digits and diabetes by ten), three quarters to train
on; a seed is also the estimator's. Both sides are given the same standardised arrays (targets too, of the regressor),
and the same sizes, alpha, max_iter and tol: scikit-learn's defaults. A turn is all fits of a side, in one process with
one thread; what is told is its CPU time, which is the same on a busy machine, but for the caches.
"""

import itertools
import time
import warnings

import numpy as np
from common import harness
from sklearn import datasets
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from fnn.sklearn import FNNClassifier, FNNRegressor

DATA = ("iris", "wine", "breast_cancer", "digits", "diabetes")
SEEDS = {"digits": 10, "diabetes": 10}
KINDS = {
    "fnn": {True: FNNClassifier, False: FNNRegressor},
    "scikit-learn": {True: MLPClassifier, False: MLPRegressor},
}
SAME = {"solver": "lbfgs", "hidden_layer_sizes": (100,), "alpha": 1e-4, "max_iter": 200, "tol": 1e-4}
OWN = {"fnn": {"standardize": False, "backend": "numpy"}, "scikit-learn": {}}


def splits(name, seeds):
    """`(x_train, y_train, x_test, y_test)` for each seed, standardised."""
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    classes = name != "diabetes"
    for seed in range(seeds):
        parts = train_test_split(x, y, random_state=seed, stratify=y if classes else None)
        x_train, x_test, y_train, y_test = parts
        scaler = StandardScaler().fit(x_train)
        if not classes:
            mean, std = y_train.mean(), y_train.std()
            y_train, y_test = (y_train - mean) / std, (y_test - mean) / std
        yield scaler.transform(x_train), y_train, scaler.transform(x_test), y_test


def side(kind, name, parts):
    """All fits of a side: CPU seconds, and of each fit the score, the final loss and the iterations."""

    def fits():
        results, taken = [], 0.0
        for seed, (x, y, x_test, y_test) in enumerate(parts):
            model = KINDS[kind][name != "diabetes"](random_state=seed, **SAME, **OWN[kind])
            start = time.process_time()
            model.fit(x, y)
            taken += time.process_time() - start
            results.append((float(model.score(x_test, y_test)), float(model.loss_), int(model.n_iter_)))
        return {"seconds": taken, "fits": results}

    return fits


def main():
    options = harness.parse(harness.parser(__doc__, repeats=7))
    names = DATA[:1] if options.smoke else DATA
    warnings.simplefilter("ignore")  # that 200 iterations are done
    parts = {name: list(splits(name, 2 if options.smoke else SEEDS.get(name, 40))) for name in names}
    with threadpool_limits(1):
        sides = {(name, kind): side(kind, name, parts[name]) for name in names for kind in KINDS}
        found = harness.turns(sides, options)
    rows = []
    for name in names:
        runs = [found[name, kind] for kind in KINDS]
        columns = [np.array(of_side[0]["fits"]).T for of_side in runs]
        scores = [f"{100 * score.mean():.2f}" for score, _, _ in columns]
        apart = 100 * (columns[0][0] - columns[1][0])  # split by split
        scores.append(f"{apart.mean():+.2f} ± {apart.std(ddof=1) / len(apart) ** 0.5:.2f}")
        losses = [f"{loss.mean():.2e}" for _, loss, _ in columns]
        steps = [f"{n.mean():.0f}" for _, _, n in columns]
        times = [np.median([run["seconds"] for run in of_side]) for of_side in runs]
        each = [f"{1000 * seconds / len(parts[name]):.1f}" for seconds in times]
        rows.append([name, *scores, *losses, *steps, *each, f"{times[1] / times[0]:.2f}"])
    heading = [[f"{kind}, {what}" for kind in KINDS] for what in ("score, %", "loss", "iterations", "ms a fit")]
    heading[0].append("difference ± its standard error")
    heading = ["data", *itertools.chain(*heading), "time of scikit-learn over fnn"]
    figures = {f"{name}, {kind}": runs for (name, kind), runs in found.items()}
    harness.publish("lbfgs", "L-BFGS of the estimators", harness.table(heading, rows), figures, options, told="medians")


if __name__ == "__main__":
    main()
