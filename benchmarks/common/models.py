"""Four networks, each written three times: with fnn, plainly in JAX, and with PyTorch; and a step of each as a side.

All take the parameters of fnn (PyTorch its own), minimise the mean softmax cross-entropy by plain gradient descent on
one batch, and make many steps a turn: with JAX in one compiled call, as `fnn.train` does.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import fnn
from fnn import random

from .sides import torch_device

LOSS = fnn.SoftmaxCrossEntropy()
TORCH = ("eager", "default", "reduce-overhead")  # the latter two are modes of torch.compile


class Model(NamedTuple):
    """A network of fnn, the shape of an example, `plain(params, x)` in JAX, `torch()` that makes a module.

    An example is of random numbers, or of so many symbols.
    """

    net: Any
    shape: tuple
    plain: Callable
    torch: Callable | None = None
    symbols: int = 0

    def params(self, dtype=np.float32):
        """Initial parameters, drawn on the device."""
        return fnn.init_state(self.net, fnn.Sgd(0.0), random.key(0), self.shape, dtype).params

    def batch(self, n):
        """Random examples and their labels, on the host."""
        rng = np.random.default_rng(0)
        shape, y = (n, *self.shape), rng.integers(0, 10, n, np.int32)
        return rng.integers(0, self.symbols, shape, np.int32) if self.symbols else rng.standard_normal(
            shape, np.float32
        ), y


# ---- the networks ----------------------------------------------------------------------------------------------------


def mlp(*sizes) -> Model:
    """Dense layers with ReLU between; the last has 10 units."""
    import jax

    def plain(params, x):
        *hidden, last = params[::2]
        for w, b in hidden:
            x = jax.nn.relu(x @ w.T + b)
        return x @ last.w.T + last.b

    def torch():
        from torch import nn

        return nn.Sequential(*[f for i, o in itertools.pairwise(sizes) for f in (nn.Linear(i, o), nn.ReLU())][:-1])

    return Model(fnn.mlp(sizes[1:]), sizes[:1], plain, torch)


def lenet() -> Model:
    """Conv 20, Conv 40, Dense 128, Dense 10 on images (28, 28, 1); PyTorch's are (1, 28, 28)."""
    import jax

    conv = lambda channels: (fnn.Conv(channels, (5, 5)), fnn.Relu(), fnn.MaxPool((2, 2)))
    net = fnn.Serial((*conv(20), *conv(40), fnn.Flatten(), fnn.Dense(128), fnn.Relu(), fnn.Dense(10)))

    def plain(params, x):
        for w, b in (params[0], params[3]):
            z = jax.lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=("NHWC", "OHWI", "NHWC")) + b
            pool = (1, 2, 2, 1)
            x = jax.lax.reduce_window(jax.nn.relu(z), -np.inf, jax.lax.max, pool, pool, "VALID")
        (w, b), (v, c) = params[7], params[9]
        return jax.nn.relu(x.reshape(len(x), -1) @ w.T + b) @ v.T + c

    def torch():
        from torch import nn

        conv = lambda i, o: (nn.Conv2d(i, o, 5), nn.ReLU(), nn.MaxPool2d(2))
        return nn.Sequential(
            *conv(1, 20), *conv(20, 40), nn.Flatten(), nn.Linear(640, 128), nn.ReLU(), nn.Linear(128, 10)
        )

    return Model(net, (28, 28, 1), plain, torch)


def lstm(inputs, units, positions) -> Model:
    """A Lstm layer, and a Dense layer on its last state."""
    import jax

    def plain(params, x):
        (w, u, b), (v, c) = params

        def ahead(state, s):
            h, cell = state
            i, f, g, o = jax.numpy.split(s + h @ u.T, 4, axis=-1)
            cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jax.numpy.tanh(g)
            return (jax.nn.sigmoid(o) * jax.numpy.tanh(cell), cell), None

        start = jax.numpy.zeros((len(x), units), x.dtype)
        (h, _), _ = jax.lax.scan(ahead, (start, start), (x @ w.T + b).swapaxes(0, 1))
        return h @ v.T + c

    def torch():
        from torch import nn

        class Last(nn.Module):
            def __init__(self):
                super().__init__()
                self.lstm, self.dense = nn.LSTM(inputs, units, batch_first=True), nn.Linear(units, 10)

            def forward(self, x):
                return self.dense(self.lstm(x)[0][:, -1])

        return Last()

    return Model(fnn.Serial((fnn.Lstm(units), fnn.Dense(10))), (positions, inputs), plain, torch)


def embedded() -> Model:
    """An Embedding, both norms and two Dense layers; with fnn only, whose forward pass JAX differentiates, too."""
    norms = (fnn.LayerNorm(), fnn.Dense(64), fnn.Relu(), fnn.RMSNorm())
    net = fnn.Serial((fnn.Embedding(20, 32), *norms, fnn.Flatten(), fnn.Dense(10)))
    return Model(net, (16,), net.apply, symbols=20)


# ---- a step of each --------------------------------------------------------------------------------------------------


def plain_cost(plain):
    """The mean cost, written plainly."""
    import jax

    def cost(params, x, y):
        logits = plain(params, x)
        logits = jax.nn.log_softmax(logits.astype(jax.numpy.promote_types(logits.dtype, np.float32)))
        return -jax.numpy.take_along_axis(logits, y[:, None], axis=1).mean()

    return cost


def gradient_of(model, by):
    """`(params, x, y) -> (value, grads)` by "fnn" or by "jax.grad"."""
    import jax

    return fnn.value_and_grad(model.net, LOSS) if by == "fnn" else jax.value_and_grad(plain_cost(model.plain))


def jax_side(model, by, n, steps, rate, dtype=np.float32):
    """So many steps in one compiled call, with the gradient by "fnn" or by "jax.grad"."""
    import jax

    gradient, params = gradient_of(model, by), model.params(dtype)
    x, y = model.batch(n)
    x, y = jax.numpy.asarray(x, dtype), jax.numpy.asarray(y)

    @jax.jit
    def descend(params, x, y):
        def step(params, _):
            value, grads = gradient(params, x, y)
            return jax.tree.map(lambda p, g: p - rate * g, params, grads), value

        return jax.lax.scan(step, params, None, steps)

    def turn():
        nonlocal params
        params, values = jax.block_until_ready(descend(params, x, y))
        return float(values[-1])

    return turn


def train_side(model, n, steps, rate, dtype=np.float32):
    """The same by `fnn.train`, which draws an order and gathers the batch for each step, too."""
    import jax

    state = fnn.init_state(model.net, fnn.Sgd(rate), random.key(0), model.shape, dtype)
    x, y = model.batch(n)
    data = jax.numpy.asarray(x, dtype), jax.numpy.asarray(y)

    def turn():
        nonlocal state
        state, history = jax.block_until_ready(fnn.train(model.net, LOSS, state, data, steps=steps, batch_size=n))
        return float(history["loss"][-1])

    return turn


def torch_side(model, n, steps, rate, dtype="float32", mode="eager"):
    """The same by PyTorch: eager, or with the cost compiled in this mode."""
    import torch

    device = torch_device()
    module, cost = model.torch().to(device, getattr(torch, dtype)), torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(module.parameters(), lr=rate, fused=device == "cuda")
    x, y = model.batch(n)
    x = np.moveaxis(x, -1, 1).copy() if x.ndim == 4 else x
    x, y = torch.tensor(x, device=device).to(getattr(torch, dtype)), torch.tensor(y, device=device, dtype=torch.int64)

    def value(x, y):
        return cost(module(x).float(), y)

    if mode != "eager":
        value = torch.compile(value, mode=mode, dynamic=False)

    def turn():
        loss = None
        for _ in range(steps):
            if mode == "reduce-overhead":
                torch.compiler.cudagraph_mark_step_begin()
            optimizer.zero_grad()
            loss = value(x, y)
            loss.backward()
            optimizer.step()
        return loss.item()

    return turn


def sides(model, n, steps, rate, dtype="float32", torch=TORCH):
    """All of them by name; PyTorch "eager", and compiled in each of the other modes."""
    makers = {
        "fnn": lambda: jax_side(model, "fnn", n, steps, rate, dtype),
        "fnn.train": lambda: train_side(model, n, steps, rate, dtype),
        "jax.grad": lambda: jax_side(model, "jax.grad", n, steps, rate, dtype),
    }
    for mode in torch:
        name = "PyTorch eager" if mode == "eager" else f"PyTorch compiled, {mode}"
        makers[name] = lambda mode=mode: torch_side(model, n, steps, rate, dtype, mode)
    return makers
