"""What a package index shows, the version, and the order of the modules."""

import ast
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


def test_imports_go_one_way_down_the_reading_order_which_names_every_module():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Reading order")[2].partition("### ")[0]
    modules = {path.stem for path in (ROOT / "fnn").iterdir() if path.name[0] not in "_." and path.name != "py.typed"}
    order = [name for name in dict.fromkeys(re.findall(r"`(\w+)/?`", text)) if name in modules]
    assert set(order) == modules
    wrong = []
    for path in (ROOT / "fnn").rglob("*.py"):
        here, *deeper = path.relative_to(ROOT / "fnn").with_suffix("").parts
        for node in ast.parse(path.read_text(encoding="utf-8")).body if here in modules else ():
            if isinstance(node, ast.ImportFrom) and node.level == 1 + bool(deeper):
                names = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
                wrong += [
                    (str(path), name) for name in names if name in modules and order.index(name) > order.index(here)
                ]
    assert wrong == []
