"""Products with the inverse of a damped curvature matrix, of the gradients of queries and of training examples.

Each function here gives `(factors of queries, their number Q) -> (factors of N examples -> products (Q, N))`.
"""

from .. import backend, factors, trees
from ..backend import namespace, widened
from ..curvature.blocks import Eigen, Kronecker, block_product, damped_inverse, eigen, is_block, places, with_ones
from ..curvature.spectrum import flat, like
from ..errors import KindError, ShapeError, shorten
from ..outer import Outer, Rows


def entered(params, curvature):
    """The curvature on the backend of the parameters; raises unless it is one of these parameters."""
    xp = namespace(*trees.leaves(params), *trees.leaves(curvature))
    if not is_block(curvature) and getattr(curvature, "ndim", None) == 2:
        size = sum(p.size for p in trees.leaves(params))
        if curvature.shape != (size, size):
            raise ShapeError(f"curvature: expected a matrix of shape {(size, size)}, got {tuple(curvature.shape)}")
        return xp.asarray(curvature)
    try:
        pairs = [(p, block) for p, block in factors.pairs(params, curvature) if block is not None]
    except (TypeError, IndexError, KeyError):
        pairs = []
    if not pairs or not all(is_block(block) for _, block in pairs):
        raise KindError(
            "curvature: expected blocks of fnn.curvature.kfac(net, loss)(params, x, y) or ekfac, or a matrix of "
            f"fnn.curvature.matrix, got {shorten(curvature)}"
        )
    for p, block in pairs:
        outputs, inputs = len(block.g), block.values.shape[1] if isinstance(block, Eigen) else len(block.a)
        if p.size not in (outputs * inputs, outputs * (inputs - 1)):
            raise ShapeError(f"curvature: expected a block of a parameter {p.shape}, got one of {(outputs, inputs)}")
    return trees.map(xp.asarray, curvature)


def separates(curvature):
    """Whether the damped inverse is a Kronecker product too."""
    blocks = trees.leaves(curvature, is_leaf=is_block)
    return all(isinstance(block, Kronecker) for block in blocks)


# ---- Kronecker products ----------------------------------------------------------------------------------------------


def by_products(params, blocks, damping):
    """Products of factors, those of the queries times the inverses: no gradient is made."""
    inverses = [block for block, *_ in places(params, damped_inverse(blocks, damping))]

    def precondition(f, _):
        mine = [_times(inverse, g) for inverse, g in zip(inverses, _by_block(params, blocks, f), strict=True)]
        return lambda g: factors.products(mine, _by_block(params, blocks, g))

    return precondition


def _by_block(params, blocks, f):
    """The factor of each block, with the bias in it; gradients kept whole as matrices (N, O, I)."""
    pairs, found = factors.pairs(params, f), []
    for block, i, bias in places(params, blocks):
        g = pairs[i][1]
        if isinstance(g, Outer) and bias is not None:
            g = g._replace(a=with_ones(g.a))
        found.append(g if isinstance(g, Outer | Rows) else widened(g).reshape(len(g), len(block.g), -1))
    return found


def _times(inverse, f):
    """The factor of (A ⊗ G) vec g; A and G are symmetric."""
    a, g = inverse
    if isinstance(f, Outer):
        return Outer(widened(f.delta) @ g, widened(f.a) @ a)
    if isinstance(f, Rows):
        return f._replace(delta=widened(f.delta) @ g * a[f.index][..., None])
    return g @ f @ a


# ---- what does not separate ------------------------------------------------------------------------------------------


def by_gradients(params, curvature, damping):
    """The queries' gradients times the inverse, made, and products along them."""
    if is_block(curvature) or getattr(curvature, "ndim", None) != 2:
        blocks = eigen(curvature)
        one = lambda g: block_product(params, blocks, g, lambda values: 1 / (values + damping))
        solve = backend.vmap(one)
    else:
        damped = curvature + damping * namespace(curvature).eye(len(curvature), dtype=curvature.dtype)

        def solve(gradients):
            rows = backend.vmap(flat)(gradients)
            return backend.vmap(lambda v: like(params, v))(namespace(rows).linalg.solve(damped, rows.T).T)

    def precondition(f, n):
        directions = solve(factors.made(params, f, n))
        return lambda g: backend.scan(lambda _, v: ((), factors.along(g, v)), (), directions)[1]

    return precondition
