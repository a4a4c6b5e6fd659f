"""What a tree of blocks does to a vector is what its dense matrices do."""

import numpy as np
import oracle
from helpers import compiled, on, wide
from helpers_curvature import direction, flat

import fnn
from fnn import curvature, trees
from fnn.curvature import Eigen, Kronecker, blocks


def positive(rng, size):
    """A positive definite matrix."""
    m = rng.normal(size=(size, size))
    return m @ m.T


def drawn():
    """Parameters of all shapes, blocks for them, and what is dense: a matrix for each."""
    rng = np.random.default_rng(0)
    params = {
        "joint": fnn.DenseParams(np.zeros((3, 4)), np.zeros(3)),
        "kernel": fnn.DenseParams(np.zeros((3, 2, 2, 1)), ()),
        "alone": (np.zeros(4), np.zeros((5, 2))),
        "still": fnn.DenseParams(np.zeros((2, 2)), np.zeros(2)),
    }
    sizes = {"joint": (3, 5), "kernel": (3, 4), "vector": (4, 1)}
    made = {name: Kronecker(positive(rng, i), positive(rng, o)) for name, (o, i) in sizes.items()}
    table = Kronecker(rng.random(5), positive(rng, 2))
    tree = {
        "joint": fnn.DenseParams(made["joint"], None),
        "kernel": fnn.DenseParams(made["kernel"], ()),
        "alone": (made["vector"], table),
        "still": None,
    }
    return params, tree, (made["vector"], table, made["joint"], made["kernel"])


def matrix_of(block):
    return np.kron(block.g, np.diag(block.a) if block.a.ndim == 1 else block.a)


def wanted(v, dense, f=lambda m: m):
    """f(M) v, block by block, in the order of the leaves."""
    vector, table, joint, kernel = map(f, map(matrix_of, dense))
    both = np.concatenate([v["joint"].w, v["joint"].b[:, None]], axis=1)
    of_joint = (joint @ both.ravel()).reshape(3, 5)
    return {
        "joint": fnn.DenseParams(of_joint[:, :4], of_joint[:, 4]),
        "kernel": fnn.DenseParams((kernel @ v["kernel"].w.ravel()).reshape(3, 2, 2, 1), ()),
        "alone": (vector @ v["alone"][0], (table @ v["alone"][1].T.ravel()).reshape(2, 5).T),
        "still": trees.map(lambda a: 0 * a, v["still"]),
    }


def test_products_and_functions_of_blocks_are_those_of_their_matrices(backend):
    params, tree, dense = drawn()
    v = direction(params)

    def run(params, tree, v):
        return (
            curvature.block_product(params, tree, v),
            curvature.block_product(params, curvature.eigen(tree), v),
            curvature.block_product(params, tree, v, lambda values: 1 / (values + 0.3)),
            curvature.block_product(
                params, curvature.eigen(tree), v, np.sqrt if backend == "numpy" else lambda u: u**0.5
            ),
        )

    with wide():
        product, of_eigen, inverse, root = compiled(backend, run)(*on(backend, (params, tree, v)))
    oracle.assert_close(product, wanted(v, dense), 1e-12)
    oracle.assert_close(of_eigen, wanted(v, dense), 1e-12)
    oracle.assert_close(inverse, wanted(v, dense, lambda m: np.linalg.inv(m + 0.3 * np.eye(len(m)))), 1e-11)
    again = curvature.block_product(params, tree, on("numpy", root), np.sqrt)
    oracle.assert_close(again, wanted(v, dense), 1e-10)


def test_matrices_and_back_is_nothing_but_where_no_block_is():
    params, tree, _ = drawn()
    v = direction(params)
    found = blocks.block_matrices(params, tree, v)
    assert [m.shape for _, m in found] == [(4, 1), (2, 5), (3, 5), (3, 4)]
    back = blocks.from_matrices(params, tree, [m for _, m in found])
    oracle.assert_close(
        {k: back[k] for k in ("joint", "kernel", "alone")}, {k: v[k] for k in ("joint", "kernel", "alone")}, 0
    )
    assert not flat(back["still"]).any()


def test_eigenvalues_of_a_block_that_rounding_made_negative_are_0():
    block = Kronecker(np.array([[1.0, 1.0], [1.0, 1.0 - 1e-13]]), np.array([[2.0]]))
    assert curvature.eigen(block).values.min() == 0
    made = Eigen(np.eye(1), np.eye(1), np.ones((1, 1)))
    assert curvature.eigen(made) is made


def test_a_bias_is_one_beside_its_weight_of_its_length():
    params = (
        fnn.DenseParams(np.zeros((3, 4)), np.zeros(3)),
        {"w": np.zeros((3, 4)), "c": np.zeros(3)},
        fnn.RecurrentParams(np.zeros((6, 2)), np.zeros((6, 3)), np.zeros(6)),
        fnn.DenseParams(np.zeros((3, 4)), np.zeros(4)),
        fnn.DenseParams(np.zeros((3, 4)), ()),
    )
    assert blocks.biases(params) == {0: 1, 4: 6}
