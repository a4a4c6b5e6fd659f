"""One network of dense layers with ReLU between, softmax cross-entropy and plain Sgd, trained by everyone.

A side is made of a `Problem`, and is a function `run(epochs)` that trains on and gives the last loss. All see float32
data in memory (but for the side named so), use every example once an epoch in an order made anew for each, and take
the ragged last batch too. Each is written as its own tutorials write it, and where they differ, in the way found to
be quicker: Flax's gather batches with `x[index]` outside of the compiled step, which takes twice as long as within it.
"""

import functools
import itertools
import os
import warnings
from typing import NamedTuple

import numpy as np

import fnn
from fnn import backend, datasets, random
from fnn.order import Plan
from fnn.training.loop import batches_at_once

RATE = 0.1


class Problem(NamedTuple):
    """Layers of the `sizes` inputs, hidden ..., outputs; a batch size; data x (N, inputs) float32, y (N,) labels."""

    sizes: tuple
    batch: int
    x: np.ndarray
    y: np.ndarray

    def __str__(self):
        return f"{'-'.join(map(str, self.sizes))}, batch {self.batch}, {len(self.x):,} examples"


def images(n):
    """MNIST if FNN_DATA names its folder and `n` is None, else `n` (or 60,000) random images, which take the same time.

    Returns `(x, y), (x_test, y_test)`, with x as float32 from 0 to 1.
    """
    if os.environ.get("FNN_DATA") and n is None:
        return tuple((x / np.float32(255), y) for x, y in datasets.mnist())
    rng, n = np.random.default_rng(0), n or 60_000

    def some(n):
        return rng.integers(0, 256, (n, 784), np.uint8) / np.float32(255), rng.integers(0, 10, n, np.int32)

    return some(n), some(n // 6)


# ---- fnn, and the same by jax.grad -----------------------------------------------------------------------------------


def fnn_side(problem, on="jax", precision=None, uint8=False):
    """fnn's `train`, one call a turn, checks of the data included."""
    (inputs, *units), batch, x, y = problem
    net, loss = fnn.mlp(units, precision=precision), fnn.SoftmaxCrossEntropy()
    if uint8:
        net, x = fnn.Serial((fnn.Scale(1 / 255), net)), np.rint(255 * x).astype(np.uint8)
    state = fnn.init_state(net, fnn.Sgd(RATE), random.key(0, backend=on), (inputs,))
    data = (backend.jnp.asarray(x), backend.jnp.asarray(y)) if on == "jax" else (x, y)

    def run(epochs):
        nonlocal state
        state, history = fnn.train(net, loss, state, data, epochs=epochs, batch_size=batch)
        return float(history["loss"][-1])

    return run


def train_by_jax_grad(params, key, e, x, y, *, epochs, batch):
    """`fnn.train` with `jax.grad` for our backward pass: the same layout, order and blocks."""
    import jax

    plan = Plan(len(x), batch)
    at_once = batches_at_once(plan.steps, batch * x[:1].size * x.dtype.itemsize)

    def cost(params, x, y, weights=None):
        *hidden, (w, b) = params[::2]
        for of_layer in hidden:
            x = jax.nn.relu(x @ of_layer.w.T + of_layer.b)
        picked = jax.numpy.take_along_axis(jax.nn.log_softmax(x @ w.T + b), y[:, None], axis=1)[:, 0]
        return -picked.mean() if weights is None else -(weights * picked).sum() / weights.sum()

    def step(params, of_batch):
        value, grads = jax.value_and_grad(cost)(params, *of_batch)
        return jax.tree.map(lambda p, g: p - RATE * g, params, grads), value

    def block(params, chosen):
        index, used = chosen
        of_block = (x.take(index, axis=0, mode="clip"), y.take(index, mode="clip"), used.astype(np.float32))
        return jax.lax.scan(step, params, of_block if plan.n % batch else of_block[:2])

    def epoch(carry, _):
        params, e = carry
        order = plan.batches(key, e, 0, plan.steps, fresh=True)
        params, values = jax.lax.scan(block, params, tuple(a.reshape(-1, at_once, batch) for a in order))
        return (params, e + 1), values.reshape(-1)

    (params, e), values = jax.lax.scan(epoch, (params, e), None, epochs)
    return params, e, values.reshape(-1)


def jax_grad_side(problem):
    """The same scan with `jax.grad` in the place of our backward pass."""
    import jax

    (inputs, *units), batch, x, y = problem
    state = fnn.init_state(fnn.mlp(units), fnn.Sgd(RATE), random.key(0), (inputs,))
    params, e, x, y = state.params, state.epoch, jax.numpy.asarray(x), jax.numpy.asarray(y)
    train = jax.jit(train_by_jax_grad, static_argnames=("epochs", "batch"))

    def run(epochs):
        nonlocal params, e
        params, e, values = train(params, state.key, e, x, y, epochs=epochs, batch=batch)
        return float(values[-1])

    return run


# ---- the floor: the matrix products of a step, and nothing else ------------------------------------------------------


def products_side(problem, together=False):
    """Every product of a step, on one batch: x Wᵀ, δ W (but for the first layer) and δᵀ x, as anyone would write them.

    Each is timed in a scan of its own, and the turn is their sum; or `together`, all of a step in one scan.
    """
    import jax
    import jax.numpy as jnp

    sizes, batch, x, _ = problem
    steps = Plan(len(x), batch).steps
    products = []
    for layer, (i, o) in enumerate(itertools.pairwise(sizes)):
        a, d, w = jnp.ones((batch, i)), jnp.ones((batch, o)), jnp.ones((o, i))
        products.append((lambda a, w: a @ w.T, a, w))
        products += [(lambda d, w: d @ w, d, w)] if layer else []
        products.append((lambda d, a: d.T @ a, d, a))

    def repeat(operands, *, of, times):
        def step(carry, _):
            operands, _ = carry
            made = jax.lax.optimization_barrier([f(*pair) for f, pair in zip(of, operands, strict=True)])
            after = 1e-30 * sum(m[0, 0] for m in made)  # one entry of each changes: no step can begin before the last
            return ([(p.at[0, 0].add(after), q) for p, q in operands], made), None

        empty = [jnp.zeros(jax.eval_shape(f, *pair).shape) for f, pair in zip(of, operands, strict=True)]
        return jax.lax.scan(step, (operands, empty), None, times)[0][1]

    repeat = jax.jit(repeat, static_argnames=("of", "times"))

    def run(epochs):
        for group in [products] if together else [[product] for product in products]:
            functions, operands = tuple(f for f, *_ in group), [tuple(pair) for _, *pair in group]
            jax.block_until_ready(repeat(operands, of=functions, times=epochs * steps))
        return 0.0

    return run


# ---- the frameworks --------------------------------------------------------------------------------------------------


def torch_device():
    """Where PyTorch computes, from the same seed; on a GPU with TF32 products, as JAX's default is."""
    import torch

    torch.manual_seed(0)
    if not torch.cuda.is_available():
        return "cpu"
    torch.set_float32_matmul_precision("high")
    return "cuda"


def torch_side(problem, compiled=False, mode=None):
    """PyTorch, the loop of its tutorials on tensors in memory, all cores; or with the step compiled, in a mode."""
    import torch

    (sizes, batch, x, y), device = problem, torch_device()
    layers = [f for i, o in itertools.pairwise(sizes) for f in (torch.nn.Linear(i, o), torch.nn.ReLU())]
    model = torch.nn.Sequential(*layers[:-1]).to(device)
    optimizer, cost = torch.optim.SGD(model.parameters(), lr=RATE), torch.nn.CrossEntropyLoss()
    x, y = torch.tensor(x, device=device), torch.tensor(y, dtype=torch.int64, device=device)

    def step(x, y):
        optimizer.zero_grad()
        loss = cost(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    if compiled:
        step = torch.compile(step, mode=mode, dynamic=False if mode else None)  # a program for the last batch, too
        try:
            step(x[:batch], y[:batch])
        except Exception as error:  # of many kinds, all of them Inductor's
            raise ImportError(f"no compiler that works: {type(error).__name__}") from error

    def run(epochs):
        loss = torch.zeros(())
        for _ in range(epochs):
            for index in torch.randperm(len(x), device=device).split(batch):
                if mode == "reduce-overhead":
                    torch.compiler.cudagraph_mark_step_begin()
                loss = step(x[index], y[index])
        return loss.item()

    return run


def loop(problem, step, state, gathered_by):
    """A compiled `step(state, x, y, index=None) -> (state, loss)` in a loop of Python, the order by NumPy.

    Batches are gathered within the step from data on the device, or before it by NumPy.
    """
    import jax.numpy as jnp

    _, batch, x, y = problem
    rng, n = np.random.default_rng(0), len(x)
    on_device = (jnp.asarray(x), jnp.asarray(y)) if gathered_by == "JAX" else ()

    def run(epochs):
        nonlocal state
        loss = np.nan
        for _ in range(epochs):
            order = rng.permutation(n).astype(np.int32)
            for index in (order[start : start + batch] for start in range(0, n, batch)):
                state, loss = step(state, *on_device, index) if on_device else step(state, x[index], y[index])
        return float(loss)

    return run


def picked(x, y, index):
    return (x, y) if index is None else (x[index], y[index])


def linen_side(problem, gathered_by="NumPy"):
    """Flax Linen with Optax: the TrainState and the jitted step of Flax's MNIST example."""
    import flax.linen as nn
    import jax
    import optax
    from flax.training.train_state import TrainState

    sizes = problem.sizes

    class Mlp(nn.Module):
        @nn.compact
        def __call__(self, x):
            for units in sizes[1:-1]:
                x = nn.relu(nn.Dense(units)(x))
            return nn.Dense(sizes[-1])(x)

    @jax.jit
    def step(state, x, y, index=None):
        x, y = picked(x, y, index)

        def cost(params):
            logits = state.apply_fn({"params": params}, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        loss, grads = jax.value_and_grad(cost)(state.params)
        return state.apply_gradients(grads=grads), loss

    model = Mlp()
    params = model.init(jax.random.key(0), problem.x[:1])["params"]
    return loop(problem, step, TrainState.create(apply_fn=model.apply, params=params, tx=optax.sgd(RATE)), gathered_by)


def nnx_side(problem, gathered_by="NumPy"):
    """Flax NNX with Optax: model and optimizer are changed in place within `nnx.jit`."""
    import jax
    import optax
    from flax import nnx

    class Mlp(nnx.Module):
        def __init__(self, sizes, rngs):
            self.layers = nnx.List(nnx.Linear(i, o, rngs=rngs) for i, o in itertools.pairwise(sizes))

        def __call__(self, x):
            for layer in self.layers[:-1]:
                x = jax.nn.relu(layer(x))
            return self.layers[-1](x)

    def cost(model, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

    @nnx.jit
    def update(model, optimizer, x, y, index):
        loss, grads = nnx.value_and_grad(cost)(model, *picked(x, y, index))
        optimizer.update(model, grads)
        return loss

    model = Mlp(problem.sizes, nnx.Rngs(0))
    update = nnx.cached_partial(update, model, nnx.Optimizer(model, optax.sgd(RATE), wrt=nnx.Param))
    return loop(problem, lambda state, x, y, index=None: (state, update(x, y, index)), None, gathered_by)


def equinox_side(problem, gathered_by="NumPy"):
    """Equinox with Optax: `filter_jit`, and `jax.vmap` of a model of one example."""
    import equinox as eqx
    import jax
    import optax

    sizes, key = problem.sizes, jax.random.key(0)
    layers = []
    for layer, (i, o) in enumerate(itertools.pairwise(sizes)):
        layers += [eqx.nn.Linear(i, o, key=jax.random.fold_in(key, layer)), eqx.nn.Lambda(jax.nn.relu)]
    model, optimizer = eqx.nn.Sequential(layers[:-1]), optax.sgd(RATE)

    def cost(model, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(model)(x), y).mean()

    @eqx.filter_jit
    def step(state, x, y, index=None):
        model, opt_state = state
        loss, grads = eqx.filter_value_and_grad(cost)(model, *picked(x, y, index))
        updates, opt_state = optimizer.update(grads, opt_state, model)
        return (eqx.apply_updates(model, updates), opt_state), loss

    return loop(problem, step, (model, optimizer.init(eqx.filter(model, eqx.is_array))), gathered_by)


def sklearn_side(problem):
    """scikit-learn's MLPClassifier with plain SGD."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    (_, *hidden, _), batch, x, y = problem
    options = {"momentum": 0, "alpha": 0, "learning_rate_init": RATE, "tol": 0, "warm_start": True}
    model = MLPClassifier(tuple(hidden), solver="sgd", batch_size=batch, random_state=0, **options)

    def run(epochs):
        model.max_iter = epochs
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x, y)
        return float(model.loss_)

    return run


SIDES = {
    "fnn on JAX": fnn_side,
    "fnn on JAX, images as uint8": functools.partial(fnn_side, uint8=True),
    "fnn on JAX, bfloat16": functools.partial(fnn_side, precision="bfloat16"),
    "jax.grad in the same scan": jax_grad_side,
    "its matrix products, in one scan": functools.partial(products_side, together=True),
    "its matrix products, each alone": products_side,
    "PyTorch eager": torch_side,
    "PyTorch compiled": functools.partial(torch_side, compiled=True),
    "Flax Linen, batches by JAX": functools.partial(linen_side, gathered_by="JAX"),
    "Flax Linen, batches by NumPy": linen_side,
    "Flax NNX, batches by JAX": functools.partial(nnx_side, gathered_by="JAX"),
    "Flax NNX, batches by NumPy": nnx_side,
    "Equinox, batches by JAX": functools.partial(equinox_side, gathered_by="JAX"),
    "Equinox, batches by NumPy": equinox_side,
    "fnn on NumPy": functools.partial(fnn_side, on="numpy"),
    "scikit-learn MLPClassifier": sklearn_side,
}
