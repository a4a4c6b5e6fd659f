"""`FNNClassifier` and `FNNRegressor` beside scikit-learn's `MLPClassifier` and `MLPRegressor`: accuracy, and seconds.

    python benchmarks/estimators.py
    python benchmarks/estimators.py --smoke

Six of the data sets that scikit-learn brings or makes, each split five times, three quarters to train on, by a seed
that is also the estimator's; all parameters as they are by default, and fnn's also with scikit-learn's values for the
two that differ. scikit-learn's are given standardised inputs, as it asks for, and the regressor targets too; fnn's do
that by themselves. Each turn is a fresh process, and the seconds are
those of its five fits, compilation included, imports not.
"""

import argparse
import functools
import json
import time
import warnings

from common import harness

DATA = {
    "iris": ("load_iris", {}),
    "wine": ("load_wine", {}),
    "breast cancer": ("load_breast_cancer", {}),
    "digits": ("load_digits", {}),
    "two moons": ("make_moons", {"n_samples": 2000, "noise": 0.25, "random_state": 0}),
    "diabetes (R²)": ("load_diabetes", {}),
}
SIDES = ("fnn", "fnn, same values", "scikit-learn")
SAME = {"alpha": 0.0001, "learning_rate_init": 0.001}


def estimator(side, kind, seed):
    """An estimator of this side."""
    if side.startswith("fnn"):
        import fnn.sklearn as home

        return getattr(home, f"FNN{kind}")(random_state=seed, **({} if side == "fnn" else SAME))
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = MLPClassifier(random_state=seed) if kind == "Classifier" else MLPRegressor(random_state=seed)
    model = make_pipeline(StandardScaler(), model)
    return model if kind == "Classifier" else TransformedTargetRegressor(model, transformer=StandardScaler())


def child(side, name, seeds):
    """What a fresh process does: fits, and scores."""
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    warnings.simplefilter("ignore")  # that 200 epochs are done
    make, arguments = DATA[name]
    arguments = arguments if make.startswith("make") else {"return_X_y": True}
    x, y = getattr(datasets, make)(**arguments)
    kind = "Regressor" if name.startswith("diabetes") else "Classifier"
    scores, models = [], [estimator(side, kind, seed) for seed in range(seeds)]
    taken = 0.0
    for seed, model in enumerate(models):
        split = {"random_state": seed, "stratify": y if kind == "Classifier" else None}
        x_train, x_test, y_train, y_test = train_test_split(x, y, **split)
        start = time.perf_counter()
        model.fit(x_train, y_train)
        taken += time.perf_counter() - start
        scores.append(model.score(x_test, y_test))
    print(json.dumps({"seconds": taken, "score": sum(scores) / len(scores)}))


def main():
    parser = harness.parser(__doc__, repeats=7)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = harness.parse(parser)
    if options.child:
        side, name, seeds = options.child
        child(side, name, int(seeds))
        return
    names, seeds = (list(DATA)[:1], 1) if options.smoke else (list(DATA), 5)
    fresh = functools.partial(harness.fresh, __file__, "--child")
    runs = harness.turns({(name, side): fresh(side, name, str(seeds)) for name in names for side in SIDES}, options)
    rows = []
    for name in names:
        of_sides = [runs[name, side] for side in SIDES]
        low = [harness.lower([run["seconds"] for run in of_side]) for of_side in of_sides]
        scores = [f"{100 * of_side[0]['score']:.2f}" for of_side in of_sides]
        ratios = [f"{low[-1] / seconds:.2f}" for seconds in low[:-1]]
        rows.append([name, *scores, *(f"{seconds:.3f}" for seconds in low), *ratios])
    heading = ["data", *(f"{side}, %" for side in SIDES), *(f"{side}, s" for side in SIDES)]
    heading += [f"scikit-learn over {side}" for side in SIDES[:-1]]
    figures = {f"{name}, {side}": found for (name, side), found in runs.items()}
    harness.publish("estimators", "Estimators for scikit-learn", harness.table(heading, rows), figures, options)


if __name__ == "__main__":
    main()
