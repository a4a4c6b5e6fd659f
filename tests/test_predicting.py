"""Predictions are those of the network as a whole, whatever the batches; logarithms of probabilities are exact."""

import numpy as np
import pytest
from helpers import key, moved, on
from helpers_training import compilations

import fnn
from fnn import Batches, errors, predicting

RNG = np.random.default_rng(0)
X = RNG.normal(size=(13, 4)).astype(np.float32)
NET = fnn.mlp((6, 3), fnn.Tanh())
LOSS = fnn.SoftmaxCrossEntropy()


# ---- predictions -----------------------------------------------------------------------------------------------------

SEQUENCES = {"x": RNG.normal(size=(13, 5, 2)).astype(np.float32), "length": RNG.integers(1, 6, 13)}
NETS = {
    "classes": (NET, LOSS, X),
    "yes or no": (fnn.mlp((6, 1)), fnn.SigmoidBinaryCrossEntropy(), X),
    "several outputs": (fnn.mlp((6, 4)), fnn.SigmoidBinaryCrossEntropy(), X),
    "signs": (fnn.mlp((6, 1)), fnn.Hinge(), X),
    "numbers": (fnn.mlp((6, 2)), fnn.Quadratic(), X),
    "probabilities": (fnn.Serial((fnn.Dense(3), fnn.Softmax())), fnn.CrossEntropy(), X),
    "rates": (fnn.mlp((6, 1)), fnn.PoissonNll(), X),
    "quantiles": (fnn.mlp((6, 3)), fnn.Quantile((0.1, 0.5, 0.9)), X),
    "means and variances": (fnn.mlp((6, 2)), fnn.GaussianNll(), X),
    "one number for each": (fnn.Serial((fnn.Dense(1), fnn.Flatten())), fnn.Quadratic(), X),
    "positions": (fnn.Serial((fnn.Embedding(7, 3), fnn.Dense(5))), LOSS, RNG.integers(0, 7, (13, 4))),
    "unequal lengths": (fnn.Last(fnn.Serial((fnn.Lstm(3, all_states=True),))), LOSS, SEQUENCES),
    "images of bytes": (fnn.Serial((fnn.Flatten(), fnn.Dense(2))), LOSS, RNG.integers(0, 255, (13, 2, 3)).astype("u1")),
}


def shapes(x):
    return {name: a.shape[1:] for name, a in x.items()} if isinstance(x, dict) else x.shape[1:]


@pytest.mark.parametrize("name", NETS)
def test_predictions_are_those_of_all_examples_at_once(name):
    net, loss, x = NETS[name]
    params = net.init(key(), shapes(x))
    expected = loss.predict(net.apply(params, x))
    for batch_size in (1024, 13, 5, 1):
        found = fnn.predict(net, loss, params, x, batch_size=batch_size)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        assert found.dtype == np.float32


def test_one_program_serves_any_number_of_examples(needs_jax):
    params = on("jax", moved(NET, (4,), np.float32))
    fnn.predict(NET, LOSS, params, X, batch_size=4)
    fnn.predict(NET, LOSS, params, needs_jax.numpy.asarray(X), batch_size=4)
    with compilations() as compiled:
        for n in (1, 4, 5, 13):
            found = fnn.predict(NET, LOSS, params, X[:n], batch_size=4)
            np.testing.assert_allclose(found, LOSS.predict(NET.apply(on("numpy", params), X[:n])), rtol=1e-5)
        fnn.predict(NET, LOSS, params, Batches([X[:4], X[:3]]))
    assert compiled == []


def test_inputs_may_be_in_files_or_batches(tmp_path):
    params, y = moved(NET, (4,), np.float32), np.zeros(13, int)
    expected = fnn.predict(NET, LOSS, params, X)
    np.save(tmp_path / "x.npy", X)
    mapped = fnn.datasets.read_npy(tmp_path / "x.npy", mapped=True)
    cut = lambda *arrays: [tuple(a[i : i + 5] for a in arrays) for i in range(0, 13, 5)]
    for x in (
        mapped,
        mapped[::1],
        Batches(cut(X)),
        Batches(cut(X, y)),
        Batches([x for (x,) in cut(X)]),
        Batches(lambda: iter(cut(X, y, y))),
        Batches([(X[:2], y[:2]), (X[2:], y[2:])]),
    ):
        np.testing.assert_allclose(fnn.predict(NET, LOSS, params, x, batch_size=5), expected, rtol=1e-6)
    some = fnn.predict(NET, LOSS, params, Batches(cut(X), steps=2))
    np.testing.assert_allclose(some, expected[:10], rtol=1e-6)


WRONG = {
    "NaN": (lambda x: np.where(x == x[7, 2], np.nan, x), r"of examples 5 to 9, .*: x: .* got nan at x\[2, 2\]"),
    "NaN in a batch": (
        lambda x: Batches([x, np.where(x == x[7, 2], np.nan, x)]),
        r"batch 1: of examples 5 to 9, .*: x: .* got nan at x\[2, 2\]",
    ),
    "another width": (lambda x: x[:, :3], r"for x of shape \(N, 3\)"),
    "batches of another width": (lambda x: Batches([x, x[:, :3]]), r"batch 1: expected x of shape \(N, 4\)"),
    "no examples": (lambda x: x[:0], "x: expected at least one example"),
    "no batches": (
        lambda x: Batches(iter(())),
        "expected at least one batch, got 0.*an iterator can be read only",
    ),
    "too few batches": (lambda x: Batches(lambda: [x], steps=2), "expected 2 batches, got 1"),
    "x and y": (lambda x: (x, x), "got a tuple of 2 arrays"),
    "a number": (lambda x: 3.0, "expected a leading axis"),
    "what float32 cannot hold": (lambda x: 1e300 * x.astype(float), "x: expected finite numbers, got -?inf"),
    "text": (lambda x: x.astype(str), "expected an array of numbers"),
    "parts of a batch": (lambda x: Batches([(x, x, x, x)]), "batch 0: expected x, .x, y. or .x, y, weights., got 4"),
}


@pytest.mark.parametrize("name", WRONG)
def test_inputs_that_are_wrong_are_named(name):
    change, message = WRONG[name]
    with pytest.raises(errors.FnnError, match=message):
        fnn.predict(NET, LOSS, moved(NET, (4,), np.float32), change(X), batch_size=5)


def test_parameters_that_are_wrong_are_named():
    state = fnn.init_state(NET, fnn.Sgd(0.1), key(), (4,))
    with pytest.raises(errors.KindError, match=r"write state.params"):
        fnn.predict(NET, LOSS, state, X)
    with pytest.raises(errors.ArgumentError, match="batch_size: expected an integer of at least 1"):
        fnn.predict(NET, LOSS, state.params, X, batch_size=0)


def test_a_traced_call_is_refused_by_name(needs_jax):
    params = on("jax", moved(NET, (4,), np.float32))
    with pytest.raises(errors.KindError, match=r"predict runs on the host .* use loss.predict"):
        needs_jax.jit(lambda params: fnn.predict(NET, LOSS, params, X))(params)
    with pytest.raises(errors.KindError, match=r"log_probabilities runs on .* use loss.log_probabilities"):
        needs_jax.jit(lambda params: fnn.log_probabilities(NET, LOSS, params, X))(params)


# ---- logarithms of probabilities -------------------------------------------------------------------------------------

LOGITS = np.array([[1e3, -1e3, 0], [30, 30, -60], [0, 20, -20], [-1e3, -1e3, -1001], [0, 0, 0]], np.float32)


def exact(z):
    """log softmax in float64 by its definition, where no probability underflows that has to be seen."""
    z = np.asarray(z, np.longdouble)
    top = z.max(axis=-1, keepdims=True)
    others = np.sort(z - top, axis=-1)[..., :-1]
    return (z - top - np.log1p(np.exp(others).sum(axis=-1, keepdims=True))).astype(np.float64)


@pytest.mark.parametrize("loss", [LOSS, fnn.Focal()], ids=str)
def test_log_probabilities_of_classes_are_exact_in_the_tails(loss, backend):
    found = fnn.log_probabilities(fnn.Identity(), loss, (), on(backend, LOGITS))
    np.testing.assert_allclose(found, exact(LOGITS), rtol=1e-6)
    assert found[2, 1] == pytest.approx(-2.0611536e-9, rel=1e-6)  # 1 − p is not to be seen in p
    assert found[0, 1] == -2000


@pytest.mark.parametrize("loss", [fnn.SigmoidBinaryCrossEntropy(), fnn.BinaryFocal()], ids=str)
def test_log_probabilities_of_yes_and_no_are_exact_in_the_tails(loss, backend):
    found = fnn.log_probabilities(fnn.Identity(), loss, (), on(backend, LOGITS))
    expected = np.stack([exact(np.stack([0 * LOGITS, LOGITS], axis=-1))], axis=0)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.shape == (5, 3, 2)
    y = RNG.integers(0, 2, (5, 3))
    taken = np.take_along_axis(found, y[..., None], axis=-1)[..., 0].sum(axis=1)
    np.testing.assert_allclose(-taken, fnn.SigmoidBinaryCrossEntropy().value(LOGITS, y), rtol=1e-6)


S = fnn.Serial
ENDS = {
    "softmax": (S((fnn.Dense(3), fnn.Softmax())), fnn.CrossEntropy(), S((fnn.Dense(3),)), LOSS, 1),
    "within": (S((fnn.Dense(3), S((fnn.Softmax(),)))), fnn.KullbackLeibler(), S((fnn.Dense(3),)), LOSS, 1),
    "temperature": (S((fnn.Dense(3), fnn.Softmax(4.0))), fnn.CrossEntropy(), S((fnn.Dense(3),)), LOSS, 4),
    "sigmoid": (S((fnn.Dense(3), fnn.Sigmoid())), fnn.BinaryCrossEntropy(), S((fnn.Dense(3),)), None, 1),
}


@pytest.mark.parametrize("name", ENDS)
def test_log_probabilities_are_of_what_enters_the_last_function(name):
    net, loss, logits, on_logits, temperature = ENDS[name]
    params = net.init(key(), (4,))
    w = (params[0]._replace(w=params[0].w * (1000 / temperature)),)
    found = fnn.log_probabilities(net, loss, (params[0]._replace(w=params[0].w * 1000), *params[1:]), X)
    expected = fnn.log_probabilities(logits, on_logits or fnn.SigmoidBinaryCrossEntropy(), w, X)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.isfinite(found).all()
    assert found.min() < -200  # log 0 of the probabilities themselves


@pytest.mark.parametrize(
    ("net", "loss", "message"),
    [
        (fnn.Identity(), fnn.Quadratic(), "Quadratic.*: expected a cost on logits of classes or of yes or no"),
        (fnn.Identity(), fnn.Hinge(), "Hinge"),
        (fnn.Identity(), fnn.GaussianNll(), "GaussianNll"),
        (
            fnn.Sigmoid(),
            fnn.CrossEntropy(),
            r"a network that ends in fnn.Softmax\(\), since the logarithm of",
        ),
        (fnn.Softmax(), fnn.BinaryCrossEntropy(), r"a network that ends in fnn.Sigmoid\(\)"),
    ],
)
def test_what_has_no_exact_logarithm_is_refused(net, loss, message):
    with pytest.raises(errors.KindError, match=message):
        fnn.log_probabilities(net, loss, (), np.full((2, 4), 0.25))


def test_labels_of_log_probabilities_are_those_of_probabilities():
    params = moved(NET, (4,), np.float32)
    log_p, p = (f(NET, LOSS, params, X, batch_size=5) for f in (predicting.log_probabilities, predicting.predict))
    np.testing.assert_allclose(np.exp(log_p), p, rtol=1e-6)
