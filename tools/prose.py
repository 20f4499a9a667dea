"""A linter for the prose of Markdown pages: it finds forms that docs/style.md rules out. It needs no network.

`python -m tools.prose` checks the pages of :data:`PAGES`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["PAGES", "main", "problems"]

ROOT: Final = Path(__file__).parents[1]

PAGES: Final = ("README.md", "CONTRIBUTING.md", "docs/**/*.md")
"""The pages, as patterns."""

RULES: Final = (
    (re.compile(r"^(?:Who|Whoever|Whatever)\b[^?]*$"), "begins with a clause for a subject"),
    (re.compile(r"\b(?:[Nn]obody|[Nn]one)\b"), 'says "nobody" or "none": say what there is not'),
    (re.compile(r"[a-z0-9)`*][.!?] +[A-Z`]"), "has a second sentence in the line"),
)

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


def main() -> int:
    """Print every problem; return 1 if there is one."""
    found = [
        f"{page.relative_to(ROOT)}:{number}: {why}"
        for pattern in PAGES
        for page in sorted(ROOT.glob(pattern))
        for number, why in problems(page.read_text(encoding="utf-8"))
    ]
    print(*found, sep="\n", end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
