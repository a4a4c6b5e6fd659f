"""Sections of a benchmark, each in a process of its own and within a time of its own.

A section that fails, crashes or hangs costs only what it had left to measure: its tables are printed and written to a
file one by one, and when its time is up its process is ended.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
import time
import traceback
from pathlib import Path

from . import harness

TURNS = 5  # at most, and at least one, as time permits
LEAST = 15  # seconds that are kept for each later section
LEAVE_OUT = (ImportError, ModuleNotFoundError)  # a package that is not there is no failure


class Report:
    """What one section has to say: `{"machine", "tables": [Markdown], "figures", "failures"}`, kept in a file."""

    def __init__(self, path, end, smoke):
        self.path, self.end, self.smoke = path, end, smoke
        self.making_ends = end - 0.3 * (end - time.monotonic())  # after that nothing new is compiled
        self.said = {"machine": "", "tables": [], "figures": {}, "failures": []}

    def table(self, title, heading, rows, figures=None):
        """Print a table and keep it."""
        text = f"{title}:\n\n{harness.table(heading, rows)}"
        print(f"\n{text}\n", flush=True)
        self.said["tables"].append(text)
        self.said["figures"][title] = figures
        self.save()

    def failed(self, what, error):
        """Print and keep the first line of what went wrong; gives it as text for a table."""
        reason = str(error).strip().partition("\n")[0][:200]
        reason = f"{type(error).__name__}: {reason}" if isinstance(error, BaseException) else reason
        print(f"FAILED: {what}: {reason}", flush=True)
        self.said["failures"].append(f"{what}: {reason}")
        self.save()
        return f"failed: {reason}".replace("|", "/")

    def save(self):
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.said))
        new.replace(self.path)

    def medians(self, title, makers):
        """`(seconds, without)`: the median seconds of a turn of each side, and for the other sides the reason.

        A maker, by name, gives a side, a function that runs one turn to its end and gives the last loss. The first turn
        compiles; the others are taken in turns.
        """
        sides, without, taken = {}, {}, {}
        for name, make in makers.items():
            if sides and time.monotonic() > self.making_ends:
                without[name] = self.failed(f"{title}: {name}", "no time was left")
                continue
            try:
                start = time.monotonic()
                turn = harness.seconds(make())
                turn()
                made = time.monotonic() - start
                first = turn()
                print(f"  {title}: {name}: ready in {made:.1f} s, the next turn {1e3 * first:.4g} ms", flush=True)
                sides[name], taken[name] = turn, []
            except LEAVE_OUT as error:
                without[name] = f"left out: {error}".partition("\n")[0]
            except Exception as error:
                traceback.print_exc()
                without[name] = self.failed(f"{title}: {name}", error)
        for turns in range(1 if self.smoke else TURNS):
            if turns and time.monotonic() > self.end - 5:
                break
            for name in [*sides]:
                try:
                    taken[name].append(sides[name]())
                except Exception as error:
                    traceback.print_exc()
                    without[name] = self.failed(f"{title}: {name}", error)
                    del sides[name]
        return {name: statistics.median(taken[name]) for name in sides}, without

    def compare(self, title, makers, per, over, unit=("ms", 1e3), more=None):
        """A table of sides: the time of one of `per` things in a turn, that over the side `over`.

        `per` may differ from side to side, `{name: number}`, and `more` has a function `(side, seconds) -> text` for
        each further column. Gives the seconds.
        """
        more = more or {}
        medians, without = self.medians(title, makers)
        seconds = {name: s / (per[name] if isinstance(per, dict) else per) for name, s in medians.items()}
        rows = []
        for name in makers:
            if name in seconds:
                ratio = f"{seconds[name] / seconds[over]:.2f}" if over in seconds else ""
                further = [cell(name, seconds[name]) for cell in more.values()]
                rows.append([name, f"{unit[1] * seconds[name]:.4g}", ratio, *further])
            else:
                rows.append([name, without[name], *[""] * (1 + len(more))])
        self.table(title, ("side", unit[0], f"over {over}", *more), rows, seconds)
        return seconds


def run(name, title, sections, options, seconds):
    """Run the sections `{name: (function of a Report, its seconds)}` that the options ask for, and write their tables.

    All of them end within `seconds`: each leaves `LEAST` for any after it. Exits with status 1 if anything failed.
    """
    chosen = options.sections.split(",") if options.sections else [*sections]
    if unknown := set(chosen) - set(sections):
        sys.exit(f"--sections: expected some of {','.join(sections)}, got {','.join(sorted(unknown))}")
    said, failures, end = {}, [], time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        for i, section in enumerate(chosen):
            function, limit = sections[section]
            limit = min(limit, end - time.monotonic() - LEAST * (len(chosen) - 1 - i))
            start, path = time.monotonic(), Path(folder, f"{section}.json")
            print(f"\n## {section} (at most {limit:.0f} s)", flush=True)
            status = _in_a_process(function, path, limit, options.smoke)
            took = time.monotonic() - start
            said[section] = json.loads(path.read_text()) if path.exists() else {"tables": [], "failures": []}
            said[section]["seconds"] = took
            if status:
                said[section]["failures"].append(status)
                print(f"FAILED: {section}: {status}", flush=True)
            print(f"{section} took {took:.0f} s", flush=True)
            failures += [f"{section}: {failure}" for failure in said[section]["failures"]]
            _write(name, title, said, options)
    print("\n".join(["", *(f"FAILED: {failure}" for failure in failures)]), flush=True)
    sys.exit(1 if failures else 0)


def _in_a_process(function, path, seconds, smoke):
    """Run `function(report)` in a new process; gives what went wrong, if it did not end by itself."""
    end = time.monotonic() + seconds
    process = multiprocessing.get_context("spawn").Process(target=_child, args=(function, path, end, smoke))
    process.start()
    try:
        process.join(seconds)
    finally:
        in_time = not process.is_alive()
        if not in_time:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.join()
    if not in_time:
        return f"ended after {seconds:.0f} s, when its time was up"
    return f"its process ended with status {process.exitcode}" if process.exitcode else ""


def _child(function, path, end, smoke):
    os.setpgrp()  # with all processes that it starts it can be ended as a group
    report = Report(path, end, smoke)
    try:
        report.said["machine"] = harness.machine()
        print(report.said["machine"], flush=True)
        function(report)
    except Exception as error:
        traceback.print_exc()
        report.failed("the rest of it", error)
    report.save()


def _write(name, title, said, options):
    """Write all tables so far to the file that the options name, and the figures beside it."""
    if not options.out:
        return
    command = " ".join(["python", f"benchmarks/{name}.py", *sys.argv[1:]])
    machine = next((s["machine"] for s in said.values() if s.get("machine")), "")
    pages = [f"# {title}", f"`{command}`; medians. {machine}."]
    for section, of_section in said.items():
        pages += [f"## {section}, {of_section['seconds']:.0f} s", *of_section["tables"]]
        pages += [f"FAILED: {failure}" for failure in of_section["failures"]]
    out = Path(options.out)
    out.write_text("\n\n".join(pages) + "\n")
    out.with_suffix(".json").write_text(
        json.dumps({"command": command, "machine": machine, "sections": said}, indent=1) + "\n"
    )
