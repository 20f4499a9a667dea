"""The `aioregistry` command.

Nothing but argparse is imported before the arguments are read, so that `--help` and a mistyped option are answered in
the time that Python itself takes.

Exit codes: 0 done, 1 failed (one line on stderr says what to do), 2 usage, 3 displaced.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Coroutine, Sequence
from typing import Any, NoReturn, TypeAlias

from .. import __version__
from .console_options import add_console
from .doctor_options import add_doctor
from .options import LOGGING, PLACE, WRITING, add_shared
from .streams import open_closed_streams

__all__ = ["main"]

MAX_PORT = 65535


class _Parser(argparse.ArgumentParser):
    """Reports a usage error on one line without control characters: it repeats words of the caller's."""

    def error(self, message: str) -> NoReturn:
        """End with the usage and *message*, exit code 2."""
        from .._words import printable

        super().error(printable(message))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line *argv* (without the program's name; None: this process's) and return the exit code."""
    open_closed_streams()
    own, program = _parted(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    arguments = parser.parse_args(own)
    from .completion import flags_of
    from .process import run

    arguments.flags = flags_of(parser, arguments.subcommand)
    if program is None:
        return run(arguments.command, arguments)
    if not program:
        parser.error("register: after -- comes a command and its arguments")
    from .sidecar import sidecar

    arguments.program = program
    if os.getpid() != 1:
        return run(sidecar, arguments, heeds_signals=True)
    from .init import as_init

    return as_init(lambda: run(sidecar, arguments, heeds_signals=True))


def _parted(argv: Sequence[str]) -> tuple[Sequence[str], list[str] | None]:
    """Return the command line, and the command to run: argparse would take the options of both for ours."""
    if "--" not in argv or argv[0] != "register":
        return argv, None
    end = argv.index("--")
    return argv[:end], list(argv[end + 1 :])


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="aioregistry",
        description="A service registry on Apache ZooKeeper: register, discover and inspect services.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", dest="subcommand", required=True, metavar="COMMAND")
    _add_register(commands)
    _add_watch(commands)
    _add_list(commands)
    _add_export(commands)
    _add_drain(commands)
    _add_enable(commands)
    _add_maintenance(commands)
    _add_demo(commands)
    _add_server(commands)
    add_doctor(commands).set_defaults(command=_doctor)
    _add_top(commands)
    add_console(commands).set_defaults(command=_console)
    _add_completion(commands, parser)
    return parser


Running: TypeAlias = Coroutine[Any, Any, int]
Commands: TypeAlias = Any  # argparse's type of what add_subparsers() returns is private


def _add_register(commands: Commands) -> None:
    parser = commands.add_parser(
        "register",
        help="keep an instance registered until interrupted",
        description="Register an instance and keep it registered until SIGINT, SIGTERM, SIGHUP or SIGQUIT, then "
        "withdraw it. With -- COMMAND: run it, register it while it lives and its checks pass, pass signals on, and "
        "exit as it did.",
        usage="%(prog)s NAME --port PORT [options] [-- COMMAND ...]",
    )
    parser.add_argument("name", metavar="NAME", help="the service")
    parser.add_argument(
        "--id",
        help="the instance within the service (default: ADDRESS:PORT; without a port ADDRESS# and a random number)",
    )
    parser.add_argument(
        "--address",
        help="host name or IP address at which consumers reach it (default: $AIOREGISTRY_ADDRESS, $POD_IP, else that "
        "of the interface to ZooKeeper)",
    )
    parser.add_argument("--port", type=int, help="1 to 65535; leave it out for a worker that takes no connections")
    parser.add_argument("--payload", type=_json, metavar="JSON", help="more that consumers should know about it")
    parser.add_argument(
        "--on-displaced",
        choices=["standby", "stop"],
        default="standby",
        help="when a newer claimant takes the id: wait until it goes and be listed again, or stop with exit code 3 "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--connect-timeout",
        metavar="SECONDS",
        type=float,
        help="end with exit code 1 if ZooKeeper is not reached in this time (default: wait as long as it takes)",
    )
    _add_checks(parser)
    parser.add_argument(
        "--drain",
        metavar="SECONDS",
        type=float,
        help="with a command: how long consumers are asked not to send new requests before SIGTERM, SIGINT or SIGQUIT "
        "is passed on (default: 2)",
    )
    add_shared(parser, WRITING)
    parser.set_defaults(command=_register)


def _add_checks(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("checks: while one fails, the instance is listed as not enabled")
    for name, metavar, what in (
        ("http", "URL", "a GET is answered with 2xx"),
        ("tcp", "HOST:PORT", "a connection is accepted"),
        ("command", "CMD", "it ends with exit code 0; it is run without a shell"),
    ):
        group.add_argument(
            f"--check-{name}", metavar=metavar, action="append", default=[], help=f"passes when {what}; may be repeated"
        )
    group.add_argument("--check-interval", metavar="SECONDS", type=float, help="from start to start (default: 5)")
    group.add_argument("--check-timeout", metavar="SECONDS", type=float, help="for one call (default: 1)")
    group.add_argument("--check-rise", metavar="N", type=int, help="successes in a row to pass (default: 1)")
    group.add_argument("--check-fall", metavar="N", type=int, help="failures in a row to fail (default: 3)")
    group.add_argument(
        "--check-initial",
        choices=["failing", "passing"],
        help="the result of a check until its first one (default: failing)",
    )


def _add_watch(commands: Commands) -> None:
    parser = commands.add_parser(
        "watch",
        help="follow a service, a line per change",
        description="Show the instances, then a line per change, until interrupted. --sort orders the instances, "
        "changes are in the order in which they happen.",
    )
    parser.add_argument("name", metavar="NAME", help="the service")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--guard",
        action="store_true",
        help="show the service as consumers see it: they hold back unexplained removals of several instances "
        "(default: as ZooKeeper lists it)",
    )
    _add_selection(parser)
    add_shared(parser)
    parser.set_defaults(command=_watch)


def _add_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--where",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="only instances whose payload, or whose column, has this value: zone=eu-1, metadata.zone=eu-1, "
        "state=invalid; KEY!=VALUE for any other; may be repeated",
    )
    parser.add_argument("--sort", metavar="KEY", help="by a column or a field of the payload (default: by id)")
    parser.add_argument("--reverse", action="store_true", help="in the reverse order")


def _add_list(commands: Commands) -> None:
    parser = commands.add_parser(
        "list",
        help="list the services, or one service's instances",
        description="List the services, or the instances of NAME with owner session, age and validity.",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="the service (default: list the services)")
    parser.add_argument("--json", action="store_true", help="an array of JSON objects")
    _add_selection(parser)
    parser.add_argument("--watch", action="store_true", help="again after each change, until interrupted")
    add_shared(parser)
    parser.set_defaults(command=_list)


def _add_export(commands: Commands) -> None:
    parser = commands.add_parser(
        "export",
        help="keep a file for Prometheus, Envoy, HAProxy or nginx up to date",
        description="Write the enabled instances to a file for another program, after each change, until interrupted.",
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help="the services (default: all)")
    parser.add_argument(
        "--format",
        choices=["prometheus", "envoy", "haproxy", "nginx", "json"],
        required=True,
        help="the program that reads it",
    )
    parser.add_argument("--out", metavar="FILE", required=True, help="the file, which is replaced by a rename")
    parser.add_argument("--exec", metavar="CMD", help="run after each write, without a shell: nginx -s reload")
    parser.add_argument(
        "--minimum",
        metavar="N",
        type=int,
        default=0,
        help="if a service has fewer instances than this, keep its former ones (default: %(default)s)",
    )
    parser.add_argument(
        "--wait",
        metavar="MIN:MAX",
        default="1:10",
        help="seconds: write when nothing has changed for MIN, and MAX after a change at the latest (default: 1:10)",
    )
    add_shared(parser)
    parser.set_defaults(command=_export)


def _add_drain(commands: Commands) -> None:
    parser = commands.add_parser(
        "drain",
        help="take an instance into maintenance: it stays listed but is not picked; or give it fewer calls",
        description="Take an instance into maintenance, even if another process owns it: it stays listed, but is not "
        "picked until the time is over or it is enabled again. With --weight it is picked less often instead.",
    )
    parser.add_argument("name", metavar="NAME", help="the service")
    parser.add_argument("id", metavar="ID", help="the instance")
    parser.add_argument("--reason", required=True, help="the reason, shown to other operators")
    parser.add_argument(
        "--weight",
        metavar="PART",
        help="from 0 to 1: the part of its share of calls that it gets, instead of maintenance",
    )
    parser.add_argument(
        "--for",
        dest="duration",
        metavar="DURATION",
        default="1h",
        help="90s, 15m, 1h, 2d, or ever (default: %(default)s)",
    )
    parser.add_argument(
        "--any-incarnation",
        action="store_true",
        help="also apply to a process that registers this id later (default: not)",
    )
    add_shared(parser, WRITING)
    parser.set_defaults(command=_drain)


def _add_enable(commands: Commands) -> None:
    parser = commands.add_parser(
        "enable",
        help="end the maintenance of an instance, or its weight",
        description="Undo drain. The owner of the instance, and its checks, may still hold it back.",
    )
    parser.add_argument("name", metavar="NAME", help="the service")
    parser.add_argument("id", metavar="ID", help="the instance")
    add_shared(parser)
    parser.set_defaults(command=_enable)


def _add_maintenance(commands: Commands) -> None:
    parser = commands.add_parser(
        "maintenance",
        help="list the instances in maintenance or with a weight, by whom, why and until when",
        description="List the instances that operators hold back, of NAME or of all services.",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="the service (default: all)")
    parser.add_argument("--json", action="store_true", help="an array of JSON objects")
    add_shared(parser)
    parser.set_defaults(command=_maintenance)


def _add_demo(commands: Commands) -> None:
    parser = commands.add_parser(
        "demo",
        help="run chat servers and a gateway, and cause one fault after another, in under a minute",
        description="Start chat servers and a gateway that routes users to them, cause one fault after another, "
        "and report how the gateway saw it. Starts a server of its own, in memory; if you name a "
        "ZooKeeper, it uses a chroot of its own there and removes it at the end.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    add_shared(parser, (*PLACE, *LOGGING), zookeeper=None, session_timeout=4.0)
    parser.set_defaults(command=_demo)


def _add_server(commands: Commands) -> None:
    parser = commands.add_parser(
        "server",
        help="run an in-memory ZooKeeper server for development",
        description="Serve ZooKeeper's protocol from memory until SIGINT or SIGTERM, for development and tests. Prints "
        "its address when it listens. Nothing is kept when it ends.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=2181, help="0 for any free one (default: %(default)s)")
    parser.add_argument(
        "--version",
        choices=["3.5", "3.8", "3.9", "3.9.5"],
        default="3.8",
        help="the release to behave like (%(default)s)",
    )
    add_shared(parser, LOGGING)
    parser.set_defaults(command=_server)


def _add_top(commands: Commands) -> None:
    parser = commands.add_parser(
        "top",
        help="show all services at a glance, live, in this terminal",
        description="Show the services and their instances in this terminal, live, until q. Needs the extra top.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="a service (default: all)")
    add_shared(parser)
    parser.set_defaults(command=_top)


def _add_completion(commands: Commands, whole: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "completion",
        help="print a script by which a shell completes this command",
        description="Print a script for a shell. bash and zsh: source <(aioregistry completion bash); fish: "
        "aioregistry completion fish | source",
    )
    parser.add_argument("shell", choices=["bash", "zsh", "fish"], help="the shell")
    parser.set_defaults(command=_completion, parser=whole)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number within 0..{MAX_PORT}")
    return int(text)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON from character {error.pos + 1} on") from None
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} has a number that is too long") from None
    except RecursionError:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is nested too deep") from None


def _register(arguments: argparse.Namespace) -> Running:
    from .register import register

    return register(arguments)


def _watch(arguments: argparse.Namespace) -> Running:
    from .watch import watch

    return watch(arguments)


def _list(arguments: argparse.Namespace) -> Running:
    from .list_ import list_

    return list_(arguments)


def _export(arguments: argparse.Namespace) -> Running:
    from .export import export

    return export(arguments)


def _drain(arguments: argparse.Namespace) -> Running:
    from .maintenance import drain

    return drain(arguments)


def _enable(arguments: argparse.Namespace) -> Running:
    from .maintenance import enable

    return enable(arguments)


def _maintenance(arguments: argparse.Namespace) -> Running:
    from .maintenance import maintenance

    return maintenance(arguments)


def _demo(arguments: argparse.Namespace) -> Running:
    from .demo import demo

    return demo(arguments)


async def _top(arguments: argparse.Namespace) -> int:
    # When it runs: its message about a missing extra is an error of the command.
    from .top import top

    return await top(arguments)


async def _console(arguments: argparse.Namespace) -> int:
    from .console import console

    return await console(arguments)


def _doctor(arguments: argparse.Namespace) -> Running:
    from .doctor import doctor

    return doctor(arguments)


def _completion(arguments: argparse.Namespace) -> Running:
    from .completion import completion

    return completion(arguments)


def _server(arguments: argparse.Namespace) -> Running:
    from .server import server

    return server(arguments)
