"""Faults of data that are read, of predictions and attributions, and the checks that have to find them."""

import numpy as np
from helpers import key, moved
from planting import Fault, given, instead, result

import fnn
from fnn import Batches, attribution, checks, examples, frames, numerics, predicting, sources, streams
from fnn.checks import as_array
from fnn.errors import FnnError
from fnn.layers import standardize
from fnn.losses import base as losses_base
from fnn.streams import Stream

RNG = np.random.default_rng(0)
NET, LOSS = fnn.mlp((4, 3), fnn.Tanh()), fnn.SoftmaxCrossEntropy()
X, Y, W = RNG.normal(size=(13, 5)), RNG.integers(0, 3, 13), RNG.integers(1, 4, 13).astype(np.float64)


# ---- checks ----------------------------------------------------------------------------------------------------------


def cut(*arrays):
    return [tuple(a[i : i + 5] for a in arrays) for i in range(0, 13, 5)]


def close(found, expected, tolerance=1e-9):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=1e-14)


def run_on(data, **options):
    state = fnn.init_state(NET, fnn.Adam(0.1), key(), (5,), np.float64)
    return fnn.fit(NET, LOSS, state, data, epochs=2, **options)[0].params[0].w


def run_of_batches():
    try:
        found = run_on(Batches(cut(X, Y, W)))
    except FnnError as error:
        raise AssertionError(str(error)) from error
    close(found, run_on((X, Y, W), batch_size=5, shuffle=False))


def evaluation_of_batches():
    params = moved(NET, (5,))
    close(fnn.evaluate(NET, LOSS, params, Batches(cut(X, Y)))["loss"], fnn.evaluate(NET, LOSS, params, (X, Y))["loss"])


def read_again():
    """Batches within an epoch are those of the iterable, however often it was read before."""
    stream = Stream(Batches(lambda epoch: cut(X + epoch, Y), steps=3))
    stream.admit(NET, LOSS, moved(NET, (5,)))
    for epoch, done in [(0, 0), (0, 1), (0, 1), (1, 2), (0, 2), (2, 0)]:
        close(stream.read(epoch, done, 1).x[0, :3], X[5 * done : 5 * done + 3] + epoch)


def refuses(what, call):
    def check():
        message = "not refused"
        try:
            call()
        except FnnError as error:
            message = str(error)
        assert what in message, message

    return check


def named(what, call):
    """Refused by an error of fnn's, and by no other."""

    def check():
        try:
            refuses(what, call)()
        except (TypeError, AttributeError) as error:
            raise AssertionError(f"not refused: {error}") from error

    return check


class Words:
    """A column of bytes."""

    to_numpy = None

    def __array__(self, dtype=None, copy=None):
        return np.array([b"u", None], object)[:1]


OTHER = refuses("as in the first batch", lambda: run_on(Batches([cut(X, Y)[0], (X[:5], Y[:5].astype("u1"))])))


class Gaps:
    """A column with a gap."""

    def __array__(self, dtype=None, copy=None):
        return np.array([1.0, None, 2.0], object)

    to_numpy = __array__


GAPS = refuses("got gaps", lambda: as_array("x", Gaps(), np))


def predictions():
    params = moved(NET, (5,))
    close(fnn.predict(NET, LOSS, params, X, batch_size=5), LOSS.predict(NET.apply(params, X)))


def tails():
    z = np.array([[1e3, -1e3, 0.0], [0.0, 20.0, -30.0]], np.float32)
    others = np.exp(-20.0) + np.exp(-50.0)
    close(fnn.log_probabilities(fnn.Identity(), LOSS, (), z), [[0, -2000, -1000], [-20, -others, -50]], 1e-6)
    found = fnn.log_probabilities(fnn.Identity(), fnn.SigmoidBinaryCrossEntropy(), (), z[1:])
    close(found[0], [[-np.log(2)] * 2, [-20, -np.exp(-20.0)], [-np.exp(-30.0), -30]], 1e-6)


def cold():
    """Of probabilities by a softmax of temperature 4."""
    z = np.array([[4e3, -4e3, 0.0]])
    net = fnn.Serial((fnn.Identity(), fnn.Softmax(4.0)))
    close(fnn.log_probabilities(net, fnn.CrossEntropy(), ((), ()), z), [[0, -2000, -1000]])


def constants():
    """μ and σ of weighted pieces."""
    x = 5 + 3 * X
    _, params = fnn.standardized(NET, Batches(cut(x, Y, W)), key(), dtype=np.float64)
    mean = W @ x / W.sum()
    close(params[0].params.mean, mean)
    close(params[0].params.std, np.sqrt(W @ (x - mean) ** 2 / W.sum()))


def complete():
    """Integrated gradients add up, with the gap that is told, and are those of a polynomial."""
    params = moved(NET, (5,))
    f = lambda x: NET.apply(params, x)[:, 1]
    found = attribution.integrated_gradients(NET)(params, X, 1, np.full(5, 0.5))
    close(found.values.sum(axis=1), f(X) - f(np.full_like(X, 0.5)))
    close(found.gap, 0)
    cubes = attribution.integrated_gradients(fnn.Identity(), steps=2)((), X[:, :2], lambda a: (a**3).sum(axis=1))
    close(cubes.values, X[:, :2] ** 3)


def gaps():
    """The gap is that of the sum: of |x|'s gradient at one point it is not 0."""
    found = attribution.integrated_gradients(fnn.Identity(), steps=1)((), X[:, :1], lambda a: (a**4).sum(axis=1))
    close(found.gap, 4 * X[:, 0] * (X[:, 0] / 2) ** 3 - X[:, 0] ** 4)


def slopes():
    """Gradients are those of central differences, of labels and of positions."""
    params, v, h = moved(NET, (5,)), RNG.normal(size=X.shape), 1e-5
    f = lambda x: NET.apply(params, x)[np.arange(13), Y]
    slope = (f(X + h * v) - f(X - h * v)) / (2 * h)
    close((attribution.gradients(NET)(params, X, Y) * v).sum(axis=1), slope, 1e-6)
    last = attribution.gradients(fnn.Identity())((), X[:, None], (0, -1))
    close(last[:, 0], np.eye(5)[[4] * 13])
    f = lambda a: np.exp(a[:, 0]) * a[:, 1]
    expected = np.stack([f(X), np.exp(X[:, 0]), *(0 * X[:, 2:].T)], axis=1)
    close(attribution.gradients(fnn.Identity())((), X, f), expected)


def smooth():
    """Of x³ the mean gradient is 3 (x² + σ²)."""
    run = attribution.smooth_gradients(fnn.Identity(), deviation=0.5, samples=20)
    found = run((), np.full((2000, 1), 2.0), lambda a: (a**3).sum(axis=1), key=key())
    assert abs(found.mean() - 12.75) < 0.1, "it is the mean over noise of that deviation"


# ---- faults ----------------------------------------------------------------------------------------------------------


def averaged(f):
    """The baseline taken for 0."""
    return lambda baseline, x, embedded: f(None, x, embedded)


def padded(weight):
    """Examples that fill a batch up, with another weight."""

    def change(f):
        def padded_to(size, batch, weighted=True):
            found = f(size, batch, weighted)
            return found._replace(weights=np.where(np.arange(size) < batch.size, found.weights, weight))

        return padded_to

    return change


def less_the_log(z, log):
    """z − max z, less a logarithm of Σ e^(z − max z)."""
    z = z - z.max(axis=-1, keepdims=True)
    return z - log(np.exp(z).sum(axis=-1, keepdims=True))


REFUSALS = [
    Fault("x need not be there", examples, "arrays", lambda f: lambda name, x, xp=None: np.zeros(1) if x is None else f(
          name, x, xp), refuses("x: expected an array, got None", lambda: run_on((None, Y), batch_size=5))),
    Fault("one of several targets", losses_base, "check_one", instead(lambda target: None), named(
          "y: expected one array", lambda: run_on((X, {"a": Y}), batch_size=5))),
    Fault("pairs of anything", streams, "_for_pairs", instead(lambda given: ""), refuses(
          "b[0], b[1]", lambda: run_on(Batches([(X, Y, W, W)])))),
    Fault("any function will do", sources, "_check_arguments", instead(lambda f: None), named(
          "or of `epoch`", lambda: run_on(Batches(lambda size: cut(X, Y), steps=3)))),
    Fault("the first of several inputs", standardize, "_one", instead(lambda x: next(iter(x.values()))), refuses(
          "expected one array, got several", lambda: fnn.Standardize().measured({"a": X}))),
    Fault("bytes are arrays", frames, "_type", instead(lambda entry: "arrays"), refuses(
          "map(f)", lambda: as_array("x", Words(), np))),
    Fault("no hint for objects", checks, "for_objects", instead(lambda *args: ""), refuses(
          "structured_to_unstructured", lambda: as_array("x", np.zeros(2, [("a", "f4")]), np))),
]  # fmt: skip

FAULTS = [
    *REFUSALS,
    Fault("padding that counts", streams, "padded_to", padded(1.0), run_of_batches),
    Fault("weights of a batch forgotten", streams, "padded_to", lambda f: lambda size, batch, weighted=True: f(
          size, batch._replace(weights=None), True), run_of_batches),
    Fault("an epoch that begins with the second batch", Batches, "opened", result(
          lambda batches: iter([*[*batches][1:], cut(X, Y, W)[0]])), run_of_batches),
    Fault("batches of the epoch before", Stream, "_begin", given(lambda self, epoch: (self, max(0, epoch - 1))),
          read_again),
    Fault("the epoch left out", Batches, "opened", given(lambda self, epoch: (self, 0)), read_again),
    Fault("batches that are kept for others", Stream, "read", lambda f: lambda self, epoch, done, steps: (
          f(self, epoch, done, steps) if self._kept[1] is None else self._kept[1]), read_again),
    Fault("padding among the costs", streams, "padded_to", lambda f: lambda size, batch, weighted=True: f(
          size, batch._replace(x=batch.x[::-1]), weighted), evaluation_of_batches),
    Fault("another dtype let through", Stream, "_checked", instead(lambda self, batch, place: self._check(
          batch, place, self.first)), OTHER),
    Fault("a gap that is no gap", frames, "_is_gap", instead(lambda entry: False), GAPS),
    Fault("rows one too far", predicting, "_rows", given(lambda x, start, size: (x, min(start + 1, 12), size)),
          predictions),
    Fault("the largest term twice", numerics, "log_softmax", instead(lambda z: less_the_log(z, np.log1p)), tails),
    Fault("log of the rounded sum", numerics, "log_softmax", instead(lambda z: less_the_log(z, np.log)), tails),
    Fault("yes and no exchanged", numerics, "log_sigmoids", result(lambda v: v[..., ::-1]), tails),
    Fault("log of the rounded probability", numerics, "log_sigmoids", instead(lambda z: np.stack(
          [np.log(1 / (1 + np.exp(z))), np.log(1 / (1 + np.exp(-z)))], axis=-1)), tails),
    Fault("the temperature forgotten", predicting, "_without", instead(
          lambda function, net: fnn.Serial((*net.layers[:-1], fnn.Identity()))), cold),
    Fault("weights of pieces forgotten", standardize, "weighted_pieces", given(
          lambda place, x, weights: (place, x, None)), constants),
    Fault("the deviation of the last piece", standardize, "mean_and_std", lambda f: lambda pieces: f([*pieces][-1:]),
          constants),
    Fault("the baseline forgotten", attribution, "_base", averaged, complete),
    Fault("points on [−1, 1]", attribution, "_line", result(
          lambda pair: (2 * pair[0] - 1, pair[1])), complete),
    Fault("shares that sum to 2", attribution, "_line", result(lambda pair: (pair[0], 2 * pair[1])),
          complete),
    Fault("steps at the left ends", attribution, "_line", result(lambda pair: (
          np.linspace(0, 1, len(pair[0]), endpoint=False), np.full(len(pair[0]), 1 / len(pair[0])))), complete),
    Fault("no gap told", attribution, "Integrated", lambda f: lambda values, gap: f(values, 0 * gap), gaps),
    Fault("the first output for every label", attribution, "_chosen", given(lambda of, a: (
          0 * of if isinstance(of, np.ndarray) else of, a)), slopes),
    Fault("an index from the wrong end", attribution, "_index", result(lambda i: 0), slopes),
    Fault("the first output's step alone", attribution, "_of_function", result(
          lambda pair: (pair[0], pair[1] * (np.arange(pair[1].shape[-1]) == 0))), slopes),
    Fault("noise in another unit", attribution, "smooth_gradients", lambda f: lambda net, deviation, samples: f(
          net, deviation=deviation**2, samples=samples), smooth),
]  # fmt: skip
