"""Runs on several devices: where data, parameters and states lie. What is computed does not change.

A mesh is a grid of devices with the axes "data" and "model". Arrays are placed on it, and `train`, `fit`, `make_step`
and all functions of batches then run on its devices, as JAX's compiler (GSPMD) divides them:

    data parallel      each device has the examples of its part of every batch, and all parameters; one sum of the
                       gradients over the devices, dW = Σ_devices δᵀ a, follows the backward pass
    tensor parallel    each device has a part of each weight. For a pair of layers, y = f(x Aᵀ) Bᵀ: A in columns, one
                       for some of its outputs, and B in rows, for the same inputs, so that only y, and on the way back
                       dx, are sums over the devices

The order of examples, Poisson sampling and all noise come from the key of the run, so every device knows them, and the
run is the same on any number of devices, up to rounding.

Source: M. Shoeybi et al., "Megatron-LM: training multi-billion parameter language models using model parallelism"
(2019), §3; S. Rajbhandari et al., "ZeRO: memory optimizations toward training trillion parameter models" (2020).
"""

from functools import partial
from typing import Any

import numpy as np  # noqa: F401 - for the example

from . import backend, random, trees  # noqa: F401 - random for the example
from .composition import each, walk
from .devices import DATA
from .errors import ArgumentError, KindError, ShapeError, shorten
from .layers import Conv, Dense
from .processes import put

__all__ = ["layout", "mesh", "place_data", "place_share", "place_state"]

HOW = "replicated", "columns", "rows", "alternating", "full"


def mesh(data: int | None = None, model: int = 1) -> Any:
    """Make a mesh of devices with the axes "data" and "model", both automatic (see `jax.make_mesh`).

    Args:
        data: over how many devices the examples of a batch are divided. Default: all devices / `model`.
        model: over how many devices parameters are divided. Default: 1.

    Returns:
        A `jax.sharding.Mesh` of the first data × model devices.

    Raises:
        ArgumentError: if there are fewer devices.

    >>> mesh(1).axis_names
    ('data', 'model')
    """
    jax = backend.need_jax("fnn.sharding")
    there = len(jax.devices())
    data = there // model if data is None else data
    if not 0 < data * model <= there:
        raise ArgumentError(
            f"mesh: expected at most {there} devices, got {data} × {model}; on the CPU, JAX has as many as "
            "jax.config.update('jax_num_cpu_devices', ...) says before its first use"
        )
    auto = jax.sharding.AxisType.Auto
    return jax.make_mesh((data, model), (DATA, "model"), (auto, auto), devices=jax.devices()[: data * model])


def place_data(mesh: Any, data: Any, *, split: bool = False) -> Any:
    """Place data on a mesh, for `train`, `fit` and `evaluate`, or a batch for `make_step`.

    By default every device has all of the data, and takes its part of each batch from there, which needs no
    communication. With `split`, each has a part of the data; use it for a batch, of which each device then has its
    examples, and for data that are too large, of which a batch is then collected from all devices.

    Args:
        mesh: the mesh.
        data: a tree of arrays with the examples along the first axis, such as `(x, y)`.
        split: whether to divide the examples over the axis "data", which must divide their number. Default: False.

    Returns:
        The tree, with JAX arrays on the mesh.

    >>> x, y = place_data(mesh(1), (np.zeros((8, 3), np.float32), np.zeros(8, int)), split=True)
    >>> tuple(x.sharding.spec)
    ('data',)
    """
    _check_mesh(mesh)
    spec, parts = ((DATA,), mesh.shape[DATA]) if split else ((), 1)
    for place, array in trees.paths(data, "data"):
        if len(array) % parts:
            raise ShapeError(
                f"{place}: expected a multiple of {parts} examples, one part for each device, got {len(array)}"
            )
    return trees.map(lambda array: put(array, _sharding(mesh, *spec)), data)


def place_share(mesh: Any, share: Any) -> Any:
    """Place data of which each process has another share, as many examples as the others, in the order of processes.

    The arrays are divided over "data" (see `place_data`), and no process ever has all of them.

    Args:
        mesh: the mesh, of devices of all processes.
        share: a tree of arrays with the examples of this process along the first axis.

    Returns:
        The tree, with JAX arrays of all examples on the mesh.

    >>> x, y = place_share(mesh(1), (np.zeros((8, 3), np.float32), np.zeros(8, int)))
    >>> x.shape
    (8, 3)
    """
    jax = _check_mesh(mesh)
    return trees.map(partial(jax.make_array_from_process_local_data, _sharding(mesh, DATA)), share)


def place_state(mesh: Any, net: Any, state: Any, how: str = "replicated") -> Any:
    """Place a state on a mesh: parameters as `layout` says, and with them what an optimizer or a rule has for each.

    Args:
        mesh: the mesh.
        net: the network.
        state: a `TrainState`, or parameters.
        how: as for `layout`. Default: "replicated".

    Returns:
        The state with its arrays on the mesh. Checkpoints contain whole arrays, so a state that is loaded from one may
        be placed in another way than the one that was saved.

    >>> import fnn
    >>> net = fnn.mlp((4, 1))
    >>> state = fnn.init_state(net, fnn.Momentum(0.1), random.key(0, backend="jax"), (2,))
    >>> tuple(place_state(mesh(1), net, state, "alternating").params[0].w.sharding.spec)
    ('model', None)
    """
    jax = _check_mesh(mesh)
    params = getattr(state, "params", state)
    shardings = layout(mesh, net, params, how)

    def place(node):
        if trees.leaves(params) and trees.alike(node, params):
            return jax.tree.map(put, node, shardings)
        if isinstance(node, tuple | dict) and trees.leaves(node):
            inner = [place(node[key]) for key in node] if isinstance(node, dict) else [place(part) for part in node]
            if isinstance(node, dict):
                return dict(zip(node, inner, strict=True))
            return type(node)(*inner) if hasattr(node, "_fields") else tuple(inner)
        return jax.tree.map(lambda leaf: put(leaf, _sharding(mesh)), node)

    return place(state)


def layout(mesh: Any, net: Any, params: Any, how: str = "replicated") -> Any:
    """Where each parameter of a network lies on a mesh.

        W (O, I), b (O,)        columns: O is divided over "model"        rows: I is divided, and b is everywhere

    Args:
        mesh: the mesh.
        net: the network.
        params: its parameters, or their shapes.
        how: "replicated": all parameters are on each device; "columns" or "rows": all dense layers and convolutions
            are so divided; "alternating": they are divided in columns and rows in turn, as in Megatron, and the last of
            an odd number is on each device; "full": each parameter is divided over "data" along its largest axis that
            can be (ZeRO's third stage). Default: "replicated".

    Returns:
        A tree of `jax.sharding.NamedSharding`, nested as the parameters. Your own takes its place in `jax.device_put`.

    Raises:
        ShapeError: if the size of an axis is not a multiple of the devices over which it is to be divided.

    >>> from fnn import Dense, DenseParams
    >>> params = DenseParams(np.zeros((4, 2), np.float32), np.zeros(4, np.float32))
    >>> tuple(layout(mesh(1), Dense(4), params, "columns").w.spec)
    ('model', None)
    """
    jax = _check_mesh(mesh)
    if how not in HOW:
        raise ArgumentError(f"how: expected one of {', '.join(map(repr, HOW))}, got {shorten(how)}")
    if how == "full":
        return jax.tree.map(lambda p: _sharding(mesh, *_largest(p.shape, mesh.shape[DATA])), params)
    if how == "replicated":
        return jax.tree.map(lambda p: _sharding(mesh), params)
    number, parts = sum(isinstance(layer, Dense | Conv) for _, layer in walk(net)), mesh.shape["model"]
    ways = [how] * number if how != "alternating" else ["columns", "rows"] * (number // 2) + [None] * (number % 2)
    ways = iter(ways)

    def of_layer(layer, p):
        way = next(ways) if isinstance(layer, Dense | Conv) else None
        if way is None:
            return jax.tree.map(lambda p: _sharding(mesh), p)
        axis = 0 if way == "columns" else p.w.ndim - 1
        if p.w.shape[axis] % parts:
            many = f"{parts} {'outputs' if way == 'columns' else 'inputs'}"
            raise ShapeError(f"{shorten(layer)}: expected a multiple of {many}, to be divided, got {p.w.shape[axis]}")
        w = _sharding(mesh, *("model" if i == axis else None for i in range(p.w.ndim)))
        b = _sharding(mesh, "model") if way == "columns" else _sharding(mesh)
        return p._replace(w=w, b=jax.tree.map(lambda _: b, p.b))

    return each(of_layer, net, params)


def _largest(shape, parts):
    """The largest axis that is a multiple of the parts, as a partition; none if there is no such axis."""
    sizes = {i: size for i, size in enumerate(shape) if size % parts == 0 and size >= parts}
    chosen = max(sizes, key=lambda i: sizes[i], default=None)
    return [DATA if i == chosen else None for i in range(len(shape))]


def _sharding(mesh, *spec):
    return backend.jax.sharding.NamedSharding(mesh, backend.jax.sharding.PartitionSpec(*spec))


def _check_mesh(mesh):
    jax = backend.need_jax("fnn.sharding")
    if not isinstance(mesh, jax.sharding.Mesh) or set(mesh.axis_names) != {DATA, "model"}:
        raise KindError(f"mesh: expected a mesh with axes 'data' and 'model', as fnn.sharding.mesh makes, got {mesh}")
    return jax
