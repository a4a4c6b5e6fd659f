"""The stand-ins of NumPy do what JAX does; the parameters choose which of them runs; JAX is imported in one place."""

import ast
import copy
import importlib.util
import os
import pathlib
import pickle
import platform
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers import THOROUGH, run_python
from helpers_training import compilations
from hypothesis import given
from hypothesis import strategies as st

import fnn
from fnn import backend as B
from fnn.errors import KindError, ShapeError

PACKAGE = pathlib.Path(fnn.__file__).parent


class Pair(NamedTuple):
    w: Any
    b: Any


@pytest.fixture
def numpy_alone(monkeypatch):
    """As if JAX were not installed."""
    for module in (B.library, B.dtypes, B.nodes, B.flow, B.programs):
        for name in {"jax", "jnp"} & vars(module).keys():
            monkeypatch.setattr(module, name, None)


def equal(a, b):
    """Whether two trees have equal structures, types and leaves, leaving aside whose arrays they are."""
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if a is None or b is None:
        return a is b
    a, b = np.asarray(a), np.asarray(b)
    return (a.shape, a.dtype) == (b.shape, b.dtype) and bool((a == b).all())


# ---- trees -----------------------------------------------------------------------------------------------------------

numbers = st.integers(0, 100)
some_trees = st.recursive(
    numbers | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.builds(Pair, inner, inner)
        | st.dictionaries(st.text("abc", max_size=2), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(tree=some_trees)
def test_the_stand_in_for_tree_map_is_jax_tree_map(tree, needs_jax):
    assert equal(B.nodes._tree_map(lambda a: a + 1, tree), needs_jax.tree.map(lambda a: a + 1, tree))
    other = needs_jax.tree.map(lambda a: 2 * a, tree)
    assert equal(
        B.nodes._tree_map(lambda a, b: a - b, tree, other), needs_jax.tree.map(lambda a, b: a - b, tree, other)
    )


@given(tree=some_trees)
def test_leaves_without_jax_come_in_the_order_of_jax(tree, needs_jax):
    expected = needs_jax.tree.leaves(tree)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(B.nodes, "jax", None)
        assert B.tree_leaves(tree) == expected
        assert equal(B.tree_map(str, tree), B.nodes._tree_map(str, tree))


MISMATCHED = [
    ((1, 2), (1, 2, 3)),
    ((1, 2), (1,)),
    ([1, 2], [1]),
    ({"a": 1}, {"a": 1, "b": 2}),
    ({"a": 1, "b": 2}, {"a": 1}),
    ({"a": 1}, {"b": 1}),
    (({"a": (1, 2)},), ({"a": (1,)},)),
]


@pytest.mark.parametrize(("tree", "other"), MISMATCHED, ids=repr)
def test_trees_that_do_not_match_are_refused_without_jax(tree, other, numpy_alone):
    with pytest.raises(ValueError, match=r"zip\(\) argument 2 is|dicts of the same keys"):
        B.tree_map(lambda a, b: a, tree, other)


def test_dicts_that_do_not_match_show_their_keys(numpy_alone):
    with pytest.raises(ShapeError, match=r"expected dicts of the same keys, got \[\['a'\], \['a', 'b'\]\]"):
        B.tree_map(lambda a, b: a, {"a": 1}, {"a": 1, "b": 2})


# ---- scan and vmap ---------------------------------------------------------------------------------------------------


ROWS = np.arange(6, dtype=np.float32).reshape(3, 2)


def running(carry, x):
    carry = carry + x[0]
    return carry, {"square": carry**2, "pair": Pair(carry[0], x[1]), "none": None}


SCANS = [  # f, carry, xs (an array, a tuple of arrays or None), length
    ("a tuple and a tree of outputs", running, np.zeros(2, np.float32), (ROWS, np.arange(3, dtype=np.int32)), None),
    ("a tree to carry", lambda c, x: (Pair(c.w + x, {"n": c.b["n"] + 1}), c),
     Pair(np.zeros(2, np.float32), {"n": np.int32(0)}), ROWS, None),
    ("no xs", lambda carry, _: ((carry[0] * 2, carry[1] + 1), carry), (np.float32(1), np.int32(0)), None, 5),
    ("no outputs", lambda carry, x: (carry + x, None), np.float32(0), np.arange(4, dtype=np.float32), None),
    ("no carry", lambda carry, x: (carry, x + 1), (), np.arange(4, dtype=np.float32), None),
    ("xs and length", lambda carry, x: (carry + x, carry), np.float32(0), np.arange(4, dtype=np.float32), 4),
    ("one step", lambda carry, x: (carry + x, carry), np.float32(0), np.arange(1, dtype=np.float32), None),
]  # fmt: skip


@pytest.mark.parametrize(("f", "carry", "xs", "length"), [row[1:] for row in SCANS], ids=[row[0] for row in SCANS])
def test_the_stand_in_for_scan_is_lax_scan(f, carry, xs, length, needs_jax):
    found = B.scan(f, carry, xs, length)
    expected = needs_jax.lax.scan(f, *B.tree_map(needs_jax.numpy.asarray, (carry, xs)), length)
    assert equal(found, expected)
    assert not any(B.is_jax(leaf) for leaf in B.tree_leaves(found))


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("of_jax", ["carry", "xs"])
def test_traced_values_run_as_lax_scan_and_known_ones_as_a_loop(needs_jax, of_jax, traced):
    seen = []

    def f(carry, x):
        seen.append(B.is_traced(carry, x))
        return carry + x, carry

    values = {"carry": np.zeros((), np.float32), "xs": np.ones(3, np.float32)}
    values[of_jax] = needs_jax.numpy.asarray(values[of_jax])
    run = lambda carry, xs: B.scan(f, carry, xs)
    total, sums = (needs_jax.jit(run) if traced else run)(**values)
    assert (float(total), sums.tolist()) == (3, [0, 1, 2])
    assert B.is_jax(sums)
    assert set(seen) == {traced}


@pytest.mark.parametrize("layer", [fnn.Lstm(2), fnn.Conv(2, (2, 2)), fnn.MaxPool((2, 2))][: 3 if THOROUGH else 1])
def test_layers_with_loops_compile_nothing_the_second_time_that_they_are_called(needs_jax, layer):
    key, shape = fnn.random.key(0, backend="jax"), (5, 2) if isinstance(layer, fnn.Lstm) else (4, 4, 1)
    params, x = layer.init(key, shape), needs_jax.numpy.ones((6, *shape))

    def everything():
        y, residuals = layer.forward(params, x)
        dx, delta = layer.propagate(params, residuals, y)
        return (
            dx,
            params and layer.gradient(params, residuals, delta),
            params and layer.factors(params, residuals, delta),
        )

    everything()
    with compilations() as programs:
        everything()
    assert programs == []


VMAPS = [
    ("one", lambda x: x.sum(), (ROWS,)),
    ("two", lambda x, n: {"a": x * n, "b": (n, None)}, (ROWS, np.arange(3, dtype=np.float32))),
    ("a tree", lambda pair: Pair(pair.w @ pair.w, pair.b + 1), (Pair(ROWS, np.arange(3, dtype=np.int32)),)),
]


@pytest.mark.parametrize(("f", "arguments"), [row[1:] for row in VMAPS], ids=[row[0] for row in VMAPS])
def test_the_stand_in_for_vmap_is_jax_vmap(f, arguments, needs_jax):
    found = B.vmap(f)(*arguments)
    assert not any(B.is_jax(leaf) for leaf in B.tree_leaves(found))
    on_jax = B.vmap(f)(*B.tree_map(needs_jax.numpy.asarray, arguments))
    assert all(B.is_jax(leaf) for leaf in B.tree_leaves(on_jax))
    assert equal(found, needs_jax.vmap(f)(*arguments))
    assert equal(found, on_jax)


def test_scan_and_vmap_work_on_numpy_alone(numpy_alone):
    total, sums = B.scan(lambda carry, x: (carry + x, carry), np.float32(0), np.ones(3, np.float32))
    assert (total, sums.tolist()) == (3, [0, 1, 2])
    assert B.vmap(lambda x, y: x @ y)(np.ones((2, 3)), np.ones((2, 3))).tolist() == [3, 3]


# ---- jit -------------------------------------------------------------------------------------------------------------


class Traces:
    """A function that knows of what it was called: once a trace on JAX, at each call on NumPy."""

    def __init__(self):
        self.calls = []

    def __call__(self, x, scale=1, *, key=None):
        self.calls.append((B.is_traced(x), scale))
        return x * (scale.factor if isinstance(scale, fnn.Scale) else scale)


def test_jax_arguments_run_compiled_and_numpy_arguments_plain(needs_jax):
    f = Traces()
    call = B.jit(f)
    x = np.arange(3, dtype=np.float32)
    for _ in range(3):
        assert isinstance(call(x), np.ndarray)
    assert [traced for traced, _ in f.calls] == [False] * 3
    f.calls.clear()
    for _ in range(3):
        assert B.is_jax(call(needs_jax.numpy.asarray(x)))
    assert [traced for traced, _ in f.calls] == [True]


def test_one_jax_array_anywhere_in_the_arguments_is_enough(needs_jax):
    f = Traces()
    call = B.jit(f)
    assert B.is_jax(call(np.ones(3, np.float32), key={"inner": (None, fnn.random.key(0, backend="jax"))}))
    assert B.is_jax(call(np.ones(3, np.float32), needs_jax.numpy.ones(())))
    assert [traced for traced, _ in f.calls] == [True, True]


def test_equal_static_arguments_share_a_program(needs_jax):
    f = Traces()
    call = B.jit(f, static=("scale",))
    x = needs_jax.numpy.ones(3)
    for scale in (fnn.Scale(2), fnn.Scale(2.0), fnn.Scale(np.float32(2))):
        assert call(x, scale=scale).tolist() == [2, 2, 2]
    assert len(f.calls) == 1
    assert call(x, scale=fnn.Scale(3)).tolist() == [3, 3, 3]
    assert len(f.calls) == 2
    assert call(x, fnn.Scale(3)).tolist() == [3, 3, 3]  # by position too
    assert {scale for _, scale in f.calls} == {fnn.Scale(2), fnn.Scale(3)}


def test_equal_networks_and_losses_share_a_program(needs_jax):
    traced = []

    def value(params, x, y, *, net, loss):
        traced.append(net)
        return loss.value(net.apply(params, x), y).sum()

    call = B.jit(value, static=("net", "loss"))
    params = B.tree_map(needs_jax.numpy.asarray, fnn.mlp((3, 2)).init(fnn.random.key(0, backend="numpy"), (4,)))
    x, y = np.ones((5, 4), np.float32), np.zeros(5, np.int32)
    for _ in range(3):
        call(params, x, y, net=fnn.mlp((3, 2)), loss=fnn.SoftmaxCrossEntropy())
    assert len(traced) == 1
    call(params, x, y, net=fnn.mlp((3, 2), activation=fnn.Tanh()), loss=fnn.SoftmaxCrossEntropy())
    assert len(traced) == 2


def test_what_is_compiled_for_many_sizes_is_dropped_again(needs_jax, monkeypatch):
    monkeypatch.setattr(B.programs, "PROGRAMS", 3)
    f, g = B.jit(lambda x, n: x * n, static=("n",)), B.jit(lambda x: x + 1)
    x = needs_jax.numpy.ones(2)
    for n in range(7):
        assert f(x, n=n).tolist() == [n, n]
        assert g(x[:1]).tolist() == [2]
        kept = f.compiled._cache_size() + g.compiled._cache_size()
        assert 1 <= kept <= 3
    assert len(B.programs._compiled) <= 3


def test_jit_decorates_with_and_without_arguments():
    @B.jit
    def double(x):
        """Twice x."""
        return 2 * x

    @B.jit(static=("n",))
    def power(x, n):
        return x**n

    x = np.arange(3.0)
    assert double(x).tolist() == [0, 2, 4]
    assert power(x, n=2).tolist() == [0, 1, 4]
    assert (double.__name__, double.__doc__) == ("double", "Twice x.")


def test_without_jax_a_jitted_function_is_the_function_itself(numpy_alone):
    f = Traces()
    assert B.jit(f) is f
    assert B.jit(static=("scale",))(f) is f


# ---- namespaces and dtypes -------------------------------------------------------------------------------------------


def test_the_namespace_is_that_of_jax_if_any_array_is(needs_jax):
    jnp, x = needs_jax.numpy, np.ones(2)
    assert B.namespace() is np
    assert B.namespace(x, 1.0, None) is np
    assert B.namespace(x, jnp.ones(2)) is jnp
    assert B.namespace(fnn.random.key(0, backend="jax")) is jnp
    assert needs_jax.jit(lambda x: x if B.namespace(x) is jnp and B.is_traced(x) else None)(x) is not None
    assert not B.is_traced(x, jnp.ones(2))


DTYPES = [  # dtype, whether floating, at least float32
    ("float16", True, "float32"),
    ("float32", True, "float32"),
    ("float64", True, "float64"),
    ("complex64", True, "complex64"),
    ("int32", False, "float32"),
    ("uint8", False, "float32"),
    ("bool", False, "float32"),
]


@pytest.mark.parametrize(("dtype", "floating", "wide"), DTYPES)
def test_floating_dtypes_are_told_from_others(dtype, floating, wide):
    x = np.zeros(2, dtype)
    assert B.is_floating(x.dtype) == floating
    assert (B.floating(x) is x) == floating
    assert B.floating(x).dtype == (dtype if floating else "float32")
    assert B.floating(x, np.float64).dtype == (dtype if floating else "float64")
    assert B.at_least_float32(x.dtype) == wide


def test_bfloat16_is_floating(needs_jax):
    x = needs_jax.numpy.zeros(2, "bfloat16")
    assert B.is_floating(x.dtype)
    assert B.floating(x) is x
    assert B.at_least_float32(x.dtype) == np.float32
    assert B.check_dtype(needs_jax.numpy, "bfloat16") == x.dtype
    assert not B.is_floating(fnn.random.key(0, backend="jax").dtype)


# ---- things of other libraries ---------------------------------------------------------------------------------------


def test_a_held_thing_is_a_node_without_leaves(needs_jax):
    held = B.Held(Pair("init", "update"))
    assert needs_jax.tree.leaves(held) == []
    assert needs_jax.tree.map(lambda x: x, (held, 1)) == (held, 1)
    assert (held.w, held.b) == ("init", "update")
    with pytest.raises(AttributeError):
        held.nothing  # noqa: B018


def test_a_held_thing_compares_prints_and_copies_as_what_it_holds():
    held = B.Held(Pair("init", "update"))
    assert held == B.Held(Pair("init", "update"))
    assert held != B.Held(Pair("init", "other"))
    assert held != Pair("init", "update")
    assert hash(held) == hash(B.Held(Pair("init", "update")))
    assert repr(held) == "Pair(w='init', b='update')"
    for again in (copy.copy(held), copy.deepcopy(held), pickle.loads(pickle.dumps(held))):
        assert again == held
        assert again.w == "init"


def test_what_needs_jax_says_so_without_it(numpy_alone):
    with pytest.raises(KindError, match=r"Function needs JAX, but fnn runs on NumPy alone: pip install 'fnn\[jax\]'"):
        B.need_jax("Function")
    with pytest.raises(KindError, match="needs JAX"):
        fnn.from_optax(Pair(1, 2))


# ---- the choice of the backend ---------------------------------------------------------------------------------------

TRAIN = """
    import sys
    import numpy as np
    import fnn

    x = np.arange(12.0).reshape(6, 2) / 12
    net = fnn.Serial((fnn.Dense(4), fnn.Tanh(), fnn.Dropout(0.2), fnn.Dense(3)))
    data = x, np.arange(6) % 3
    state, history = fnn.fit(net, fnn.SoftmaxCrossEntropy(), fnn.Adam(learning_rate=1e-2), data,
                             key=fnn.random.key(0), epochs=2, batch_size=4, validation=data)
    print(fnn.backend.name, type(state.params[0].w).__name__, "jax" in sys.modules, "jaxlib" in sys.modules)
"""


def test_with_fnn_backend_numpy_jax_is_never_imported():
    done = run_python(TRAIN, FNN_BACKEND="numpy")
    assert done.stdout.splitlines()[-1:] == ["numpy ndarray False False"], done.stderr


def test_where_jax_is_installed_it_is_used():
    if os.environ.get("FNN_BACKEND") == "numpy" or not importlib.util.find_spec("jax"):
        pytest.skip("needs JAX")
    for environment in ({}, {"FNN_BACKEND": ""}, {"FNN_BACKEND": "jax"}) if THOROUGH else ({"FNN_BACKEND": "jax"},):
        done = run_python("import fnn; print(fnn.backend.name, fnn.backend.is_jax(fnn.random.key(0)))", **environment)
        assert done.stdout == "jax True\n", done.stderr


def test_where_jax_is_missing_numpy_is_used():
    done = run_python("import sys; sys.modules['jax'] = None; import fnn; print(fnn.backend.name, fnn.random.key(7))")
    assert done.stdout == "numpy [0 7]\n", done.stderr


@pytest.mark.parametrize("choice", ["nonsense", "JAX", "torch"])
def test_an_unknown_backend_is_refused(choice):
    done = run_python("import fnn", FNN_BACKEND=choice)
    assert done.returncode == 1
    assert done.stderr.strip().endswith(f"ArgumentError: FNN_BACKEND: expected 'jax' or 'numpy', got '{choice}'")


def test_a_backend_that_is_asked_for_and_missing_is_refused():
    done = run_python("import sys; sys.modules['jax'] = None; import fnn", FNN_BACKEND="jax")
    assert done.returncode == 1
    assert done.stderr.strip().endswith("MissingExtraError: FNN_BACKEND=jax needs JAX: pip install 'fnn[jax]'")


def test_one_module_imports_jax():
    importers = set()
    for path in PACKAGE.glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            if any(name.partition(".")[0] in ("jax", "jaxlib") for name in names):
                importers.add(path.relative_to(PACKAGE).as_posix())
    assert importers == {"backend/library.py"}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of the memory of Linux's C library")
def test_freed_arrays_are_not_mapped_anew():
    """Six arrays of 4 MiB, ten times: of their 6144 pages none is new, after `keep_freed_memory`."""
    done = run_python(
        "import resource, numpy as np\n"
        "from fnn.backend import keep_freed_memory\n"
        "fill = lambda: [np.ones(2**19) for _ in range(6)] and resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "keep_freed_memory()\n"
        "fill()\n"
        "print(-fill() + [fill() for _ in range(10)][-1])\n",
        FNN_BACKEND="numpy",
    )
    assert int(done.stdout) < 6144, done.stderr
