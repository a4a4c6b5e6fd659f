"""Many runs at once: a sweep over keys, hyperparameters and data, the folds of a cross-validation, an ensemble.

A run is a function of its state, so many runs are `jax.vmap` of one: K networks stacked along a leading axis, and one
compiled program.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import backend, gate, trees
from ..backend import namespace
from ..devices import on_any_axes
from ..errors import ArgumentError, ShapeError, integer, usage
from ..layers import Layer
from ..losses import Loss
from ..order import order


def sweep(run: Callable[..., Any], *args: Any, chunk: int | None = None) -> Any:
    """Call `run` for each entry along the leading axis of `args`, as one compiled call.

    On several devices the runs are spread over them; on NumPy they run one after the other. Calling `sweep` again with
    the same function and arguments of the same shapes does not recompile. Define `run` once: each new function object
    is compiled anew.

    Args:
        run: a function of one entry of each of `args`, such as a call of `train`.
        *args: arrays, or trees of arrays, with one leading axis of runs.
        chunk: how many runs are in memory at a time, on each device. Default: all.

    Returns:
        The results of `run`, stacked along a leading axis, as `jax.vmap(run)(*args)` returns them.

    >>> from fnn import Quadratic, Sgd, init_state, mlp, random, train
    >>> net, data = mlp((1,)), (np.eye(2), np.ones((2, 1)))
    >>> def run(key, learning_rate):
    ...     state = init_state(net, Sgd(learning_rate), key, (2,))
    ...     return train(net, Quadratic(), state, data, epochs=3, batch_size=2)
    >>> keys = random.split(random.key(0, backend="numpy"), 2)
    >>> states, histories = sweep(run, keys, np.float32([0.1, 0.2]))
    >>> histories["loss"].shape, states.params[0].w.shape
    ((2, 3), (2, 1, 2))
    """
    leaves = trees.leaves(args)
    lengths = {np.shape(leaf)[:1] for leaf in leaves}
    if len(lengths) != 1 or () in lengths or (0,) in lengths:
        shapes = ", ".join(str(np.shape(leaf)) for leaf in leaves)
        raise ShapeError(f"sweep: expected arguments with one leading axis of runs, got shapes {shapes or 'none'}")
    runs = lengths.pop()[0]
    chunk = None if chunk is None else min(integer("chunk", chunk, least=1), runs)
    if not any(backend.is_jax(leaf) for leaf in leaves):
        first = run(*trees.map(lambda leaf: leaf[0], args))
        if not any(backend.is_jax(leaf) for leaf in trees.leaves(first)):
            rest = [run(*trees.map(lambda leaf: leaf[i], args)) for i in range(1, runs)]  # noqa: B023 - called at once
            return trees.map(lambda *of_runs: np.stack(of_runs), first, *rest)
        # something that `run` closes over, a key or parameters, is on JAX
    args = backend.ready(trees.map(lambda leaf: leaf if backend.is_jax(leaf) else backend.jnp.asarray(leaf), args))
    jax = backend.jax
    if backend.is_traced(*leaves) or not jax.sharding.get_abstract_mesh().empty:  # the caller distributes the work
        return _compiled(args, run=run, chunk=chunk, devices=())
    devices = tuple(jax.local_devices()[:runs])
    if len(devices) > 1:
        args = jax.device_put(args, jax.sharding.NamedSharding(_mesh(devices), jax.sharding.PartitionSpec()))
    return _compiled(args, run=run, chunk=chunk, devices=devices)


def _mesh(devices):
    axis = backend.jax.sharding.AxisType.Auto
    return backend.jax.make_mesh((len(devices),), ("runs",), axis_types=(axis,), devices=devices)


@backend.jit(static=("run", "chunk", "devices"))
def _compiled(args, *, run, chunk, devices):
    jax = backend.jax

    def chunks(args):
        return jax.vmap(run)(*args) if chunk is None else jax.lax.map(lambda a: run(*a), args, batch_size=chunk)

    if len(devices) < 2:
        return chunks(args)
    runs = len(trees.leaves(args)[0])
    each = -(-runs // len(devices))
    filled = np.minimum(np.arange(len(devices) * each), runs - 1)  # the last run repeated, to fill all devices
    spread = jax.sharding.PartitionSpec("runs")
    spread_over = jax.shard_map(chunks, mesh=_mesh(devices), in_specs=(spread,), out_specs=spread, check_vma=False)
    return trees.map(lambda leaf: leaf[:runs], spread_over(trees.map(lambda leaf: leaf[filled], args)))


def folds(key: Any, n: int, k: int) -> Any:
    """Split n examples at random into the k folds of a cross-validation.

    Used as weights, the folds make a cross-validation one call, since an example of weight 0 does not count:

        sweep(lambda held: train(net, loss, state, (x, y, ~held), validation=(x, y, held), ...), folds(key, len(x), 5))

    Args:
        key: a random key.
        n: the number of examples.
        k: the number of folds, at least 2 and at most n.

    Returns:
        Booleans (k, n), True where a fold holds an example out: once for each example, n/k times in each row.

    >>> from fnn import random
    >>> held = folds(random.key(0, backend="numpy"), n=5, k=2)
    >>> held.sum(axis=0).tolist(), held.sum(axis=1).tolist()
    ([1, 1, 1, 1, 1], [3, 2])
    """
    if integer("k", k, least=2) > integer("n", n, least=1):
        raise ArgumentError(f"k: expected at most as many folds as examples, {n}, got {k}")
    place = order(key, n)
    xp = namespace(place)
    return (xp.argsort(place) % k)[None, :] == xp.arange(k)[:, None]


@on_any_axes
@usage("fnn.ensemble(net, loss)(params, x)")
def ensemble(net: Layer, loss: Loss) -> Callable[..., tuple[Any, Any]]:
    """Make the function that averages the predictions of K networks and measures how much they disagree.

        mean = 1/K Σₖ pₖ        spread = √(1/K Σₖ (pₖ − mean)²)        pₖ = loss.predict(net.apply(paramsₖ, x))

    Args:
        net: the network that all K have in common.
        loss: the cost; for a cost on logits the predictions pₖ are probabilities.

    Returns:
        `(params, x) -> (mean, spread)`, where `params` are those of K networks stacked along a leading axis, as `sweep`
        returns them. mean and spread have the shape of one prediction.

    Source: B. Lakshminarayanan, A. Pritzel, C. Blundell, "Simple and scalable predictive uncertainty estimation using
    deep ensembles" (2017), §2.4.

    >>> from fnn import Dense, DenseParams, Quadratic
    >>> params = DenseParams(np.array([[[1.0]], [[3.0]]]), ())
    >>> ensemble(Dense(1, bias=False), Quadratic())(params, np.array([[1.0]]))
    (array([[2.]]), array([[1.]]))
    """
    gate.check_network(net)
    gate.check_cost(loss)

    def predict(params, x):
        members = {np.shape(leaf)[:1] for leaf in trees.leaves(params)}
        if len(members) != 1 or () in members:
            raise ShapeError(
                f"params: expected those of K networks, stacked along a leading axis, got {trees.outline(params)}"
            )
        each = backend.vmap(lambda params: loss.predict(net.apply(params, x)))(params)
        return each.mean(axis=0), each.std(axis=0)

    return predict
