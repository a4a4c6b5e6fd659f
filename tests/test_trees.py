"""Trees of arrays: the places of their leaves, and what does not fit is named by its place."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from fnn import random, trees
from fnn.errors import ShapeError


class Pair(NamedTuple):
    w: Any
    b: Any


class Other(NamedTuple):
    w: Any
    b: Any


def array(*shape):
    return np.zeros(shape, np.float32)


TREES = [  # tree, its places, its outline
    (array(2), ["params"], "(2,)"),
    (array(), ["params"], "()"),
    (1.5, ["params"], "float"),
    (None, [], "NoneType"),
    ((), [], "()"),
    ((array(2), array(3)), ["params[0]", "params[1]"], "((2,), (3,))"),
    ([array(2), None], ["params[0]"], "[(2,), NoneType]"),
    (Pair(array(2, 3), array(2)), ["params.w", "params.b"], "Pair((2, 3), (2,))"),
    (Pair(array(2, 3), ()), ["params.w"], "Pair((2, 3), ())"),
    ({"b": array(1), "a": 2}, ["params['a']", "params['b']"], "{'a': int, 'b': (1,)}"),
    ({2: array(1), 1: ()}, ["params[2]"], "{1: (), 2: (1,)}"),
    (
        (Pair(array(2, 3), array(2)), (), {"x": (Pair(None, array(1)), array(4))}),
        ["params[0].w", "params[0].b", "params[2]['x'][0].b", "params[2]['x'][1]"],
        "(Pair((2, 3), (2,)), (), {'x': (Pair(NoneType, (1,)), (4,))})",
    ),
]
IDS = [outline for *_, outline in TREES]


@pytest.mark.parametrize(("tree", "places", "outline"), TREES, ids=IDS)
def test_every_leaf_has_its_place_in_the_order_of_leaves(tree, places, outline):
    found = trees.paths(tree)
    assert [place for place, _ in found] == places
    leaves = trees.leaves(tree)
    assert len(leaves) == len(found)
    assert all(leaf is expected for leaf, (_, expected) in zip(leaves, found, strict=True))


@pytest.mark.parametrize(("tree", "places", "outline"), TREES, ids=IDS)
def test_an_outline_shows_shapes_in_place_of_values(tree, places, outline):
    assert trees.outline(tree) == outline


def test_places_begin_at_the_root_that_is_named():
    assert [place for place, _ in trees.paths((1, Pair(2, 3)), "Adam")] == ["Adam[0]", "Adam[1].w", "Adam[1].b"]
    assert [place for place, _ in trees.paths((1, Pair(2, 3)), "")] == ["[0]", "[1].w", "[1].b"]


def test_places_and_outlines_are_the_same_on_jax(needs_jax):
    for tree, places, outline in TREES:
        on_jax = trees.map(needs_jax.numpy.asarray, tree)
        assert [place for place, _ in trees.paths(on_jax)] == places
        assert trees.outline(on_jax) == outline.replace("float", "()").replace("int", "()")


# ---- lock ------------------------------------------------------------------------------------------------------------


def test_a_locked_tree_is_the_same_tree_with_read_only_arrays():
    tree = (Pair(array(2, 3), array(2)), {"x": [array(1), None, 2.5]}, ())
    locked = trees.lock(tree)
    assert trees.outline(locked) == trees.outline(tree)
    assert all(a is b for a, b in zip(trees.leaves(locked), trees.leaves(tree), strict=True))
    writable = [leaf.flags.writeable for leaf in trees.leaves(locked) if isinstance(leaf, np.ndarray)]
    assert writable == [False] * 3
    with pytest.raises(ValueError, match="read-only"):
        locked[0].w[0, 0] = 1


def test_lock_leaves_jax_arrays_as_they_are(needs_jax):
    tree = (needs_jax.numpy.zeros(2), random.key(0, backend="jax"))
    assert all(a is b for a, b in zip(trees.lock(tree), tree, strict=True))


# ---- prefix ----------------------------------------------------------------------------------------------------------

PARAMS = (Pair(array(2, 3), array(2)), (), {"x": array(4), "y": (array(5), array(6))})
PREFIXES = [  # a number, or a tree over the upper part of PARAMS, and the number that each leaf gets
    (0.1, [0.1, 0.1, 0.1, 0.1, 0.1]),
    ((1, 2, 3), [1, 1, 3, 3, 3]),
    ((Pair(1, 2), 0, {"y": 4, "x": 3}), [1, 2, 3, 4, 4]),
    ((Pair(1, 2), (), {"x": 3, "y": (4, 5)}), [1, 2, 3, 4, 5]),
]


@pytest.mark.parametrize(("number", "expected"), PREFIXES, ids=[repr(number) for number, _ in PREFIXES])
def test_a_number_spreads_over_all_leaves_under_it(number, expected):
    spread = trees.prefix("weight_decay", number, PARAMS)
    assert trees.leaves(spread) == expected
    trees.same_structure("weight_decay", trees.map(lambda n, p: p, spread, PARAMS), PARAMS)
    assert isinstance(spread[0], Pair)


NO_PREFIXES = [
    (1, 2),
    (1, 2, 3, 4),
    [1, 2, 3],
    Pair(1, 2),
    {"x": 1},
    (Pair(1, 2), (3,), 4),
    ((1, 2), (), 3),
    (Other(1, 2), (), 3),
    (1, 2, {"x": 3}),
    (1, 2, {"x": 3, "z": 4}),
    (1, 2, {"x": (3,), "y": 4}),
    (1, 2, {"x": 3, "y": (4, 5, 6)}),
]


@pytest.mark.parametrize("number", NO_PREFIXES, ids=repr)
def test_a_tree_that_does_not_begin_as_the_parameters_do_is_refused(number):
    message = r"weight_decay\S*: expected a number or a tree that matches the top of the parameters' tree, .*, got "
    with pytest.raises(ShapeError, match=message):
        trees.prefix("weight_decay", number, PARAMS)


def test_an_error_of_a_prefix_shows_both_outlines():
    with pytest.raises(ShapeError) as caught:
        trees.prefix("decay", (1, 2), (array(2), array(3), array(4)))
    assert str(caught.value) == (
        "decay: expected a number or a tree that matches the top of the parameters' tree, ((2,), (3,), (4,)), "
        "got (int, int)"
    )


# ---- same_structure --------------------------------------------------------------------------------------------------


def shapes(tree):
    return [(place, np.shape(leaf)) for place, leaf in trees.paths(tree)]


@pytest.mark.parametrize(("tree", "places", "outline"), TREES, ids=IDS)
def test_a_tree_has_the_structure_of_itself_and_of_no_other(tree, places, outline):
    trees.same_structure("grads", trees.map(np.copy, tree), tree)
    for other, *_ in TREES:
        if shapes(other) != shapes(tree):
            with pytest.raises(ShapeError, match=r"^grads"):
                trees.same_structure("grads", tree, other)


WRONG = [  # a tree that is not as (Pair((2, 3), (2,)), {'x': (4,)}) is, and what is said of it
    (
        (Pair(array(2, 3), array(2)), {}),
        "grads: expected the structure (Pair((2, 3), (2,)), {'x': (4,)}), got (Pair((2, 3), (2,)), {}) "
        "(missing [\"[1]['x']\"], extra [])",
    ),
    (
        (Pair(array(2, 3), array(2)), {"x": array(4)}, array(1)),
        "grads: expected the structure (Pair((2, 3), (2,)), {'x': (4,)}), "
        "got (Pair((2, 3), (2,)), {'x': (4,)}, (1,)) (missing [], extra ['[2]'])",
    ),
    (
        ((array(2, 3), array(2)), {"x": array(4)}),
        "grads: expected the structure (Pair((2, 3), (2,)), {'x': (4,)}), got (((2, 3), (2,)), {'x': (4,)}) "
        "(missing ['[0].w', '[0].b'], extra ['[0][0]', '[0][1]'])",
    ),
    ((Pair(array(3, 2), array(2)), {"x": array(4)}), "grads[0].w: expected shape (2, 3), got (3, 2)"),
    ((Pair(array(2, 3), array(2, 1)), {"x": array(4)}), "grads[0].b: expected shape (2,), got (2, 1)"),
    ((Pair(array(2, 3), array(2)), {"x": 1.0}), "grads[1]['x']: expected shape (4,), got ()"),
]


@pytest.mark.parametrize(("tree", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_differs_is_named_by_its_place(tree, message):
    with pytest.raises(ShapeError) as caught:
        trees.same_structure("grads", tree, (Pair(array(2, 3), array(2)), {"x": array(4)}))
    assert str(caught.value) == message


def test_structures_are_compared_across_backends(needs_jax):
    on_jax = trees.map(needs_jax.numpy.asarray, PARAMS)
    trees.same_structure("grads", on_jax, PARAMS)
    trees.same_structure("grads", PARAMS, on_jax)
    with pytest.raises(ShapeError, match=r"grads\[0\]: expected shape \(3,\), got \(2,\)"):
        trees.same_structure("grads", (needs_jax.numpy.zeros(2),), (array(3),))


# ---- map -------------------------------------------------------------------------------------------------------------


def test_map_keeps_the_structure_and_takes_several_trees():
    doubled = trees.map(lambda a, b: a + b, {"x": (1, Pair(2, None))}, {"x": (10, Pair(20, None))})
    assert doubled == {"x": (11, Pair(22, None))}
    assert isinstance(doubled["x"][1], Pair)
