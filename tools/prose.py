"""A linter for prose: it finds forms that docs/style.md rules out. It needs no network.

`python -m tools.prose` checks the pages of :data:`PAGES`; the docstrings of public names, with those that are made at
run time; in the sources every docstring and comment, and the texts of errors and logs; and in the package every other
text, too: those of help, of files, of findings, of enumerations.
"""

from __future__ import annotations

import ast
import io
import pkgutil
import re
import sys
import tokenize
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Final, TypeGuard

import aioregistry

__all__ = ["PAGES", "docstrings", "hard_words", "in_source", "main", "notes", "problems", "texts"]

ROOT: Final = Path(__file__).parents[1]

PAGES: Final = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/*.md", "tests/*.md", "docs/**/*.md")
"""The pages, as patterns."""

SOURCES: Final = ("aioregistry/**/*.py", "benchmarks/**/*.py", "docs/**/*.py", "tools/**/*.py", "noxfile.py")
"""The modules, as patterns."""

PACKAGE: Final = "aioregistry/**/*.py"
"""The modules whose docstrings and comments obey :data:`NOUNS`, too, and whose texts obey :data:`TEXTS`."""

TESTS: Final = ("tests/**/*.py",)
"""Modules of which only the first of :data:`WORDS` is asked for."""

WORDS: Final = (
    (re.compile(r"(?:^|[.:] )(?:What|Who|Whoever|Whatever)\b[^?]*$"), "begins with a clause for a subject"),
    # Not the keyword of a web server's or a proxy's language: 'none', libc,none.
    (re.compile(r"(?<![',])\b(?:[Nn]obody|none)\b"), 'says "nobody" or "none": say what there is not'),
    (re.compile(r"\b(?:[Ww]hoever|anew)\b"), 'says "whoever" or "anew": name the subject, and say "again"'),
    (re.compile(r"(?<![Tt]here )\b(?:is|are) no (?!longer|more|less)[A-Za-z:`]"), 'says "is no": say "is not a"'),
    (re.compile(r"; who\b[^?]*$"), 'says "; who": name the subject'),
    (re.compile(r"\bno more[.,:;]"), 'says "no more": say "not … any longer", or "stop"'),
)
NOUNS: Final = (
    (
        re.compile(
            r"(?<!\[)\b[Ww]hat (?:is|are|was|were) (?:not |still )?"
            r"(?:\w+ed|done|found|given|held|kept|known|left|listed|lost|made|meant|read|said|seen|sent|shown|told)\b[^?]*$"
        ),
        'says "what is …" in the place of a noun: name it',
    ),
)
PUBLIC: Final = (*WORDS, *NOUNS)
"""Rules for the pages, for the docstrings of public names, and for the docstrings and comments of the package."""

TEXTS: Final = (
    *WORDS,
    (re.compile(r"\b[Ww]hat (?!to\b)[^?]*$"), 'says "what …" in the place of a noun: name it'),
)
"""Rules for the texts of the package, which people read without a page around them."""

RULES: Final = (
    *PUBLIC,
    (re.compile(r"\bNone\b"), 'says "None": say what there is not'),
    (
        re.compile(r"(?:[a-z0-9)`*…]|[A-Z]{2})(?<!e\.g)[.!?] +(?:[A-Z`*\[0-9]|[a-z]{3})"),
        "has a second sentence in the line",
    ),
    (re.compile(r"^.{201}"), "has more than 200 characters: split it"),
    (re.compile(r"^(?:\S+ +){40}\S"), "has more than 40 words: split it"),
)
"""Rules for the pages alone."""

_LITERAL = re.compile(r"``[^`]*``")
_SHOWN: Final = {
    *("debug", "info", "warning", "error", "exception", "critical", "log", "tell"),
    *("add_argument", "add_parser"),
}
"""Methods that take a text for a log, or for the help of a command."""

_RAISED = re.compile(r"^[A-Z]\w*$")
"""Calls of such names inside of a raise or a return make an error."""

_FENCE = re.compile(r"^ *```")
_MARKER = re.compile(r"^ *(?:[-*]|\d+\.) +")
_CODE = re.compile(r"`[^`]*`")
_LINK = re.compile(r"\]\([^)]*\)")


def problems(text: str) -> Iterator[tuple[int, str]]:
    """Yield the number of each line of the page *text* that breaks a rule, and how; code and tables are left out."""
    in_code = False
    for number, line in enumerate(text.splitlines(), 1):
        if _FENCE.match(line):
            in_code = not in_code
        elif not in_code and not line.startswith(("|", "#", "!")):  # a table, a heading, a picture
            prose = _CODE.sub("`…`", _LINK.sub("]", _MARKER.sub("", line))).strip()
            yield from ((number, why) for rule, why in RULES if rule.search(prose))


def docstrings() -> Iterator[tuple[str, str]]:
    """Yield the name and the docstring of everything that is public: modules, what they list, and its methods."""
    for module in ("aioregistry", *(each.name for each in pkgutil.walk_packages(aioregistry.__path__, "aioregistry."))):
        if "._" in module:
            continue
        loaded = import_module(module)
        yield module, loaded.__doc__ or ""
        for name in getattr(loaded, "__all__", ()):
            value = getattr(loaded, name)
            if isinstance(value, type) or callable(value):
                yield f"{module}.{name}", value.__doc__ or ""
            if isinstance(value, type):
                yield from ((f"{module}.{name}.{own}", text) for own, text in of_class(value))


def of_class(kind: type) -> Iterator[tuple[str, str]]:
    """Yield the name and the docstring of each public method and property of a class."""
    for name, value in vars(kind).items():
        if not name.startswith("_") and isinstance(value, (property, classmethod, FunctionType)):
            yield name, value.__doc__ or ""


def hard_words(text: str, rules: Sequence[tuple[re.Pattern[str], str]] = WORDS) -> Iterator[str]:
    """Yield which of the *rules* the words of a docstring break."""
    for line in text.splitlines():
        prose = _LITERAL.sub("…", line).strip()
        yield from (why for rule, why in rules if rule.search(prose))


def in_source(source: str) -> Iterator[tuple[int, str]]:
    """Yield the number of a line of a module's *source* and each text in it that people read: see above."""
    yield from notes(source)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and _has_message(node.func):
            yield from ((each.lineno, str(each.value)) for each in ast.walk(node) if _is_text(each))


def notes(source: str) -> Iterator[tuple[int, str]]:
    """Yield the number of a line of a module's *source* and each comment and each line of a docstring in it."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("#: ")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from enumerate(node.value.value.splitlines(), node.lineno)


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Yield the number of a line of a module's *source* and each text of several words in it, but docstrings."""
    tree = ast.parse(source)
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if _is_text(node) and id(node) not in alone:
            yield node.lineno, str(node.value)


def _has_message(called: ast.expr) -> bool:
    if isinstance(called, ast.Attribute):
        return called.attr in _SHOWN
    return isinstance(called, ast.Name) and _RAISED.match(called.id) is not None


def _is_text(node: ast.AST) -> TypeGuard[ast.Constant]:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value


def main() -> int:
    """Print every problem; return 1 if there is one."""
    found = [
        f"{page.relative_to(ROOT)}:{number}: {why}"
        for pattern in PAGES
        for page in sorted(ROOT.glob(pattern))
        for number, why in problems(page.read_text(encoding="utf-8"))
    ]
    found += [f"{name}: {why}" for name, text in docstrings() for why in hard_words(text, PUBLIC)]
    found += [
        f"{module.relative_to(ROOT)}:{number}: {why}"
        for pattern in SOURCES
        for module in sorted(ROOT.glob(pattern))
        for number, text in in_source(module.read_text(encoding="utf-8"))
        for why in hard_words(text)
    ]
    found += [
        f"{module.relative_to(ROOT)}:{number}: {why}"
        for module in sorted(ROOT.glob(PACKAGE))
        for read, rules in ((notes, NOUNS), (texts, TEXTS))
        for number, text in read(module.read_text(encoding="utf-8"))
        for why in hard_words(text, rules)
    ]
    found += [
        f"{module.relative_to(ROOT)}:{number}: {why}"
        for pattern in TESTS
        for module in sorted(ROOT.glob(pattern))
        for number, text in in_source(module.read_text(encoding="utf-8"))
        for why in hard_words(text, WORDS[:1])
    ]
    print(*dict.fromkeys(found), sep="\n", end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
