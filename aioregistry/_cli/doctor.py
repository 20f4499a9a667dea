"""`aioregistry doctor`: the faults of a live registry, the most harmful first, and what to do."""

from __future__ import annotations

import argparse
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from .._doctor.admin_words import admin_place
from .._doctor.checks import examine, unknown
from .._doctor.findings import Finding, Unknown
from .._doctor.gather import gather
from .._doctor.picture import Picture
from .._words import printable, to_json
from .answers import printed
from .options import connection
from .process import DONE, FAILED

PAGE: Final = "docs/doctor.md"
SHOWN_OF_A_KIND: Final = 10


async def doctor(arguments: argparse.Namespace) -> int:
    """Read, judge, print; return 1 where something is wrong."""
    admin = admin_place(arguments.admin_server)
    picture = await gather(connection(arguments), max_request=arguments.max_request, admin=admin)
    findings, unknowns = examine(picture), unknown(picture)
    lines = json_lines(findings, unknowns) if arguments.json else text_lines(picture, findings, unknowns)
    printed("".join(f"{line}\n" for line in lines))
    return FAILED if _wrong(findings) else DONE


def _wrong(findings: Sequence[Finding]) -> list[Finding]:
    return [each for each in findings if each.severity != "notice"]


def json_lines(findings: Sequence[Finding], unknowns: Sequence[Unknown]) -> Iterator[str]:
    told = {
        "healthy": not _wrong(findings),
        "findings": [{**each._asdict(), "page": f"{PAGE}#{each.anchor}"} for each in findings],
        "unknown": [each._asdict() for each in unknowns],
    }
    yield to_json(told, indent=2)


def text_lines(picture: Picture, findings: Sequence[Finding], unknowns: Sequence[Unknown]) -> Iterator[str]:
    for anchor, group in itertools.groupby(findings, key=lambda each: each.anchor):
        kind = list(group)
        for each in kind[:SHOWN_OF_A_KIND]:
            yield printable(f"{each.severity:8}  {each.place}: {each.text}")
        if len(kind) > SHOWN_OF_A_KIND:
            yield f"{kind[0].severity:8}  and {len(kind) - SHOWN_OF_A_KIND} more"
        yield f"          {kind[0].advice} ({PAGE}#{anchor})"
    for gap in unknowns:
        yield printable(f"unknown   {gap.anchor}: {gap.reason}")
    counts = Counter(each.severity for each in findings)
    instances = sum(map(len, picture.services.values()))
    seen = ", ".join(
        f"{count} {noun}{'' if count == 1 else 's'}"
        for count, noun in (
            (len(picture.services), "service"),
            (instances, "instance"),
            (len(picture.servers), "server"),
        )
    )
    wrong = ", ".join(f"{count} {severity}" for severity, count in counts.items() if severity != "notice")
    yield f"{seen}: {wrong or 'nothing is wrong'}"
