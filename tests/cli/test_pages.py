"""The pages have every command, and every option of each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aioregistry._cli import _parser
from aioregistry._cli.completion import commands_of

DOCS = Path(__file__).parents[2] / "docs"
COMMANDS = {name: command for name, command in commands_of(_parser()).items() if name}
# The page of a command, where docs/cli.md only leads there.
PAGES = {"register": "sidecar.md", "export": "exports.md", "doctor": "doctor.md", "console": "console.md"}
OF_ALL = {"--help"}


def lacking(name: str, text: str) -> list[str]:
    """The options of a command that are not in a *text*."""
    flags = {option.flags[-1] for option in COMMANDS[name].options} - OF_ALL
    return sorted(flag for flag in flags if not re.search(rf"{flag}(?![\w-])", text))


def test_every_command_is_in_the_table() -> None:
    (table,) = re.findall(
        r"^\| command \| does \|\n\| --- \| --- \|\n((?:\|.*\n)+)", (DOCS / "cli.md").read_text("utf-8"), re.MULTILINE
    )
    assert [name for name in COMMANDS if not re.search(rf"`{name}[ `]", table)] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_on_a_page(name: str) -> None:
    text = "".join((DOCS / page).read_text("utf-8") for page in {"cli.md", PAGES.get(name, "cli.md")})
    assert lacking(name, text) == []


def test_an_option_that_is_missing_is_found() -> None:
    assert "--sort" in lacking("list", "give `--sort-by`, or `--where`")
    assert "--where" not in lacking("list", "give `--sort-by`, or `--where`")
