"""What all test modules share: the backends that are there, and how hard Hypothesis tries.

No module needs JAX to be collected: what does need it asks for the fixture `needs_jax`, and is skipped on NumPy alone,
as it is with `FNN_BACKEND=numpy` beside an installed JAX.
"""

import contextlib
import os
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import pytest
from hypothesis import settings

# Most of the time of the tests is LLVM's, in programs that run once. All of this is set before JAX and NumPy start;
# the workers of pytest-xdist inherit it.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads spin while the processes share two cores
# On a GPU products of float32 are TF32 by default, and each process takes most of the memory.
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
if "PYTEST_XDIST_WORKER" not in os.environ and any(find_spec(f"jax_cuda{n}_plugin") for n in (12, 13)):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true"  # to the bit
if "PYTEST_XDIST_WORKER" not in os.environ and not any("thorough" in argument for argument in sys.argv):
    # One piece of code a program, and the older emitters of loops, compile in half the time. A release of JAX aborts at
    # an option that it does not know.
    options = {"0.12": "--xla_cpu_parallel_codegen_split_count=1"}
    options["0.10"] = f"{options['0.12']} --xla_cpu_use_fusion_emitters=false"
    with contextlib.suppress(PackageNotFoundError):
        option = options.get(version("jaxlib").rpartition(".")[0][:4], "")
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {option}".strip()

from fnn.backend import jax, programs

collect_ignore = ["several.py", "sharded.py"]  # programs
BACKENDS = ("numpy",) if jax is None else ("numpy", "jax")
WHY = "needs JAX, and " + ("FNN_BACKEND=numpy" if os.environ.get("FNN_BACKEND") == "numpy" else "it is not installed")

# `pytest --hypothesis-profile=whole` runs every test; `thorough` does, and tries six times as many examples, other ones
# each time.
settings.register_profile("fast", max_examples=16, deadline=None, derandomize=True)
settings.register_profile("whole", settings.get_profile("fast"))
settings.register_profile("thorough", max_examples=100, deadline=None)
settings.load_profile("fast")


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request):
    """ "numpy" and, where JAX is there, "jax": for `fnn.random.key(0, backend=backend)`."""
    return request.param


@pytest.fixture(scope="session")
def needs_jax():
    """JAX itself; skips on NumPy alone."""
    if jax is None:
        pytest.skip(WHY)
    return jax


def pytest_configure(config):
    for what in (
        "thorough(**parameters): left to the whole and thorough profiles, if parameters are given only with these",
        "numpy_alone: JAX has no part in it, unless the test asks for it; with JAX left to the same profiles",
    ):
        config.addinivalue_line("markers", what)


PROGRAMS, programs.PROGRAMS = programs.PROGRAMS, 10**6


def pytest_runtest_setup():
    """Compiled programs are dropped between tests alone: what a test compiled once it does not compile again."""
    programs.drop_programs(PROGRAMS)


def pytest_collection_modifyitems(items):
    """Skips what the profile leaves out, and the doctests that write of JAX, ONNX or PyTorch where there is none."""
    whole = settings.get_current_profile_name() != "fast"
    absent = [name for name in ("onnx", "onnxruntime", "torch") if find_spec(name) is None]
    for item in items:
        for mark in item.iter_markers("thorough"):
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            if not whole and mark.kwargs.items() <= parameters.items():
                item.add_marker(pytest.mark.skip(reason="run by the whole profile"))
        alone = item.get_closest_marker("numpy_alone") and {"needs_jax", "backend"}.isdisjoint(item.fixturenames)
        if alone and jax is not None and not whole:
            item.add_marker(pytest.mark.skip(reason="run without JAX, and by the whole profile"))
        doctest = getattr(item, "dtest", None)
        of_jax = doctest and any("jax" in e.source or "mesh(" in e.source for e in doctest.examples)
        if jax is None and of_jax:
            item.add_marker(pytest.mark.skip(reason=WHY))
        for name in absent:
            if doctest and any(re.search(rf"import .*\b{name}\b", example.source) for example in doctest.examples):
                item.add_marker(pytest.mark.skip(reason=f"needs {name}"))
