from __future__ import annotations

import shlex

import pytest

from aioregistry._cli import _parser
from aioregistry._cli.completion import SHELLS, commands_of
from tests.cli.command import outcome
from tests.support.processes import outcome_of

COMMANDS = commands_of(_parser())


def test_the_parser_is_known_whole() -> None:
    assert {"", "register", "list", "watch", "completion"} <= set(COMMANDS)
    options = {flag: option for option in COMMANDS["list"].options for flag in option.flags}
    assert options["--json"].value is None
    assert options["--config"].is_file
    assert not options["--zookeeper"].is_file
    assert COMMANDS["completion"].values == ("bash", "zsh", "fish")
    (displaced,) = [each for each in COMMANDS["register"].options if "--on-displaced" in each.flags]
    assert displaced.values == ("standby", "stop")


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_and_option_is_in_every_script(shell: str) -> None:
    script = SHELLS[shell](COMMANDS)
    for name, command in COMMANDS.items():
        assert name in script
        for option in command.options:
            long = option.flags[-1]
            assert (f"-l {long[2:]}" if shell == "fish" and long.startswith("--") else long) in script


@pytest.mark.parametrize("shell", SHELLS)
async def test_the_command_prints_it(shell: str) -> None:
    assert await outcome("completion", shell) == (0, SHELLS[shell](COMMANDS), "")


async def run(*arguments: str) -> str:
    code, stdout, stderr = await outcome_of(*arguments, seconds=20)
    assert (code, stderr) == (0, b"")
    return stdout.decode()


# The words of the line, and the possible ends of the last one.
LINES = [
    (["l"], ["list"]),
    (["reg"], ["register"]),
    (["list", "--wa"], ["--watch"]),
    (["list", "--whe"], ["--where"]),
    (["watch", "chat", "--whe"], ["--where"]),
    (["list", "chat", "--jso"], ["--json"]),
    (["register", "chat", "--on-displaced", "st"], ["standby", "stop"]),
    (["completion", "z"], ["zsh"]),
]


@pytest.mark.parametrize(("words", "expected"), LINES, ids=str)
async def test_bash(words: list[str], expected: list[str]) -> None:
    line = " ".join(map(shlex.quote, ["aioregistry", *words]))
    call = f'COMP_WORDS=({line}); COMP_CWD={len(words)}; _aioregistry; echo "${{COMPREPLY[@]}}"'
    assert (await run("bash", "-c", f"{SHELLS['bash'](COMMANDS)}\n{call}")).split() == expected


@pytest.mark.operations
@pytest.mark.parametrize(("words", "expected"), LINES, ids=str)
async def test_fish(words: list[str], expected: list[str]) -> None:
    program = f"{SHELLS['fish'](COMMANDS)}\ncomplete -C 'aioregistry {' '.join(words)}'"
    found = [line.split("\t")[0] for line in (await run("fish", "--no-config", "-c", program)).splitlines()]
    assert sorted(found) == expected


ZSH = """
compdef() {}
_describe() { print -rl -- "${(@P)4}" }
_arguments() { print -rl -- "$@" }
"""
"""zsh offers all that its own functions are given."""


@pytest.mark.operations
@pytest.mark.parametrize(("words", "expected"), LINES, ids=str)
async def test_zsh(words: list[str], expected: list[str]) -> None:
    line = " ".join(["aioregistry", *words])
    call = f"words=({line}); CURRENT={len(words) + 1}; _aioregistry"
    offered = await run("zsh", "-f", "-c", f"{ZSH}{SHELLS['zsh'](COMMANDS)}\n{call}")
    assert all(each in offered for each in expected)
