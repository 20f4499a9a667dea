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

PAGES: Final = (
    "README.md",
    "docs/blocking.md",
    "docs/coming-from.md",
    "docs/coming-from/aiozk.md",
    "docs/coming-from/consul.md",
    "docs/coming-from/curator.md",
    "docs/coming-from/eureka.md",
    "docs/coming-from/kazoo.md",
    "docs/coming-from/nacos.md",
    "docs/how-to/gunicorn.md",
    "docs/how-to/job-runners.md",
    "docs/how-to/kubernetes.md",
    "docs/how-to/logging.md",
    "docs/how-to/systemd.md",
    "docs/how-to/test-your-application.md",
    "docs/how-to/tls-and-acls.md",
    "docs/how-to/workers.md",
    "docs/index.md",
    "docs/reference/aioregistry.md",
    "docs/reference/blocking.md",
    "docs/reference/events.md",
    "docs/reference/index.md",
    "docs/reference/integrations.md",
    "docs/reference/logs.md",
    "docs/reference/metrics.md",
    "docs/reference/server.md",
    "docs/reference/testing.md",
    "docs/style.md",
    "docs/threads.md",
    "docs/tutorial.md",
)
"""The pages that are written in this style; a page that was rewritten is added."""

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
        elif not in_code and not line.startswith(("|", "#")):
            prose = _CODE.sub("`…`", _LINK.sub("]", _MARKER.sub("", line))).strip()
            yield from ((number, why) for rule, why in RULES if rule.search(prose))


def main() -> int:
    """Print every problem; return 1 if there is one."""
    found = [
        f"{page}:{number}: {why}"
        for page in PAGES
        for number, why in problems((ROOT / page).read_text(encoding="utf-8"))
    ]
    print(*found, sep="\n", end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
