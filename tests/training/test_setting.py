"""The setting of a run: the same text wherever it is the same run, and another one where it is not."""

import functools
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers_training import Smoothed

import fnn
from fnn import examples, gate
from fnn.backend import jax
from fnn.backpropagation import Problem
from fnn.training.loop import plan_of
from fnn.training.setting import description, differences, fingerprint, setting_of, start_of

X, Y = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32), np.arange(7) % 3
NET = fnn.Serial((fnn.Dense(5), fnn.Tanh(), fnn.Dense(3, initializer=fnn.Constant(0.1))))


def setting(backend="numpy", data=(X, Y), net=NET):
    optimizer, rule = fnn.ClipByGlobalNorm(fnn.Adam(fnn.schedules.OneCycle(0.1, 100)), 1.0), Smoothed(0.9)
    state = fnn.init_state(net, optimizer, fnn.random.key(3, backend=backend), (4,), rule=rule)
    loss = fnn.SoftmaxCrossEntropy()
    data = gate.admitted(net, loss, state.params, data)
    problem, metrics = Problem(net, loss, fnn.L2(1e-4)), {"accuracy": fnn.accuracy}
    return setting_of(problem, state, plan_of(state, data, 2, True), data, metrics, telemetry=None)


def test_it_is_text_by_place():
    found = setting()
    assert found["net.layers[2].initializer.value"] == "0.1"
    assert found["optimizer"] == "ClipByGlobalNorm"
    assert found["optimizer.max_norm"] == "1"
    assert found["optimizer.optimizer.learning_rate"] == "OneCycle"
    assert found["rule.signs"] == "False"
    assert found["penalty.coefficient"] == "0.0001"
    assert found["metrics['accuracy']"] == "accuracy"
    assert {type(text) for text in found.values()} == {str}


def test_it_is_the_same_on_both_backends(needs_jax):
    assert differences(setting("numpy"), setting("jax")) == ""
    assert setting("numpy") == setting("jax")


@pytest.mark.thorough
def test_it_is_the_same_in_another_process():
    paths = [
        str(path) for path in (Path(__file__).parent, Path(__file__).parent.parent, Path(fnn.__file__).parent.parent)
    ]
    code = f"import sys; sys.path[:0] = {paths!r}; from test_setting import setting; print(sorted(setting().items()))"
    settings = os.environ | {"FNN_BACKEND": "numpy"}
    done = subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True)
    assert done.stdout.strip() == str(sorted(setting().items())), done.stderr


SAME = {
    "lists": (X.tolist(), Y.tolist()),
    "float64": (X.astype(np.float64), Y),
    "int32": (X, Y.astype(np.int32)),
    "order in memory": (np.asfortranarray(X), Y),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_data_are_the_same_however_they_are_given(name):
    assert differences(setting(), setting(data=SAME[name])) == ""


def test_data_in_files_are_the_same_as_in_memory_and_read_in_pieces(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", X.astype(np.float64))
    monkeypatch.setattr(examples, "AT_ONCE", 100)  # bytes, of two examples
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert differences(setting(), setting(data=(mapped, Y))) == ""
    taken = []
    params = NET.init(fnn.random.key(0, backend="numpy"), (4,))
    take = examples.Data.take
    monkeypatch.setattr(examples.Data, "take", lambda self, index: taken.append(index) or take(self, index))
    fingerprint(params, examples.opened((mapped, Y)))
    assert len(taken) == 4


def changed(array, place):
    array = np.array(array)
    array[place] += 1
    return array


OTHER = {
    "an input": (changed(X, (6, 3)), Y),
    "a label": (X, changed(Y, 0)),
    "order": (X[::-1], Y[::-1]),
    "weights": (X, Y, np.ones(7)),
    "several inputs": ({"a": X}, Y),
}


@pytest.mark.parametrize("name", OTHER)
def test_other_data_have_another_fingerprint(name):
    params = NET.init(fnn.random.key(0, backend="numpy"), (4,))
    assert fingerprint(params, examples.opened(OTHER[name])) != fingerprint(params, examples.opened((X, Y)))


@pytest.mark.thorough(backend="jax")
def test_every_dtype_has_a_fingerprint(backend):
    key = fnn.random.key(0, backend=backend)
    for dtype in ["float32", "float16", *(["bfloat16"] if jax is not None and backend == "jax" else [])]:
        params = NET.init(key, (4,), np.dtype(dtype) if dtype != "bfloat16" else jax.numpy.bfloat16)
        for x in (X, X > 0, X.astype(np.uint8), X.astype(np.int64)):
            assert fingerprint(params, examples.opened((x, Y))).x.startswith("(7, 4), CRC-32 ")


def test_a_function_is_described_by_its_name_and_what_it_encloses():
    def schedule(rate, steps=3):
        def value(count):
            return rate * count + steps

        return value

    name = "test_a_function_is_described_by_its_name_and_what_it_encloses.<locals>.schedule.<locals>.value"
    assert description("f", schedule(0.1)) == {"f": name, "f.rate": "0.1", "f.steps": "3"}
    assert differences(description("f", schedule(0.1)), description("f", schedule(0.2))) == (
        "f.rate is 0.1 in the checkpoint, 0.2 here"
    )
    assert description("f", functools.partial(min, 2.0))["f.args[0]"] == "2"
    assert description("f", lambda x, rate=0.5: x)["f.defaults[0]"] == "0.5"
    module = np
    assert description("f", lambda: module)["f.module"] == "module"
    assert len(description("f", lambda: module)) == 2


def test_a_function_that_encloses_itself_is_described():
    def f():
        return g()

    assert sorted(description("f", f)) == ["f"], "what is not defined yet is not described"

    def g():
        return f()

    assert sorted(description("f", f)) == ["f", "f.g", "f.g.f"]


def test_a_rate_of_optax_is_seen(needs_jax):
    optax = pytest.importorskip("optax")
    chain = lambda rate: fnn.from_optax(
        optax.chain(optax.clip(1.0), optax.adam(optax.cosine_decay_schedule(rate, 100)))
    )
    assert description("o", chain(0.1)) == description("o", chain(0.1))
    assert ".init_value is 0.1 in the checkpoint, 0.2 here" in differences(
        *(description("o", chain(r)) for r in (0.1, 0.2))
    )


def test_numbers_of_an_object_of_ones_own_are_seen():
    class Own:
        def __init__(self, rate):
            self.rate, self.memory = rate, [object()]

    assert description("o", Own(1)) == {"o": "Own", "o.rate": "1"}


def test_anything_can_be_described():
    things = [
        np.array([None, "a"]),
        np.array(["a"]),
        1 + 2j,
        b"x",
        {1: 2},
        {3},
        object(),
        min,
        np.add,
        threading.Lock(),
    ]
    for thing in [*things, iter(()), Problem, print, sys.stdout, functools.lru_cache(lambda x: x), np.float64(2), True]:
        assert all(isinstance(text, str) for text in description("it", thing).values())
        assert description("it", thing)["it"]


def test_what_differs_inside_something_else_is_not_listed_too_and_many_are_counted():
    adam, sgd = description("optimizer", fnn.Adam(0.1)), description("optimizer", fnn.Sgd(0.1))
    assert differences(adam, sgd) == "optimizer is Adam in the checkpoint, Sgd here"
    there, here = {str(i): "0" for i in range(9)}, {str(i): "1" for i in range(9)}
    assert differences(there, here).endswith("4 is 0 in the checkpoint, 1 here; and 4 more")
    assert differences({"a": "x\ny" * 100}, {"a": ""}).isprintable()
    assert len(differences({"a": "x" * 10**6}, {"b": "x"})) < 500


def test_where_a_run_begins_is_its_step_and_its_parameters():
    state = fnn.init_state(NET, fnn.Sgd(0.1), fnn.random.key(0, backend="numpy"), (4,))
    moved = state._replace(params=fnn.trees.map(lambda w: w + (w == w.max()), state.params))
    assert len({start_of(state), start_of(moved), start_of(state._replace(step=np.int32(1)))}) == 3
    assert start_of(state) == start_of(state._replace(optimizer=None))
