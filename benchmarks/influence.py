"""Influence of 60,000 training images on 1,000 queries, and how well it predicts what retraining shows.

    FNN_DATA=FOLDER python benchmarks/influence.py     with MNIST; without it on random images
    python benchmarks/influence.py --smoke

First a network 784-256-10, trained for three epochs, float32. Fresh processes compute its Kronecker factors, over all
60,000 images at once with one drawn label each, and all 60 million scores; the time includes that of compiling. CPU
seconds are those of all cores. `top` keeps ten images of each kind for each query. What does not separate takes as long
as making each image's gradient for each query, so EK-FAC has only ten queries.

Then softmax regression on scikit-learn's digits with a penalty: each of 1,000 training examples is left out, and the
regression solved anew to 1e-12, by Newton's method with the Hessian of all. Spearman's rank correlation of the change
of a query's cost with the scores, over the training examples; the median and the least of 100 queries.
"""

import argparse
import functools
import json
import os
import resource
import time

import numpy as np
from common import harness

import fnn
from fnn import curvature, influence
from fnn.curvature.spectrum import flat, like

LOSS, DAMPING = fnn.SoftmaxCrossEntropy(), 1e-3
SIDES = {  # what is computed, queries, backend
    "scores, K-FAC, JAX": ("scores", 1000, "jax"),
    "top 10, K-FAC, JAX": ("top", 1000, "jax"),
    "scores, K-FAC, NumPy": ("scores", 1000, "numpy"),
    "scores, EK-FAC, JAX": ("ekfac", 10, "jax"),
}


# ---- time and memory -------------------------------------------------------------------------------------------------


def child(name, n, share):
    """What a fresh process does: a network, its Kronecker factors, the scores."""
    from common import sides

    what, queries, on = SIDES[name]
    queries = max(2, int(queries * share))
    (x, y), (x_test, y_test) = sides.images(n)
    net = fnn.mlp((256, 10))
    state = fnn.init_state(net, fnn.Adam(1e-3), fnn.random.key(0, backend=on), (784,))
    params = fnn.train(net, LOSS, state, (x, y), epochs=3, batch_size=128)[0].params
    make = curvature.ekfac if what == "ekfac" else curvature.kfac
    of_data = fnn.backend.jit(make(net, LOSS, "fisher", samples=1))
    run = fnn.backend.jit((influence.top if what == "top" else influence.scores)(net, LOSS, DAMPING))
    x, test = fnn.backend.namespace(params[0].w).asarray(x), (x_test[:queries], y_test[:queries])
    spent = []

    def timed(f, *args, **options):
        wall, cpu = time.perf_counter(), time.process_time()
        result = fnn.backend.ready(f(*args, **options))
        spent.append((time.perf_counter() - wall, time.process_time() - cpu))
        return result

    blocks = timed(of_data, params, x, y, sample_key=fnn.random.key(1, backend=on))
    timed(run, params, blocks, test, (x, y))
    print(json.dumps({"factors": spent[0], "scores": spent[1], "peak": peak()}))


def peak():
    """The most memory that this process had, in MiB."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def side(name, n, share):
    on = {"FNN_BACKEND": "numpy"} if SIDES[name][2] == "numpy" else {}
    return harness.fresh(__file__, "--child", name, str(n or 0), str(share), **os.environ | on)


# ---- retraining ------------------------------------------------------------------------------------------------------


def hessian_of(x, params):
    """The Hessian of the mean cost of softmax regression, Σ (diag p − p pᵀ) ⊗ a aᵀ / N with a = (x, 1)."""
    p, a = LOSS.predict(fnn.Dense(10).apply(params, x)), np.column_stack([x, np.ones(len(x))])
    bent = np.eye(10) * p[:, None] - p[:, :, None] * p[:, None]
    blocks = [[(a * bent[:, k, m, None]).T @ a / len(x) for m in range(10)] for k in range(10)]
    places = np.arange(10 * a.shape[1]).reshape(10, -1)
    order = np.concatenate([places[:, :-1].ravel(), places[:, -1]])
    return np.block(blocks)[np.ix_(order, order)]


def solved(x, y, weights, params, penalty, inverse=None):
    """Softmax regression by Newton's method, with the inverse Hessian `inverse` throughout if it is given."""
    gradient = fnn.grad(fnn.Dense(10), LOSS, denominator=len(x))
    theta = flat(params)
    for _ in range(200):
        params = like(params, theta)
        g = flat(gradient(params, x, y, weights)) + penalty * theta
        if np.abs(g).max() < 1e-12:
            return params
        newton = np.linalg.inv(hessian_of(x, params) + penalty * np.eye(len(g))) if inverse is None else inverse
        theta = theta - newton @ g
    raise ArithmeticError("the regression did not converge")


def correlations(n, queries, penalty):
    """Spearman's correlation with retraining for each way to make scores, (queries,)."""
    from scipy.stats import spearmanr
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[: n + queries]
    x, y, net = x[order] / 16, y[order], fnn.Dense(10)
    training, test = (x[:n], y[:n]), (x[n:], y[n:])
    ones, zero = np.ones(n), fnn.DenseParams(np.zeros((10, 64)), np.zeros(10))
    params = solved(*training, ones, zero, penalty)
    hessian = hessian_of(x[:n], params)
    inverse = np.linalg.inv(hessian + penalty * np.eye(len(hessian)))
    cost = lambda params: LOSS.value(net.apply(params, test[0]), test[1])
    without = [ones - (np.arange(n) == j) for j in range(n)]
    retrained = np.stack([cost(solved(*training, w, params, penalty, inverse)) for w in without], axis=1)
    change = retrained - cost(params)[:, None]
    kfac, ekfac = (make(net, LOSS)(params, *training) for make in (curvature.kfac, curvature.ekfac))
    by = functools.partial(influence.scores(net, LOSS, penalty), params)
    found = {
        "the Hessian": by(hessian, test, training),
        "K-FAC": by(kfac, test, training),
        "K-FAC in its eigenvectors": by(curvature.eigen(kfac), test, training),
        "EK-FAC": by(ekfac, test, training),
        "no curvature (TracIn, one checkpoint)": influence.tracin(net, LOSS)([params], 1.0, test, training),
    }
    return {name: [spearmanr(*pair).statistic for pair in zip(s, change, strict=True)] for name, s in found.items()}


def main():
    parser = harness.parser(__doc__, repeats=3)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = harness.parse(parser)
    if options.child:
        name, n, share = options.child
        child(name, int(n) or None, float(share))
        return
    n, share = (600, 0.01) if options.smoke else (None, 1.0)
    chosen = list(SIDES)[:1] if options.smoke else SIDES
    runs = harness.turns({name: side(name, n, share) for name in chosen}, options)
    rows = []
    for name, figures in runs.items():
        low = {
            (what, i): harness.lower([f[what][i] for f in figures]) for what in ("factors", "scores") for i in (0, 1)
        }
        cells = [f"{value:.1f}" for value in low.values()]
        rows.append([name, str(SIDES[name][1]), *cells, f"{harness.lower([f['peak'] for f in figures]):.0f}"])
    heading = ("side", "queries", "factors, s", "CPU s", "scores, s", "CPU s", "peak of the process, MiB")
    text = harness.table(heading, rows)
    found = correlations(*((60, 5) if options.smoke else (1000, 100)), 0.01)
    rows = [[name, f"{np.median(of):.3f}", f"{min(of):.3f}"] for name, of in found.items()]
    text += "\n\n" + harness.table(("curvature", "median of the rank correlations", "least"), rows)
    harness.publish("influence", "Influence", text, {"runs": runs, "correlations": found}, options)


if __name__ == "__main__":
    main()
