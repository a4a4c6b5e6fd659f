"""Curvature: products with the Hessian, the Gauss-Newton and the Fisher matrix, their diagonals and Kronecker factors.

Each function takes `(net, loss)` and options, and returns a pure function of `(params, x, y, weights=None, key=None)`,
which is not compiled: wrap it in `jax.jit`. Their scale is that of `value_and_grad`, the mean cost Σ w ℓ / Σ w, or
Σ w ℓ / D with a `denominator` D, so that each weight counts once. Penalties are not part of it.
"""

from .blocks import Eigen as Eigen
from .blocks import Kronecker as Kronecker
from .blocks import block_matrices as block_matrices
from .blocks import block_product as block_product
from .blocks import damped_inverse as damped_inverse
from .blocks import eigen as eigen
from .blocks import from_matrices as from_matrices
from .diagonals import diagonal as diagonal
from .factored import ekfac as ekfac
from .factored import kfac as kfac
from .factored import kronecker as kronecker
from .products import fisher_product as fisher_product
from .products import ggn_product as ggn_product
from .products import hessian_product as hessian_product
from .spectrum import Eigenvalues as Eigenvalues
from .spectrum import Estimate as Estimate
from .spectrum import eigenvalues as eigenvalues
from .spectrum import matrix as matrix
from .spectrum import trace as trace
