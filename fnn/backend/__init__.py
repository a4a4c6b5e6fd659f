"""JAX or NumPy: what formulas need beyond an array namespace, so that each of them is written once.

A formula calls `xp = namespace(x)` and is written against `xp`. Where JAX offers more than a namespace (`jit`, `scan`,
`vmap`, trees), there is a NumPy stand-in here. With `FNN_BACKEND=numpy` in the environment JAX is never imported; with
`FNN_BACKEND=jax` it is required; otherwise it is used if it is installed.

    library      the one import of JAX, and which of the two an array belongs to
    dtypes       what its numbers are, and conversions
    nodes        trees of arrays
    flow         loops, choices, `vmap`
    programs     compilation, and how many programs are kept

`fnn.matrices` has the two products of formulas, and `fnn.pieces` what is computed for some examples, or some layers, at
a time.
"""

from .dtypes import at_least_float32 as at_least_float32
from .dtypes import at_least_int32 as at_least_int32
from .dtypes import cast as cast
from .dtypes import check_dtype as check_dtype
from .dtypes import floating as floating
from .dtypes import is_floating as is_floating
from .dtypes import widened as widened
from .flow import Unbatched as Unbatched
from .flow import by_platform as by_platform
from .flow import choose as choose
from .flow import cond as cond
from .flow import is_unbatched as is_unbatched
from .flow import scan as scan
from .flow import vmap as vmap
from .flow import while_loop as while_loop
from .library import is_jax as is_jax
from .library import is_traced as is_traced
from .library import jax as jax
from .library import jnp as jnp
from .library import name as name
from .library import namespace as namespace
from .library import need_jax as need_jax
from .library import number as number
from .library import on_device as on_device
from .library import ready as ready
from .nodes import Held as Held
from .nodes import Record as Record
from .nodes import tree_leaves as tree_leaves
from .nodes import tree_map as tree_map
from .programs import any_number as any_number
from .programs import drop_programs as drop_programs
from .programs import jit as jit
from .programs import keep_freed_memory as keep_freed_memory

__all__ = ["Record", "Unbatched", "is_jax", "jit", "namespace", "scan", "vmap"]
