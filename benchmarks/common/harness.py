"""How every benchmark is run and written down.

All sides take turns, with a pause between, in an order drawn anew for each round, so that none always follows the same.
The first turn of each is not counted, for it compiles and fills caches. What is told of the others is the lower
quartile: whatever else the machine does can only add time. `--write` puts the table and all figures into results/, and
keeps what was written by hand under its table.
"""

import argparse
import contextlib
import datetime
import functools
import importlib
import importlib.metadata
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "results"
NOTES = "<!-- What stands below is written by hand, and kept. -->"
PACKAGES = {"jax": "JAX", "numpy": "NumPy", "torch": "PyTorch", "flax": "Flax", "equinox": "Equinox", "optax": "Optax"}
PACKAGES |= {"scikit-learn": "scikit-learn", "curvlinops-for-pytorch": "curvlinops", "backpack-for-pytorch": "BackPACK"}
PACKAGES |= {"laplace-torch": "laplace-torch", "kfac-jax": "kfac-jax"}


def parser(description, repeats=9):
    """The arguments that every benchmark has; a script adds its own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=repeats, help="turns that count")
    parser.add_argument(
        "--pause", type=float, default=0.3, help="seconds before each: idle threads spin on for a while"
    )
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--write", action="store_true", help="write the table and the figures into benchmarks/results")
    either.add_argument("--smoke", action="store_true", help="tiny sizes and one turn, to see that it runs")
    return parser


def parse(parser):
    """The options; with `--smoke` one turn counts, the pause is short, and little time is spent on compiling."""
    options = parser.parse_args()
    if options.smoke:
        options.repeats, options.pause = 1, 0.1
        with contextlib.suppress(ImportError):
            importlib.import_module("jax").config.update("jax_disable_most_optimizations", True)
    return options


def available(makers):
    """The sides that can be made here, by name; those whose package is missing are left out, aloud."""
    made = {}
    for name, make in makers.items():
        try:
            made[name] = make()
        except (ImportError, TypeError) as error:  # fnn.errors.KindError, without JAX, is a TypeError
            print(f"left out: {name} ({error})", flush=True)
    return made


def turns(sides, options):
    """What each side, a function without arguments, gave in each of its turns: `{name: [figure, ...]}`."""
    names, figures, rng = list(sides), {name: [] for name in sides}, random.Random(0)
    for turn in range(1 + options.repeats):
        for name in rng.sample(names, len(names)):
            time.sleep(options.pause)
            figure = sides[name]()
            if turn:
                figures[name].append(figure)
    return figures


def seconds(f, *args):
    """A side that calls `f`, and gives the seconds that it took."""

    def side():
        start = time.perf_counter()
        result = f(*args)
        elapsed = time.perf_counter() - start
        assert not isinstance(result, float) or result == result, "the loss is not a number"
        return elapsed

    return side


def fresh(*arguments, **environment):
    """A side that starts Python anew with these arguments, and gives what that prints last, read as JSON."""
    compiling = {"JAX_ENABLE_COMPILATION_CACHE": "false", "PYTHONDONTWRITEBYTECODE": ""}  # installed, all is bytecode
    settings = os.environ | compiling | environment
    command = [sys.executable, *arguments]

    def side():
        done = subprocess.run(command, env=settings, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    return side


def lower(figures):
    """The lower quartile."""
    return statistics.quantiles(figures, n=4, method="inclusive")[0] if len(figures) > 1 else figures[0]


def table(heading, rows):
    """Rows of text as a table in Markdown."""
    lines = (heading, ["---"] * len(heading), *rows)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def ratios(heading, figures, over, scale=1.0, digits=3):
    """A table of lower quartiles, and of their ratios to those of the sides `over`."""
    low = {name: lower(values) for name, values in figures.items()}
    over = [name for name in over if name in low]
    rows = [
        [name, f"{scale * value:.{digits}f}", *(f"{value / low[base]:.2f}" for base in over)]
        for name, value in low.items()
    ]
    return table([*heading, *(f"over {base}" for base in over)], rows)


def publish(name, title, text, figures, options, told="lower quartiles"):
    """Print a result, and with `--write` put it into results/NAME.md and all its figures into results/NAME.json."""
    command = " ".join(["python", f"benchmarks/{name}.py", *(a for a in sys.argv[1:] if a != "--write")])
    how = f"`{command}`; {told} of {options.repeats} turns that count. {machine()}."
    print(f"\n# {title}\n\n{how}\n\n{text}")
    if options.write:
        page = RESULTS / f"{name}.md"
        old = page.read_text() if page.exists() else ""
        notes = old.partition(NOTES)[2] or "\n"
        page.write_text(f"# {title}\n\n{how}\n\n{text}\n\n{NOTES}{notes}")
        all_of_it = {"command": command, "machine": machine(), "options": vars(options), "figures": figures}
        page.with_suffix(".json").write_text(json.dumps(all_of_it, indent=1) + "\n")


@functools.cache
def machine():
    """The machine, and the versions of all that takes part."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, {_system()}", *_accelerators()]
    parts.append(f"Python {platform.python_version()}")
    for package, spelling in PACKAGES.items():
        try:
            parts.append(f"{spelling} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join([*parts, f"{datetime.date.today():%B %Y}"])


def _processor():
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _system():
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.platform()


def _accelerators():
    try:
        devices = importlib.import_module("jax").devices()
    except ImportError:
        return []
    return [device.device_kind for device in devices if device.platform != "cpu"]
