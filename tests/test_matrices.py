"""The sum of outer products is that of its definition, on a mesh of explicit axes too."""

import numpy as np
import pytest
from helpers import THOROUGH, run_python

from fnn.backend import jnp
from fnn.matrices import contract


def test_contract_sums_outer_products_over_the_examples(backend):
    generator = np.random.default_rng(0)
    delta, a = generator.normal(size=(5, 3)).astype(np.float32), generator.normal(size=(5, 4)).astype(np.float32)
    expected = sum(np.outer(d, x) for d, x in zip(delta.astype(float), a.astype(float), strict=True))
    if backend == "jax":
        delta, a = jnp.asarray(delta), jnp.asarray(a)
    found = contract(delta, a)
    assert found.dtype == np.float32
    assert np.abs(np.asarray(found) - expected).max() < 1e-5  # five float32 products of numbers of about 1


@pytest.mark.thorough
def test_contract_under_an_explicit_mesh_is_the_plain_product(needs_jax):
    code = """
        import sys, jax, numpy as np
        from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
        from fnn.matrices import contract

        assert len(jax.devices()) == 2
        generator = np.random.default_rng(0)
        delta, a = (generator.normal(size=(8, width)).astype(np.float32) for width in (6, 4))
        expected = delta.T @ a
        layouts = [(P("i", None), P("i", None), P(None, None)), (P("i"), P("i"), P(None, None)),
                   (P(None, "i"), P(), P("i", None)), (P(), P(None, "i"), P(None, "i")), (P(), P(), P(None, None))]
        for kind in (AxisType.Explicit, AxisType.Auto)[: int(sys.argv[1])]:
            mesh = jax.make_mesh((2,), ("i",), axis_types=(kind,))
            with jax.set_mesh(mesh):
                for of_delta, of_a, layout in layouts:
                    d, x = (jax.device_put(v, NamedSharding(mesh, p)) for v, p in ((delta, of_delta), (a, of_a)))
                    for product in (jax.jit(contract), contract)[: int(sys.argv[1])]:
                        found = product(d, x)
                        # other orders of a float32 sum of 8 products of numbers of about 1
                        assert np.abs(np.asarray(found) - expected).max() < 1e-5
                        if kind == AxisType.Explicit:
                            assert found.sharding.spec == layout, (found.sharding.spec, layout)
        print("equal")
    """
    how = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = run_python(code, 2 if THOROUGH else 1, **how)
    assert done.stdout == "equal\n", done.stderr
