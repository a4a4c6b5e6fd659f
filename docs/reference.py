"""The reference: which names are public, on which page each of them stands, and the Markdown of these pages.

A name is public if `fnn/__init__.py` or the `__init__.py` of a package of fnn's imports it as itself (`X as X`), or if
a public module has it in `__all__`. The source is read, not run, so none of fnn's dependencies is needed.
"""

import functools
import inspect
import re
from pathlib import Path

import griffe

ROOT = Path(__file__).parents[1]

# The pages in the order of the navigation. A module that is missing here comes last, under its own name.
SECTIONS = {
    "Networks": (
        "networks",
        "layers",
        "layers.activations",
        "initializers",
        "sequences",
        "standardization",
        "energies",
        "composition",
        "remat",
    ),
    "Costs": ("losses", "weights"),
    "The gradient": ("backpropagation", "factors", "per_example", "curvature", "laplace", "influence", "autodiff"),
    "Learning": ("rules", "privacy", "optimizers", "schedules"),
    "Training": ("training", "sources", "predicting", "callbacks", "metrics", "calibration", "sklearn"),
    "Inspection": ("overview", "footprint", "findings", "diagnostics", "attribution", "plots", "testing"),
    "Files": ("checkpoints", "onnx", "datasets"),
    "Foundations": ("random", "trees", "backend", "matrices", "pieces", "sharding", "order", "static", "errors"),
}


@functools.cache
def package():
    """fnn as griffe reads it."""
    return griffe.load("fnn", search_paths=[str(ROOT)], resolve_aliases=True, docstring_parser="google")


def reexported(module):
    """The names that a package imports as themselves."""
    if module.filepath.name != "__init__.py":
        return []
    names = re.findall(r"^from [\w.]+ import (\w+) as \1$", module.filepath.read_text(encoding="utf-8"), re.M)
    return [name for name in names if not name.startswith("_")]


def final(member):
    return member.final_target if member.is_alias else member


@functools.cache
def pages():
    """Each public module with the public names on its page, as they are written: `{"layers": ["fnn.Conv", ...]}`."""
    fnn, on_page, seen = package(), {}, set()
    modules = [final(fnn[name]) for name in reexported(fnn) if final(fnn[name]).is_module]
    modules += [fnn["layers"]["activations"], *(final(fnn[name]) for name in ("sklearn",))]
    for name in reexported(fnn):
        thing = final(fnn[name])
        if thing.is_module:
            continue
        inside = thing.path.split(".")[1:-1]
        page = "layers.activations" if inside[:2] == ["layers", "activations"] else inside[0]
        on_page.setdefault(page, []).append(f"fnn.{name}")
        seen.add(thing.path)
    for module in modules:
        page = module.path.removeprefix("fnn.")
        exported = [str(name) for name in module.exports or ()]
        for name in exported or reexported(module):
            thing = final(module[name])
            if not thing.is_module and thing.path not in seen:
                on_page.setdefault(page, []).append(f"{module.path}.{name}")
                seen.add(thing.path)
    known = [page for section in SECTIONS.values() for page in section]
    return {
        page: on_page[page] for page in [*known, *(page for page in on_page if page not in known)] if page in on_page
    }


def silent():
    """The public modules that do not say what is public in them."""
    fnn = package()
    modules = [final(fnn[name]) for name in reexported(fnn) if final(fnn[name]).is_module]
    return [module.name for module in modules if module.path.removeprefix("fnn.") not in pages()]


def find(name):
    """The object behind a public name."""
    thing = package()
    for part in name.split(".")[1:]:
        thing = final(thing[part])
    return thing


def sentence(thing):
    """The first sentence of a docstring, on one line."""
    text = inspect.cleandoc(thing.docstring.value).split("\n\n")[0] if thing.docstring else ""
    return " ".join(text.split())


def markdown(page):
    """The page of a module: its own docstring, a table of the names, and each name."""
    names = pages()[page]
    module = find(f"fnn.{page}")
    rows = [f"| [`{name}`][{name}] | {sentence(find(name)).replace('|', chr(92) + '|')} |" for name in names]
    introduction = fenced(module.docstring.value) if module.docstring else ""
    table = ["| name | what it is |", "|---|---|", *rows]
    blocks = [f"::: {name}" for name in names]
    return "\n\n".join([f"# fnn.{page}", introduction, "\n".join(table), *blocks]) + "\n"


def navigation():
    """The part of the navigation: `[{"Networks": ["reference/networks.md", ...]}, ...]`."""
    known = [page for section in SECTIONS.values() for page in section]
    more = tuple(page for page in pages() if page not in known)
    sections = SECTIONS | ({"More": more} if more else {})
    there = {title: [f"reference/{page}.md" for page in group if page in pages()] for title, group in sections.items()}
    return [{"Tables": ["units.md"]}, *({title: group} for title, group in there.items())]


def fenced(text):
    """A docstring as Markdown: its examples in fences, and its columns indented, to be shown as they stand."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    for i, paragraph in enumerate(paragraphs):
        if paragraph.startswith(">>>"):
            paragraphs[i] = f"```pycon\n{paragraph}\n```"
        elif re.match(r"\S+ {2,}\S|\S.*\S {4,}\S", paragraph):
            paragraphs[i] = re.sub("^", "    ", paragraph, flags=re.M)
    return "\n\n".join(paragraphs)


class Docstrings(griffe.Extension):
    """What mkdocstrings cannot know: what is an example, and how NamedTuples and Records are made."""

    def on_instance(self, *, obj, **_):
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)

    def on_class_members(self, *, cls, **_):
        if {"NamedTuple", "Record"} & {
            str(base).split(".")[-1] for base in cls.bases
        } and "__init__" not in cls.members:
            fields = [
                griffe.Parameter(
                    name,
                    annotation=member.annotation,
                    kind=griffe.ParameterKind.positional_or_keyword,
                    default=member.value,
                )
                for name, member in cls.members.items()
                if member.is_attribute and member.annotation is not None and not name.startswith("_")
            ]
            start = griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)
            cls.set_member("__init__", griffe.Function("__init__", parameters=griffe.Parameters(start, *fields)))


def own_arguments(thing):
    """The names of a function's arguments, or of the fields that a class adds to those of its bases."""
    if thing.is_function or "__init__" in thing.members:
        parameters = (thing if thing.is_function else thing.members["__init__"]).parameters
        return [p.name for p in parameters if p.name not in ("self", "cls") and not p.name.startswith("_")]
    return [
        name
        for name, member in thing.members.items()
        if member.is_attribute
        and not name.startswith("_")
        and member.annotation
        and "ClassVar" not in str(member.annotation)
        and "init=False" not in str(member.value)
    ]


def lacking(name):
    """What the docstring of a public name lacks: its arguments, what it returns, an example.

    Bases and records of results, which a user does not make, need no example, nor does what needs an extra.
    """
    thing = find(name)
    text = inspect.cleandoc(thing.docstring.value) if thing.docstring else ""
    if not re.search(r"[.:]$| {4,}| = ", text.split("\n\n")[0]):
        return ["a sentence or an equation at the beginning of its docstring"]
    if thing.is_attribute or (thing.is_class and name.startswith("fnn.errors.")):
        return []
    described = "Args:" in text
    arguments = text.partition("Args:")[2].split("\n\n")[0] if described else ""
    named = set(re.findall(r"\w+", " ".join(re.findall(r"^ {4}(\*?[\w, *]+):", arguments, re.M))))
    missing = (
        [argument for argument in own_arguments(thing) if argument not in named]
        if described or thing.is_function
        else []
    )
    needs_example = (described or thing.is_function) and not re.search(r"^Base of|needs the extra", text, re.M)
    result = [f"the arguments {', '.join(missing)}"] if missing and "parameters are those of" not in text else []
    if thing.is_function and "Returns:" not in text and str(thing.returns) != "None":
        result.append("what it returns")
    return result + (["an example"] if ">>> " not in text and needs_example else [])
