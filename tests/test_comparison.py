"""docs/comparison.md: a test runs each line about fnn, and the code runs, in as many lines as it says."""

import doctest
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/comparison.md").read_text(encoding="utf-8")
FENCED = r"\n\n```pycon\n.*?\n```"
BLOCKS = dict(re.findall(rf"^\*\*(.+?)\.\*\* (Before:{FENCED}\n\nAfter:{FENCED})", PAGE, re.M | re.S))


def test_each_line_of_the_table_has_a_test_that_is_there():
    lines = [int(number) for number in re.findall(r"^\| (\d+) \|", PAGE, re.M)]
    tests = re.findall(r"^(\d+)\. `(tests/[\w/]+\.py)::(\w+)`$", PAGE, re.M)
    assert lines == [int(number) for number, _, _ in tests] == list(range(1, 21))
    for _, path, name in tests:
        assert f"\ndef {name}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{name}"


def test_the_lines_before_and_after_are_counted():
    section = PAGE.partition("## What six jobs took")[2]
    said = {step: counts for step, *counts in re.findall(r"^\| ([a-z].*?) \| (\d+) \| (\d+) \|$", section, re.M)}
    counted = {}
    for step, text in BLOCKS.items():
        parts = text.partition("After:")[::2]
        counted[step[0].lower() + step[1:]] = [str(len(re.findall(r"^(?:>>>|\.\.\.) ", part, re.M))) for part in parts]
    assert len(said) == 6
    assert counted == said


def test_its_code_runs():
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testfile(str(ROOT / "docs/comparison.md"), module_relative=False, optionflags=options)
    assert result.attempted > 20
    assert result.failed == 0
