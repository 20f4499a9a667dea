"""How the site is built: `nox -s docs`."""

from __future__ import annotations

import pkgutil
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from pygments.lexers.special import TextLexer
from sphinx.util import logging

import aioregistry

sys.path.insert(0, str(Path(__file__).parents[1]))

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


def check_reference(app: Any, env: Any) -> None:  # noqa: ARG001 - Sphinx's
    """Warn of each public name that the reference does not have."""
    described = {name.rpartition(".")[2] for name in env.domaindata["py"]["objects"]}
    for module, name in public_names():
        if name not in described and not name.startswith("pytest_"):
            logging.getLogger(__name__).warning("the reference lacks %s.%s", module, name)


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
    app.connect("source-read", check_yaml)
    app.connect("env-check-consistency", check_reference)
    app.connect("autodoc-process-docstring", keep_text, priority=400)  # napoleon has 500
    app.connect("autodoc-process-docstring", give_text_back, priority=600)
    app.connect("autodoc-process-docstring", check_fields)
    app.add_lexer("mermaid", TextLexer)
