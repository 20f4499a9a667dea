"""How the site is built: `nox -s docs`."""

from __future__ import annotations

import re
from typing import Any

import yaml
from pygments.lexers.special import TextLexer

import aioregistry

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

# ---------------------------------------------------------------- reference

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

# ---------------------------------------------------------------- looks

html_theme = "furo"
html_title = f"aioregistry {version}"
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["site.css"]


YAML = re.compile(r"^ *```yaml\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def check_yaml(app: Any, page: str, source: list[str]) -> None:  # noqa: ARG001 - Sphinx's
    """Raise where a block of YAML is none."""
    for block in YAML.findall(source[0]):
        list(yaml.safe_load_all(block))


def setup(app: Any) -> None:
    """Check YAML; show diagrams that GitHub draws as their text, since drawing them takes a script from elsewhere."""
    app.connect("source-read", check_yaml)
    app.add_lexer("mermaid", TextLexer)
