"""The layers of images and sequences against those of PyTorch, whose weights are loaded into ours."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import oracle
import pytest
from helpers import BACKENDS, THOROUGH, on, wide

import fnn

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # on a busy machine its threads wait for each other
DRAWN = {"numpy": 100, "jax": 100 if THOROUGH else 3}  # JAX compiles for each


class Case(NamedTuple):
    """The same layer of fnn and of PyTorch, and x in fnn's order of axes.

    `apply(x)` is PyTorch's output in that order. `params` makes our parameters of the arrays of theirs; `grads` makes
    the gradient of ours, where two of theirs are one of ours.
    """

    layer: fnn.Layer
    module: Any
    apply: Callable
    x: np.ndarray
    params: Callable = lambda: ()
    grads: Callable | None = None


def last(a):
    """Channels last, as here."""
    return a.movedim(1, -1)


def conv(rng):
    rank, groups, bias, same = (int(v) for v in rng.integers((1, 1, 0, 0), (3, 4, 2, 3)))
    draw = lambda low, high: tuple(int(v) for v in rng.integers(low, high, rank))
    kernel, dilation, stride, padding = draw(1, 4), draw(1, 3), draw(1, 4), draw(0, 3)
    if same == 0:  # PyTorch has it for this stride only
        stride, padding = (1,) * rank, "same"
    sizes = tuple(int(rng.integers((k - 1) * d + 1, (k - 1) * d + 6)) for k, d in zip(kernel, dilation, strict=True))
    inputs, outputs = (groups * int(v) for v in rng.integers(1, 4, 2))
    kind = torch.nn.Conv1d if rank == 1 else torch.nn.Conv2d
    module = kind(inputs, outputs, kernel, stride, padding, dilation, groups, bool(bias), dtype=torch.float64)
    layer = fnn.Conv(outputs, kernel, stride, padding, dilation, groups, bool(bias))
    params = lambda w, b=(): fnn.DenseParams(np.moveaxis(w, 1, -1), b)
    return Case(layer, module, lambda x: last(module(x.movedim(-1, 1))), rng.normal(size=(3, *sizes, inputs)), params)


def pool(rng):
    rank, largest = int(rng.integers(1, 3)), bool(rng.integers(2))
    draw = lambda low, high: tuple(int(v) for v in rng.integers(low, high, rank))
    window, stride = draw(1, 4), draw(1, 4)
    padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in window)
    kind = getattr(torch.nn, f"{'Max' if largest else 'Avg'}Pool{rank}d")
    module = kind(window, stride, padding, **({} if largest else {"count_include_pad": False}))
    layer = (fnn.MaxPool if largest else fnn.AvgPool)(window, stride, padding)
    x = rng.normal(size=(3, *(int(rng.integers(k, k + 5)) for k in window), 2))
    return Case(layer, module, lambda x: last(module(x.movedim(-1, 1))), x)


def embedding(rng):
    symbols, units, positions = (int(v) for v in rng.integers(1, 8, 3))
    module = torch.nn.Embedding(symbols, units, dtype=torch.float64)
    return Case(fnn.Embedding(symbols, units), module, module, rng.integers(0, symbols, (3, positions)), lambda w: w)


def recurrent(ours, theirs, rng):
    units, positions, inputs = (int(v) for v in rng.integers(1, 6, 3))
    every = bool(rng.integers(2))
    module = theirs(inputs, units, batch_first=True, dtype=torch.float64)
    inside = slice(2 * units, None)  # of a GRU's second bias the part inside the reset gate is not added to the first
    params, grads = lambda w, u, b, c: (w, u, b + c), lambda w, u, b, c: (w, u, b)
    if ours is fnn.Gru:
        params = lambda w, u, b, c: (w, u, np.r_[(b + c)[: 2 * units], b[inside]], c[inside])
        grads = lambda w, u, b, c: (w, u, b, c[inside])
    of = lambda arrays: lambda *theirs: (fnn.GruParams if ours is fnn.Gru else fnn.RecurrentParams)(*arrays(*theirs))
    states = lambda x: module(x)[0] if every else module(x)[0][:, -1]
    x = rng.normal(size=(3, positions, inputs))
    return Case(ours(units, all_states=every), module, states, x, of(params), of(grads))


CASES = {
    "conv": conv,
    "pool": pool,
    "embedding": embedding,
    "rnn": functools.partial(recurrent, fnn.Rnn, torch.nn.RNN),
    "lstm": functools.partial(recurrent, fnn.Lstm, torch.nn.LSTM),
    "gru": functools.partial(recurrent, fnn.Gru, torch.nn.GRU),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")  # it only copies
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_torchs(name, backend):
    for seed in range(DRAWN[backend]):
        with wide():
            check(CASES[name](np.random.default_rng(seed)), backend)


def check(case, backend):
    """y, dx and the gradient under a random δ, to 1e-10."""
    theirs = list(case.module.parameters())
    with torch.no_grad():
        for i, p in enumerate(theirs):  # larger than at the start, and the same each time
            p.copy_(torch.tensor(np.random.default_rng(i).normal(size=p.shape)))
    params = case.params(*(p.detach().numpy() for p in theirs))
    params, x = on(backend, (params, case.x))
    y, residuals = case.layer.forward(params, x)
    dy = np.random.default_rng(1).normal(size=y.shape)
    learns_x = case.x.dtype == np.float64
    dx, delta = case.layer.propagate(params, residuals, on(backend, dy), learns_x)
    grads = case.layer.gradient(params, residuals, delta)

    tx = torch.tensor(case.x, requires_grad=learns_x)
    ty = case.apply(tx)
    ty.backward(torch.tensor(dy))
    wanted = (case.grads or case.params)(*(p.grad.numpy() for p in theirs))
    assert y.dtype == np.float64
    oracle.assert_close((y, grads), (ty.detach().numpy(), wanted), 1e-10)
    if learns_x:
        oracle.assert_close(dx, tx.grad.numpy(), 1e-10)
