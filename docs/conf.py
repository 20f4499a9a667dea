"""How the site is built: `nox -s docs`."""

from __future__ import annotations

import pkgutil
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

import yaml
from docutils import nodes
from pygments.lexers.special import TextLexer
from sphinx import addnodes
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging

import aioregistry

sys.path.insert(0, str(Path(__file__).parents[1]))

from tools import returns
from tools.pictures import rooms

project = "aioregistry"
author = "the aioregistry authors"
project_copyright = "the aioregistry authors"
version = release = aioregistry.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build", "examples"]

# ---------------------------------------------------------------- pages

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4  # every heading is a target, as on GitHub

# `nox -s links` asks the links to elsewhere. Those into the repository are files: tests/test_docs.py looks for them.
linkcheck_ignore = [r"https://github\.com/aioregistry/aioregistry/", r"http://(127\.0\.0\.1|localhost)"]
linkcheck_timeout = 20

# ---------------------------------------------------------------- reference

suppress_warnings = ["ref.python"]  # `Registry` in a signature is that of aioregistry or of aioregistry.blocking
nitpicky = True  # a reference that leads nowhere is a warning
nitpick_ignore_regex = [
    # other packages, and the standard library
    (
        r"py:.*",
        r"(aiohttp|asyncio|collections|contextlib|logging|os|pytest|signal|socket|ssl|tls|starlette|uvicorn|yarl)\..*",
    ),
    (r"py:class", r"URL|Collector|CollectorRegistry|Meter|LooseCookies|Callable\[\[\]"),
    # type variables, and the types of arguments: what a function takes is in its text
    (r"py:(class|obj)", r"(.*\.)?[A-Z]|(.*\.)?(Request|Response)T"),
    (r"py:class", r"\w+Options|AnyRegistry|Balancing|Checks|FollowOverrides|OnConflict|OnDisplaced"),
    # internal classes, in the constructors of what you do not make yourself; check_reference asks for what is returned
    (r"py:class", r"aioregistry\.(\w+\.)*_.*|LoopThread|SessionPort|SharedBalancerDriver|Withdrawals"),
]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

# ---------------------------------------------------------------- looks

html_theme = "furo"
pygments_dark_style = "github-dark"  # furo's own underlines the names of modules, as if they were links
html_title = f"aioregistry {version}"
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["site.css"]


YAML = re.compile(r"^ *```yaml\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def check_yaml(app: Any, page: str, source: list[str]) -> None:  # noqa: ARG001 - Sphinx's
    """Raise where a block is not YAML."""
    for block in YAML.findall(source[0]):
        list(yaml.safe_load_all(block))


def draw_rooms(app: Any) -> None:
    """Draw the map of the rooms again, as their imports are now."""
    picture = Path(app.srcdir, "pictures", "rooms.svg")
    drawn = rooms.draw()
    if picture.read_text(encoding="utf-8") != drawn:
        picture.write_text(drawn, encoding="utf-8")


def public_names() -> Iterator[tuple[str, str]]:
    """Every name that a public module lists, after that module's."""
    for module in (
        "aioregistry",
        *(found.name for found in pkgutil.walk_packages(aioregistry.__path__, "aioregistry.")),
    ):
        if "._" not in module and not module.endswith("__main__"):
            yield from ((module, name) for name in getattr(import_module(module), "__all__", ()))


def name_classes(app: Any) -> None:  # noqa: ARG001 - Sphinx's
    """Give each public class its public name: autodoc calls one of another name an alias, without its members."""
    for module, name in public_names():
        value = getattr(import_module(module), name)
        if isinstance(value, type):
            value.__name__ = name


def find_texts(app: Any) -> None:  # noqa: ARG001 - Sphinx's
    """Give each public constant and alias the docstring after its definition: autodoc looks only where it is public."""
    for module, name in public_names():
        value = getattr(import_module(module), name)
        if not isinstance(value, type | FunctionType):
            texts_here = texts_of(module)
            for made_in in [each for each in sys.modules if each.startswith("aioregistry.")]:
                if vars(sys.modules[made_in]).get(name) is value and ("", name) in texts_of(made_in):
                    text = texts_of(made_in)["", name]
                    # The repr of a set or of a table of classes does not help a reader.
                    texts_here["", name] = text if isinstance(value, str) else [*text, ":meta hide-value:", ""]
                    break


def texts_of(module: str) -> dict[tuple[str, str], list[str]]:
    """Return the docstrings of a module's constants, by class and name."""
    analyzer = ModuleAnalyzer.for_module(module)
    analyzer.analyze()
    return analyzer.attr_docs


# The embedded server is not split into a handle and what its connections and its ensemble call: these are its insides.
INSIDES = re.compile(r"aioregistry\.server\._")


def check_reference(app: Any, env: Any) -> None:  # noqa: ARG001 - Sphinx's
    """Warn of each public name that the reference lacks, and of each class that a public name leads to."""
    warn = logging.getLogger(__name__).warning
    names = env.domaindata["py"]["objects"]
    described = [found for found in map(found_at, names) if found is not None]
    public = [(f"{module}.{name}", getattr(import_module(module), name)) for module, name in public_names()]
    for name, value in public:
        # A page has a name of several modules once.
        if name not in names and not any(value is each for each in described) and "plugin.pytest_" not in name:
            warn("the reference lacks %s", name)
    seen: set[type] = set()
    left = list(public)
    while left:
        name, value = left.pop()
        for returned in returns.of(value):
            if returned not in seen and not INSIDES.match(returned.__module__):
                seen.add(returned)
                left.append((returned.__qualname__, returned))
                if not any(returned is each for each in described):
                    warn("the reference lacks %s.%s: %s gives it", returned.__module__, returned.__qualname__, name)


BOX = re.compile(r"""viewBox=['"]0 0 ([\d.]+) """)
PHONE = 450


def mark_wide(app: Any, doctree: Any) -> None:
    """Mark each picture that would be too small to read on a phone: site.css lets it scroll there."""
    for image in doctree.findall(nodes.image):
        drawing = Path(app.srcdir, image["uri"])
        if drawing.suffix == ".svg" and float(BOX.findall(drawing.read_text(encoding="utf-8"))[0]) > PHONE:
            image["classes"].append("wide")


def hide_room(app: Any, doctree: Any) -> None:  # noqa: ARG001 - Sphinx's
    """Show a class that a property gives without its internal module, which may change."""
    for prefix in list(doctree.findall(addnodes.desc_addname)):
        if "._" in prefix.astext():
            prefix.parent.remove(prefix)


def hide_making(app: Any, what: str, name: str, obj: Any, options: Any, signature: str, returned: str) -> Any:  # noqa: ARG001 - Sphinx's
    """Leave out the arguments of such a class: the package makes it."""
    return ("", None) if what == "class" and "._" in name else None


def resolve(app: Any, env: Any, node: Any, text: Any) -> Any:
    """Lead a reference from where a name is short, or internal, to what the reference has of that name."""
    if node.get("refdomain") != "py":
        return None
    target, names = node["reftarget"], env.domaindata["py"]["objects"]
    internal = found_at(target) if "._" in target else None
    if internal is None:
        same = [name for name in names if name.endswith(f".{target}")]
    else:
        same = [name for name in names if found_at(name) is internal]
    if not same:
        return None
    found = min(same, key=lambda name: name != f"aioregistry.{target}")
    return env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, node["reftype"], found, node, text)


def found_at(name: str) -> Any:
    """Return what has a full name, such as ``aioregistry.blocking.Registry``; None for part of a class."""
    module, _, last = name.rpartition(".")
    try:
        return getattr(import_module(module), last, None) if module else None
    except ModuleNotFoundError:
        return None


ATTRIBUTES = {"attribute", "data", "property"}
texts: dict[str, list[str]] = {}


def keep_text(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:  # noqa: ARG001 - Sphinx's
    """Keep the text of an attribute: napoleon takes "It was refused: why" for a type and its description."""
    if what in ATTRIBUTES:
        texts[name] = [*lines]


def give_text_back(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:  # noqa: ARG001 - Sphinx's
    """Give back the text that napoleon has changed."""
    if what in ATTRIBUTES:
        lines[:] = texts.pop(name)


def check_fields(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:  # noqa: ARG001 - Sphinx's
    """Warn of a field of a named tuple that has only the words that Python gives it."""
    if lines and lines[0].startswith("Alias for field number "):
        logging.getLogger(__name__).warning("%s has no docstring", name)


def setup(app: Any) -> None:
    """Check YAML and the reference, and show diagrams that GitHub draws as their text."""
    app.connect("builder-inited", draw_rooms)
    app.connect("builder-inited", name_classes)
    app.connect("builder-inited", find_texts)
    app.connect("source-read", check_yaml)
    app.connect("env-check-consistency", check_reference)
    app.connect("missing-reference", resolve)
    app.connect("autodoc-process-signature", hide_making)
    app.connect("doctree-read", mark_wide)
    app.connect("doctree-read", hide_room)
    app.connect("autodoc-process-docstring", keep_text, priority=400)  # napoleon has 500
    app.connect("autodoc-process-docstring", give_text_back, priority=600)
    app.connect("autodoc-process-docstring", check_fields)
    app.add_lexer("mermaid", TextLexer)
