"""Faults of the ONNX graphs and of PyTorch's names, and the checks that have to find them.

A graph is computed by the reference of the standard, in float64, so the faults of ONNX need the package onnx.
"""

from importlib.util import find_spec

import numpy as np
from helpers import key, moved
from planting import Fault, instead

import fnn
from fnn.checkpoints import torch_names
from fnn.onnx import activations, maps, writing
from fnn.onnx.graph import Graph, Value

C, D, S = fnn.Conv, fnn.Dense, fnn.Serial


# ---- checks ----------------------------------------------------------------------------------------------------------


def exported(net, shape, loss=None, symbols=None):
    """The graph, computed by the reference, gives fnn's numbers."""

    def check():
        import onnx.reference

        rng = np.random.default_rng(0)
        params = moved(net, shape)
        draw = lambda size, n=symbols: rng.normal(size=(3, *size)) if n is None else rng.integers(0, n, (3, *size))
        x = draw(shape) if isinstance(shape, tuple) else {"x": draw(shape["x"]), "length": np.array([1, 3, 4])}
        wanted = net.apply(params, x) if loss is None else loss.predict(net.apply(params, x))
        try:
            dtype = np.float64 if isinstance(shape, tuple) and symbols is None else None
            graph, y, free = writing.traced(net, params, shape, loss, dtype)
            model = writing.modelled(onnx, graph, y, free, "", "")
            with np.errstate(all="ignore"):
                found = onnx.reference.ReferenceEvaluator(model).run(None, x if isinstance(x, dict) else {"x": x})[0]
        except Exception as error:
            raise AssertionError(f"the graph: it cannot be computed, {error}") from error
        np.testing.assert_allclose(found, wanted, 1e-9, 1e-11)

    return check


def open_axes(net, shape, *expected):
    """These axes of the input are open, and no others."""

    def check():
        free = writing.traced(net, moved(net, shape, np.float32), shape)[2]
        assert set(free.values()) == set(expected), f"the axes: {free}"

    return check


def transposes(net, shape, number):
    def check():
        nodes = writing.traced(net, moved(net, shape, np.float32), shape)[0].nodes
        assert [node.op for node in nodes].count("Transpose") == number, "the graph: transposes"

    return check


def refused(net, shape, call):
    def check():
        try:
            call(net, net.init(key(), shape), shape)
        except fnn.errors.FnnError:
            return
        raise AssertionError("the call: not refused")

    return check


def flattened():
    """PyTorch's weights, applied to images with their channels first, give what ours give; and come back."""
    net, rng = S((fnn.Flatten(), fnn.RMSNorm(), D(3))), np.random.default_rng(0)
    params, x = moved(net, (2, 3, 4)), rng.normal(size=(5, 2, 3, 4))
    arrays = torch_names.to_torch(net, params, (2, 3, 4))
    flat = np.moveaxis(x, -1, 1).reshape(5, -1)
    normal = flat / np.sqrt((flat**2).mean(axis=1, keepdims=True) + 1e-6) * arrays["1.weight"]
    np.testing.assert_allclose(normal @ arrays["2.weight"].T + arrays["2.bias"], net.apply(params, x), 1e-10)
    back = torch_names.from_torch(net, arrays, params, (2, 3, 4))
    assert all(map(np.array_equal, fnn.trees.leaves(back), fnn.trees.leaves(params))), "the way back: other weights"


def torch_gru():
    """The state of one step by PyTorch's equations, in which the second bias of n is inside the reset gate."""
    net, x = fnn.Gru(2), np.random.default_rng(0).normal(size=(5, 1, 3))
    params = moved(net, (1, 3))
    arrays = torch_names.to_torch(net, params, (1, 3))
    outer, inner = x[:, 0] @ arrays["weight_ih_l0"].T + arrays["bias_ih_l0"], arrays["bias_hh_l0"]
    (r, z), n = (1 / (1 + np.exp(-(outer + inner)[:, i : i + 2])) for i in (0, 2)), outer[:, 4:]
    np.testing.assert_allclose((1 - z) * np.tanh(n + r * inner[4:]), net.apply(params, x), 1e-10)
    arrays["bias_hh_l0"] = np.arange(6.0)
    arrays["bias_ih_l0"] = np.ones(6)
    found = torch_names.from_torch(net, arrays, params, (1, 3))
    np.testing.assert_allclose((*found.b, *found.c), (1, 2, 3, 4, 1, 1, 4, 5))


# ---- changes ---------------------------------------------------------------------------------------------------------


def of_op(op, **attributes):
    """An operator with other attributes."""
    return lambda f: (
        lambda graph, name, *inputs, **given: f(graph, name, *inputs, **(given | attributes if name == op else given))
    )


def to_op(op, other):
    """Another operator in its place."""
    return lambda f: lambda graph, name, *inputs, **given: f(graph, other if name == op else name, *inputs, **given)


def with_attribute(op, name, change):
    """An operator with an attribute changed."""
    return lambda f: (
        lambda graph, given, *inputs, **attributes: f(
            graph, given, *inputs, **(attributes | {name: change(attributes[name])} if given == op else attributes)
        )
    )


def with_input(op, i, change):
    """An operator with another input."""
    return lambda f: (
        lambda graph, name, *inputs, **given: f(
            graph, name, *(change(v) if name == op and k == i else v for k, v in enumerate(inputs)), **given
        )
    )


def reshaped(graph, array, x, label=""):
    """A constant in the shape that it should be transposed to."""
    return graph.constant(np.reshape(array, (1, *(x.shape[i - 1] for i in x.order[1:]))))


def swapped(f):
    """The outputs of `Split` the other way round."""

    def node(graph, op, *inputs, **given):
        y = f(graph, op, *inputs, **given)
        return y[::-1] if op == "Split" else y

    return node


def forgetful(f):
    """Transposes that are not remembered."""
    return lambda graph, x, order: graph._forms.clear() or f(graph, x, order)


IMAGES = S((C(3, (2, 3)), fnn.PRelu(per_unit=True), fnn.Softmax(), fnn.Flatten(), D(2)))
LENGTHS = fnn.Last(S((fnn.Embedding(7, 3), fnn.Gru(4, all_states=True)))), {"x": (4,), "length": ()}
HOPFIELD = fnn.Hopfield((C(2, (2, 2)), fnn.Tanh(), C(3, (2, 3), 2, ((1, 0), (0, 2))), fnn.Tanh()), steps=2)
DILATED = C(3, (3, 2), 2, "same", (2, 3))

ONNX = [
    Fault(
        "the reset gate acts before U", Graph, "node", of_op("GRU", linear_before_reset=0), exported(fnn.Gru(3), (4, 2))
    ),
    Fault("gates in the order of fnn", maps, "GATES", lambda g: g | {fnn.Gru: (0, 1, 2)}, exported(fnn.Gru(3), (4, 2))),
    Fault("g in the place of o", maps, "GATES", lambda g: g | {fnn.Lstm: (0, 2, 1, 3)}, exported(fnn.Lstm(3), (4, 2))),
    Fault("every tap beside the other", Graph, "node", of_op("Conv", dilations=(1, 1)), exported(DILATED, (9, 8, 2))),
    Fault(
        "padding counts",
        Graph,
        "node",
        of_op("AveragePool", count_include_pad=1),
        exported(fnn.AvgPool((3,), 1, 1), (5, 2)),
    ),
    Fault(
        "odd padding before",
        Graph,
        "node",
        of_op("Conv", auto_pad="SAME_LOWER"),
        exported(C(2, (3,), 2, "same"), (6, 2)),
    ),
    Fault(
        "padding swapped",
        maps,
        "placed_windows",
        lambda f: lambda *args: (p := f(*args)) | {"pads": p["pads"][::-1]},
        exported(C(2, (3,), 1, ((2, 0),)), (5, 2)),
    ),
    Fault("softmax over columns", Graph, "node", of_op("Softmax", axis=-1), exported(IMAGES, (4, 5, 2))),
    Fault(
        "transposed the other way",
        Graph,
        "node",
        with_attribute("Transpose", "perm", lambda perm: np.argsort(perm).tolist()),
        exported(IMAGES, (4, 5, 2)),
    ),
    Fault("slopes in the order of fnn", Graph, "like", instead(reshaped), exported(IMAGES, (4, 5, 2))),
    Fault(
        "a number of float32 in float64",
        activations,
        "exact",
        instead(lambda *args: True),
        exported(fnn.LeakyRelu(0.1), (4,)),
    ),
    Fault(
        "the height inside the width",
        activations,
        "_bent",
        lambda f: lambda g, x, slope, height, width: f(g, x, slope, width, height),
        exported(fnn.Elu(0.3), (4,)),
    ),
    Fault("the other half gates", Graph, "node", swapped, exported(fnn.Glu(), (4,))),
    Fault(
        "the position after the last", Graph, "node", with_input("Sub", 1, lambda _: 0), exported(*LENGTHS, symbols=7)
    ),
    Fault(
        "one epsilon for all",
        maps,
        "_divided",
        lambda f: lambda graph, x, eps: f(graph, x, 1e-3),
        exported(fnn.RMSNorm(), (4,)),
    ),
    Fault("T multiplies", Graph, "node", to_op("Div", "Mul"), exported(fnn.Softmax(0.3), (4,))),
    Fault(
        "T is forgotten",
        activations,
        "_tempered",
        instead(lambda layer, x, graph: x),
        exported(fnn.LogSoftmax(3.0), (4,)),
    ),
    Fault("σ multiplies", Graph, "node", to_op("Div", "Mul"), exported(fnn.Standardize(), (3, 2))),
    Fault(
        "a skip without the input",
        Graph,
        "node",
        with_input("Add", 0, lambda x: 0 if isinstance(x, Value) and x.name == "x" else x),
        exported(fnn.Residual(fnn.Tanh()), (3,)),
    ),
    Fault(
        "branches along another axis",
        Graph,
        "node",
        of_op("Concat", axis=1),
        exported(fnn.Parallel((D(2), D(2))), (3, 4)),
    ),
    Fault(
        "errors placed without padding",
        Graph,
        "node",
        with_attribute("ConvTranspose", "pads", lambda pads: pads[::-1]),
        exported(HOPFIELD, (5, 6, 2)),
    ),
    Fault(
        "logits in place of probabilities",
        Graph,
        "predicted",
        instead(lambda graph, loss, y: y),
        exported(D(3), (4,), fnn.SoftmaxCrossEntropy()),
    ),
    Fault("every size fits", Graph, "same", instead(lambda graph, other: True), open_axes(DILATED, (9, 8, 2))),
    Fault(
        "sizes are forgotten",
        Graph,
        "depends_on",
        instead(lambda graph, sizes: None),
        open_axes(C(2, (2,), 5, "same"), (12, 2)),
    ),
    Fault(
        "each order is made anew",
        Graph,
        "ordered",
        forgetful,
        transposes(fnn.Parallel((C(2, (1, 1)), C(2, (1, 1)))), (3, 4, 2), 2),
    ),
]

TORCH = [
    Fault(
        "channels last in PyTorch",
        torch_names,
        "_entering",
        instead(lambda shape: torch_names._At(shape, None, None)),
        flattened,
    ),
    Fault("columns ordered twice", torch_names, "_inverse", instead(lambda order: order), flattened),
    Fault("only columns are ordered", torch_names, "_ordered", instead(lambda array, order: array), flattened),
    Fault(
        "c beside the reset gate",
        torch_names,
        "NAMES",
        lambda n: n | {fnn.Gru: n[fnn.Gru]._replace(there=n[fnn.Rnn].there)},
        torch_gru,
    ),
    Fault(
        "c is added to b",
        torch_names,
        "NAMES",
        lambda n: (
            n
            | {
                fnn.Gru: n[fnn.Gru]._replace(
                    back=lambda a, order: fnn.GruParams(*n[fnn.Rnn].back(a, order), np.zeros(2))
                )
            }
        ),
        torch_gru,
    ),
    Fault(
        "any layer will do",
        torch_names,
        "_problem",
        instead(lambda layer, at: ""),
        refused(S((D(3), fnn.Residual(D(3)))), (3,), torch_names.to_torch),
    ),
    Fault(
        "any axis will do",
        torch_names,
        "OF_CHANNELS_FIRST",
        instead(torch_names.OF_CHANNELS_FIRST + torch_names.OF_CHANNELS_LAST),
        refused(S((C(3, (2, 2)), D(3))), (4, 4, 1), torch_names.to_torch),
    ),
]

FAULTS = TORCH + ONNX * bool(find_spec("onnx"))
