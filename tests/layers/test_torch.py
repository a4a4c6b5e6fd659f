"""The layers of images and sequences against PyTorch, whose weights load into them."""

import numpy as np
import oracle
import pytest
from helpers import THOROUGH, on, wide

import fnn
from fnn import trees

torch = pytest.importorskip("torch")
TRIES = range(100 if THOROUGH else 12)


def tensor(a):
    return torch.tensor(np.asarray(a, np.float64), requires_grad=True)


def last(a):
    """Channels last, as here."""
    return a.movedim(1, -1)


def check(layer, params, x, theirs, wanted, backend="numpy"):
    """Values, dx and gradients of a layer under a random δ, against `theirs`, which makes y of the leaves `wanted`."""
    params, x = on(backend, (params, x))
    y, residuals = layer.forward(params, x)
    dy = np.random.default_rng(1).normal(size=y.shape)
    dx, delta = layer.propagate(params, residuals, on(backend, dy))
    oracle.assert_close(y, theirs.detach().numpy(), 1e-10)
    theirs.backward(torch.tensor(dy))
    grads = layer.gradient(params, residuals, delta)
    oracle.assert_close((dx, grads), trees.map(lambda f: f(), wanted), 1e-10)


def conv(seed, backend):
    rng = np.random.default_rng(seed)
    rank, groups = int(rng.integers(1, 3)), int(rng.integers(1, 4))
    draw = lambda low, high: tuple(int(v) for v in rng.integers(low, high, rank))
    kernel, dilation, stride, padding = draw(1, 4), draw(1, 3), draw(1, 4), draw(0, 3)
    sizes = tuple(int(rng.integers((k - 1) * d + 1, (k - 1) * d + 6)) for k, d in zip(kernel, dilation, strict=True))
    channels, outputs = (groups * int(v) for v in rng.integers(1, 4, 2))
    layer = fnn.Conv(outputs, kernel, stride, padding, dilation, groups)
    x = rng.normal(size=(3, *sizes, channels))
    w, b = rng.normal(size=(outputs, *kernel, channels // groups)), rng.normal(size=outputs)
    tx, tw, tb = tensor(x), tensor(w), tensor(b)
    run = torch.nn.functional.conv1d if rank == 1 else torch.nn.functional.conv2d
    y = last(run(tx.movedim(-1, 1), tw.movedim(-1, 1), tb, stride, padding, dilation, groups))
    leaves = (lambda: tx.grad.numpy()), fnn.DenseParams(lambda: tw.grad.numpy(), lambda: tb.grad.numpy())
    check(layer, fnn.DenseParams(w, b), x, y, leaves, backend)


def pool(seed, backend):
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(1, 3))
    draw = lambda low, high: tuple(int(v) for v in rng.integers(low, high, rank))
    window, stride = draw(1, 4), draw(1, 4)
    padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in window)
    x = rng.normal(size=(3, *(int(rng.integers(k, k + 5)) for k in window), 2))
    tx, functional = tensor(x), torch.nn.functional
    names = ("max_pool1d", "avg_pool1d") if rank == 1 else ("max_pool2d", "avg_pool2d")
    largest, mean = (getattr(functional, name) for name in names)
    run = largest if seed % 2 else lambda *a: mean(*a, count_include_pad=False)
    layer = (fnn.MaxPool if seed % 2 else fnn.AvgPool)(window, stride, padding)
    check(layer, (), x, last(run(tx.movedim(-1, 1), window, stride, padding)), (lambda: tx.grad.numpy(), ()), backend)


def recurrent(seed, backend):
    rng = np.random.default_rng(seed)
    ours, theirs = [(fnn.Rnn, torch.nn.RNN), (fnn.Lstm, torch.nn.LSTM), (fnn.Gru, torch.nn.GRU)][seed % 3]
    units, positions, inputs = (int(v) for v in rng.integers(1, 6, 3))
    module = theirs(inputs, units, batch_first=True, dtype=torch.float64)
    w, u, b, c = (p.detach().numpy() for p in module.parameters())
    tw, tu, tb, tc = module.parameters()
    grad = lambda p: lambda: p.grad.numpy()
    if ours is fnn.Gru:  # of the second bias only the part inside the reset gate is not added to the first
        inside = slice(2 * units, None)
        params = fnn.GruParams(w, u, np.r_[(b + c)[: 2 * units], b[inside]], c[inside])
        wanted = fnn.GruParams(grad(tw), grad(tu), grad(tb), lambda: tc.grad.numpy()[inside])
    else:
        params, wanted = fnn.RecurrentParams(w, u, b + c), fnn.RecurrentParams(grad(tw), grad(tu), grad(tb))
    every = bool(rng.integers(2))
    x = rng.normal(size=(3, positions, inputs))
    tx = tensor(x)
    y = module(tx)[0]
    check(ours(units, all_states=every), params, x, y if every else y[:, -1], (grad(tx), wanted), backend)


@pytest.mark.parametrize("of", [conv, pool, recurrent], ids=lambda f: f.__name__)
@pytest.mark.parametrize("seed", TRIES)
def test_values_and_gradients_are_torchs(of, seed):
    of(seed, "numpy")


@pytest.mark.parametrize("of", [conv, pool, recurrent], ids=lambda f: f.__name__)
@pytest.mark.parametrize("seed", range(200, 203))
def test_values_and_gradients_are_torchs_on_jax(of, seed, needs_jax):
    with wide():
        of(seed, "jax")


def test_an_embedding_is_torchs():
    rng = np.random.default_rng(0)
    w, x, dy = rng.normal(size=(7, 3)), rng.integers(0, 7, (4, 5)), rng.normal(size=(4, 5, 3))
    tw = tensor(w)
    torch.nn.functional.embedding(torch.tensor(x), tw).backward(torch.tensor(dy))
    layer = fnn.Embedding(7, 3)
    _, residuals = layer.forward(w, x)
    oracle.assert_close(layer.gradient(w, residuals, dy), tw.grad.numpy(), 1e-10)
