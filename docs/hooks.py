"""What the site has beyond the pages in docs/: the reference, tables of benchmarks, formulas, and notebooks.

MkDocs calls these functions (`hooks` in mkdocs.yml). KaTeX sets the formulas while the site is built, and a formula
that it cannot set ends the build. So the pages need no script for them, only a stylesheet and fonts, which come with
the site. KaTeX is an npm package; npm installs it into build/npm once.
"""

import functools
import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))  # MkDocs does not

import reference

ROOT = Path(__file__).parents[1]
NPM = ROOT / "build" / "npm"
PACKAGES = {"katex": "0.19.1", "iframe-worker": "1.0.4"}  # the second lets search run where there is no server
FORMULA = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.S)
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


def expanded(entry, config):
    """An entry of the navigation, with the files that a pattern such as book/*.md stands for, in order."""
    if isinstance(entry, list):
        parts = [expanded(item, config) for item in entry]
        return [item for part in parts for item in (part if isinstance(part, list) else [part])]
    if isinstance(entry, dict):
        return {
            title: reference.navigation() if item == "reference" else expanded(item, config)
            for title, item in entry.items()
        }
    if "*" in entry:
        docs = Path(config.docs_dir)
        return [path.relative_to(docs).as_posix() for path in sorted(docs.glob(entry))]
    return entry


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


def on_config(config):
    config.nav = expanded(config.nav, config)
    return config


def on_files(files, config):
    """Adds the pages and files that are made."""

    def add(path, **content):
        files.append(File.generated(config, path, **content))

    for page in reference.pages():
        add(f"reference/{page}.md", content=reference.markdown(page))
    add("contributing.md", content=(ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    add("assets/scaling.png", abs_src_path=str(ROOT / "benchmarks" / "results" / "scaling.png"))

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
    return re.sub(r"\n+\n```$", "\n```", markdown, flags=re.M)


def on_page_content(content, page, config, files):
    """Sets the formulas of a page."""
    found = [match.group(2) for match in FORMULA.finditer(content)]
    if not found:
        return content
    asked = [{"tex": html.unescape(text)[2:-2], "display": text.startswith("\\[")} for text in found]
    try:
        done = iter(json.loads(run("node", "-e", SET, str(installed("katex")), input=json.dumps(asked))))
    except PluginError as error:
        raise PluginError(f"{page.file.src_uri}: {error}") from None
    return FORMULA.sub(
        lambda match: f'<{match[1]} class="formula" data-search-exclude>{next(done)}</{match[1]}>', content
    )


def on_post_build(config):
    """Removes what the theme brings and no page uses: source maps, and search in other languages."""
    scripts = Path(config.site_dir, "assets", "javascripts")
    shutil.rmtree(scripts / "lunr")
    for path in Path(config.site_dir).rglob("*.map"):
        path.unlink()
