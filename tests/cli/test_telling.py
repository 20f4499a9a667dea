from __future__ import annotations

import io

import pytest

from aioregistry._cli.stage import DemoResult, Happening
from aioregistry._cli.telling import TextTeller, wants_colour

LIVE = Happening(3.25, "chat-1", "live", "chat-1", "status LIVE")
KEPT = DemoResult("connection cut", (), None, 0.0521, "chat-1 was live again", True)
BROKEN = DemoResult("session expired", ("removed", "added"), 1.5, 0.25, "listed again", False)
END = Happening(20.4, "demo", "ended", None, "curtain")


def test_a_line() -> None:
    assert TextTeller(in_colour=False).happening(LIVE) == "  3.25 s  chat-1   status LIVE"
    assert TextTeller(in_colour=True).happening(LIVE) == "  3.25 s  \x1b[32mchat-1   status LIVE\x1b[0m"


def test_the_summary() -> None:
    assert TextTeller(in_colour=False).summary([KEPT, BROKEN], END).splitlines() == [
        "",
        "fault            the gateway saw  gone for  and",
        "connection cut   nothing          -         chat-1 was live again after 0.052 s",
        "session expired  removed, added   1.500 s   listed again after 0.250 s",
        "",
        "2 faults in 20 s. Not everything went as promised.",
    ]
    assert (
        TextTeller(in_colour=False)
        .summary([KEPT], END)
        .endswith("Live servers were listed; servers that left were not.")
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("file", "environment", "wanted"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_colour_is_for_terminals_whose_user_wants_it(
    file: io.StringIO, environment: dict[str, str], wanted: bool
) -> None:
    assert wants_colour(file, environment) is wanted
