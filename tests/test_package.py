"""What a package index shows, and the version."""

import re
import runpy
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import fnn

ROOT = Path(__file__).parents[1]
TARGET = r"\]\(([^)]*)\)"


def test_every_file_that_readme_links_to_is_there():
    targets = re.findall(TARGET, (ROOT / "README.md").read_text(encoding="utf-8"))
    assert targets
    assert [target for target in targets if not target.startswith("https://") and not (ROOT / target).exists()] == []


def test_a_package_index_shows_readme_without_links_to_files(monkeypatch):
    monkeypatch.setitem(
        sys.modules, "hatchling.metadata.plugin.interface", SimpleNamespace(MetadataHookInterface=object)
    )
    hook, metadata = runpy.run_path(str(ROOT / "hatch_build.py"))["Readme"](), {}
    hook.root = str(ROOT)
    hook.update(metadata)
    text = metadata["readme"]["text"]
    assert [target for target in re.findall(TARGET, text) if not target.startswith("https://")] == []
    assert "an example (`examples/own_rule.py`)" in text
    assert len(text.splitlines()) == len((ROOT / "README.md").read_text(encoding="utf-8").splitlines())


def test_there_is_one_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["hatch"]["version"]["path"] == "fnn/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+", fnn.__version__)
