"""What is saved comes back bit for bit on either backend; broken, hostile and unsuitable files are refused."""

import collections
import contextlib
import errno
import hashlib
import io
import json
import os
import re
import stat
import subprocess
import sys
import textwrap
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers import THOROUGH, compiled
from hypothesis import given, settings
from hypothesis import strategies as st

import fnn
from fnn import checkpoints, errors, files, trees
from fnn.backend import Held, jax
from fnn.static import namedtuples, registered

BACKENDS = ["numpy"] if jax is None else ["numpy", "jax"]
backends = pytest.mark.parametrize("backend", BACKENDS)
NET = fnn.Serial(
    (
        fnn.Scale(0.5),
        fnn.Dense(4, initializer=fnn.Normal(1e-2)),
        fnn.Residual(fnn.Serial((fnn.LayerNorm(), fnn.Dense(4), fnn.PElu()))),
        fnn.Parallel((fnn.Frozen(fnn.Dense(2)), fnn.Relu())),
        fnn.Dropout(0.5),
        fnn.Dense(3),
    )
)
RATE = fnn.schedules.Join((fnn.schedules.LinearWarmup(0.01, 5), fnn.schedules.CosineAnnealing(0.01, 20)), (5,))
OPTIMIZERS = {
    "sgd": fnn.Sgd(0.1),
    "adam": fnn.ClipByGlobalNorm(fnn.AdamW(RATE), 1.0),
    "nested": fnn.Average(fnn.Accumulate(fnn.SkipNonFinite(fnn.Nadam(0.01)), 2), 0.9),
    "muon": fnn.MaxNorm(fnn.Muon(0.01), 3.0),
}
X, Y = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32), np.arange(30) % 3
LOSS = fnn.SoftmaxCrossEntropy()
HERE = str(Path(fnn.__file__).parent.parent)
ON_NUMPY = os.environ | {"FNN_BACKEND": "numpy", "PYTHONPATH": HERE}  # of processes of their own


@pytest.fixture(scope="module")
def library():
    return pytest.importorskip("safetensors.numpy")


def begin(backend, optimizer=OPTIMIZERS["adam"], net=NET, dtype=np.float32):
    return fnn.init_state(net, optimizer, fnn.random.key(3, backend=backend), (5,), dtype)


def words(state):
    """A state on NumPy, its key as two words."""
    return trees.map(np.asarray, state._replace(key=fnn.random.like(state.key, np)))


def same(ours, theirs):
    """Structure, classes, dtypes, and every bit."""
    assert type(ours) is type(theirs)
    if isinstance(ours, tuple | list | dict):
        assert len(ours) == len(theirs)
        pairs = ours.items() if isinstance(ours, dict) else enumerate(ours)
        for key, value in pairs:
            same(value, theirs[key])
    elif isinstance(ours, np.ndarray | np.generic):
        assert (ours.dtype, ours.shape, ours.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())
    else:
        assert ours == theirs or ours != ours


# ---- there and back --------------------------------------------------------------------------------------------------


@backends
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.thorough(backend="jax")
def test_a_run_comes_back_bit_for_bit_on_either_backend(name, backend, tmp_path):
    state = begin(backend, OPTIMIZERS[name])
    checkpoints.save(tmp_path / "run.npz", state, net=NET, metadata={"epoch": 1, "history": [0.5, 0.25]})
    for other in BACKENDS:
        found = checkpoints.load(tmp_path / "run.npz", backend=other)
        same(words(found.tree), words(state))
        assert found.net == NET
        assert found.metadata == {"epoch": 1, "history": [0.5, 0.25]}
        leaves = trees.leaves(found.tree.params)
        assert all(fnn.backend.is_jax(leaf) == (other == "jax") for leaf in [*leaves, found.tree.key])
        if other == "numpy":
            assert not any(leaf.flags.writeable for leaf in leaves)


RESUME = """
import sys
import numpy as np
import fnn
from fnn import checkpoints
backend, folder, *runs = sys.argv[1:]
net = fnn.Serial((fnn.Dense(16), fnn.Relu(), fnn.Dropout(0.5), fnn.Dense(3)))
loss, y = fnn.SoftmaxCrossEntropy(), np.arange(50) % 3
x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
for run in runs:
    if run == "rest":
        state = checkpoints.load(f"{folder}/half", backend=backend).tree
    else:
        rate = fnn.schedules.CosineAnnealing(0.05, 40)
        state = fnn.init_state(net, fnn.Adam(rate), fnn.random.key(1, backend=backend), (4,))
    state, _ = fnn.train(net, loss, state, (x, y), epochs=4 if run == "whole" else 2, batch_size=8)
    checkpoints.save(f"{folder}/{run}", state, net=net)
"""


@backends
@pytest.mark.thorough
def test_a_run_that_is_continued_in_another_process_equals_one_that_was_never_stopped(backend, tmp_path):
    (tmp_path / "run.py").write_text(RESUME)
    alone = ON_NUMPY | {
        "FNN_BACKEND": "",
        "OPENBLAS_NUM_THREADS": "1",
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false",
    }
    alone |= {"JAX_PLATFORMS": "cpu"}
    for runs in (["whole", "half"], ["rest"]):
        subprocess.run([sys.executable, str(tmp_path / "run.py"), backend, str(tmp_path), *runs], check=True, env=alone)
    whole, rest = (checkpoints.load(tmp_path / name, backend="numpy") for name in ("whole", "rest"))
    same(rest.tree, whole.tree)


@backends
def test_a_network_from_its_file_is_ready_to_apply(backend, tmp_path):
    state = begin(backend)
    wanted = np.asarray(compiled(backend, NET.apply)(state.params, X))
    for tree in (state, state.params):
        checkpoints.save(tmp_path / "net.npz", tree, net=NET)
        net, params = checkpoints.load_network(tmp_path / "net.npz", backend="numpy")
        np.testing.assert_allclose(net.apply(params, X), wanted, rtol=1e-5, atol=1e-6)
    checkpoints.save(tmp_path / "net.npz", state.params)
    with pytest.raises(errors.CheckpointError, match="expected a file saved with its network"):
        checkpoints.load_network(tmp_path / "net.npz")


def test_numpy_alone_can_read_the_file(tmp_path):
    state = begin("numpy")
    checkpoints.save(tmp_path / "run.npz", state)
    with np.load(tmp_path / "run.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["params[1].w"], state.params[1].w)
        manifest = json.loads(file["manifest.json"])
    assert manifest["arrays"]["params[1].w"]["shape"] == [4, 5]
    assert {"python", "numpy"} <= manifest["libraries"].keys()


NUMBERS = [np.arange(4).astype(kind) for kind in "?bBhHiIqQefdFD"]
TREES = [
    *(None, 3, -1.5, True, "text", 10**30, (np.inf, -np.inf, np.nan), (), [], {}),
    *(np.float32(2), np.arange(3), np.zeros((0, 3)), np.arange(6).reshape(2, 3).T, np.arange(10)[::-2], NUMBERS),
    *(fnn.Sgd(0.1), (1, [2, {"a": (3, None)}]), {"b": np.ones(2), "a": np.array(1.5)}, trees.Fixed({"w": np.ones(1)})),
    *({"a/../b": np.ones(1), 'ü"': {"'": np.bool_([True, False])}}, np.arange(3).astype(">i4")),
]


@pytest.mark.parametrize("tree", TREES, ids=range(len(TREES)))
def test_every_tree_comes_back(tree, tmp_path):
    checkpoints.save(tmp_path / "tree.npz", tree)
    found = checkpoints.load(tmp_path / "tree.npz", backend="numpy").tree

    def settled(leaf):  # in the machine's byte order, and a scalar where it has no axis
        return leaf.astype(leaf.dtype.newbyteorder("="))[()] if isinstance(leaf, np.ndarray) else leaf

    same(found, trees.map(settled, tree) if tree is not None else None)


LOOP: list = []
LOOP.append(LOOP)
NO_TREES = [
    *(object(), np.array([object()]), np.array(["a"]), {1: np.ones(1)}, {3}, b"bytes", np.ndarray, 10**4000, LOOP),
    *(
        collections.OrderedDict(a=1),
        collections.defaultdict(int),
        os.terminal_size((1, 2)),
        type("Many", (list,), {})(),
    ),
    *(np.ma.masked_array([1.0, 2.0], [True, False]), np.ones(2, np.longdouble), np.zeros(1, [("a", "f4")])),
    type("Torch", (), {"shape": (2,), "dtype": "torch.float32"})(),
    type("Struct", (), {"shape": (2,), "dtype": np.dtype("f4")})(),
]


@pytest.mark.parametrize("thing", NO_TREES, ids=range(len(NO_TREES)))
def test_other_than_trees_of_numbers_is_refused_and_nothing_is_written(thing, tmp_path):
    with pytest.raises(errors.KindError, match="expected"):
        checkpoints.save(tmp_path / "tree.npz", {"a": (1, thing)})
    assert list(tmp_path.iterdir()) == []


def test_the_deepest_tree_that_is_saved_can_be_loaded(tmp_path):
    def nested(levels):
        return (nested(levels - 1),) if levels else np.ones(1)

    checkpoints.save(tmp_path / "tree.npz", nested(100))
    same(checkpoints.load(tmp_path / "tree.npz", backend="numpy").tree, nested(100))
    with pytest.raises(errors.KindError, match="expected a tree of at most 100 levels"):
        checkpoints.save(tmp_path / "tree.npz", nested(101))


@pytest.mark.parametrize("metadata", [{"a": np.float32(1)}, {"a": (1, 2)}, {1: 2}, [1], {"a": np.nan}, "text"])
def test_metadata_that_json_would_change_is_refused(metadata, tmp_path):
    with pytest.raises(errors.KindError, match="metadata: expected a dict that JSON can hold"):
        checkpoints.save(tmp_path / "tree.npz", 1, metadata=metadata)


def test_keys_and_bfloat16_come_back_and_are_widened_on_numpy(needs_jax, tmp_path):
    tree = {"key": fnn.random.key(5), "keys": fnn.random.split(fnn.random.key(6), 3)}
    tree["w"] = jax.numpy.linspace(-3, 3, 7, dtype=jax.numpy.bfloat16)
    checkpoints.save(tmp_path / "t.npz", tree)
    found = checkpoints.load(tmp_path / "t.npz").tree
    assert found["w"].dtype == jax.numpy.bfloat16
    assert (found["w"] == tree["w"]).all()
    for name in ("key", "keys"):
        assert found[name].dtype == tree[name].dtype
        assert (jax.random.key_data(found[name]) == jax.random.key_data(tree[name])).all()
    plain = checkpoints.load(tmp_path / "t.npz", backend="numpy").tree
    assert plain["w"].dtype == np.float32
    np.testing.assert_array_equal(plain["w"], np.asarray(tree["w"]).astype(np.float32))
    np.testing.assert_array_equal(plain["key"], [0, 5])


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_keys_that_only_jax_has_come_back_there_and_are_refused_on_numpy(impl, needs_jax, tmp_path):
    state = begin("jax")._replace(key=jax.random.key(0, impl=impl))
    checkpoints.save(tmp_path / "t.npz", state, net=NET)
    found = checkpoints.load(tmp_path / "t.npz", like=state, backend="jax").tree
    assert found.key.dtype == state.key.dtype
    assert (jax.random.key_data(found.key) == jax.random.key_data(state.key)).all()
    with pytest.raises(errors.ArgumentError, match=f"key is an {impl} key, which only JAX has: load it with backend="):
        checkpoints.load(tmp_path / "t.npz", backend="numpy")
    same(checkpoints.load_network(tmp_path / "t.npz", backend="numpy")[1], trees.map(np.asarray, state.params))


def test_a_key_that_could_not_be_restored_is_refused_when_it_is_saved(needs_jax, tmp_path):
    from jax.extend.random import define_prng_impl

    pair = lambda key, *_: key
    custom = define_prng_impl(
        key_shape=(2,), name="mine", seed=pair, split=pair, random_bits=pair, fold_in=pair, tag="mine"
    )
    key = jax.random.wrap_key_data(np.zeros(2, np.uint32), impl=custom)
    with pytest.raises(errors.KindError, match="expected a key of one of JAX's own implementations, got one of mine"):
        checkpoints.save(tmp_path / "t.npz", {"key": key})
    assert list(tmp_path.iterdir()) == []


@backends
def test_arrays_of_the_host_stay_on_numpy_whatever_the_backend(backend, tmp_path):
    history = {"loss": np.array([1 + 1e-12]), "epochs": [np.float32(2.5), 3]}
    for hosted in (checkpoints.Host(history), {name: checkpoints.Host(part) for name, part in history.items()}):
        tree = {"history": hosted, "w": fnn.backend.namespace(fnn.random.key(0, backend=backend)).ones(2)}
        checkpoints.save(tmp_path / "t.npz", tree)
        for like in (None, tree, tree | {"history": ...}):
            found = checkpoints.load(tmp_path / "t.npz", like=like, backend=backend).tree
            same(found["history"], history)
            assert fnn.backend.is_jax(found["w"]) == (backend == "jax")


def test_what_jax_would_cut_to_32_bits_is_refused_unless_it_is_set_to_64(needs_jax, tmp_path):
    checkpoints.save(tmp_path / "t.npz", {"w": np.array([1 + 1e-12])})
    with pytest.raises(
        errors.ArgumentError,
        match=r"float64, which JAX would cut to 32 bits; set jax.config.*or load it with backend='numpy'",
    ):
        checkpoints.load(tmp_path / "t.npz", backend="jax")
    with jax.enable_x64(True):
        assert checkpoints.load(tmp_path / "t.npz", backend="jax").tree["w"].dtype == np.float64


# ---- classes by name -------------------------------------------------------------------------------------------------


class TwiceParams(NamedTuple):
    factor: Any


class TwoParams(NamedTuple):
    factor: Any
    factors: Any


@dataclass(frozen=True)
class Repeated(fnn.Layer):
    power: int = 1

    def init(self, key, input_shape, dtype=np.float32):
        return TwiceParams(np.full(1, 2, dtype))

    def forward(self, params, x, key=None):
        return params.factor**self.power * x, x

    def backward(self, params, x, dy):
        return params.factor**self.power * dy

    def gradient(self, params, x, delta):
        return TwiceParams((self.power * params.factor ** (self.power - 1) * delta * x).sum().reshape(1))


@dataclass(frozen=True)
class Tanh(fnn.Scale):  # a name that fnn has, too
    pass


def first():
    @dataclass(frozen=True)
    class Manifold(Repeated):
        pass

    return Manifold(1)


def second():
    @dataclass(frozen=True)
    class Manifold(Repeated):
        pass

    return Manifold(2)


def test_classes_of_the_users_are_found_by_being_defined(tmp_path):
    net = fnn.Serial((Repeated(3), fnn.Dense(2), Tanh(2.0), fnn.Tanh()))
    params = net.init(fnn.random.key(0, backend="numpy"), (5,))
    with pytest.raises(errors.KindError, match="expected a network that"):  # two are named Tanh
        checkpoints.save(tmp_path / "net.npz", params, net=net)
    net = fnn.Serial(net.layers[:3])
    params = params[:3]
    checkpoints.save(tmp_path / "net.npz", params, net=net)
    again, found = checkpoints.load_network(tmp_path / "net.npz", backend="numpy")
    assert again == net
    same(found, params)
    net = fnn.Serial((fnn.Tanh(),))
    checkpoints.save(tmp_path / "net.npz", ((),), net=net)
    assert checkpoints.load(tmp_path / "net.npz").net == net, "a name means fnn's class where it was fnn's"


def test_of_classes_with_the_same_name_the_caller_chooses(tmp_path):
    one, other = first(), second()
    checkpoints.save(tmp_path / "net.npz", (), net=one)
    with pytest.raises(
        errors.ArgumentError, match=r"net: 'Manifold' is the name of 2 classes, .*; choose one with layers="
    ):
        checkpoints.load(tmp_path / "net.npz")
    for chosen in (one, other):
        found = checkpoints.load(tmp_path / "net.npz", layers={"Manifold": type(chosen)}).net
        assert type(found) is type(chosen)
    assert checkpoints.load(tmp_path / "net.npz", layers={"Manifold": Repeated}).net == Repeated(1)
    with pytest.raises(errors.KindError, match="layers: expected classes by name"):
        checkpoints.load_network(tmp_path / "net.npz", layers=[Repeated])
    with pytest.raises(errors.KindError, match="Manifold: expected one class of this name"):
        checkpoints.save(tmp_path / "net.npz", (Held(one), Held(other)))


def test_a_class_that_is_not_defined_is_named(tmp_path):
    hint = r"'Gone' is not the name of a class that is defined; import its module, or pass layers=\{'Gone': Gone\}"
    (tmp_path / "a.npz").write_bytes(rewritten(put("net", value="Serial((Gone(3),))")))
    with pytest.raises(errors.ArgumentError, match=rf"a.npz: net: {hint}"):
        checkpoints.load(tmp_path / "a.npz", backend="numpy")
    (tmp_path / "a.npz").write_bytes(rewritten(put("tree", value={"class Gone": [["w", {"array": "w"}]]})))
    with pytest.raises(errors.CheckpointError, match=rf"a.npz: the tree: {hint}"):
        checkpoints.load(tmp_path / "a.npz", backend="numpy")
    change = {"tree": {"class Tanh": [["w", {"array": "w"}]]}, "own": {"tuples": ["Tanh"], "statics": []}}
    (tmp_path / "a.npz").write_bytes(rewritten(lambda manifest: manifest.update(change)))
    with pytest.raises(errors.CheckpointError, match="'Tanh' is not the name"):
        checkpoints.load(tmp_path / "a.npz", layers={"Tanh": Tanh}, backend="numpy")  # a layer, where a tuple is named


def test_an_initializer_and_a_schedule_may_have_the_same_name(tmp_path):
    net = fnn.Serial((fnn.Dense(2, initializer=fnn.Constant(0.25)),))
    rate = fnn.schedules.Join((fnn.schedules.Constant(0.5), fnn.schedules.Constant(0.1)), (5,))
    state = begin("numpy", fnn.Sgd(rate), net)
    checkpoints.save(tmp_path / "run.npz", state, net=net)
    for like, layers in ((None, None), (state, None), (None, {"Constant": fnn.schedules.Constant})):
        found = checkpoints.load(tmp_path / "run.npz", like=like, layers=layers, backend="numpy")
        assert found.net == net
        same(found.tree, state)


def test_no_two_classes_of_fnns_have_the_same_name():
    for classes in (registered(), namedtuples()):
        names = collections.Counter(cls.__name__ for cls in classes.values() if cls.__module__.startswith("fnn."))
        assert {name: count for name, count in names.items() if count > 1} == {}


CHOICES = [
    *(True, 3, -1.5, 0.1, "text 'quoted'", None, np.inf, (), (1, ("a", None), -2.0)),
    *(fnn.Dense(3, initializer=fnn.Constant(0.5)), fnn.SoftmaxCrossEntropy(), (fnn.Relu(), Repeated(2))),
]


@pytest.mark.parametrize("choice", CHOICES, ids=range(len(CHOICES)))
def test_choices_come_back_and_are_compared_with_like(choice, tmp_path):
    tree = {"rule": (Held(choice), np.ones(2)), "other": Held(choice)}
    checkpoints.save(tmp_path / "t.npz", tree)
    for like in (None, tree, {"rule": ..., "other": Held(choice)}):
        found = checkpoints.load(tmp_path / "t.npz", like=like, backend="numpy").tree
        assert isinstance(found["rule"][0], Held)
        same((found["rule"][0].thing, found["other"].thing), (choice, choice))
    with pytest.raises(errors.ShapeError, match=r"t.npz: \['other'\]: .* in the file, 'else' expected"):
        checkpoints.load(tmp_path / "t.npz", like=tree | {"other": Held("else")}, backend="numpy")


@pytest.mark.parametrize("thing", [object(), np.sin, [1], np.float32(1)], ids=["object", "function", "list", "scalar"])
def test_other_things_that_are_held_come_from_like(thing, tmp_path):
    tree = (Held(thing), np.ones(2))
    checkpoints.save(tmp_path / "t.npz", tree)
    assert checkpoints.load(tmp_path / "t.npz", like=tree, backend="numpy").tree[0] is tree[0]
    for like in (None, (..., np.ones(2)), (3, np.ones(2))):
        with pytest.raises(
            errors.CheckpointError, match=r"\[0\] is .*, which belongs to another library: load it with"
        ):
            checkpoints.load(tmp_path / "t.npz", like=like, backend="numpy")


def test_a_network_that_no_text_rebuilds_is_refused(needs_jax, tmp_path):
    with pytest.raises(errors.KindError, match="expected a network that text can rebuild"):
        checkpoints.save(tmp_path / "net.npz", (), net=fnn.Function(jax.numpy.sin))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("net", "listed"),
    [
        (fnn.mlp((4, 3)), "different shape or dtype: params[0].w: (6, 5) float32 in the file, (4, 5) float32 expected"),
        (fnn.mlp((6, 4, 3)), "missing: params[4].w, params[4].b, opt_state"),
        (fnn.Serial((fnn.Dense(6),)), "unexpected: params[2].w, params[2].b"),
        (fnn.Serial((fnn.Dense(6, bias=False), fnn.Relu(), fnn.Dense(3))), "unexpected: params[0].b"),
    ],
)  # fmt: skip
def test_the_weights_of_another_network_are_refused_and_the_differences_are_listed(net, listed, tmp_path):
    checkpoints.save(tmp_path / "run.npz", begin("numpy", net=fnn.mlp((6, 3))))
    with pytest.raises(errors.ShapeError) as raised:
        checkpoints.load(tmp_path / "run.npz", like=begin("numpy", net=net), backend="numpy")
    assert listed in str(raised.value)


UNLIKE = [  # what is saved, what is asked for, and what is said
    ([np.ones(2)], (np.ones(2),), "the tree: 'list' in the file, 'tuple' expected"),
    ({"a": {}}, {"a": ()}, r"\['a'\]: 'dict' in the file, 'tuple' expected"),
    ({"a": None}, {"a": 3}, r"\['a'\]: None in the file, 3 expected"),
    ({"a": 3}, {"a": None}, r"\['a'\]: 3 in the file, None expected"),
    (fnn.Adam(0.1), fnn.Nadam(0.1), "'class Adam' in the file, 'class Nadam' expected"),
    (
        [fnn.Momentum(np.ones(()))],
        [fnn.Nesterov(np.ones(()))],
        r"\[0\]: 'class Momentum' in the file, 'class Nesterov'",
    ),
]


@pytest.mark.parametrize(("saved", "like", "says"), UNLIKE, ids=range(len(UNLIKE)))
def test_another_class_than_that_of_like_is_refused(saved, like, says, tmp_path):
    checkpoints.save(tmp_path / "run.npz", saved)
    with pytest.raises(errors.ShapeError, match=says):
        checkpoints.load(tmp_path / "run.npz", like=like, backend="numpy")
    assert repr(checkpoints.load(tmp_path / "run.npz", like=saved, backend="numpy").tree)[:10] == repr(saved)[:10]


def test_shapes_without_values_are_enough_for_like(needs_jax, tmp_path):
    params = begin("jax").params
    checkpoints.save(tmp_path / "net.npz", params)
    like = jax.eval_shape(lambda key: NET.init(key, (5,)), fnn.random.key(0))
    same(*(trees.map(np.asarray, t) for t in (checkpoints.load(tmp_path / "net.npz", like=like).tree, params)))


def test_dots_in_like_stand_for_anything(tmp_path):
    tree = {"params": [np.ones(2)], "more": {"a": np.ones(3), "b": (np.ones(4),)}, "number": 2.5}
    checkpoints.save(tmp_path / "tree.npz", tree)
    same(checkpoints.load(tmp_path / "tree.npz", like=tree | {"more": ...}, backend="numpy").tree, tree)
    with pytest.raises(errors.ShapeError, match=r"missing: \['other'\]; unexpected: \['params'\]\[0\]"):
        checkpoints.load(tmp_path / "tree.npz", like={"more": ..., "other": np.ones(1)}, backend="numpy")
    whole = TwoParams(np.ones(1), np.ones(2))
    checkpoints.save(tmp_path / "tree.npz", whole)
    with pytest.raises(errors.ShapeError, match=r"unexpected: factors$"):
        checkpoints.load(tmp_path / "tree.npz", like=TwoParams(..., None), backend="numpy")
    same(checkpoints.load(tmp_path / "tree.npz", like=TwoParams(..., ...), backend="numpy").tree, whole)
    with pytest.raises(errors.KindError):
        checkpoints.save(tmp_path / "tree.npz", {"a": ...})


def test_what_cannot_be_read_back_does_not_take_the_place_of_the_old_file(tmp_path, monkeypatch):
    checkpoints.save(tmp_path / "tree.npz", {"w": np.ones(3)})
    real = np.lib.format.write_array
    monkeypatch.setattr(np.lib.format, "write_array", lambda file, array, **options: real(file, array + 1, **options))
    with pytest.raises(errors.CheckpointError, match="SHA-256"):
        checkpoints.save(tmp_path / "tree.npz", {"w": np.zeros(3)})
    assert os.listdir(tmp_path) == ["tree.npz"]
    assert checkpoints.load(tmp_path / "tree.npz", backend="numpy").tree["w"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "key", ["\0", "a\0b", "\ud800", "", "..", "/etc/passwd", "a'\"b", "\n", "manifest.json", "é" * 99]
)
def test_any_text_may_be_a_key(key, tmp_path):
    checkpoints.save(tmp_path / "tree.npz", {key: np.ones(1), "w": [np.zeros(2)]})
    same(checkpoints.load(tmp_path / "tree.npz", backend="numpy").tree, {key: np.ones(1), "w": [np.zeros(2)]})


def test_an_optimizer_of_another_library_comes_from_like(needs_jax, tmp_path):
    optax = pytest.importorskip("optax")
    state = begin("jax", fnn.from_optax(optax.adam(1e-3)))
    checkpoints.save(tmp_path / "run.npz", state)
    found = checkpoints.load(tmp_path / "run.npz", like=state).tree
    assert found.optimizer == state.optimizer
    same(words(found), words(state))
    with pytest.raises(errors.CheckpointError, match="belongs to another library: load it with like="):
        checkpoints.load(tmp_path / "run.npz", layers={n: type(v) for n, v in named(state.opt_state)})


def named(node):
    inside = [pair for child in node for pair in named(child)] if isinstance(node, tuple) else []
    return [(type(node).__name__, node), *inside] if hasattr(node, "_fields") else inside


# ---- files that are broken -------------------------------------------------------------------------------------------

SMALL = {"w": np.arange(3, dtype=np.float32), "rest": (1.5, None, "text")}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "small.npz"
    checkpoints.save(path, SMALL, net=fnn.Dense(2), metadata={"epoch": 3})
    return path.read_bytes()


def loaded(path, data):
    path.write_bytes(data)
    return checkpoints.load(path, backend="numpy")


def changes(data):
    """The data with each byte changed: in one of three ways, in the thorough profile in all of them."""
    for i, byte in enumerate(data):
        others = byte ^ 1, byte ^ 128, (byte + 1) % 256
        for other in others if THOROUGH else others[i % 3 :][:1]:
            yield data[:i] + bytes([other]) + data[i + 1 :]


def cuts(data):
    """The beginnings of the data: each third one and the longest, in the thorough profile all."""
    lengths = range(len(data))
    return [data[:length] for length in lengths if THOROUGH or length % 3 == 0 or length > len(data) - 100]


@pytest.mark.numpy_alone
def test_every_change_of_a_byte_is_an_error_or_changes_nothing(small, tmp_path):
    good, refused, path = repr(loaded(tmp_path / "a.npz", small)), [], tmp_path / "a.npz"
    for i, changed in enumerate(changes(small)):
        try:
            found = loaded(path, changed)
        except errors.FnnError:
            refused.append(True)
        else:
            refused.append(False)
            assert repr(found) == good, i
    assert np.mean(refused) > 5 / 6


def test_every_truncation_is_an_error(small, tmp_path):
    for cut in cuts(small):
        with pytest.raises(errors.CheckpointError):
            loaded(tmp_path / "a.npz", cut)


def manifest_of_small(change=None):
    header = {"shape": [3], "dtype": "float32", "kind": "array"}
    header["sha256"] = hashlib.sha256(SMALL["w"].tobytes()).hexdigest()
    manifest = {"format": "fnn checkpoint", "version": 2, "tree": {"array": "w"}, "arrays": {"w": header}}
    manifest |= {"net": None, "own": {"tuples": [], "statics": []}, "metadata": {}, "libraries": {}}
    if change is not None:
        change(manifest)
    return json.dumps(manifest).encode()


def rewritten(change=None, members=None, compression=zipfile.ZIP_STORED):
    """A checkpoint whose manifest is changed, with these members in place of its own."""
    stream, out = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array(stream, SMALL["w"], version=(1, 0))
    whole = {"manifest.json": manifest_of_small(change), "w.npy": stream.getvalue()} | (members or {})
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in whole.items():
            if data is not None:
                archive.writestr(name, data)
    return out.getvalue()


def npy(shape, data=b""):
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def put(*path, value):
    def change(manifest):
        for key in path[:-1]:
            manifest = manifest[key]
        manifest[path[-1]] = value

    return change


def pickled():
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.array([print]), allow_pickle=True)
    return stream.getvalue()


def deep(levels):
    tree = '{"tuple": [[0, ' * levels + '{"value": 1}' + "]]}" * levels
    rest = '"format": "fnn checkpoint", "version": 1, "net": null, "metadata": {}, "libraries": {}, "arrays": {}'
    return f'{{{rest}, "tree": {tree}}}'.encode()


HOSTILE = {
    "an object array": (None, {"w.npy": pickled()}),
    "a header of terabytes": (None, {"w.npy": npy((2**40,))}),
    "a manifest of terabytes": (put("arrays", "w", "shape", value=[2**40]), None),
    "a shape that overflows": (put("arrays", "w", "shape", value=[2**62, 2**62]), None),
    "a negative shape": (put("arrays", "w", "shape", value=[-3]), None),
    "a shape of text": (put("arrays", "w", "shape", value=["3"]), None),
    "another dtype": (put("arrays", "w", "dtype", value="int32"), None),
    "a dtype of objects": (put("arrays", "w", "dtype", value="object"), None),
    "another hash": (put("arrays", "w", "sha256", value="0" * 64), None),
    "a key of an unknown kind": (put("arrays", "w", "kind", value="pickle"), None),
    "a newer version": (put("version", value=3), None),
    "version 0": (put("version", value=0), None),
    "no version": (put("version", value="1"), None),
    "another format": (put("format", value="something"), None),
    "a path out of the folder": (put("tree", value={"array": "../../etc/passwd"}), None),
    "a member out of the folder": (None, {"../w.npy": b"1"}),
    "an array too many": (None, {"v.npy": b"1"}),
    "an array missing": (None, {"w.npy": None}),
    "a class that is no tuple": (put("tree", value={"class Popen": [["args", {"value": "ls"}]]}), None),
    "a class of layers in the tree": (put("tree", value={"class Dense": [["units", {"value": 1}]]}), None),
    "an array that is used twice": (put("tree", value={"tuple": [[0, {"array": "w"}], [1, {"array": "w"}]]}), None),
    "an array that is not used": (put("tree", value={"value": 1}), None),
    "an array of no name": (put("tree", value={"array": ["w"]}), None),
    "names of classes that are no list": (put("own", "tuples", value="Tanh"), None),
    "names of classes that are no text": (put("own", "statics", value=[[]]), None),
    "no names of classes": (put("own", value={}), None),
    "a choice that is code": (put("tree", value={"choice": "__import__('os').getcwd()"}), {"w.npy": None}),
    "a choice that is no text": (put("tree", value={"choice": ["a"]}), {"w.npy": None}),
    "something held": (put("tree", value={"held": "adam"}), None),
    "a class with other fields": (put("tree", value={"class DenseParams": [["w", {"array": "w"}]]}), None),
    "a node of two kinds": (put("tree", value={"tuple": [], "list": []}), None),
    "a node of no kind": (put("tree", value={}), None),
    "keys twice": (put("tree", value={"dict": [["a", {"value": 1}], ["a", {"value": 2}]]}), None),
    "a very deep tree": (None, {"manifest.json": deep(900), "w.npy": None}),
    "a tree too deep for JSON": (None, {"manifest.json": deep(100_000), "w.npy": None}),
    "a network that is code": (put("net", value="__import__('os').system('ls')"), None),
    "a network that is nested": (put("net", value="Serial(" * 9000), None),
    "no manifest": (None, {"manifest.json": None}),
    "a manifest that is too large": (None, {"manifest.json": manifest_of_small() + b" " * 2**24}),
    "a manifest that is no JSON": (None, {"manifest.json": b"{"}),
    "a manifest that is deep": (None, {"manifest.json": b"[" * 100_000}),
    "a manifest that is a list": (None, {"manifest.json": b"[]"}),
    "a manifest of huge numbers": (None, {"manifest.json": b'{"version": ' + b"9" * 5000 + b"}"}),
    "bytes after the array": (None, {"w.npy": npy((3,), b"x" * 13)}),
}  # fmt: skip


def test_the_file_that_the_hostile_ones_are_made_from_is_good(tmp_path):
    assert loaded(tmp_path / "a.npz", rewritten()).tree.tolist() == [0, 1, 2]


# ---- files of version 1 ----------------------------------------------------------------------------------------------


def version_1(tree, net=None):
    def change(manifest):
        del manifest["own"]
        manifest.update({"version": 1, "tree": tree, "net": net})

    return rewritten(change)


def test_a_file_of_version_1_is_read(tmp_path):
    tree = {"tuple": [[0, {"class TwiceParams": [["factor", {"array": "w"}]]}], [1, {"float": "nan"}]]}
    found = loaded(tmp_path / "a.npz", version_1(tree, "Serial((Repeated(3), Tanh()))"))
    same(found.tree, (TwiceParams(SMALL["w"]), np.nan))
    assert found.net == fnn.Serial((Repeated(3), fnn.Tanh()))


def test_of_a_run_of_version_1_there_are_the_network_and_its_parameters(tmp_path):
    fields = {"params": {"tuple": [[0, {"array": "w"}]]}, "optimizer": {"value": None}, "opt_state": {"tuple": []}}
    fields |= {"key": {"value": 0}, "step": {"value": 3}}
    data = version_1({"class TrainState": [list(item) for item in fields.items()]}, "Dense(3)")
    with pytest.raises(errors.CheckpointError, match=r"expected .*rule.*; load_network gives the parameters of a run"):
        loaded(tmp_path / "a.npz", data)
    net, params = checkpoints.load_network(tmp_path / "a.npz", backend="numpy")
    assert net == fnn.Dense(3)
    same(params, (SMALL["w"],))


# ---- hostile files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(name, tmp_path):
    change, members = HOSTILE[name]
    with pytest.raises(errors.FnnError, match=r"a\.npz: "):
        loaded(tmp_path / "a.npz", rewritten(change, members))


WARNING = [(put("net", value=text), None) for text in ("Dense(2if 1else 3)", "Dense('\\d')")]


@pytest.mark.parametrize(("change", "members"), [*WARNING, (None, {"w.npy": npy("(3if 1else 4,)", bytes(12))})])
def test_text_at_which_python_would_warn_is_refused_without_a_warning(change, members, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(errors.FnnError, match=r"a\.npz: "):
            loaded(tmp_path / "a.npz", rewritten(change, members))
    assert not caught


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    for members in ({"w.npy": bytes(10**7)}, {"manifest.json": b" " * 10**7}):
        data = rewritten(members=members, compression=zipfile.ZIP_DEFLATED)
        assert len(data) < 10**5
        with pytest.raises(errors.CheckpointError, match="members that"):
            loaded(tmp_path / "a.npz", data)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_members_are_refused_whatever_they_hold(compression, tmp_path):
    """They may make the decompressor itself use gigabytes."""
    with pytest.raises(errors.CheckpointError, match="members that are compressed"):
        loaded(tmp_path / "a.npz", rewritten(compression=compression))


@pytest.mark.parametrize("data", [b"", b"PK", b"text", b"PK\5\6" + bytes(18), bytes(1000)])
def test_what_is_no_archive_is_refused(data, tmp_path):
    with pytest.raises(errors.CheckpointError, match=r"a.npz: not a valid checkpoint"):
        loaded(tmp_path / "a.npz", data)


def test_a_file_that_is_missing_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoints.load(tmp_path / "none.npz")


@given(st.data())
@settings(max_examples=400 if THOROUGH else 100, deadline=None)
@pytest.mark.numpy_alone
def test_only_our_own_errors_come_out_of_files_made_of_pieces(small, tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.npz"
    content = bytearray(small)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        stop = data.draw(st.integers(start, min(len(content), start + 40)))
        own = st.integers(0, len(small)).map(lambda i: small[i : i + 30])
        piece = data.draw(st.one_of(st.binary(max_size=40), own))
        content[start:stop] = piece
    with contextlib.suppress(errors.FnnError):
        loaded(path, bytes(content))


# ---- whole or not at all ---------------------------------------------------------------------------------------------

KILLED = """
import os, random, signal, sys, time
import numpy as np
from fnn import checkpoints
path, rng, whole = sys.argv[1], random.Random(0), 0
tree = lambda i: {"i": np.full(20_000, i), "more": np.arange(30_000) + i}
checkpoints.save(path, tree(0))
start = time.perf_counter()
checkpoints.save(path, tree(0))
seconds = time.perf_counter() - start
for turn in range(int(sys.argv[2])):
    child = os.fork()
    if not child:
        i = turn * 1000
        while True:
            i += 1
            checkpoints.save(path, tree(i))
    time.sleep(rng.uniform(0, 3 * seconds))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = checkpoints.load(path, backend="numpy").tree
    assert (found["i"] == found["i"][0]).all() and (found["more"] == np.arange(30_000) + found["i"][0]).all()
    whole += found["i"][0] > turn * 1000
left = len(os.listdir(os.path.dirname(path))) - 1
checkpoints.save(path, tree(1))
print(whole, left, os.listdir(os.path.dirname(path)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.numpy_alone
def test_whenever_the_process_is_killed_the_newest_whole_file_loads_and_nothing_is_left_behind(tmp_path):
    (tmp_path / "kill.py").write_text(KILLED)
    (tmp_path / "folder").mkdir()
    command = [sys.executable, str(tmp_path / "kill.py"), str(tmp_path / "folder" / "run.npz")]
    command.append("200" if THOROUGH else "40")
    done = subprocess.run(command, env=ON_NUMPY, capture_output=True, text=True, check=True)
    whole, _, rest = done.stdout.split(maxsplit=2)
    assert int(whole) > 0, "some are killed after the first file is whole"
    assert rest.strip() == "['run.npz']"


@pytest.mark.numpy_alone
def test_when_the_disk_is_full_the_old_file_is_whole_and_the_message_says_so(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "run.npz"
    checkpoints.save(path, {"w": np.arange(10)})
    code = textwrap.dedent(f"""
        import resource, signal
        import numpy as np
        from fnn import checkpoints
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, {resource.RLIM_INFINITY}))
        checkpoints.save({str(path)!r}, {{"w": np.arange(100_000)}})
    """)
    done = subprocess.run([sys.executable, "-c", code], env=ON_NUMPY, capture_output=True, text=True)
    assert "CheckpointError" in done.stderr.splitlines()[-1]
    assert "not saved, and an earlier file is unchanged" in done.stderr.splitlines()[-1]
    assert os.listdir(tmp_path) == ["run.npz"]
    assert checkpoints.load(path, backend="numpy").tree["w"].tolist() == list(range(10))


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(errors.CheckpointError, match="nowhere"):
        checkpoints.save(tmp_path / "nowhere" / "run.npz", 1)


def test_the_leftovers_of_a_killed_process_are_deleted_and_no_other_files(tmp_path):
    dead = tmp_path / ".run.npz.0123abcd.partial"
    others = [".second.npz.0123abcd.partial", ".xrun.npz.0123abcd.partial", ".run.npz.0123abcd.partial.partial"]
    others += ["notes.partial", ".run.npz.partial", ".run.npz.0123abcx.partial", ".run,npz.0123abcd.partial"]
    for name in (dead.name, *others):
        (tmp_path / name).write_bytes(b"half")
    partial, file = files.open_partial(tmp_path / "run.npz")
    with file:
        checkpoints.save(tmp_path / "run.npz", 1)
        assert not dead.exists()
        assert partial.exists(), "another process is writing it"
    checkpoints.save(tmp_path / "run.npz", 1)
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "run.npz"])


@pytest.mark.skipif(files.fcntl is None, reason="needs flock")
@pytest.mark.parametrize("number", [37, 38, 95, 524], ids=["ENOLCK", "ENOSYS", "EOPNOTSUPP", "ENOTSUPP"])
def test_a_file_system_without_locks_will_do(number, tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(number, "no locks here")

    monkeypatch.setattr(files.fcntl, "flock", flock)
    (tmp_path / ".run.npz.0123abcd.partial").write_bytes(b"perhaps of another process")
    for i in range(2):
        checkpoints.save(tmp_path / "run.npz", i)
    assert checkpoints.load(tmp_path / "run.npz").tree == 1
    assert sorted(os.listdir(tmp_path)) == [".run.npz.0123abcd.partial", "run.npz"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_that_does_not_sync_will_do(number, tmp_path, monkeypatch):
    def fsync(_):
        raise OSError(number, "no syncing here")

    monkeypatch.setattr(os, "fsync", fsync)
    for i in range(2):
        checkpoints.save(tmp_path / "run.npz", i)
    assert checkpoints.load(tmp_path / "run.npz").tree == 1
    assert os.listdir(tmp_path) == ["run.npz"]


def test_what_the_system_does_not_open_is_an_error_of_ours(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "loop", tmp_path / "file" / "x", tmp_path / ("x" * 256)):
        for call in (lambda path: checkpoints.save(path, 1), checkpoints.load, checkpoints.load_network):
            with pytest.raises(errors.CheckpointError, match=r"not saved|not a valid checkpoint"):
                call(path)


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real.npz").write_bytes(b"")
    (tmp_path / "link.npz").symlink_to("real.npz")
    checkpoints.save(tmp_path / "link.npz", {"a": 1})
    assert (tmp_path / "link.npz").is_symlink()
    assert checkpoints.load(tmp_path / "real.npz").tree == {"a": 1}


def test_a_link_in_place_of_the_temporary_file_is_not_followed(tmp_path, monkeypatch):
    (tmp_path / "victim").write_bytes(b"precious")
    monkeypatch.setattr(os, "urandom", bytes)
    (tmp_path / ".run.npz.00000000.partial").symlink_to("victim")
    with pytest.raises(errors.CheckpointError, match="not saved"):
        checkpoints.save(tmp_path / "run.npz", 1)
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert not (tmp_path / "run.npz").exists()


@pytest.mark.skipif(os.name != "posix", reason="needs permissions")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o444, 0o777])
def test_a_file_that_is_replaced_keeps_its_permissions(mode, tmp_path):
    checkpoints.save(tmp_path / "run.npz", 1)
    (tmp_path / "run.npz").chmod(mode)
    before = os.umask(0o077)
    try:
        checkpoints.save(tmp_path / "run.npz", 2)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "run.npz").stat().st_mode) == mode
    assert checkpoints.load(tmp_path / "run.npz").tree == 2


@pytest.mark.skipif(os.name != "posix", reason="needs permissions")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_permissions_of_new_files(mask, tmp_path):
    before = os.umask(mask)
    try:
        checkpoints.save(tmp_path / "run.npz", 1)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "run.npz").stat().st_mode) == 0o666 & ~mask


FAILURES = {
    "sync": (os, "fsync", OSError(errno.EIO, "the disk is broken")),
    "rename": (os, "replace", PermissionError(errno.EACCES, "not allowed")),
    "write": (np.lib.format, "write_array", OSError(errno.ENOSPC, "no space")),
    "interrupt": (np.lib.format, "write_array", KeyboardInterrupt()),
    "interrupt before": (files, "_lock", KeyboardInterrupt()),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_save_that_fails_leaves_nothing_behind_but_the_old_file(name, tmp_path, monkeypatch):
    module, function, error = FAILURES[name]
    checkpoints.save(tmp_path / "run.npz", {"w": np.ones(3)})

    def fail(*_, **__):
        raise error

    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else errors.CheckpointError
    monkeypatch.setattr(module, function, fail)
    with pytest.raises(expected):
        checkpoints.save(tmp_path / "run.npz", {"w": np.zeros(3)})
    assert os.listdir(tmp_path) == ["run.npz"]
    assert checkpoints.load(tmp_path / "run.npz", backend="numpy").tree["w"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", ["a\nb", " ", "*?[x]", "ü" * 100, "x" * 255, "-", "'\"", "a.partial", ".", ".."])
def test_any_name_works_or_is_refused(name, tmp_path):
    if name in (".", ".."):
        with pytest.raises(errors.CheckpointError, match="expected a regular file, got a folder"):
            checkpoints.save(tmp_path / name, 1)
        return
    for i in range(2):
        checkpoints.save(tmp_path / name, i)
    assert os.listdir(tmp_path) == [name]
    assert checkpoints.load(tmp_path / name).tree == 1
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(errors.CheckpointError, match="not a valid checkpoint: it is truncated") as raised:
        checkpoints.load(tmp_path / name)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 256], ids=["zero", "surrogate", "long"])
def test_a_name_that_the_system_does_not_have_is_refused(name, tmp_path):
    with pytest.raises(errors.CheckpointError, match="not saved"):
        checkpoints.save(tmp_path / name, 1)
    with pytest.raises((errors.CheckpointError, OSError)):
        checkpoints.load(tmp_path / name)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("path", [3, None, b"run.npz", ["run.npz"]])
def test_what_is_not_a_path_is_refused(path):
    for call in (lambda: checkpoints.save(path, 1), lambda: checkpoints.load(path)):
        with pytest.raises(errors.KindError, match="path: expected a string or a path, got"):
            call()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_a_device_and_a_folder_are_refused_at_once_and_stay_what_they_are(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    os.mkfifo(tmp_path / ".run.npz.0123abcd.partial")
    kinds = {tmp_path / "pipe": "pipe", tmp_path / "link": "pipe", "/dev/null": "device", tmp_path: "folder"}
    calls = [lambda path: checkpoints.save(path, 1), checkpoints.load, checkpoints.load_network]
    for path, kind in kinds.items():
        for call in calls:
            with pytest.raises(errors.CheckpointError, match=f"expected a regular file, got a {kind}"):
                call(path)
    checkpoints.save(tmp_path / "run.npz", 1)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == [".run.npz.0123abcd.partial", "link", "pipe", "run.npz"]


# ---- images and sequences --------------------------------------------------------------------------------------------

SEVERAL = {"tokens": (5,), "n": ()}
NETWORKS = {  # with the shape of an example
    "images": (
        fnn.Serial(
            (fnn.Conv(4, (3, 2), (2, 1), "same"), fnn.Relu(), fnn.MaxPool((2, 2), padding=((1, 0), 0)),
             fnn.Conv(4, (1, 1), padding=((0, 1), 1), groups=2, bias=False), fnn.AvgPool((2, 2), 1),
             fnn.GlobalMaxPool(), fnn.Dense(3))
        ),
        (9, 8, 2),
    ),
    "sequences": (
        fnn.Serial(
            (fnn.Conv(4, (3,), dilation=2), fnn.Rnn(3, True), fnn.Lstm(3, True, recurrent_initializer=fnn.Normal(0.1)),
             fnn.Gru(3, all_states=True), fnn.GlobalAvgPool())
        ),
        (7, 2),
    ),
    "symbols of unequal length": (
        fnn.Serial(
            (fnn.Last(fnn.Serial((fnn.Frozen(fnn.Embedding(9, 4)), fnn.Gru(3, True))), inputs=("tokens", "n")),
             fnn.Dense(3))
        ),
        SEVERAL,
    ),
}  # fmt: skip


def examples(shape):
    rng = np.random.default_rng(0)
    if shape is SEVERAL:
        return {"tokens": rng.integers(0, 9, (6, 5)), "n": rng.integers(1, 6, 6)}
    return rng.normal(size=(6, *shape)).astype(np.float32)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_images_and_sequences_come_back_and_are_trained_on(name, tmp_path):
    net, shape = NETWORKS[name]
    data, options = (examples(shape), np.arange(6) % 3), {"epochs": 1, "batch_size": 3}
    begun = fnn.init_state(net, fnn.Adam(0.01), fnn.random.key(3, backend="numpy"), shape)
    state, _ = fnn.train(net, LOSS, begun, data, **options)
    checkpoints.save(tmp_path / "run.npz", state, net=net)
    found = checkpoints.load(tmp_path / "run.npz", like=state, backend="numpy")
    assert found.net == net
    same(words(found.tree), words(state))
    same(
        words(fnn.train(net, LOSS, found.tree, data, **options)[0]),
        words(fnn.train(net, LOSS, state, data, **options)[0]),
    )
    for other in BACKENDS:
        again, params = checkpoints.load_network(tmp_path / "run.npz", backend=other)
        assert again == net
        same(trees.map(np.asarray, params), trees.map(np.asarray, state.params))


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_of_images_and_sequences_come_back_from_safetensors(name, library, tmp_path):
    net, shape = NETWORKS[name]
    params = net.init(fnn.random.key(3, backend="numpy"), shape)
    checkpoints.save_safetensors(tmp_path / "net", params)
    for other in BACKENDS:
        found = checkpoints.load_safetensors(tmp_path / "net", params, backend=other)
        same(trees.map(np.asarray, found), params)


NAMES = {  # of the arrays of each network above: they must stay the same
    "images": {"0.w": (4, 3, 2, 2), "0.b": (4,), "3.w": (4, 1, 1, 2), "6.w": (3, 4), "6.b": (3,)},
    "sequences": {
        "0.w": (4, 3, 2), "0.b": (4,), "1.w": (3, 4), "1.u": (3, 3), "1.b": (3,), "2.w": (12, 3), "2.u": (12, 3),
        "2.b": (12,), "3.w": (9, 3), "3.u": (9, 3), "3.b": (9,), "3.c": (3,),
    },
    "symbols of unequal length": {
        "0.0.params": (9, 4), "0.1.w": (9, 4), "0.1.u": (9, 3), "0.1.b": (9,), "0.1.c": (3,), "1.w": (3, 3),
        "1.b": (3,),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_the_names_of_the_arrays_are_those_that_are_documented(name, library, tmp_path):
    net, shape = NETWORKS[name]
    params = net.init(fnn.random.key(3, backend="numpy"), shape)
    checkpoints.save_safetensors(tmp_path / "net", params)
    assert {key: a.shape for key, a in library.load_file(tmp_path / "net").items()} == NAMES[name]
    documented = dict(re.findall(r"^ {4}(\S.*?) {3,}(.*?) {3,}", checkpoints.__doc__, re.MULTILINE))
    assert {"Dense, Conv", "Rnn, Lstm", "Gru"} < set(documented)
    for layer, p in zip(net.layers, params, strict=True):
        for layers, names in documented.items():
            if type(layer).__name__ in layers.split(", ") and hasattr(p, "_fields"):
                assert ", ".join(p._fields) == names


# ---- parameters as safetensors ---------------------------------------------------------------------------------------


@backends
def test_parameters_come_back_from_safetensors_bit_for_bit_on_either_backend(library, backend, tmp_path):
    params = NET.init(fnn.random.key(3, backend=backend), (5,))
    checkpoints.save_safetensors(tmp_path / "net.safetensors", params)
    for other in BACKENDS:
        found = checkpoints.load_safetensors(tmp_path / "net.safetensors", params, backend=other)
        same(trees.map(np.asarray, found), trees.map(np.asarray, params))
        for leaf in trees.leaves(found):
            assert fnn.backend.is_jax(leaf) == (other == "jax")
            assert other == "jax" or not np.asarray(leaf).flags.writeable or not np.shape(leaf)


def test_places_with_dots_are_the_names_and_others_read_the_file(library, tmp_path):
    params = NET.init(fnn.random.key(3, backend="numpy"), (5,))
    checkpoints.save_safetensors(tmp_path / "net", params, metadata={"epoch": "7", "ü": ""})
    theirs = library.load_file(tmp_path / "net")
    assert {"1.w", "1.b", "2.1.w", "3.0.params.b", "3.0.params.w", "5.b"} < set(theirs)
    assert len(theirs) == len(trees.leaves(params))
    np.testing.assert_array_equal(theirs["3.0.params.w"], params[3][0].params.w)
    with library.safe_open(tmp_path / "net", "numpy") as opened:
        assert opened.metadata().keys() == {"epoch", "ü", "fnn.sha256"}
    library.save_file(theirs, tmp_path / "theirs", metadata={"format": "pt"})  # in another order, without the hash
    same(checkpoints.load_safetensors(tmp_path / "theirs", params, backend="numpy"), params)


def test_every_array_that_safetensors_hold_comes_back(library, tmp_path):
    tree = {"all": [np.arange(4).astype(kind) for kind in "?bBhHiIqQefdF"], "none": None, "a.b": ()}
    tree |= {"of": (np.float32(2), np.array(1.5), np.zeros((0, 3)), np.arange(3).astype(">i4"), np.ones((1, 1, 2)))}
    whole = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    tree |= {
        "views": [
            whole.T,
            whole[:, ::-1],
            whole[..., 1],
            np.asfortranarray(whole),
            np.broadcast_to(whole[0], (2, 3, 4)),
        ]
    }
    checkpoints.save_safetensors(tmp_path / "t", tree)
    found = checkpoints.load_safetensors(tmp_path / "t", tree, backend="numpy")
    same(found, trees.map(lambda leaf: leaf.astype(leaf.dtype.newbyteorder("="))[()], tree))
    checkpoints.save_safetensors(tmp_path / "t", np.ones(2))
    assert checkpoints.load_safetensors(tmp_path / "t", np.ones(2), backend="numpy").tolist() == [1, 1]
    checkpoints.save_safetensors(tmp_path / "t", ())
    assert checkpoints.load_safetensors(tmp_path / "t", ()) == ()


def test_bfloat16_comes_back_and_is_float32_on_numpy(library, needs_jax, tmp_path):
    tree = {"w": jax.numpy.linspace(-3, 3, 7, dtype=jax.numpy.bfloat16), "b": jax.numpy.bfloat16(0.1)}
    checkpoints.save_safetensors(tmp_path / "t", tree)
    with library.safe_open(tmp_path / "t", "numpy") as opened:
        assert opened.get_slice("w").get_dtype() == "BF16"
    found = checkpoints.load_safetensors(tmp_path / "t", tree, backend="jax")
    same(trees.map(np.asarray, found), trees.map(np.asarray, tree))
    wide = trees.map(lambda leaf: np.asarray(leaf).astype(np.float32), tree)
    for like in (tree, wide):
        same(
            checkpoints.load_safetensors(tmp_path / "t", like, backend="numpy"), trees.map(lambda leaf: leaf[()], wide)
        )
    with pytest.raises(errors.ShapeError, match=r"b: \(\) bfloat16 in the file, \(\) float32 expected"):
        checkpoints.load_safetensors(tmp_path / "t", wide, backend="jax")
    with pytest.raises(errors.ShapeError, match=r"w: \(7,\) bfloat16 in the file, \(7,\) float64 expected"):
        checkpoints.load_safetensors(tmp_path / "t", tree | {"w": np.zeros(7)}, backend="numpy")


def test_jax_is_not_given_safetensors_that_it_would_cut(library, needs_jax, tmp_path):
    checkpoints.save_safetensors(tmp_path / "t", [np.array([1 + 1e-12])])
    with pytest.raises(errors.ArgumentError, match="t: 0 is float64, which JAX would cut"):
        checkpoints.load_safetensors(tmp_path / "t", [np.ones(1)], backend="jax")


def test_shapes_without_values_are_enough_for_safetensors(library, needs_jax, tmp_path):
    net = fnn.mlp((6, 3))
    params = net.init(fnn.random.key(0), (5,))
    checkpoints.save_safetensors(tmp_path / "t", params)
    like = jax.eval_shape(lambda key: net.init(key, (5,)), fnn.random.key(0))
    same(checkpoints.load_safetensors(tmp_path / "t", like, backend="numpy"), trees.map(np.asarray, params))


NO_WEIGHTS = [
    3,
    "text",
    True,
    1.5,
    ...,
    object(),
    np.array([object()]),
    np.array(["a"]),
    np.ones(1, complex),
    np.zeros(1, "M8[s]"),
]


@pytest.mark.parametrize("thing", NO_WEIGHTS, ids=range(len(NO_WEIGHTS)))
def test_what_safetensors_do_not_hold_is_refused_by_its_place_and_nothing_is_written(library, thing, tmp_path):
    with pytest.raises(errors.KindError, match=r"^1\.a: expected an array of "):
        checkpoints.save_safetensors(tmp_path / "t", (np.ones(1), {"a": thing}))
    with pytest.raises(errors.KindError, match=r"^1\.a: expected an array of "):
        checkpoints.load_safetensors(tmp_path / "t", (np.ones(1), {"a": thing}))
    assert list(tmp_path.iterdir()) == []


def test_keys_are_not_weights(library, needs_jax, tmp_path):
    with pytest.raises(errors.KindError, match=r"^key: expected an array"):
        checkpoints.save_safetensors(tmp_path / "t", {"key": fnn.random.key(0)})


def test_two_places_of_one_name_are_refused(library, tmp_path):
    for tree in ({"a": {"b": np.ones(1)}, "a.b": np.ones(1)}, {"": np.ones(1), "array": np.ones(1)}):
        with pytest.raises(errors.ArgumentError, match="expected distinct places, got two with this name"):
            checkpoints.save_safetensors(tmp_path / "t", tree)
    with pytest.raises(errors.KindError, match="expected strings as keys"):
        checkpoints.save_safetensors(tmp_path / "t", {1: np.ones(1)})
    for name in ("__metadata__", "\ud800"):
        with pytest.raises(errors.CheckpointError):
            checkpoints.save_safetensors(tmp_path / "t", {name: np.ones(1)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("metadata", [{"a": 1}, {1: "a"}, [], "text", {"a": None}])
def test_metadata_of_safetensors_holds_strings(library, metadata, tmp_path):
    with pytest.raises(errors.KindError, match="metadata: expected a dict of strings"):
        checkpoints.save_safetensors(tmp_path / "t", (), metadata=metadata)


def test_what_differs_from_like_is_listed(library, tmp_path):
    kinds = {"a": np.ones(3, np.float32), "b": np.ones(2), "c": np.ones(1), "d": np.ones((2, 1))}
    checkpoints.save_safetensors(tmp_path / "t", kinds)
    like = {"a": np.ones(3), "b": np.ones(2), "d": np.ones((1, 2)), "e": [np.ones(1)]}
    listed = r"missing: e\.0; unexpected: c; with a different shape or dtype: a: \(3,\) float32 in the file, "
    listed += r"\(3,\) float64 expected, d: \(2, 1\)"
    with pytest.raises(errors.ShapeError, match=rf"t: expected the arrays of `like`; {listed}"):
        checkpoints.load_safetensors(tmp_path / "t", like, backend="numpy")


def test_what_safetensors_cannot_give_back_does_not_take_the_place_of_the_old_file(library, tmp_path, monkeypatch):
    checkpoints.save_safetensors(tmp_path / "t", [np.ones(3)])
    real = library.save
    changed = lambda data: data[:-1] + bytes([data[-1] ^ 1])
    for broken in (changed, lambda data: data[:-1], lambda data: b""):
        monkeypatch.setattr(library, "save", lambda *args, broken=broken: broken(real(*args)))
        with pytest.raises(errors.CheckpointError, match="t: not saved, and an earlier file is unchanged"):
            checkpoints.save_safetensors(tmp_path / "t", [np.zeros(3)])
    assert os.listdir(tmp_path) == ["t"]
    assert checkpoints.load_safetensors(tmp_path / "t", [np.ones(3)], backend="numpy")[0].tolist() == [1, 1, 1]
    with pytest.raises(errors.CheckpointError, match="not saved, and an earlier file is unchanged"):
        checkpoints.save_safetensors(tmp_path / "nowhere" / "t", [])


FEW = {"w": np.arange(3, dtype=np.float32), "b": np.array([True, False])}


def tensors(path, data):
    path.write_bytes(data)
    return checkpoints.load_safetensors(path, FEW, backend="numpy")


def test_every_changed_byte_of_safetensors_is_an_error_or_changes_nothing(library, tmp_path):
    checkpoints.save_safetensors(tmp_path / "t", FEW, metadata={"a": "b"})
    data, refused = (tmp_path / "t").read_bytes(), []
    for cut in cuts(data):
        with pytest.raises(errors.CheckpointError, match="t: not a valid safetensors file"):
            tensors(tmp_path / "t", cut)
    for changed in changes(data):
        try:
            found = tensors(tmp_path / "t", changed)
        except errors.FnnError:
            refused.append(True)
        else:
            refused.append(False)
            same(found, FEW)
    assert np.mean(refused) > 5 / 6


@pytest.mark.parametrize(
    ("old", "new", "like"),
    [
        ('"w"', '"v"', {"v": np.zeros((2, 1))}),
        ("F64", "I64", {"w": np.zeros((2, 1), np.int64)}),
        ("[2,1]", "[1,2]", {"w": np.zeros((1, 2))}),
    ],
)
def test_the_hash_in_safetensors_is_that_of_names_dtypes_and_shapes_too(library, old, new, like, tmp_path):
    checkpoints.save_safetensors(tmp_path / "t", {"w": np.ones((2, 1))})
    data = (tmp_path / "t").read_bytes()
    (tmp_path / "t").write_bytes(data.replace(old.encode(), new.encode()))
    with pytest.raises(errors.CheckpointError, match="does not have the SHA-256 in its metadata"):
        checkpoints.load_safetensors(tmp_path / "t", like, backend="numpy")


def raw(header, data=bytes(14), length=None):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def entries(begin=12, **changed):
    w = {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]} | changed
    return {"w": w, "b": {"dtype": "BOOL", "shape": [2], "data_offsets": [begin, begin + 2]}}


HOSTILE_TENSORS = {
    "nothing": b"",
    "a checkpoint": rewritten(),
    "a header longer than the file": raw(entries(), length=2**40),
    "a header longer than can be": raw(entries(), length=2**64 - 1),
    "a header shorter than it is": raw(entries(), length=20),
    "terabytes": raw(entries(shape=[2**40], data_offsets=[0, 2**42])),
    "a shape that overflows": raw(entries(shape=[2**62, 2**62])),
    "a shape that is negative": raw(entries(shape=[-3])),
    "another shape than values": raw(entries(shape=[4])),
    "offsets that overlap": raw(entries(begin=10), bytes(12)),
    "offsets that run back": raw(entries(data_offsets=[12, 0])),
    "a hole": raw(entries(begin=13), bytes(15)),
    "bytes behind the values": raw(entries(), bytes(15)),
    "a dtype that is none": raw(entries(dtype="object")),
    "no JSON": raw(b"{'w': 1}"),
    "a list": raw([]),
    "a deep header": raw(b"[" * 100_000),
    "metadata of numbers": raw(entries() | {"__metadata__": {"a": 1}}),
    "another hash": raw(entries() | {"__metadata__": {"fnn.sha256": "0" * 64}}),
}  # fmt: skip


def test_the_safetensors_that_the_hostile_ones_are_made_from_are_good(library, tmp_path):
    same(tensors(tmp_path / "t", raw(entries())), {"w": np.zeros(3, np.float32), "b": np.zeros(2, bool)})


@pytest.mark.parametrize("name", HOSTILE_TENSORS)
def test_hostile_safetensors_are_refused(library, name, tmp_path):
    with pytest.raises(errors.CheckpointError, match="t: not a valid safetensors file"):
        tensors(tmp_path / "t", HOSTILE_TENSORS[name])


def test_a_dtype_that_fnn_does_not_have_is_listed(library, tmp_path):
    with pytest.raises(errors.ShapeError, match=r"w: \(3,\) F8_E5M2 in the file"):
        tensors(tmp_path / "t", raw(entries(begin=3, dtype="F8_E5M2", data_offsets=[0, 3]), bytes(5)))


def test_without_safetensors_the_extra_is_named_and_a_missing_file_is_missing(library, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError):
        checkpoints.load_safetensors(tmp_path / "none", ())
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    for call in (checkpoints.save_safetensors, checkpoints.load_safetensors):
        with pytest.raises(errors.MissingExtraError, match=r"safetensors: pip install 'fnn\[safetensors\]'"):
            call(tmp_path / "t", ())


def test_importing_fnn_does_not_import_safetensors():
    code = "import sys, fnn; print('safetensors' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=ON_NUMPY, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
