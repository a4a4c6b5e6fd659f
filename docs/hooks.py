"""What the site has beyond the pages in docs/: the reference, tables of benchmarks, formulas, and notebooks.

MkDocs calls these functions (`hooks` in mkdocs.yml). KaTeX sets the formulas while the site is built, and a formula
that it cannot set ends the build. So the pages need no script for them, only a stylesheet and fonts, which come with
the site. KaTeX is an npm package; npm installs it into build/npm once.
"""

import doctest
import functools
import html
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))  # MkDocs does not

import reference

ROOT = Path(__file__).parents[1]
NPM = ROOT / "build" / "npm"
PACKAGES = {"katex": "0.19.1", "iframe-worker": "1.0.4"}  # the second lets search run where there is no server
NOTEBOOKS = (
    "start/quickstart",
    "start/xor",
    "guides/tape",
    "guides/sweeps",
    "guides/doctor",
    "book/05-backpropagation",
)
FORMULA = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>([,.;:?!)]*)', re.S)
SET = """
const katex = require(process.argv[1]);
const set = ({tex, display}) => katex.renderToString(tex, {displayMode: display, throwOnError: true, strict: "ignore"});
console.log(JSON.stringify(JSON.parse(require("fs").readFileSync(0, "utf8")).map(set)));
"""


def run(*command, **options):
    """The output of a command, or an error that says what it wrote."""
    if shutil.which(command[0]) is None:
        raise PluginError(f"{command[0]} was not found: the site needs Node.js, for KaTeX")
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False, **options)
    if done.returncode:
        raise PluginError(f"{command[0]} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def installed(name):
    """The folder of an npm package, installed if it is not there."""
    folder = NPM / "node_modules" / name
    if not folder.exists():
        NPM.mkdir(parents=True, exist_ok=True)
        options = ("--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--prefix", str(NPM))
        run("npm", "install", *options, *(f"{package}@{version}" for package, version in PACKAGES.items()))
    return folder


def expanded(entry, docs):
    """An entry of the navigation; a pattern in a list stands for the files that the list does not name itself."""
    if isinstance(entry, dict):
        return {
            title: reference.navigation() if item == "reference" else expanded(item, docs)
            for title, item in entry.items()
        }
    if not isinstance(entry, list):
        return entry
    result = []
    for item in entry:
        if isinstance(item, str) and "*" in item:
            files = sorted(path.relative_to(docs).as_posix() for path in docs.glob(item))
            result += [file for file in files if file not in entry]
        else:
            result.append(expanded(item, docs))
    return result


@functools.cache
def planted():
    """How many faults the tests plant in themselves."""
    return run(sys.executable, "-c", "import faults; print(len(faults.FAULTS))", cwd=ROOT / "tests").strip()


def benchmarks():
    """What each script in benchmarks/ has written, one section for each, that of an epoch first."""
    results = sorted((ROOT / "benchmarks" / "results").glob("*.md"), key=lambda path: (path.stem != "epoch", path.stem))
    text = "\n\n".join(re.sub("^#", "##", path.read_text(encoding="utf-8"), flags=re.M) for path in results)
    text = text.replace("](scaling.png)", "](assets/scaling.png)")
    return re.sub(r"\[([^\]]*)\]\(\w+\.md\)", r"\1", text)  # the others are on the same page


def notebook(page):
    """A page as a notebook: its text, and its examples as cells that end where there is something to show."""
    cells = []

    def text(markdown):
        markdown = re.sub(
            r"!\[([^\]]*)\]\([^)]*\)", r"*\1*", markdown
        )  # pictures and other pages are not at hand there
        markdown = re.sub(r"\[([^\]]*)\]\((?!https:)[^)]*\)", r"\1", markdown).strip()
        if markdown:
            cells.append({"cell_type": "markdown", "metadata": {}, "source": markdown})

    def code(source):
        made = {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": [], "source": source.strip()}
        cells.append(made)

    parts = re.split(r"^```pycon\n(.*?)^```$", page, flags=re.M | re.S)
    for i, part in enumerate(parts):
        if i % 2 == 0:
            text(part)
            continue
        source = ""
        for example in doctest.DocTestParser().get_examples(part):
            source += re.sub(r"  # doctest:.*", "", example.source)
            if example.want:
                code(source)
                source = ""
        if source:
            code(source)
    for i, cell in enumerate(cells):
        cell["id"] = f"cell-{i}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return json.dumps(
        {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}, indent=1
    )


def on_config(config):
    config.nav = expanded(config.nav, Path(config.docs_dir))
    return config


def on_files(files, config):
    """Adds the pages and files that are made."""

    def add(path, **content):
        files.append(File.generated(config, path, **content))

    for page in reference.pages():
        add(f"reference/{page}.md", content=reference.markdown(page))
    add("contributing.md", content=(ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    add("assets/scaling.png", abs_src_path=str(ROOT / "benchmarks" / "results" / "scaling.png"))

    for name in NOTEBOOKS:
        add(f"{name}.ipynb", content=notebook(files.get_file_from_path(f"{name}.md").content_string))

    katex = installed("katex") / "dist"
    css = (katex / "katex.min.css").read_text(encoding="utf-8")
    css = re.sub(r',url\([^)]*\.(?:woff|ttf)\) format\("\w+"\)', "", css)  # every browser of today reads woff2
    add("assets/katex/katex.css", content=css)
    for font in sorted((katex / "fonts").glob("*.woff2")):
        add(f"assets/katex/fonts/{font.name}", abs_src_path=str(font))
    add("assets/iframe-worker.js", abs_src_path=str(installed("iframe-worker") / "shim" / "index.js"))
    return files


def on_page_markdown(markdown, page, config, files):
    """Puts in what is counted or measured, and drops the empty line at the end of code, which only a test needs."""
    for name, made in (("{planted}", planted), ("{benchmarks}", benchmarks)):
        if name in markdown:
            markdown = markdown.replace(name, made())
    name = page.file.src_uri.removesuffix(".md")
    if name in NOTEBOOKS:
        link = f"[This page as a notebook]({Path(name).name}.ipynb){{ .notebook download }}"
        markdown = re.sub(r"^(# .*\n)", rf"\1\n{link}\n", markdown, count=1)
    return re.sub(r"\n+\n```$", "\n```", markdown, flags=re.M)


def shortened(source):
    """The source of a name without its docstring, which stands above it, and outside the index of the search."""
    summary, code = re.search(r"(<summary>.*?</summary>).*<code>(.*)</code>", source[0], re.S).groups()
    code = html.unescape(re.sub(r"<[^>]*>", "", code))
    code = re.sub(r'^( *)"""(?:.*?)"""\n', "", code, count=1, flags=re.M | re.S)
    code = f'<div class="highlight"><pre><code>{html.escape(code, quote=False)}</code></pre></div>'
    return f'<details class="mkdocstrings-source" data-search-exclude>{summary}{code}</details>'


def formulas(content, where):
    """Sets the formulas of a page; no line begins with the comma behind one that has no break itself."""
    asked = [
        {"tex": html.unescape(found[2])[2:-2], "display": found[2].startswith("\\[")}
        for found in FORMULA.finditer(content)
    ]
    try:
        done = iter(json.loads(run("node", "-e", SET, str(installed("katex")), input=json.dumps(asked))))
    except PluginError as error:
        raise PluginError(f"{where}: {error}") from None

    def placed(found):
        made = next(done)
        text = f'<{found[1]} class="formula" data-search-exclude>{made}</{found[1]}>{found[3]}'
        return f'<span class="together">{text}</span>' if found[3] and made.count("katex-base") == 1 else text

    return FORMULA.sub(placed, content)


def on_page_content(content, page, config, files):
    if page.file.src_uri.startswith("reference/"):
        return re.sub(r'<details class="mkdocstrings-source">.*?</details>', shortened, content, flags=re.S)
    return formulas(content, page.file.src_uri) if FORMULA.search(content) else content


def on_post_page(output, page, config):
    """The theme's search gets a name that can be read aloud; indentation and marks that show nothing are dropped."""
    output = output.replace('role="dialog">', 'role="dialog" aria-label="Search">')
    output = re.sub(
        r'<span class="[nw]">([^<]*)</span>', r"\1", output
    )  # in code: names and spaces, which have no colour
    parts = re.split(r"(<(pre|script|textarea)\b.*?</\2>)", output, flags=re.S)
    return "".join(
        re.sub(r"\s*\n\s*", "\n", part) if i % 3 == 0 else part for i, part in enumerate(parts) if i % 3 != 2
    )


def lighter(path):
    """Writes a picture with 128 colours, which is enough for a diagram, if that makes it smaller."""
    file = io.BytesIO()
    few = Image.open(path).convert("RGB").quantize(128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(file, "PNG", optimize=True)
    if len(file.getvalue()) < path.stat().st_size:
        path.write_bytes(file.getvalue())


@event_priority(-101)  # after the theme has written the script
def on_post_build(config):
    """Removes what no page needs: source maps, search in other languages, and the second copy of the search index.

    The theme reads the index as a script from a disk, and as JSON from a server; the script does for both.
    """
    site = Path(config.site_dir)
    scripts = site / "assets" / "javascripts"
    shutil.rmtree(scripts / "lunr")
    for path in [*site.rglob("*.map"), site / "search" / "search_index.json"]:
        path.unlink()
    (bundle,) = scripts.glob("bundle.*.js")
    asks = 'location.protocol==="file:"?'
    before, found, after = bundle.read_text(encoding="utf-8").partition(asks)
    if not found or "search_index.js" not in after[:80]:
        raise PluginError(f"{bundle.name} does not choose an index of the search by {asks}")
    bundle.write_text(f"{before}true?{after}", encoding="utf-8")
    for path in site.rglob("*.png"):
        lighter(path)
