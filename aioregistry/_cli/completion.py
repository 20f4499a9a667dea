"""`aioregistry completion`: what bash, zsh and fish complete, made from the parser itself."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from .process import DONE

__all__ = ["SHELLS", "Choice", "Command", "commands_of", "completion", "flags_of"]

PROGRAM: Final = "aioregistry"


class Choice(NamedTuple):
    """An option of a command, or of all.

    Args:
        flags: ``("-v", "--verbose")``.
        help: in a few words.
        value: how its value is called; None for an option without a value.
        values: all that it may be; empty if it may be anything.
    """

    flags: tuple[str, ...]
    help: str
    value: str | None
    values: tuple[str, ...]

    @property
    def is_file(self) -> bool:
        """Whether its value is the path of a file."""
        return self.value == "FILE"


class Command(NamedTuple):
    """A command: its help, its options, and the values of what follows it, where those are few."""

    help: str
    options: tuple[Choice, ...]
    values: tuple[str, ...]


async def completion(arguments: argparse.Namespace) -> int:
    """Print the script of a shell."""
    sys.stdout.write(SHELLS[arguments.shell](commands_of(arguments.parser)))
    sys.stdout.flush()
    return DONE


def commands_of(parser: argparse.ArgumentParser) -> dict[str, Command]:
    """Return the commands of *parser* by name, in its order; under ``""`` what stands before a command."""
    commands = {"": _command("", parser)}
    for action in parser._actions:  # argparse has no public way to its arguments
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            commands |= {name: _command(helps[name], each) for name, each in action.choices.items()}
    return commands


def flags_of(parser: argparse.ArgumentParser, command: str) -> dict[str, str]:
    """Return the options of a command by the names that their values have in code: ``--tls-ca`` by ``tls_ca``."""
    flags = [choice.flags[-1] for choice in commands_of(parser)[command].options]
    return {flag.lstrip("-").replace("-", "_"): flag for flag in flags}


def _command(help: str, parser: argparse.ArgumentParser) -> Command:
    options = tuple(_choice(action) for action in parser._actions if action.option_strings)
    values: tuple[str, ...] = ()
    for action in parser._actions:
        if not action.option_strings and not isinstance(action, argparse._SubParsersAction):
            values += tuple(action.choices or ())
    return Command(help, options, values)


def _choice(action: argparse.Action) -> Choice:
    takes = action.nargs != 0
    name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    # The first clause is what fits beside a flag; argparse fills the default in where it prints its own help.
    first = (action.help or "").split(";")[0].split("(")[0].strip()
    return Choice(tuple(action.option_strings), first, name if takes else None, tuple(map(str, action.choices or ())))


# ---------------------------------------------------------------- the shells


def _bash(commands: Mapping[str, Command]) -> str:
    return "\n".join(
        [
            f"# bash completion of {PROGRAM}: source it, or keep it as the file {PROGRAM} in bash-completion's folder",
            f"_{PROGRAM}() {{",
            '    local word="${COMP_WORDS[COMP_CWD]}" before="${COMP_WORDS[COMP_CWD-1]}" command="" index words=""',
            "    for ((index = 1; index < COMP_CWD; index++)); do",
            '        [[ "${COMP_WORDS[index]}" == -* ]] || { command="${COMP_WORDS[index]}"; break; }',
            "    done",
            '    case "$command $before" in',
            *_bash_values(commands),
            "    esac",
            '    case "$command" in',
            *(f"        {shlex.quote(name)}) words={shlex.quote(_words(commands, name))} ;;" for name in commands),
            "    esac",
            '    COMPREPLY=($(compgen -W "$words" -- "$word"))',
            "}",
            f"complete -o default -F _{PROGRAM} {PROGRAM}",
            "",
        ]
    )


def _bash_values(commands: Mapping[str, Command]) -> Iterator[str]:
    for name, command in commands.items():
        for option in command.options:
            if option.value is None:
                continue
            pattern = "|".join(shlex.quote(f"{name} {flag}") for flag in option.flags)
            # Without an answer of ours bash completes paths.
            answer = f'COMPREPLY=($(compgen -W {shlex.quote(" ".join(option.values))} -- "$word"))'
            yield f"        {pattern}) {answer if option.values else 'COMPREPLY=()'}; return ;;"


def _words(commands: Mapping[str, Command], name: str) -> str:
    flags = [flag for option in commands[name].options for flag in option.flags]
    others = commands[name].values if name else [each for each in commands if each]
    return " ".join([*others, *flags])


def _zsh(commands: Mapping[str, Command]) -> str:
    named = [f"{name}:{command.help}" for name, command in commands.items() if name]
    return "\n".join(
        [
            f"#compdef {PROGRAM}",
            f"_{PROGRAM}() {{",
            "    if (( CURRENT == 2 )); then",
            f"        local -a commands=({' '.join(map(shlex.quote, named))})",
            "        _describe -t commands command commands",
            f"        _arguments {_zsh_arguments(commands[''])}",
            "        return",
            "    fi",
            "    local name=$words[2]",
            "    shift words; (( CURRENT-- ))",
            "    case $name in",
            *(f"        {name}) _arguments {_zsh_arguments(each)} ;;" for name, each in commands.items() if name),
            "    esac",
            "}",
            # Found on fpath it is called, sourced it is registered.
            f'if [[ "$funcstack[1]" == _{PROGRAM} ]]; then _{PROGRAM} "$@"; else compdef _{PROGRAM} {PROGRAM}; fi',
            "",
        ]
    )


def _zsh_arguments(command: Command) -> str:
    specs = [_zsh_option(flag, option) for option in command.options for flag in option.flags]
    positional = f"*: :({' '.join(command.values)})" if command.values else "*: :_default"
    return " ".join(map(shlex.quote, [*specs, positional]))


def _zsh_option(flag: str, option: Choice) -> str:
    text = "".join(f"\\{character}" if character in "[]:\\" else character for character in option.help)
    if option.value is None:
        return f"{flag}[{text}]"
    values = f"({' '.join(option.values)})" if option.values else "_files" if option.is_file else ""
    return f"{flag}[{text}]:{option.value.replace(':', ' ')}:{values}"


def _fish(commands: Mapping[str, Command]) -> str:
    lines = [f"complete -c {PROGRAM} -f"]
    for name, command in commands.items():
        where = f"__fish_seen_subcommand_from {name}" if name else "__fish_use_subcommand"
        begin = f"complete -c {PROGRAM} -n {_fish_quoted(where)}"
        if name:
            help = _fish_quoted(command.help)
            lines.append(f"complete -c {PROGRAM} -n __fish_use_subcommand -a {name} -d {help}")
        if command.values:
            lines.append(f"{begin} -a {_fish_quoted(' '.join(command.values))}")
        lines += [f"{begin} {_fish_option(option)}" for option in command.options]
    return "".join(f"{line}\n" for line in lines)


def _fish_option(option: Choice) -> str:
    parts = [f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags]
    if option.value is not None:
        parts.append("-r")
    if option.is_file:
        parts.append("-F")
    if option.values:
        parts.append(f"-a {_fish_quoted(' '.join(option.values))}")
    return " ".join([*parts, f"-d {_fish_quoted(option.help)}"])


def _fish_quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


SHELLS: Final[Mapping[str, Callable[[Mapping[str, Command]], str]]] = MappingProxyType(
    {"bash": _bash, "zsh": _zsh, "fish": _fish}
)
