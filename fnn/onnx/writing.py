"""The file: what is checked before, which axes stay open, and what it says about itself."""

import os
from typing import Any

import numpy as np

from .. import files, trees
from ..backend import is_traced
from ..backpropagation import check_problem
from ..errors import ArgumentError, FnnError, KindError, require, shape, shorten, shown, usage
from ..gate import check_new
from ..layers import Layer
from ..losses import Loss
from .graph import Graph, Value

OPSET, IR_VERSION = 20, 9
LARGEST = 2**31 - 2**20  # bytes of weights; protobuf's limit is 2 GiB for all of a file
_AXES = {1: ("C",), 2: ("T", "C"), 3: ("H", "W", "C"), 4: ("D", "H", "W", "C")}


@usage("fnn.onnx.export(net, params, path, x.shape[1:])")
def export(
    net: Layer,
    params: Any,
    path: str | os.PathLike,
    input_shape: Any,
    *,
    loss: Loss | None = None,
    input_dtype: Any = None,
) -> None:
    """Write a network in inference mode as an ONNX file, which any runtime of the format runs without fnn.

    The graph has standard operators only (opset 20, IR version 9: ONNX Runtime 1.17 and later). Its inputs have fnn's
    order of axes, images (N, H, W, C) and sequences (N, T, I), and the names of x where it is a dict, else "x"; its
    output is "y". N is open, and so is each axis whose size nothing in the network depends on, such as the length of a
    sequence that a recurrent layer reads. Numbers are float64 if a parameter is, else float32: parameters in float16 or
    bfloat16 are widened, exactly, and not rounded in between.

    Args:
        net: the network; a layer of your own in it needs a `translation`.
        params: its parameters, on either backend.
        path: the file, written completely or not at all.
        input_shape: the shape of an example, without the batch axis; of several inputs a dict by name.
        loss: a cost whose `predict` comes last: probabilities in place of logits. Default: None, the output itself.
        input_dtype: the dtype of x, such as "uint8" for images that the network scales; of several inputs a dict by
            name. Default: int64 for symbols and lengths, else that of the numbers.

    Raises:
        KindError: a layer has no translation; the message names its place.
        ShapeError: the parameters or the shape do not fit the network.
        ArgumentError: the weights take more than 2 GiB, the limit of the format.
        CheckpointError: the file cannot be written; an earlier one is then unchanged.
        MissingExtraError: onnx is not installed.

    Source: the ONNX project, "Open neural network exchange", the operators of opset 20.

    >>> import fnn, tempfile, onnx
    >>> net = fnn.mlp((16, 3))
    >>> params = net.init(fnn.random.key(0, backend="numpy"), (4,))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fnn.onnx.export(net, params, f"{folder}/net.onnx", (4,), loss=fnn.SoftmaxCrossEntropy())
    ...     [node.op_type for node in onnx.load(f"{folder}/net.onnx").graph.node]
    ['Gemm', 'Relu', 'Gemm', 'Softmax']
    """
    files.check_path(path)
    graph, y, free = traced(net, params, input_shape, loss, input_dtype)
    size = sum(array.nbytes for array in graph.constants.values())
    if size > LARGEST:
        raise ArgumentError(
            f"params: expected weights of less than 2 GiB, the limit of one ONNX file, got {size / 2**30:.2f} GiB"
        )
    library = require("onnx", "onnx")
    with files.errors_as(KindError, f"{shorten(net)}: expected translations into valid ONNX"):
        model = modelled(library, graph, y, free, repr(net), "" if loss is None else repr(loss))
        library.checker.check_model(model, full_check=True)
    with files.replacing(path) as file:
        file.write(model.SerializeToString(deterministic=True))


def traced(net, params, input_shape, loss=None, input_dtype=None) -> tuple[Graph, Value, dict]:
    """`(graph, output, free)`: free holds the names of the open axes, (input, axis) -> name; needs NumPy alone."""
    if not isinstance(net, Layer):
        raise KindError(f"net: expected a layer or network, got {shorten(net)}")
    if loss is not None and not isinstance(loss, Loss):
        raise KindError(f"loss: expected a cost, such as fnn.SoftmaxCrossEntropy(), got {shorten(loss)}")
    input_shape = shape("input_shape", input_shape, several=True)
    several = bool(input_shape) and isinstance(input_shape[0], tuple)
    shapes = dict(input_shape) if several else {"x": input_shape}
    dtypes = _dtypes(shapes, input_dtype, several)
    if is_traced(*trees.leaves(params)):
        raise KindError("params: expected arrays with values, got a JAX tracer; call export outside of jit")
    check_new(net, params, input_shape)
    if loss is not None:
        check_problem(net, loss)
        loss.predict(np.zeros((1, *net.output_shape(input_shape)), np.float32))  # which refuses outputs that do not fit
    kinds = [leaf.dtype for leaf in trees.leaves(params)] or list(dtypes.values())
    dtype = np.dtype(np.float64 if np.dtype(np.float64) in kinds else np.float32)
    params = trees.map(lambda leaf: np.asarray(np.asarray(leaf), dtype, order="C"), params)

    def build(shapes):
        graph = Graph(dtype)
        inputs = {name: graph.input(name, one, dtypes.get(name)) for name, one in shapes.items()}
        y = graph.apply(net, params, inputs if several else inputs["x"])
        y = graph.floating(y) if loss is None else graph.predicted(loss, graph.natural(graph.floating(y)))
        return graph, graph.finish(y)

    def resized(name, axis, size):
        """The graph and the output for another size of one axis; None if the network does not take it."""
        other = shapes | {name: (*shapes[name][:axis], size, *shapes[name][axis + 1 :])}
        try:
            check_new(net, params, tuple(sorted(other.items())) if several else other["x"])
            return build(other)
        except FnnError:
            return None

    graph, y = build(shapes)
    free, sizes = {}, list(y.shape)
    for name, one in shapes.items():
        of_symbols = len(one) == 1 and graph.inputs[name].dtype is not None and graph.inputs[name].dtype.kind in "iu"
        names = ("T",) if of_symbols else _AXES.get(len(one), tuple(f"axis{i}" for i in range(1, len(one) + 1)))
        for axis, n in enumerate(one):
            others = [other for size in (n + 1, 16 * n + 5) if (other := resized(name, axis, size))]
            if sum(graph.same(other) for other, _ in others) < 2:
                continue
            free[name, axis] = f"{name}_{names[axis]}" if several else names[axis]
            for i, pair in enumerate(zip(y.shape, others[1][1].shape, strict=True)):
                if pair[0] != pair[1]:
                    kept = pair == (n, 16 * n + 5) and sizes[i] == n
                    sizes[i] = free[name, axis] if kept else None
    return graph, y._replace(shape=tuple(sizes)), free


def _dtypes(shapes, given, several):
    """The dtypes of inputs that have one given, by name."""
    if given is None:
        return {}
    if isinstance(given, dict) != several or (several and not set(given) <= set(shapes)):
        expected = f"a dict with names among {sorted(shapes)}" if several else "one dtype, as there is one input"
        raise KindError(f"input_dtype: expected {expected}, got {shorten(given)}")
    result = {}
    for name, dtype in (given if several else {"x": given}).items():
        try:
            result[name] = np.dtype(dtype)
        except TypeError:
            raise KindError(f"input_dtype: expected a dtype such as 'uint8', got {shorten(dtype)}") from None
        if result[name].kind not in "iuf":
            raise KindError(f"input_dtype: expected a dtype of integers or real numbers, got {result[name]}")
    return result


def modelled(library, graph, y, free, net, loss):
    """The model as ONNX's own object."""
    helper, of_array = library.helper, library.numpy_helper.from_array
    kind = lambda dtype: helper.np_dtype_to_tensor_dtype(dtype)
    inputs = []
    for name, x in graph.inputs.items():
        sizes = [free.get((name, axis), size) for axis, size in enumerate(x.shape)]
        inputs.append(
            helper.make_tensor_value_info(
                name, kind(x.dtype or graph.dtype), ["N", *sizes], f"examples {shown(x.shape)}"
            )
        )
    output = helper.make_tensor_value_info(y.name, kind(graph.dtype), ["N", *y.shape], "the network's output")
    nodes = [
        helper.make_node(
            node.op,
            node.inputs,
            node.outputs,
            node.name,
            **{key: kind(value) if isinstance(value, np.dtype) else value for key, value in node.attributes.items()},
        )
        for node in graph.nodes
    ]
    constants = [
        of_array(np.ascontiguousarray(array).reshape(array.shape), name) for name, array in graph.constants.items()
    ]
    from .. import __version__

    model = helper.make_model(
        helper.make_graph(nodes, "fnn", inputs, [output], constants, "A network of fnn in inference mode."),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="fnn",
        producer_version=__version__,
    )
    helper.set_model_props(model, {"fnn.net": net} | ({"fnn.loss": loss} if loss else {}))
    return model
