"""What must hold of the site: python docs/check.py builds it and checks it, and exits with 1 if anything is wrong.

1. MkDocs builds it without a warning; KaTeX sets every formula.
2. Every link and every anchor inside the site leads somewhere; every image has a text in its place.
3. No page needs a network: scripts, stylesheets, fonts and images come with the site, whose size is below 10 MB.
4. Every public name is in the reference, with a docstring that is complete.
5. Every block of Python is an example that runs (pytest), and every notebook runs (nbclient); where one calls
   `fnn.fit`, a progress bar is in the output, the first at 100 %.
"""

import os
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import reference

ROOT = Path(__file__).parents[1]
SITE = ROOT / "build" / "site"
LIMIT = 10_000_000
LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "link": "href",
}  # what a browser fetches itself
NOT_RUN = "<!-- not run"  # before a block of Python that cannot run here, with the reason


class Page(HTMLParser):
    """What a page links to, what it loads, and where it can be linked to."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.anchors, self.faults = [], [], {""}, []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if "id" in attributes:
            if attributes["id"] in self.anchors and not attributes["id"].startswith("__"):
                self.faults.append(f"two elements have the id {attributes['id']!r}")
            self.anchors.add(attributes["id"])
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        if tag in LOADED and attributes.get("rel") not in ("canonical", "next", "prev") and attributes.get(LOADED[tag]):
            self.loads.append(attributes[LOADED[tag]])
        if tag == "img" and not attributes.get("alt"):
            self.faults.append(f"the image {attributes.get('src')} has no text in its place")


def built():
    """Builds the site; a warning ends it."""
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if line] if done.returncode else []


def links():
    """Links and anchors that lead nowhere, what is loaded from elsewhere, and the size."""
    pages = {path: Page(path) for path in sorted(SITE.rglob("*.html"))}
    faults = []
    for path, page in pages.items():
        name = path.relative_to(SITE)
        if name.name == "404.html":  # its links are those of the root of a server
            continue
        faults += [f"{name}: {fault}" for fault in page.faults]
        for target in page.links + page.loads:
            url = urlsplit(target)
            if url.scheme or url.netloc:
                if target in page.loads and url.scheme != "data":
                    faults.append(f"{name}: {target} is loaded from elsewhere")
                continue
            file = (path.parent / unquote(url.path)).resolve() if url.path else path
            file = file / "index.html" if file.is_dir() else file
            if not file.exists():
                faults.append(f"{name}: {target} does not exist")
            elif file in pages and unquote(url.fragment) not in pages[file].anchors:
                faults.append(f"{name}: {target}: there is no such anchor")
    for path in SITE.rglob("*.css"):
        remote = re.findall(r"(?:url\(|@import)\s*['\"]?(https?:[^)'\"]*)", path.read_text(encoding="utf-8"))
        faults += [f"{path.name}: {target} is loaded from elsewhere" for target in remote]
    size = sum(path.stat().st_size for path in SITE.rglob("*") if path.is_file())
    print(f"{len(pages)} pages, {size / 1e6:.1f} MB")
    return faults + ([f"the site has {size} bytes, more than {LIMIT}"] if size > LIMIT else [])


def docstrings():
    """What is missing in the docstrings of public names."""
    faults, count = [f"fnn.{module} says not what is public: it needs __all__" for module in reference.silent()], 0
    for page, names in reference.pages().items():
        text = (SITE / "reference" / f"{page}.html").read_text(encoding="utf-8")
        for name in names:
            count += 1
            lacking = reference.lacking(name)
            if f'id="{name}"' not in text:
                lacking = [*lacking, "its place in the reference"]
            faults += [f"{name} lacks {', '.join(lacking)}"] if lacking else []
    print(f"{count} public names")
    return faults


def blocks():
    """Blocks of Python that are no examples, so that nothing runs them."""
    faults = []
    for path in sorted((ROOT / "docs").rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        for match in re.finditer(r"^```(\w*)[^\n]*\n(.*?)^```", text, re.M | re.S):
            before = text[: match.start()].rstrip().rsplit("\n", 1)[-1]
            if match[1] in ("python", "py", "pycon") and ">>> " not in match[2] and not before.startswith(NOT_RUN):
                line = text.count("\n", 0, match.start()) + 1
                faults.append(f"{path.relative_to(ROOT)}:{line}: a block of Python without >>> is not run")
    return faults


def examples():
    """Runs the examples of all pages, except those that compare fnn with libraries that may not be installed."""
    command = ["-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "--doctest-glob=*.md", "--ignore-glob=*.py"]
    done = subprocess.run(
        [sys.executable, *command, "--ignore=docs/from", "--ignore=docs/guides/exchange.md", "docs"],
        cwd=ROOT,
        check=False,
    )
    return ["an example failed"] if done.returncode else []


def notebooks():
    """Runs each notebook that the site offers; the limit is one of CPU time, since others may use the machine, too."""
    import nbclient
    import nbformat

    faults = []
    for path in sorted(SITE.rglob("*.ipynb")):
        before = used()
        try:
            client = nbclient.NotebookClient(
                nbformat.read(path, 4), timeout=600, resources={"metadata": {"path": ROOT}}
            )
            shown = bars(client.execute())
            fits = sum(cell.source.count("fnn.fit(") for cell in client.nb.cells if cell.cell_type == "code")
            if len(shown) != fits or (fits and shown[0] != "100%"):  # a later one diverges, to show how that is told
                faults.append(f"{path.relative_to(SITE)}: {fits} calls of fit, whose progress bars show {shown}")
        except Exception as error:
            faults.append(f"{path.relative_to(SITE)}: {error}")
        print(f"{path.relative_to(SITE)}: {used() - before:.0f} s of CPU time")
        faults += [f"{path.relative_to(SITE)} needs more than a minute"] if used() - before > 60 else []
    return faults


def bars(notebook):
    """What each progress bar shows in the end, in a notebook that was run: bars are widgets (ipywidgets)."""
    widgets = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {}).get("state", {})
    shown = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            box = output.get("data", {}).get("application/vnd.jupyter.widget-view+json", {}).get("model_id")
            if box in widgets:
                label = widgets[box]["state"]["children"][0].removeprefix("IPY_MODEL_")
                shown.append(widgets[label]["state"]["value"])
    return shown


def used():
    """The CPU time of this process and of those that it has waited for."""
    return sum(os.times()[:4])


def main():
    wrong = False
    for check in (built, links, docstrings, blocks, examples, notebooks):
        start, before = time.perf_counter(), used()
        faults = check()
        seconds = f"{time.perf_counter() - start:.0f} s, {used() - before:.0f} s of CPU time"
        print(f"{check.__name__}: {len(faults)} faults, {seconds}", *faults, sep="\n  ", flush=True)
        wrong = wrong or bool(faults)
        if check is built and faults:
            break
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
