"""Networks as ONNX: what a file computes is what fnn computes."""

import doctest
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import faults_of_exchange
import numpy as np
import oracle
import pytest
from helpers import BACKENDS, Gain, key, moved, on

import fnn
from fnn import errors, trees
from fnn.composition import Recorder, walk
from fnn.layers.base import Layer
from fnn.onnx import graph, writing
from fnn.onnx.writing import traced
from fnn.static import registered

D, C = fnn.Dense, fnn.Conv

# Layers and networks by name, with the shape of an example; those of symbols have integers as their input.
LAYERS = {
    name: (layer, (6,)) for name, (layer, _) in (oracle.ACTIVATIONS | oracle.LEARNT).items() if name != "function"
}
LAYERS |= {
    "dense": (D(3), (4,)),
    "dense_at_positions": (D(3, bias=False), (5, 4)),
    "dense_without_bias": (D(3, bias=False), (4,)),
    "scale": (fnn.Scale(1 / 255), (4,)),
    "dropout": (fnn.Dropout(0.5), (4,)),
    "flatten": (fnn.Flatten(), (2, 3, 4)),
    "flatten_numbers": (fnn.Flatten(), ()),
    "layer_norm": (fnn.LayerNorm(), (3, 5)),
    "rms_norm": (fnn.RMSNorm(), (3, 5)),
    "standardize": (fnn.Standardize(), (3, 5)),
    "standardize_numbers": (fnn.Standardize(), ()),
    "conv": (C(4, (3, 2)), (7, 6, 3)),
    "conv_of_sequences": (C(4, (3,), 2, "same"), (9, 2)),
    "conv_of_volumes": (C(2, (2, 3, 2), padding=1), (4, 5, 3, 2)),
    "conv_padded": (C(3, (3, 2), (2, 1), ((2, 0), (0, 3))), (7, 5, 2)),
    "conv_same_even": (C(3, (4, 2), padding="same"), (7, 5, 2)),
    "conv_same_strided": (C(3, (4, 3), (2, 3), "same"), (7, 8, 2)),
    "conv_same_beyond_kernel": (C(3, (2, 1), 3, "same"), (8, 7, 2)),
    "conv_same_dilated": (C(3, (3, 2), 2, "same", (2, 3)), (9, 8, 2)),
    "conv_groups": (C(6, (3, 3), 2, 1, 2, 3, bias=False), (8, 9, 6)),
    "conv_depthwise": (C(8, (3, 3), groups=4), (5, 5, 4)),
    "max_pool": (fnn.MaxPool((2, 2)), (5, 7, 3)),
    "max_pool_same": (fnn.MaxPool((3, 2), (2, 1), "same"), (7, 6, 2)),
    "max_pool_beyond_window": (fnn.MaxPool((2,), 3, "same"), (8, 2)),
    "avg_pool": (fnn.AvgPool((3, 2), (2, 1), ((1, 2), (0, 1))), (7, 5, 3)),
    "avg_pool_same": (fnn.AvgPool((3,), 2, "same"), (8, 2)),
    "global_max_pool": (fnn.GlobalMaxPool(), (4, 3, 2)),
    "global_avg_pool": (fnn.GlobalAvgPool(), (5, 2)),
    "embedding": (fnn.Embedding(7, 3), (5,)),
    "embedding_of_numbers": (fnn.Embedding(7, 3), ()),
    "embedding_of_grids": (fnn.Embedding(7, 3), (2, 3)),
    "rnn": (fnn.Rnn(4), (6, 3)),
    "rnn_all": (fnn.Rnn(4, all_states=True), (6, 3)),
    "gru": (fnn.Gru(4), (6, 3)),
    "gru_all": (fnn.Gru(4, all_states=True), (6, 3)),
    "lstm": (fnn.Lstm(4), (6, 3)),
    "lstm_all": (fnn.Lstm(4, all_states=True), (6, 3)),
    "serial": (fnn.Serial(()), (3,)),
    "residual": (fnn.Residual(fnn.Serial((D(5), fnn.Relu(), D(3)))), (3,)),
    "residual_images": (fnn.Residual(C(2, (3, 3), padding="same")), (4, 5, 2)),
    "parallel": (fnn.Parallel((fnn.Identity(), D(2), fnn.Serial((D(3), fnn.Tanh())))), (4,)),
    "parallel_images": (fnn.Parallel((fnn.Identity(), C(2, (1, 3), padding="same"), fnn.LayerNorm())), (4, 5, 2)),
    "parallel_inputs": (fnn.Parallel((D(2), fnn.Flatten()), inputs=("b", "a")), {"a": (2, 3), "b": (4,)}),
    "computed again": (fnn.Remat(fnn.Serial((D(3), fnn.Tanh()))), (4,)),
    "frozen": (fnn.Frozen(fnn.Serial((D(3), fnn.Tanh()))), (4,)),
    "last": (fnn.Last(fnn.Serial((fnn.Embedding(7, 3), fnn.Gru(4, all_states=True)))), {"x": (5,), "length": ()}),
    "last_of_grids": (fnn.Last(D(3), inputs=("s", "n")), {"s": (5, 2, 4), "n": ()}),
    "hopfield": (fnn.Hopfield((D(4), fnn.HardSigmoid(), D(3), fnn.Tanh()), steps=3), (5,)),
    "hopfield_of_images": (
        fnn.Hopfield(
            (C(2, (3, 3), padding="same"), fnn.Tanh(), C(4, (3, 2), (2, 3), 1, (1, 2), 2), fnn.Tanh()), steps=2
        ),
        (6, 7, 3),
    ),
    "hopfield_of_one": (fnn.Hopfield((D(3, bias=False), fnn.Tanh()), steps=2), (4,)),
    "goodness": (fnn.Goodness((D(4), fnn.Relu(), D(3, bias=False), fnn.Tanh()), classes=3), (5,)),
    "goodness_of_one": (fnn.Goodness((D(4), fnn.Tanh()), classes=2), (5,)),
}
LENET = (C(6, (5, 5)), fnn.Relu(), fnn.MaxPool((2, 2)), C(16, (5, 5)), fnn.Relu(), fnn.MaxPool((2, 2)))
BLOCK = fnn.Residual(fnn.Serial((C(8, (3, 3), padding="same"), fnn.Relu(), C(8, (3, 3), padding="same"))))
WORDS = fnn.Embedding(20, 8)
POSITIONWISE = fnn.Residual(fnn.Serial((fnn.LayerNorm(), D(16), fnn.Gelu(), D(8))))
NETS = {  # and how many nodes each takes
    "mlp": (fnn.mlp((128, 64, 10)), (784,), 5),
    "standardized": (fnn.Serial((fnn.Frozen(fnn.Standardize()), *fnn.mlp((16, 1), fnn.Tanh()).layers)), (7,), 5),
    "selu_dropout": (fnn.Serial((D(32), fnn.Selu(), fnn.Dropout(0.1), D(32), fnn.Selu(), D(3))), (9,), 5),
    "lenet": (fnn.Serial((*LENET, fnn.Flatten(), *fnn.mlp((120, 84, 10)).layers)), (28, 28, 1), 14),
    "resnet": (
        fnn.Serial((C(8, (3, 3), padding="same"), fnn.Relu(), BLOCK, fnn.Relu(), BLOCK, fnn.GlobalAvgPool(), D(10))),
        (12, 12, 3),
        14,
    ),
    "separable": (
        fnn.Serial(
            (C(8, (3, 3), 2, "same"), fnn.HardSwish(), C(8, (3, 3), 1, 1, groups=8), fnn.Relu6(), C(16, (1, 1)))
        ),
        (9, 9, 3),
        7,
    ),
    "sequence_conv": (fnn.Serial((WORDS, C(8, (3,)), fnn.Gelu(), fnn.GlobalMaxPool(), D(2))), (15,), 8),
    "lstms": (fnn.Serial((WORDS, fnn.Lstm(8, all_states=True), fnn.Lstm(8), D(5))), (11,), 9),
    "lengths": (
        fnn.Last(fnn.Serial((WORDS, fnn.Gru(8, all_states=True), D(5)))),
        {"x": (11,), "length": ()},
        14,
    ),
    "rnn": (fnn.Serial((fnn.Rnn(8, all_states=True), D(1))), (30, 2), 6),
    "positionwise": (
        fnn.Serial((WORDS, POSITIONWISE, POSITIONWISE, fnn.LayerNorm(), fnn.GlobalAvgPool(), D(3))),
        (9,),
        20,
    ),
    "two_inputs": (
        fnn.Serial(
            (
                fnn.Parallel(
                    (fnn.Serial((C(4, (3, 3)), fnn.Swish(), fnn.GlobalAvgPool())), fnn.Serial((D(6), fnn.Elu(0.7)))),
                    inputs=("image", "table"),
                ),
                D(2),
            )
        ),
        {"image": (8, 8, 1), "table": (5,)},
        9,
    ),
}
CASES = LAYERS | {name: case[:2] for name, case in NETS.items()}


def drawn(net, shape, n=8, dtype=np.float32):
    """Parameters off their initial values, and examples that the network takes."""
    rng, params = np.random.default_rng(0), moved(net, shape, dtype)

    def examples(name, size):
        if name in ("length", "n"):
            return rng.integers(1, shape["x" if name == "length" else "s"][0] + 1, (n, *size))
        of_symbols = "Embedding" in repr(net)
        return rng.integers(0, 7, (n, *size)) if of_symbols else 2 * rng.normal(size=(n, *size)).astype(dtype)

    return params, {k: examples(k, size) for k, size in shape.items()} if isinstance(shape, dict) else examples(
        "", shape
    )


def export(net, params, path, *args, **options):
    pytest.importorskip("onnx")
    fnn.onnx.export(net, params, path, *args, **options)
    return str(path)


def of_runtime(path):
    """What ONNX Runtime computes, as a function of x."""
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # an error is raised anyway
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, x if isinstance(x, dict) else {"x": x})[0]


def of_reference(path):
    """What the reference of the standard computes, as a function of x."""
    evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator(path)

    def run(x):
        with np.errstate(all="ignore"):  # in branches that are not taken
            return evaluator.run(None, x if isinstance(x, dict) else {"x": x})[0]

    return run


def close(found, wanted, tolerance, scale=None):
    """Equal to this share of the largest entry (or of that of `scale`), in shape and dtype too."""
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    scale = np.abs(wanted if scale is None else scale).max(initial=0)
    assert np.abs(found - wanted).max(initial=0) <= tolerance * scale


# ---- the same numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_onnx_runtime_computes_what_fnn_does_for_any_number_of_examples(name, tmp_path):
    pytest.importorskip("onnxruntime")
    net, shape = CASES[name]
    params, x = drawn(net, shape)
    run = of_runtime(export(net, params, tmp_path / "net.onnx", shape))
    y = net.apply(params, x)
    close(run(x), y, 1e-6)
    close(run(trees.map(lambda a: a[:1], x)), y[:1], 1e-6, scale=y)


NOT_IN_THE_REFERENCE = {"hopfield_of_images": "its transposed convolutions have no groups"}
IN_FLOAT32 = {"gelu": 1e-7, "sequence_conv": 1e-7, "positionwise": 1e-7}  # in the reference erf is float32


@pytest.mark.parametrize("name", [name for name in CASES if name not in NOT_IN_THE_REFERENCE])
def test_the_graph_is_the_same_function_in_float64(name, tmp_path):
    pytest.importorskip("onnx")
    net, shape = CASES[name]
    params, x = drawn(net, shape, 2, np.float64)
    dtype = None if trees.leaves(params) or isinstance(shape, dict) else x.dtype
    run = of_reference(export(net, params, tmp_path / "net.onnx", shape, input_dtype=dtype))
    close(run(x), net.apply(params, x), IN_FLOAT32.get(name, 1e-12))


@pytest.mark.numpy_alone
def test_every_layer_of_fnn_has_a_translation_and_a_case():
    ours = {cls for name, cls in registered(Layer).items() if name.startswith("fnn.")}
    bases = {base for cls in ours for base in cls.__mro__[1:]} | {fnn.Function, Recorder}
    assert {cls for cls in ours - bases if not graph.is_translated(cls)} == set()
    assert ours - bases - {type(layer) for net, _ in CASES.values() for _, layer in walk(net)} == set()


@pytest.mark.numpy_alone
@pytest.mark.parametrize("name", NETS)
def test_a_network_takes_as_many_nodes_as_stated(name):
    net, shape, nodes = NETS[name]
    made = traced(net, moved(net, shape, np.float32), shape)[0]
    assert len(made.nodes) == nodes, [node.op for node in made.nodes]


@pytest.mark.numpy_alone
def test_images_are_transposed_once_on_the_way_in_and_once_on_the_way_out():
    block = fnn.Serial((C(4, (3, 3), padding="same"), fnn.PRelu(per_unit=True), fnn.Residual(C(4, (1, 1)))))
    net = fnn.Serial((block, fnn.Parallel((block, fnn.MaxPool((3, 3), 1, "same"))), fnn.Softmax(), fnn.Standardize()))
    made = traced(net, moved(net, (6, 5, 2), np.float32), (6, 5, 2))[0]
    assert [node.attributes["perm"] for node in made.nodes if node.op == "Transpose"] == [(0, 3, 1, 2), (0, 2, 3, 1)]


@pytest.mark.numpy_alone
def test_bytes_are_converted_once_and_what_has_no_effect_is_left_out():
    net = fnn.Serial((fnn.Residual(C(2, (3, 3), padding="same")), fnn.Flatten(), D(2)))
    made = traced(net, moved(net, (4, 4, 2), np.float32), (4, 4, 2), input_dtype="uint8")[0]
    operators = ["Cast", "Transpose", "Conv", "Add", "Transpose", "Flatten", "Gemm"]
    assert [node.op for node in made.nodes] == operators
    alone, shape = LAYERS["hopfield_of_one"]  # nothing is above it, so that every sweep is the first one
    assert [node.op for node in traced(alone, moved(alone, shape), shape)[0].nodes] == ["Gemm", "Tanh"]


@pytest.mark.numpy_alone
def test_weights_that_are_used_many_times_are_written_once():
    net = fnn.Hopfield((D(4), fnn.Tanh(), D(3), fnn.Tanh()), steps=9)
    made = traced(net, moved(net, (5,), np.float32), (5,))[0]
    assert sum(array.nbytes for array in made.constants.values()) <= 4 * (4 * 5 + 4 + 2 * 4 * 3 + 3 + 2)


# ---- open axes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lstms", "rnn", "sequence_conv", "lengths", "resnet", "separable", "positionwise"])
def test_an_axis_that_the_network_does_not_depend_on_may_have_another_size(name, tmp_path):
    net, shape = CASES[name]
    params, _ = drawn(net, shape)
    run = of_runtime(export(net, params, tmp_path / "net.onnx", shape))
    for size in (5, 6, 29):  # both odd and even, for strides
        sizes = shape["x"] if isinstance(shape, dict) else shape
        sizes = (size, *(s + size for s in sizes[1:-1]), *sizes[-1:]) if len(sizes) > 1 else (size,)
        x = drawn(net, shape | {"x": sizes} if isinstance(shape, dict) else sizes)[1]
        close(run(x), net.apply(params, x), 2e-6)


@pytest.mark.numpy_alone
@pytest.mark.parametrize(
    ("net", "shape", "free", "output"),
    [
        (NETS["lenet"][0], (28, 28, 1), set(), (10,)),  # 29 rows would do, but not 30
        (NETS["lstms"][0], (11,), {"T"}, (5,)),
        (NETS["rnn"][0], (30, 2), {"T"}, ("T", 1)),
        (NETS["separable"][0], (9, 9, 3), {"H", "W"}, (None, None, 16)),
        (LAYERS["conv_same_dilated"][0], (9, 8, 2), set(), (5, 4, 3)),
        (LAYERS["conv_same_beyond_kernel"][0], (8, 7, 2), set(), (3, 3, 3)),
        (fnn.Relu(), (3, 4), {"T", "C"}, ("T", "C")),
        (fnn.Standardize(), (3, 4), set(), (3, 4)),
        (fnn.Serial((fnn.Rnn(4, all_states=True), fnn.Flatten(), D(2))), (3, 4), set(), (2,)),
        (NETS["lengths"][0], {"x": (11,), "length": ()}, {"x_T"}, (5,)),
    ],
)
def test_only_axes_that_the_network_does_not_depend_on_are_open(net, shape, free, output):
    _, y, names = traced(net, moved(net, shape, np.float32), shape)
    assert (set(names.values()), y.shape) == (free, output)


# ---- what comes in and out -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_parameters_of_either_backend_may_be_narrow(backend, tmp_path):
    pytest.importorskip("onnxruntime")
    net, shape = NETS["selu_dropout"][:2]
    params, x = drawn(net, shape, dtype=np.float16)
    run = of_runtime(export(net, on(backend, params), tmp_path / "net.onnx", shape))
    wide, x = trees.map(lambda p: p.astype(np.float32), (params, x))
    close(run(x), net.apply(wide, x), 1e-6)
    if backend == "jax":
        narrow = trees.map(lambda p: fnn.backend.jnp.asarray(p, "bfloat16"), wide)
        run = of_runtime(export(net, narrow, tmp_path / "net.onnx", shape))
        wide = trees.map(lambda p: np.asarray(p, np.float32), narrow)
        close(run(x), net.apply(wide, x), 1e-6)


def test_an_input_may_be_bytes(tmp_path):
    net = fnn.Serial((fnn.Scale(1 / 255), C(2, (3, 3)), fnn.Flatten(), D(3)))
    params, x = moved(net, (5, 6, 1), np.float32), np.random.default_rng(0).integers(0, 256, (4, 5, 6, 1), np.uint8)
    run = of_runtime(export(net, params, tmp_path / "net.onnx", (5, 6, 1), input_dtype="uint8"))
    close(run(x), net.apply(params, x), 1e-6)
    net = fnn.Serial((fnn.Flatten(), fnn.Embedding(300, 2)))
    params = moved(net, (2, 3), np.float32)
    x = x.reshape(20, 2, 3)
    run = of_runtime(export(net, params, tmp_path / "net.onnx", (2, 3), input_dtype=np.uint8))
    close(run(x), net.apply(params, x), 0)


@pytest.mark.parametrize(
    "loss",
    [
        *(fnn.SoftmaxCrossEntropy(), fnn.Focal(), fnn.SigmoidBinaryCrossEntropy(), fnn.BinaryFocal()),
        *(fnn.PoissonNll(), fnn.Hinge(), fnn.Perceptron(), fnn.GaussianNll(), fnn.Quadratic()),
    ],
    ids=repr,
)
def test_a_cost_predicts_last(loss, tmp_path):
    net = C(4, (2,))
    params, x = drawn(net, (5, 3))
    run = of_runtime(export(net, params, tmp_path / "net.onnx", (5, 3), loss=loss))
    close(run(x), loss.predict(net.apply(params, x)), 1e-6)


@pytest.mark.numpy_alone
def test_every_cost_that_predicts_has_a_translation():
    for cls in registered(fnn.Loss).values():
        if "predict" in vars(cls) and cls is not fnn.Loss and cls.__module__.startswith("fnn."):
            assert graph.is_translated(cls), cls


def test_symbols_and_lengths_out_of_range_give_no_number(tmp_path):
    pytest.importorskip("onnxruntime")
    from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

    net, shape = CASES["lengths"]
    params, x = drawn(net, shape)
    run = of_runtime(export(net, params, tmp_path / "net.onnx", shape))
    assert np.isnan(run(x | {"length": np.full(8, 0)})).all()
    for wrong in (x | {"length": np.full(8, 12)}, x | {"x": x["x"] - 7}, x | {"x": x["x"] + 20}):
        with pytest.raises(InvalidArgument):
            run(wrong)


ROBUST = [
    fnn.Softmax(0.3),
    fnn.LogSoftmax(7.0),
    fnn.BinaryStep(0.5),
    fnn.Sign(),
    fnn.RMSNorm(),
    fnn.Isrlu(),
    fnn.Squareplus(),
    fnn.SoftExponential(0.5),
]


@pytest.mark.parametrize("layer", ROBUST, ids=repr)
def test_numbers_beyond_the_middle_are_those_of_fnn(layer, tmp_path):
    params = layer.init(key(), (8,))
    x = np.array([[np.nan, -3e38, 3e38, -1e-30, 0, 1e-30, 7e19, -7e19]], np.float32)
    run = of_runtime(export(layer, params, tmp_path / "net.onnx", (8,)))
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(run(x), layer.apply(params, x), 1e-6, 1e-6)


# ---- layers of your own ----------------------------------------------------------------------------------------------


def test_a_layer_without_a_translation_is_named_with_its_place_before_anything_is_written(tmp_path):
    net = fnn.Serial((D(3), fnn.Residual(fnn.Serial((Gain(),)))))
    params = moved(net, (2,), np.float32)
    with pytest.raises(errors.KindError, match=r"1\.0 Gain: .* write one, @fnn.onnx.translation\(Gain\)"):
        fnn.onnx.export(net, params, tmp_path / "net.onnx", (2,))
    with pytest.raises(errors.KindError, match="loss Cubic: expected"):
        fnn.onnx.export(D(1), D(1).init(key(), (2,)), tmp_path / "net.onnx", (2,), loss=Cubic())
    assert list(tmp_path.iterdir()) == []


@dataclass(frozen=True)
class Cubic(fnn.Quadratic):
    def predict(self, prediction):
        return prediction**3


@dataclass(frozen=True)
class Leaning(fnn.Relu):
    """It extends a layer that has a translation, which does not hold for it."""

    def function(self, z):
        return np.maximum(z, 0.1 * z)

    def derivative(self, z):
        return np.where(z > 0, 1, 0.1)


def test_a_translation_of_your_own_is_used_and_none_is_inherited(tmp_path):
    pytest.importorskip("onnxruntime")
    net = fnn.Serial((C(3, (2, 2)), Gain(), Leaning()))
    params, x = drawn(net, (4, 5, 2))
    with mock.patch.dict(graph._TRANSLATIONS):

        @fnn.onnx.translation(Gain)
        def gain(layer, params, x, graph):
            return graph.node("Mul", x, graph.constant(params.gain, "gain"))

        with pytest.raises(errors.KindError, match="2 Leaning: expected a layer with a translation"):
            export(net, params, tmp_path / "net.onnx", (4, 5, 2))

        @fnn.onnx.translation(Leaning, any_order=True)
        def leaning(layer, params, x, graph):
            return graph.node("LeakyRelu", x, alpha=0.1)

        run = of_runtime(export(net, params, tmp_path / "net.onnx", (4, 5, 2)))
        close(run(x), net.apply(params, x), 1e-6)
        fnn.onnx.translation(Gain)(lambda *_: 3)
        with pytest.raises(errors.KindError, match="1 Gain: expected a Value"):
            export(net, params, tmp_path / "net.onnx", (4, 5, 2))
        for op, attributes in (("Gane", {}), ("Relu", {"alpha": 1.0}), ("Flatten", {})):
            fnn.onnx.translation(Gain)(lambda _, p, x, graph, op=op, given=attributes: graph.node(op, x, **given))
            with pytest.raises(errors.KindError, match="expected translations into valid ONNX"):
                export(net, params, tmp_path / "other.onnx", (4, 5, 2))
        assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]
    with pytest.raises(errors.KindError, match="expected classes of layers"):
        fnn.onnx.translation(Gain())


# ---- the file --------------------------------------------------------------------------------------------------------


def test_a_file_says_what_it_is(tmp_path):
    net, shape = CASES["two_inputs"]
    loss, params = fnn.SoftmaxCrossEntropy(), moved(net, shape, np.float32)
    model = pytest.importorskip("onnx").load(export(net, params, tmp_path / "net.onnx", shape, loss=loss))
    assert (model.producer_name, model.producer_version, model.ir_version) == ("fnn", fnn.__version__, 9)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert {p.key: p.value for p in model.metadata_props} == {"fnn.net": repr(net), "fnn.loss": repr(loss)}
    sizes = lambda v: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
    inputs = {v.name: (sizes(v), v.doc_string) for v in model.graph.input}
    assert inputs["image"] == (["N", "image_H", "image_W", 1], "examples (N, 8, 8, 1)")
    assert inputs["table"] == (["N", 5], "examples (N, 5)")
    assert [(v.name, sizes(v)) for v in model.graph.output] == [("y", ["N", 2])]
    assert {node.domain for node in model.graph.node} == {""}  # standard operators alone
    assert {"1.w", "1.b", "0.0.0.w"} <= {array.name for array in model.graph.initializer}  # by their places


def test_the_same_network_gives_the_same_bytes(tmp_path):
    net, shape = CASES["resnet"]
    params = moved(net, shape, np.float32)
    first, second = (export(net, params, tmp_path / name, shape) for name in "ab")
    assert Path(first).read_bytes() == Path(second).read_bytes()


MLP = fnn.mlp((4, 2))
PARAMS = MLP.init(key(), (3,))
SOFTMAX, CROSS_ENTROPY, ODD = (
    fnn.Serial((*MLP.layers, fnn.Softmax())),
    fnn.SoftmaxCrossEntropy(),
    D(3).init(key(), (3,)),
)


@pytest.mark.parametrize(
    ("error", "message", "change"),
    [
        (errors.KindError, "path: expected a string or a path, got 3", {"path": 3}),
        (errors.CheckpointError, "not saved, and an earlier file is unchanged", {"path": "/nowhere/net.onnx"}),
        (errors.CheckpointError, "expected a regular file, got a folder", {"path": "/tmp"}),
        (errors.KindError, r"without the batch axis, .* got 3; write \(3,\)", {"input_shape": 3}),
        (errors.KindError, r"write \(3,\)", {"input_shape": (None, 3)}),
        (errors.ShapeError, r"params\[0\]\.w", {"input_shape": (4,)}),
        (errors.ShapeError, "params", {"params": PARAMS[:2]}),
        (errors.KindError, "net: expected a layer or network", {"net": D}),
        (errors.KindError, "loss: expected a cost", {"loss": fnn.SoftmaxCrossEntropy}),
        (errors.ArgumentError, "omit that layer", {"net": SOFTMAX, "params": (*PARAMS, ()), "loss": CROSS_ENTROPY}),
        (errors.ShapeError, "for M targets", {"net": D(3), "params": ODD, "loss": fnn.GaussianNll()}),
        (errors.KindError, "write state.params", {"params": fnn.init_state(MLP, fnn.Sgd(0.1), key(), (3,))}),
        (errors.KindError, "input_dtype: expected a dtype of integers", {"input_dtype": "complex64"}),
        (errors.KindError, "input_dtype: expected a dtype such as", {"input_dtype": "wide"}),
        (errors.KindError, "input_dtype: expected one dtype", {"input_dtype": {"x": "uint8"}}),
        (errors.KindError, "expected a translation|Function", {"net": fnn.Function(oracle.sin), "params": ()}),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(error, message, change, tmp_path):
    if error is errors.CheckpointError:
        pytest.importorskip("onnx")
    if fnn.backend.jax is None and "Function" in message:
        error = errors.FnnError
    given = {"net": MLP, "params": PARAMS, "path": tmp_path / "net.onnx", "input_shape": (3,)} | change
    with pytest.raises(error, match=message):
        fnn.onnx.export(**given)
    assert list(tmp_path.iterdir()) == []


def test_weights_beyond_the_limit_of_the_format_are_refused(tmp_path):
    with mock.patch.object(writing, "LARGEST", 100), pytest.raises(errors.ArgumentError, match="less than 2 GiB"):
        fnn.onnx.export(MLP, PARAMS, tmp_path / "net.onnx", (3,))


def test_an_integer_input_of_floats_is_refused():
    with pytest.raises(errors.KindError, match="expected integers, got float32"):
        traced(fnn.Embedding(3, 2), np.ones((3, 2), np.float32), (4,), input_dtype="float32")


def test_without_onnx_the_extra_is_named(tmp_path):
    with mock.patch.dict(sys.modules, {"onnx": None}), pytest.raises(errors.MissingExtraError, match=r"fnn\[onnx\]"):
        fnn.onnx.export(MLP, PARAMS, tmp_path / "net.onnx", (3,))


def test_the_examples_run():
    pytest.importorskip("onnx")
    assert doctest.testmod(writing).failed == 0


def test_the_guide_runs():
    for library in ("onnxruntime", "torch", "safetensors.torch"):
        pytest.importorskip(library)
    guide = Path(__file__).parents[1] / "docs/guides/exchange.md"
    assert doctest.testfile(str(guide), module_relative=False).failed == 0


@pytest.mark.parametrize("fault", faults_of_exchange.ONNX, ids=lambda fault: fault.what)
def test_a_planted_fault_is_found(fault):
    pytest.importorskip("onnx")
    from faults import killed_by  # imports much

    assert killed_by(fault) is not None
