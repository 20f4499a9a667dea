"""How the demo reports: to people, or to programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Protocol, TextIO

from .answers import columns
from .stage import DemoResult, Happening

BOLD, RED, GREEN, CYAN = "1", "1;31", "32", "36"
COLOURS = {"demo": BOLD, "fault": RED, "gateway": CYAN}


class Teller(Protocol):
    """The lines that are written, by event."""

    def happening(self, happening: Happening) -> str:
        """Return the line for *happening*."""

    def summary(self, verdicts: Sequence[DemoResult], end: Happening) -> str:
        """Return the last lines to write."""


class JsonTeller:
    """One JSON object a line."""

    def happening(self, happening: Happening) -> str:
        """Return the fields of *happening*."""
        return json.dumps(asdict(happening))

    def summary(self, verdicts: Sequence[DemoResult], end: Happening) -> str:
        """Return an object of the event "summary", with the verdicts."""
        summary = {"at": end.at, "who": "demo", "event": "summary", "promised": kept(verdicts)}
        return json.dumps(summary | {"faults": [asdict(verdict) for verdict in verdicts]})


class TextTeller:
    """Lines for people."""

    def __init__(self, *, in_colour: bool) -> None:
        self._in_colour = in_colour

    def happening(self, happening: Happening) -> str:
        """Return the time, who it was, and what."""
        gap = "\n" if happening.event in ("act", "closing") else ""
        colour = GREEN if happening.event == "live" else COLOURS.get(happening.who)
        return f"{gap}{happening.at:6.2f} s  {self._painted(f'{happening.who:<8} {happening.text}', colour)}"

    def summary(self, verdicts: Sequence[DemoResult], end: Happening) -> str:
        """Return a table of the faults, the observations and the measurements."""
        rows = [("fault", "the gateway saw", "gone for", "and"), *map(_row, verdicts)]
        table = columns(rows)
        moral = (
            "Live servers were listed; servers that left were not."
            if kept(verdicts)
            else "Not everything went as promised."
        )
        head, *body = table
        return "\n".join(
            ["", self._painted(head, BOLD), *body, "", f"{len(verdicts)} faults in {end.at:.0f} s. {moral}"]
        )

    def _painted(self, text: str, colour: str | None) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._in_colour and colour else text


def wants_colour(file: TextIO, environment: Mapping[str, str]) -> bool:
    """Return whether *file* is a terminal whose user has not declined colour (no-color.org)."""
    return file.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def sentence(verdict: DemoResult) -> str:
    """Return *verdict* as the last line of its act."""
    gone = "" if verdict.unlisted is None else f", gone for {verdict.unlisted:.3f} s"
    return f"the gateway saw {_seen(verdict)}{gone}; {_outcome(verdict)}"


def kept(verdicts: Sequence[DemoResult]) -> bool:
    """Return whether every promise was kept."""
    return all(verdict.promised for verdict in verdicts)


def _row(verdict: DemoResult) -> tuple[str, ...]:
    gone = "-" if verdict.unlisted is None else f"{verdict.unlisted:.3f} s"
    return verdict.fault, _seen(verdict), gone, _outcome(verdict)


def _seen(verdict: DemoResult) -> str:
    return ", ".join(verdict.saw) or "nothing"


def _outcome(verdict: DemoResult) -> str:
    return f"{verdict.until} after {verdict.took:.3f} s"
