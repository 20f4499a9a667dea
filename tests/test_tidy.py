"""The house is tidy: imports follow the table of rooms, pure modules are pure, names and exports tell the truth.

Every check is a function from sources to problems, and is also given a source that it must find fault with.
"""

from __future__ import annotations

import ast
import functools
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Container, Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "aioregistry"

# ---------------------------------------------------------------- the tables

# Room → what it may import beside the standard library and itself. "*" stands for every room above it in this table.
ROOMS: dict[str, set[str]] = {
    # Before everything: whoever calls code of others does so through it.
    "foreign": set(),
    # How all rooms wait: news, timers, tasks with an owner, threads.
    "concurrency": set(),
    "errors": {"foreign"},
    # An object whose constructor has refused an argument is shown in one way.
    "reprs": set(),
    # One message for all extras that are missing.
    "extras": set(),
    # Names that no traceback shows.
    "secrets": set(),
    # Files that other users of the machine may have had a hand in.
    "files": set(),
    # Flags, seconds and choices are checked in one way.
    "arguments": {"errors"},
    "reasons": {"foreign", "errors"},
    "runtime": {"errors", "concurrency"},
    # Additions to the rooms first drawn (docs/internals.md): states, statuses, snapshots and changes share one stream,
    # the public context managers open and close in one way, and names and paths are checked by one rule.
    "streams": {"errors", "runtime"},
    "handles": {"errors", "runtime", "anyio"},
    # All rooms log repetitions in one way.
    "incidents": set(),
    # Numbers of peers are bounded in one place.
    "bounds": set(),
    "incident_log": {"concurrency", "incidents", "runtime"},
    "paths": {"errors"},
    # The parts of an instance and its document: the grammar of addresses, JSON that cannot be changed, the classes of
    # Java's payloads, payloads of callers' types. pydantic is imported where such a type of the caller's is.
    "addresses": {"errors"},
    "frozen": set(),
    "java": {"errors", "arguments"},
    "payload": {"foreign", "errors", "frozen", "msgspec", "pydantic"},
    "model": {"reprs", "foreign", "errors", "arguments", "paths", "addresses", "frozen", "java", "payload", "msgspec"},
    "document": {"errors", "frozen", "java", "payload", "model", "msgspec"},
    # Spans of registrations and views, where the program has imported OpenTelemetry itself.
    "spans": {"foreign", "incident_log", "opentelemetry"},
    # Written by operators, read by views.
    "overrides": {"arguments", "bounds", "model"},
    # Both that find an override over ask for the server's time in the same way.
    "override_clock": {"protocol"},
    # Written by registrations, believed by views.
    "markers": {"protocol"},
    # aiozk has no types: a stub says those of the classes that ours derive from.
    "aiozk_types": {"aiozk"},
    "protocol": {"errors", "secrets", "aiozk_types", "aiozk.protocol"},
    # Raising what its messages and callers raise needs `errors`, offering states needs `streams`, and it sends aiozk's
    # own requests too: those of the verbs and recipes of `registry.client`.
    "session": {
        *("bounds", "foreign", "concurrency", "errors", "reasons", "streams", "incident_log", "paths", "protocol"),
        *("addresses", "runtime", "secrets"),
        *("anyio", "aiozk.protocol"),
    },
    # A check dials by addresses and look-ups as the session does, and says why it failed in the same words.
    "health": {
        "reprs",
        "concurrency",
        "foreign",
        "errors",
        "arguments",
        "reasons",
        "runtime",
        "incident_log",
        "addresses",
    },
    # Both speak to the session in `protocol`'s messages, and offer handles and streams.
    "registration": {
        *(
            "foreign",
            "concurrency",
            "errors",
            "arguments",
            "addresses",
            "streams",
            "handles",
            "incident_log",
            "markers",
            "paths",
            "protocol",
            "session",
            "spans",
            "health",
            "model",
            "document",
        ),
        "anyio",
    },
    # Raises InvalidArgument and NoInstances. A field of JSON is read without the guard around code of others.
    "balancing": {"reprs", "foreign", "errors", "arguments", "addresses", "frozen", "model"},
    # Words about instances, for commands and pages; a balancer judges which may be called.
    "words": {"foreign", "model", "document", "balancing"},
    # A view makes a balancer: a picker fed by its changes. A kept snapshot is JSON.
    "discovery": {
        "reprs",
        "bounds",
        "overrides",
        "override_clock",
        "foreign",
        "concurrency",
        "errors",
        "files",
        "arguments",
        "reasons",
        "streams",
        "handles",
        "incident_log",
        "markers",
        "paths",
        "protocol",
        "session",
        "spans",
        "model",
        "document",
        "balancing",
        "anyio",
        "msgspec",
    },
    # Settings of command line, environment and file; the connect string is parsed in one way, that of `session`.
    "settings": {"errors", "arguments", "paths", "secrets", "session"},
    # The events of on_event, with types.
    "events": set(),
    # A formatter for records; of the library it knows nothing.
    "logs": set(),
    "client": {"*", "aiozk"},
    "maintenance": {"*"},
    "parameters": {"*", "aiozk"},  # whose ACLs it takes
    "registry": {"*", "anyio"},
    # Above the registry: the same on a loop of its own, and a face for programs without one.
    "options": {"*", "aiozk"},
    "threads": {"*", "anyio"},
    "connect": {"*", "aiozk"},
    "blocking": {"*"},
    "": {"*"},
    # Listens to events and reads what handles show; nothing below knows of it. Its extras are imported where asked for.
    "metrics": {"*", "prometheus_client", "opentelemetry"},
    "server": {"protocol", "errors", "reasons"},
    # Public names: those of `aioregistry` itself, of `errors` and of `model`.
    # An address is parsed in one way, that of `session`.
    "testing": {"server", "errors", "session", "model", "", "aiozk", "pytest", "pytest_asyncio"},
    # Text made of instances, for programs that read no ZooKeeper.
    "exports": {"addresses", "model", "document", "balancing"},
    # Their frameworks; anyio for deadlines and shields; multidict and yarl are what aiohttp's headers and URLs are.
    "integrations": {
        *("concurrency", "events", "foreign", "errors", "arguments", "incident_log", "addresses", "health", "model"),
        *("extras", "parameters", "paths", "secrets", "balancing", "exports"),
        *("session", ""),  # a connect string is parsed in one way
        *("aiohttp", "multidict", "yarl", "anyio", "fastapi", "httpx", "httpx2", "starlette", "uvicorn"),
    },
    # Reads a live ensemble: it connects as users do, and asks that session for ACLs and Stats too.
    "doctor": {
        "registry",
        "errors",
        "reasons",
        "addresses",
        "overrides",
        "registration",  # what nobody can connect to is one rule
        "protocol",
        "session",
        "model",
        "document",
        "",
    },
    # A reader of public names, for browsers.
    "console": {
        "errors",
        "files",
        "incident_log",
        "reasons",
        "words",
        "balancing",
        "extras",
        "",
        *("argon2", "jinja2", "starlette", "uvicorn"),
    },
    # The demo's faults are those of a proxy for tests, and its gateway picks by a ring.
    "cli": {
        "session",  # an address is parsed in one way
        "secrets",  # the contents of files that have some
        "arguments",
        "health",  # a line that names a program is split in one way
        *("textual", "rich"),  # `top`
        "aiozk",  # whose errors the client raises with which the demo deletes a node
        "balancing",
        "testing",
        "doctor",
        "console",
        "server",
        "errors",
        "extras",
        "files",
        "reasons",
        "settings",
        "logs",
        "addresses",
        "paths",
        "overrides",
        "words",
        "model",
        "document",
        "registration",
        "",
        "concurrency",
        "exports",
        "integrations",  # how an address is found where none is given
    },  # what is refused is refused before any wait
    "__main__": {"cli"},
}

# Modules that get time, randomness and news as arguments; `balancing` and `settings` as a whole.
PURE_MODULES = {
    *("selection", "admin_words", "checks", "findings", "picture", "places", "slips", "words"),
    *(f"{kind}_checks" for kind in ("clock", "instance", "override", "root", "server", "session")),
    *("access", "passwords", "rows", "states", "timeline"),
    *("attempts", "bounds", "incidents", "isolation", "markers", "outage", "states"),
    *("machine", "vocabulary", "decisions"),
    *("plan", "reach", "lifecycle", "pauses", "table", "durations", "votes", "mirror", "guard", "kept"),
    *("core", "stages", "conversion", "recall", "suspects", "overriding"),
    *("alarms", "guard_options", "nodes", "pace", "subsets"),
    *("tree", "nodes", "operations", "acl", "sessions", "profiles"),
}
PURE_ROOMS = {"balancing", "settings", "exports"}
IMPURE = {"asyncio", "anyio", "logging", "random", "secrets", "selectors", "socket", "ssl", "threading", "time"}
IMPURE_ROOMS = {"concurrency", "runtime", "streams", "handles"}

# Nobody outside the package imports these; their modules may do without `__all__`, but where they have one it is true.
INTERNAL_ROOMS = {"protocol", "session", "server", "cli", "doctor", "__main__"}

# Modules that users import by name, an extra each; and the rooms and modules that users import from. All others
# say by an underscore that they are internal.
INTEGRATIONS = [
    f"{PACKAGE}.integrations.{name}" for name in ("aiohttp", "fastapi", "httpx", "httpx2", "starlette", "uvicorn")
]
PUBLIC_MODULES = {
    PACKAGE,
    f"{PACKAGE}.__main__",
    *(f"{PACKAGE}.{room}" for room in ("balancing", "blocking", "integrations", "server", "testing")),
    *INTEGRATIONS,
    f"{PACKAGE}.integrations.exports",
    f"{PACKAGE}.integrations.membership",
    f"{PACKAGE}.events",
    f"{PACKAGE}.metrics",
    f"{PACKAGE}.logs",
    f"{PACKAGE}.testing.plugin",
}

# A module's private names are its own. Of other packages these are used, because they offer no other way.
PRIVATE_ELSEWHERE = {
    f"{PACKAGE}._cli.completion": {"_actions", "_choices_actions", "_SubParsersAction"},  # argparse's, of a parser
    # A pool for each name that TLS proves is made of the package's own transport, of which it offers no copy.
    f"{PACKAGE}.integrations._lanes": {"_pool", "_connections", "_requests"},
    # aiohttp's: whether a connection is free, whether the request's time is over, and a redirect led back.
    f"{PACKAGE}.integrations._aiohttp_client": {"_available_connections", "_timer", "_headers", "_cache"},
}
OF_NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}  # public, as collections.namedtuple documents them

# How often the tests take private names of others: for the bound of a memory that nobody sees from outside, to plant a
# defect, or of packages that offer no other way. A new test asks for what is public; the number only becomes less.
REACHES = 136

# More lines than a reader wants to keep in mind at once.
MOST_LINES = 450
# A longer file says why it is not two, on a line of its own near its top.
WHY_LONG = re.compile(r"^# Longer than [0-9]+ lines: .{20,}\.$", re.MULTILINE)

FORBIDDEN_LAST_WORDS = {"manager", "helper", "helpers", "util", "utils", "impl", "base"}
# Lines that can repeat go through an IncidentLog: one line for each incident, then counts. Function → why it writes to
# its logger itself, at INFO or above.
WRITTEN_ITSELF = {
    "_console/app.py _drain": "each act of a person is on record",
    "_console/app.py _enable": "each act of a person is on record",
    "_console/connections.py add": "once until half of the connections have ended",
    "_console/following.py _follow_one": "a defect, with its traceback",
    "_console/gate.py __call__": "a defect, with its traceback",
    "_console/gate.py log_in": "each login of a person is on record",
    "_console/recorder.py _fail": "tries are ten seconds apart at least",
    "_console/recorder.py _try_again": "once for each line that recording is paused",
    "_discovery/fanout.py take": "the balancer ends with it",
    "_discovery/follower.py _died": "the follower ends with it",
    "_discovery/follower.py _show": "the consumer ends with it",
    "_discovery/keeper.py _failed": "once until the file is written again",
    "_discovery/keeper.py _set_aside": "once for each view, when it is opened",
    "_discovery/names.py _died": "the names end with it",
    "_discovery/overrides.py _run": "the task ends with it",
    "_discovery/telling.py _recalled": "once for each view, when it is opened",
    "_incident_log.py _report": "this is the IncidentLog",
    "_incident_log.py tell": "this is the IncidentLog",
    "_registration/marker_root.py _made": "once for each registry",
    "_registration/worker.py _on_done": "the registration ends with it",
    "_registry.py _tell_of_missing_chroot": "once for each registry",
    "_session/connection.py _resolve": "a defect, with its traceback",
    "_session/connection.py data_received": "a defect, with its traceback",
    "_session/incoming.py _doubt": "once for each registry",
    "_session/reports.py _tell": "an outage is told with pauses that double",
    "_session/reports.py outage_is_over": "once for each outage that was told",
    "_session/session.py _died": "the session ends with it",
    "_threads/loop.py _main": "the process ends with it",
    "integrations/_advertised.py _warn_of_loopback": "once for each term, at its beginning",
    "integrations/_tasks.py _noted": "once for each task, of which a term has a few",
    "integrations/_term.py _finish": "once for each term, at its end",
}
WRITES = {"info", "warning", "error", "critical", "exception", "log"}

UNFINISHED = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"]))
MACHINE_PATHS = re.compile("|".join([r"/home/[a-z]\w*/", *map(re.escape, (f"{ROOT}/", f"{Path.home()}/."))]))

Sources = dict[str, str]  # path inside the repository → text
Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


# ---------------------------------------------------------------- reading sources


def module_name(path: str) -> str:
    """`aioregistry/session/__init__.py` → `aioregistry._session`."""
    parts = PurePosixPath(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def plain(name: str) -> str:
    """A module's name as the tables say it: without the underscore that marks it as internal."""
    return name if name.startswith("__") else name.removeprefix("_")


def room_of(module: str) -> str:
    parts = module.split(".")
    return plain(parts[1]) if len(parts) > 1 else ""


def modules(sources: Sources) -> dict[str, ast.Module]:
    return {module_name(path): parsed(text) for path, text in sources.items()}


@functools.cache
def parsed(text: str) -> ast.Module:
    """The tree of a source; each is needed by many checks, none of which changes it."""
    return ast.parse(text)


def packages(sources: Sources) -> set[str]:
    return {module_name(path) for path in sources if path.endswith("__init__.py")}


def imports(tree: ast.Module, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Yield (line, absolute dotted name); `from a import b` yields `a.b`, which may be a module or a name in one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, module, is_package)
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    kept = parts[: len(parts) - node.level + is_package]
    return ".".join([*kept, *([node.module] if node.module else [])])


def target_module(name: str, known: Container[str]) -> str | None:
    """The module of ours that a dotted *name* means, if any."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name or None


# ---------------------------------------------------------------- the checks


def misplaced_imports(sources: Sources) -> Iterator[str]:
    trees, whole = modules(sources), packages(sources)
    for module, tree in trees.items():
        room = room_of(module)
        if room not in ROOMS:
            yield f"{module}: the room {room!r} is not in the table"
            continue
        for line, name in imports(tree, module, module in whole):
            if not may_import(room, name, trees):
                yield f"{module}:{line}: {room or PACKAGE} may not import {name}"


def may_import(room: str, name: str, known: Container[str]) -> bool:
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top == "__future__":
        return True
    if top == PACKAGE:
        ours = target_module(name, known)
        target = room_of(ours) if ours is not None else None
        return target is not None and (target == room or target in allowed_rooms(room))
    return any(name == allowed or name.startswith(f"{allowed}.") for allowed in ROOMS[room] if allowed not in ROOMS)


def allowed_rooms(room: str) -> set[str]:
    above = list(ROOMS)[: list(ROOMS).index(room)]
    return set(above) if "*" in ROOMS[room] else ROOMS[room] & set(ROOMS)


def impure_imports(sources: Sources) -> Iterator[str]:
    trees, whole = modules(sources), packages(sources)
    for module, tree in trees.items():
        if plain(module.rpartition(".")[2]) not in PURE_MODULES and room_of(module) not in PURE_ROOMS:
            continue
        for line, name in imports(tree, module, module in whole):
            ours = target_module(name, trees)
            if name.partition(".")[0] in IMPURE or (ours is not None and room_of(ours) in IMPURE_ROOMS):
                yield f"{module}:{line}: a pure module may not import {name}"


def untrue_exports(sources: Sources) -> Iterator[str]:
    for module, tree in modules(sources).items():
        exported = exports(tree)
        if exported is None:
            if room_of(module) not in INTERNAL_ROOMS:
                yield f"{module}: no literal __all__"
            continue
        if len(exported) != len(set(exported)):
            yield f"{module}: __all__ says a name twice"
        defined = {
            node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        }
        for name in sorted(defined - set(exported)):
            if not name.startswith("_"):
                yield f"{module}: {name} is public by its name and missing in __all__"


def unmarked_modules(sources: Sources) -> Iterator[str]:
    for module in sorted(modules(sources)):
        internal = any(part.startswith("_") for part in module.split("."))
        if not internal and module not in PUBLIC_MODULES:
            yield f"{module}: neither public by the table nor marked as internal by an underscore"


def exports(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id="__all__")], value=value)
                | ast.AnnAssign(target=ast.Name(id="__all__"), value=ast.expr() as value)
            ):
                try:
                    return list(ast.literal_eval(value))
                except ValueError:
                    return None
    return None


def orphans(sources: Sources, entries: Iterable[str]) -> Iterator[str]:
    """Modules that no entry point reaches by imports; importing a module imports the packages above it."""
    trees, whole = modules(sources), packages(sources)
    reached: set[str] = set()
    pending = [entry for entry in entries if entry in trees]
    while pending:
        module = pending.pop()
        if module in reached:
            continue
        reached.add(module)
        named = [name for _, name in imports(trees[module], module, module in whole)]
        pending += [found for name in [*named, module.rpartition(".")[0]] if (found := target_module(name, trees))]
    yield from (f"{module}: nothing imports it" for module in sorted(set(trees) - reached))


def circles(sources: Sources) -> Iterator[str]:
    """Files that import each other, in one step or several, whether at run time or for types only."""
    trees, whole = modules(sources), packages(sources)
    graph = {
        module: {found for _, name in imports(tree, module, module in whole)
                 if (found := target_module(name, trees)) and found != module}
        for module, tree in trees.items()
    }  # fmt: skip
    left = dict(graph)
    while True:
        # A module that imports no module that is left, or is imported by none, is in no circle.
        wanted = {target for targets in left.values() for target in targets}
        outside = {module for module, targets in left.items() if not targets & left.keys() or module not in wanted}
        if not outside:
            break
        left = {module: targets for module, targets in left.items() if module not in outside}
    yield from (f"{module}: in a circle by {sorted(targets & left.keys())}" for module, targets in left.items())


def foreign_privates(sources: Sources) -> Iterator[str]:
    """Private names that a module takes from another one: by import, or of an object that the other one's class made.

    A class has its names for its subclasses, too, under ``self`` and ``cls``. The type of a parameter
    shows the class of an object; without a type, a name that no class of this module has is another one's.
    """
    trees, whole = modules(sources), packages(sources)
    members = {module: class_members(tree) for module, tree in trees.items()}
    inherited = set().union(*(names for classes in members.values() for names in classes.values()))
    for module, tree in trees.items():
        allowed = PRIVATE_ELSEWHERE.get(module, set()) | OF_NAMED_TUPLES
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                base = absolute(node, module, module in whole)
                for alias in node.names:
                    if is_private(alias.name) and f"{base}.{alias.name}" not in trees:
                        yield f"{module}:{node.lineno}: {alias.name} is private to {base}"
        own = set().union(*members[module].values()) if members[module] else set()
        for line, receiver, name, kinds in private_accesses(tree):
            if name in allowed:
                continue
            if receiver in ("self", "cls", "super()"):
                known = name in own | inherited
            else:
                known = name in own and not (kinds and not kinds & members[module].keys())
            if not known:
                yield f"{module}:{line}: {receiver}.{name} is private elsewhere"


def private_reaches(sources: Sources) -> Iterator[str]:
    """Private names that a test takes from another module; ``self``'s are of those that derive from the class, too."""
    for path, text in sources.items():
        tree = parsed(text)
        own = set().union(*class_members(tree).values(), OF_NAMED_TUPLES)
        for line, receiver, name, _ in private_accesses(tree):
            if receiver not in ("self", "cls", "super()", "os") and name not in own:
                yield f"{path}:{line}: {receiver}.{name}"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def class_members(tree: ast.Module) -> dict[str, set[str]]:
    """By class, the private names that its objects have: methods, attributes and slots."""
    found: dict[str, set[str]] = {}
    for outer in ast.walk(tree):
        if not isinstance(outer, ast.ClassDef):
            continue
        names = found.setdefault(outer.name, set())
        for node in ast.walk(outer):
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                    names.add(name)
                case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                    names.add(name)
                case ast.Assign(targets=[ast.Name(id="__slots__")], value=value):
                    names |= {str(each.value) for each in ast.walk(value) if isinstance(each, ast.Constant)}
    return found


def private_accesses(tree: ast.Module) -> Iterator[tuple[int, str, str, set[str]]]:
    """Yield (line, receiver, name, the names in the receiver's type as far as its parameter says one)."""
    pending: list[tuple[ast.AST, dict[str, set[str]]]] = [(tree, {})]
    while pending:
        node, kinds = pending.pop()
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                kinds = kinds | typed_parameters(node.args)
            case ast.Attribute(value=value, attr=name) if is_private(name):
                receiver = ast.unparse(value)
                yield node.lineno, receiver, name, kinds.get(receiver, set())
            case ast.Call(func=ast.Name(id="getattr" | "setattr"), args=[value, ast.Constant(value=str(name)), *_]):
                if is_private(name):
                    yield node.lineno, ast.unparse(value), name, set()
        pending += [(child, kinds) for child in ast.iter_child_nodes(node)]


def typed_parameters(arguments: ast.arguments) -> dict[str, set[str]]:
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return {each.arg: names_in(each.annotation) for each in every if each.annotation is not None}


def names_in(annotation: ast.expr) -> set[str]:
    """`Registry | None` → Registry, None; also where it is written as text."""
    text = annotation.value if isinstance(annotation, ast.Constant) else ast.unparse(annotation)
    return set(re.findall(r"\w+", str(text)))


def long_files(sources: Sources) -> Iterator[str]:
    for path, text in sources.items():
        lines = text.count("\n")
        explained = WHY_LONG.search("\n".join(text.splitlines()[:40])) is not None
        if lines > MOST_LINES and not explained:
            yield f"{path}: {lines} lines: split it, or say why not: `# Longer than {MOST_LINES} lines: WHY.`"
        if lines <= MOST_LINES and explained:
            yield f"{path}: {lines} lines are not too many: what says why they are is untrue"


def written_itself(sources: Sources, reasons: Container[str]) -> Iterator[str]:
    """Functions that write to a logger at INFO or above, and are not among those with a reason."""
    for path, text in sources.items():
        for name in sorted(set(writers(parsed(text)))):
            if (function := f"{path.removeprefix(f'{PACKAGE}/')} {name}") not in reasons:
                yield f"{function}: what can repeat goes through an IncidentLog; what cannot has a reason in a table"


def writers(tree: ast.AST, name: str = "") -> Iterator[str]:
    """The functions, by the nearest name, that write to a logger; empty where a module does."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=logger) | ast.Attribute(attr=logger), attr=level)):
                if level in WRITES and logger.removeprefix("_").lower() in ("log", "logger", "logging"):
                    yield name
            case _:
                pass
        yield from writers(node, node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else name)


def forbidden_text(sources: Sources, pattern: re.Pattern[str]) -> Iterator[str]:
    for path, text in sources.items():
        for number, line in enumerate(text.splitlines(), 1):
            if found := pattern.search(line):
                yield f"{path}:{number}: {found[0]}"


def forbidden_names(sources: Sources) -> Iterator[str]:
    for path, text in sources.items():
        if last_word(PurePosixPath(path).stem) in FORBIDDEN_LAST_WORDS:
            yield f"{path}: says nothing"
        for node in definitions(parsed(text)):
            if last_word(node.name) in FORBIDDEN_LAST_WORDS:
                yield f"{path}:{node.lineno}: {node.name} says nothing"


def definitions(tree: ast.Module) -> Iterator[Definition]:
    for node in ast.walk(tree):
        if isinstance(node, Definition):
            yield node


def last_word(identifier: str) -> str:
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", identifier)
    return words[-1].lower() if words else ""


def unread_options(sources: Sources) -> Iterator[str]:
    """Parameters with a default, of public functions with a body, that nothing reads.

    Where another library dictates the signature, the line of the `def` tells ruff so, with the reason: `noqa: ARG002`.
    """
    for path, text in sources.items():
        lines = text.splitlines()
        for node in definitions(parsed(text)):
            if isinstance(node, ast.ClassDef) or not is_public(node.name) or is_stub(node):
                continue
            read = {name.id for part in node.body for name in ast.walk(part) if isinstance(name, ast.Name)}
            if "noqa: ARG" not in lines[node.lineno - 1]:
                yield from (
                    f"{path}:{node.lineno}: {node.name}({name}=…) is never read" for name in options(node) - read
                )


def is_public(name: str) -> bool:
    return not name.startswith("_") or name == "__init__"


def options(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    by_position = positional[len(positional) - len(arguments.defaults) :]
    by_keyword = [arg for arg, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default]
    return {argument.arg for argument in [*by_position, *by_keyword]}


def is_stub(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Only a docstring, `...` or `raise NotImplementedError`."""
    for statement in function.body:
        match statement:
            case ast.Expr(value=ast.Constant()) | ast.Pass() | ast.Raise(exc=ast.Name(id="NotImplementedError")):
                continue
        return False
    return True


def words_of_others(tests: Sources, ours: Sources) -> Iterator[str]:
    """Texts of errors and logs that tests ask for and that neither *ours* nor the test itself writes.

    The words of Python, the operating system and other packages change with their releases. Only runs of words are
    looked for: numbers, names and punctuation are values of which the text is made. A value that is a word too may
    stand at either end of a run.
    """
    written = "\0".join(str(node.value) for text in ours.values() for node in texts(parsed(text)))
    for path, text in tests.items():
        tree = parsed(text)
        asked = set(asked_for(tree))
        own = [str(node.value) for node in texts(tree) if node not in asked]
        known = "\0".join([written, *own]).lower()
        for node in sorted(asked, key=lambda node: node.lineno):
            if not is_known(str(node.value), known):
                yield f"{path}:{node.lineno}: {node.value!r} is not a text of ours"


def texts(tree: ast.AST) -> Iterator[ast.Constant]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node


def asked_for(tree: ast.AST) -> Iterator[ast.Constant]:
    """The texts of `match=…`, and those that are compared with `str(…)`, a log's text or a record's message."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(keywords=keywords):
                for keyword in keywords:
                    if keyword.arg == "match":
                        yield from texts(keyword.value)
            case ast.Compare(left=left, comparators=others):
                if any(is_message(side) for side in (left, *others)):
                    for side in (left, *others):
                        if isinstance(side, ast.Constant | ast.JoinedStr):
                            yield from texts(side)


def is_message(node: ast.expr) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="str")) | ast.Call(func=ast.Attribute(attr="getMessage")):
            return True
        case ast.Attribute(value=ast.Name(id="caplog"), attr="text") | ast.Attribute(attr="message"):
            return True
    return False


def is_known(text: str, known: str) -> bool:
    """Whether each long run of words in *text* is in *known*, and one at least where there are only runs of two."""
    plain_text, word = text.replace("\\", "").lower(), r"\b[a-z]+(?:'[a-z]+)?\b"
    runs = [run.split(" ") for run in re.findall(rf"{word}(?: {word})+", plain_text)]
    found = [any(" ".join(part) in known for part in (run, run[1:], run[:-1], run[1:-1]) if part[1:]) for run in runs]
    return not runs or (any(found) and all(one for one, run in zip(found, runs, strict=True) if len(run) > 2))


# A test's failed wait raises, and so does a page without the expected text; and Hypothesis's runs have
# asserts of its own.
WAITS = {"closed", "expect", "run_state_machine_as_test", "until", "wait_for", "wait_live"}
WHY_NO_ASSERT = re.compile(r"# Fails by raising: .{15,}\.")


def without_assert(tests: Sources) -> Iterator[str]:
    """Tests that nothing seems to let fail: neither an assert of theirs, or of a function of their file that they call.

    One that fails because what it calls raises says so, in a comment: `# Fails by raising: WHAT, WHEN.`
    """
    for path, text in tests.items():
        functions = [node for node in definitions(parsed(text)) if not isinstance(node, ast.ClassDef)]
        judges: set[str] = set(WAITS)
        while found := {each.name for each in functions if each.name not in judges and judges_itself(each, judges)}:
            judges |= found
        for function in functions:
            if function.name.startswith("test_") and function.name not in judges:
                source = ast.get_source_segment(text, function) or ""
                if not WHY_NO_ASSERT.search(source):
                    yield f"{path}:{function.lineno}: {function.name} asserts nothing"


def judges_itself(function: Definition, judges: set[str]) -> bool:
    for node in ast.walk(function):
        match node:
            case (
                ast.Assert()
                | ast.AsyncWith(items=[ast.withitem(context_expr=ast.Call(func=ast.Attribute(attr="timeout")))])
            ):
                return True
            case ast.Call(func=ast.Attribute(value=ast.Name(id="pytest"), attr="raises" | "warns" | "fail")):
                return True
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)):
                if name in judges or name == "check" or name.startswith(("assert_", "check_")):
                    return True
    return False


# ---------------------------------------------------------------- held against the repository


def tracked(*patterns: str) -> Sources:
    try:
        listed = git_lists(*patterns)
    except (FileNotFoundError, subprocess.CalledProcessError):  # a source distribution, or a place without git
        listed = unpacked(ROOT, *patterns)
    return {path: (ROOT / path).read_text(encoding="utf-8") for path in sorted(listed) if (ROOT / path).is_file()}


def git_lists(*patterns: str) -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return listed.split("\0")[:-1]


def unpacked(root: Path, *patterns: str) -> list[str]:
    """The files of a source distribution: all but those that running it leaves in hidden folders and caches."""
    paths = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    kept = [path for path in paths if not any(left_behind(part) for part in path.parts)]
    return [str(path) for path in kept if not patterns or any(fnmatch(str(path), pattern) for pattern in patterns)]


def left_behind(part: str) -> bool:
    return (part.startswith(".") and part != ".ci") or part == "__pycache__"


@pytest.fixture(scope="module")
def package() -> Sources:
    return tracked(f"{PACKAGE}/*.py")


@pytest.fixture(scope="module")
def everything() -> Sources:
    return tracked()


def entry_points() -> list[str]:
    """Where others enter: `import aioregistry` or a module of it, `python -m aioregistry`, a script."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    targets = [*project["scripts"].values(), *project["entry-points"]["pytest11"].values()]
    modules = (PACKAGE, f"{PACKAGE}.__main__", f"{PACKAGE}.blocking", f"{PACKAGE}.metrics")
    return [
        *modules,
        *INTEGRATIONS,
        f"{PACKAGE}.integrations.exports",
        *(target.partition(":")[0] for target in targets),
    ]


def test_imports_follow_the_table(package: Sources) -> None:
    assert list(misplaced_imports(package)) == []


def test_pure_modules_import_no_clock_loop_log_or_chance(package: Sources) -> None:
    assert list(impure_imports(package)) == []


def test_exports_are_declared(package: Sources) -> None:
    assert list(untrue_exports(package)) == []


def test_internal_modules_are_marked(package: Sources) -> None:
    assert list(unmarked_modules(package)) == []


def test_exports_exist(package: Sources) -> None:
    for name, tree in modules(package).items():
        module = importlib.import_module(name) if exports(tree) is not None else None
        missing = [export for export in exports(tree) or () if not hasattr(module, export)]
        assert missing == [], name


def test_every_file_is_reachable(package: Sources) -> None:
    assert list(orphans(package, entry_points())) == []


def test_no_files_import_each_other(package: Sources) -> None:
    assert list(circles(package)) == []


def test_private_names_stay_in_their_module(package: Sources) -> None:
    assert list(foreign_privates(package)) == []


def test_tests_ask_for_what_is_public() -> None:
    reaches = list(private_reaches(tracked("tests/*.py")))
    assert len(reaches) <= REACHES, "\n".join(reaches)


def test_no_file_is_long_without_a_reason(package: Sources) -> None:
    assert list(long_files(package)) == []


def test_what_can_repeat_goes_through_an_incident_log(package: Sources) -> None:
    assert list(written_itself(package, WRITTEN_ITSELF)) == []
    found = {line.partition(":")[0] for line in written_itself(package, ())}
    assert WRITTEN_ITSELF.keys() - found == set()  # each reason is of something


def test_nothing_is_left_unfinished(everything: Sources) -> None:
    assert list(forbidden_text(everything, UNFINISHED)) == []


def test_no_path_of_one_machine(everything: Sources) -> None:
    assert list(forbidden_text(everything, MACHINE_PATHS)) == []


def test_names_say_something(everything: Sources) -> None:
    assert list(forbidden_names({path: text for path, text in everything.items() if path.endswith(".py")})) == []


def test_every_option_is_read(package: Sources) -> None:
    assert list(unread_options(package)) == []


def test_every_test_can_fail() -> None:
    tests = tracked("tests/*.py")
    assert list(without_assert({path: text for path, text in tests.items() if "/test_" in path})) == []


def test_tests_ask_for_our_own_words() -> None:
    sources = tracked("*.py")
    tests = {path: text for path, text in sources.items() if PurePosixPath(path).name.startswith("test_")}
    assert list(words_of_others(tests, {path: text for path, text in sources.items() if path not in tests})) == []


# ---------------------------------------------------------------- every check can fail


def one(path: str, text: str) -> Sources:
    return {"aioregistry/__init__.py": "", "aioregistry/errors.py": "", "aioregistry/runtime.py": "", path: text}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("aioregistry/model.py", "import anyio"),
        ("aioregistry/model.py", "def f():\n    import msgspecial"),
        ("aioregistry/model.py", "from .runtime import Runtime"),
        ("aioregistry/model.py", "from . import runtime"),
        ("aioregistry/model.py", "from aioregistry import runtime"),
        ("aioregistry/protocol/jute.py", "import aiozk"),
        ("aioregistry/protocol/jute.py", "from ..runtime import x"),
        ("aioregistry/protocol/__init__.py", "from ..runtime import x"),
        ("aioregistry/errors.py", "from . import connect"),
        ("aioregistry/errors.py", "from .absent import x"),
        ("aioregistry/attic.py", ""),
    ],
)
def test_a_misplaced_import_is_found(path: str, text: str) -> None:
    assert list(misplaced_imports(one(path, text)))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("aioregistry/model.py", "import json, msgspec.json\nfrom .errors import RegistryError"),
        ("aioregistry/protocol/jute.py", "from aiozk.protocol import request\nfrom .framing import Frame"),
        ("aioregistry/protocol/__init__.py", "from . import jute\nfrom ..errors import RegistryError"),
        ("aioregistry/registry.py", "from .runtime import Runtime\nimport anyio"),
    ],
)
def test_a_proper_import_is_not_found(path: str, text: str) -> None:
    sources = one(path, text) | {"aioregistry/protocol/framing.py": ""}
    assert list(misplaced_imports(sources)) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("aioregistry/session/machine.py", "import time"),
        ("aioregistry/session/machine.py", "from asyncio import sleep"),
        ("aioregistry/session/machine.py", "from ..runtime import Runtime"),
        ("aioregistry/balancing/_rings.py", "import random"),
    ],
)
def test_an_impure_import_is_found(path: str, text: str) -> None:
    assert list(impure_imports(one(path, text)))


@pytest.mark.parametrize(
    "text",
    ["", "__all__ = ['a', 'a']", "__all__ = []\ndef a(): ...", "__all__ = x"],
)
def test_an_untrue_export_is_found(text: str) -> None:
    assert list(untrue_exports({"aioregistry/model.py": text}))


def test_an_unmarked_module_is_found() -> None:
    marked = one("aioregistry/_attic/boxes.py", "")
    del marked["aioregistry/errors.py"], marked["aioregistry/runtime.py"]
    assert list(unmarked_modules(marked)) == []
    assert len(list(unmarked_modules(marked | {"aioregistry/attic.py": ""}))) == 1


def test_an_orphan_is_found() -> None:
    sources = one("aioregistry/attic.py", "") | {"aioregistry/__init__.py": "from . import errors, runtime"}
    assert list(orphans(sources, [PACKAGE])) == ["aioregistry.attic: nothing imports it"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("from . import runtime", "from . import errors"),
        ("from .runtime import x", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .errors import y"),
        ("def f():\n    from . import runtime", "from .model import a"),
    ],
)
def test_a_circle_is_found(first: str, second: str) -> None:
    sources = one("aioregistry/model.py", "from .errors import z") | {"aioregistry/errors.py": first}
    assert list(circles(sources)) == []
    found = list(circles(sources | {"aioregistry/runtime.py": second}))
    assert [each.partition(":")[0] for each in found if "runtime" in each.partition(":")[0]] == ["aioregistry.runtime"]


ELSEWHERE = """
class Boxes:
    __slots__ = ("_far",)
    def _count(self): ...
    def __init__(self):
        self._near = 1
"""


@pytest.mark.parametrize(
    "text",
    [
        "from .errors import _x",
        "from . import errors\nerrors._x",
        "def f(boxes):\n    return boxes._far",
        "def f(boxes):\n    boxes._count()",
        "def f(boxes):\n    return getattr(boxes, '_near')",
        "class A:\n    def __init__(self, boxes: Boxes):\n        self._near = boxes._near",
        "class A:\n    def __init__(self, boxes: 'Boxes | None'):\n        self._near = boxes._near",
        "class A:\n    def f(self):\n        return self._boxes._far",
        "class A:\n    def f(self):\n        return self._nobody_has_it",
    ],
)
def test_a_private_name_of_elsewhere_is_found(text: str) -> None:
    assert list(foreign_privates(one("aioregistry/model.py", text) | {"aioregistry/errors.py": ELSEWHERE}))


@pytest.mark.parametrize(
    "text",
    [
        "from . import _errors",
        "class A(Boxes):\n    def f(self):\n        return self._near, super()._count()",
        "class A:\n    def __init__(self, other: A):\n        self._mine = other._mine",
        "def f(a):\n    return a._mine\nclass A:\n    _mine = 1",
        "def f(row):\n    return row._replace(a=1)",
    ],
)
def test_a_private_name_of_its_own_is_not_found(text: str) -> None:
    sources = one("aioregistry/model.py", text) | {"aioregistry/_errors.py": ELSEWHERE}
    assert list(foreign_privates(sources)) == []


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("def test(box):\n    assert box._far._near == 1", 2),
        ("def test(box):\n    setattr(box, '_far', 1)", 1),
        ("class A(Box):\n    def f(self):\n        return self._far", 0),
        ("class A:\n    def __init__(self):\n        self._mine = 1\n\ndef test():\n    assert A()._mine", 0),
        ("def test(row):\n    os._exit(row._replace(a=1))", 0),
    ],
)
def test_what_tests_take_from_others_is_counted(text: str, number: int) -> None:
    assert len(list(private_reaches({"tests/test_box.py": text}))) == number


LONG = "x = 1\n" * (MOST_LINES + 1)
REASON = f"# Longer than {MOST_LINES} lines: its table is read as one, from above.\n"


@pytest.mark.parametrize("text", [LONG, REASON])
def test_a_long_file_and_an_untrue_reason_are_found(text: str) -> None:
    assert len(list(long_files({"a.py": text}))) == 1


@pytest.mark.parametrize("text", ["", REASON + LONG])
def test_a_long_file_with_a_reason_is_not_found(text: str) -> None:
    assert list(long_files({"a.py": text})) == []


@pytest.mark.parametrize(
    ("pattern", "text"),
    [(UNFINISHED, "# TO" + "DO: later"), (UNFINISHED, "# FIX" + "ME"), (MACHINE_PATHS, f"see {ROOT}/notes")],
)
def test_forbidden_text_is_found(pattern: re.Pattern[str], text: str) -> None:
    assert list(forbidden_text({"a.py": text}, pattern))


@pytest.mark.parametrize("logger", ["log", "_log", "self._log", "logging", "logger"])
@pytest.mark.parametrize("level", sorted(WRITES))
def test_a_line_that_passes_the_incident_log_by_is_found(logger: str, level: str) -> None:
    text = f"class A:\n    async def f(self):\n        if self:\n            {logger}.{level}('x')"
    assert [line.partition(":")[0] for line in written_itself(one("aioregistry/a.py", text), ())] == ["a.py f"]
    assert list(written_itself(one("aioregistry/a.py", text), {"a.py f"})) == []


@pytest.mark.parametrize("text", ["log.debug('x')", "self._repeated.tell('x', 30, 'x')", "math.log(2)"])
def test_a_line_for_debugging_or_of_an_incident_log_is_not_found(text: str) -> None:
    assert list(written_itself(one("aioregistry/a.py", f"def f():\n    {text}"), ())) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("aioregistry/utils.py", ""),
        ("aioregistry/a.py", "class SessionManager: ..."),
        ("aioregistry/a.py", "class HTTPImpl: ..."),
        ("aioregistry/a.py", "def path_helper(): ..."),
    ],
)
def test_a_name_that_says_nothing_is_found(path: str, text: str) -> None:
    assert list(forbidden_names({path: text}))


@pytest.mark.parametrize(
    "text",
    [
        "def f(timeout=1):\n    return 2",
        "async def f(*, timeout=1):\n    return 2",
        "class A:\n    def __init__(self, a, timeout=1):\n        self.a = a",
    ],
)
def test_an_unread_option_is_found(text: str) -> None:
    assert list(unread_options({"aioregistry/a.py": text}))


def test_a_stub_reads_nothing() -> None:
    stub = 'def f(timeout=1):\n    """What."""\n    raise NotImplementedError\ndef g(a, b=1):\n    return b'
    assert list(unread_options({"aioregistry/a.py": stub})) == []


OURS = {"aioregistry/a.py": 'raise ConfigError(f"{name}={value!r} is no port of a server: the port is missing")'}


@pytest.mark.parametrize(
    "text",
    [
        "with pytest.raises(OSError, match='already in use'): ...",
        "with pytest.raises(InvalidInstance, match=r'^Expected `int`, got `str`: object missing required field'): ...",
        "with pytest.raises(ConfigError, match=f'port={x} is no port of a server: unable to get local issuer'): ...",
        "assert 'Invalid UTF-8 encoded string' in str(raised.value)",
        "assert str(error) == 'maximum recursion depth exceeded'",
        "assert 'exception was never retrieved' in caplog.text",
        "assert caplog.records[0].getMessage() == 'Task was destroyed but it is pending'",
        "assert any(record.message == 'socket send raised exception' for record in caplog.records)",
    ],
)
def test_the_words_of_others_are_found(text: str) -> None:
    assert list(words_of_others({"tests/test_a.py": text}, OURS))


@pytest.mark.parametrize(
    "text",
    [
        "with pytest.raises(ConfigError, match=r'^port=None is no port of a server'): ...",
        "with pytest.raises(ConfigError, match=f'port={x} is no port'): ...",
        "with pytest.raises(OSError, match='EADDRINUSE'): ...",
        "error = OSError('no disk left')\nwith pytest.raises(OSError, match='no disk left'): ...",
        "assert 'the port is missing' in caplog.text",
        "assert 'already in use' in words",
    ],
)
def test_words_of_ours_are_not_found(text: str) -> None:
    assert list(words_of_others({"tests/test_a.py": text}, OURS)) == []


@pytest.mark.parametrize(
    "text",
    [
        "def test_a():\n    f()",
        "def test_a():\n    # Fails by raising.\n    f()",
        "def f():\n    return 1\ndef test_a():\n    f()",
        "class TestA:\n    async def test_a(self):\n        await f()",
    ],
)
def test_a_test_without_an_assert_is_found(text: str) -> None:
    assert len(list(without_assert({"tests/test_a.py": text}))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "def test_a():\n    assert f()",
        "def test_a():\n    with pytest.raises(OSError): ...",
        "def f():\n    g()\ndef g():\n    assert x\ndef test_a():\n    f()",
        "async def test_a():\n    async with asyncio.timeout(1):\n        await f()",
        "def test_a():\n    check_withdrawn(1)",
        "def test_a():\n    # Fails by raising: f raises what is no ProtocolError.\n    f()",
    ],
)
def test_a_test_with_an_assert_is_not_found(text: str) -> None:
    assert list(without_assert({"tests/test_a.py": text})) == []


def test_a_source_distribution_is_looked_at_without_git(tmp_path: Path) -> None:
    for path in (".ci/run", ".nox/x.py", "aioregistry/a/b.py", "aioregistry/__pycache__/b.pyc", "docs/a.md"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert sorted(unpacked(tmp_path)) == [".ci/run", "aioregistry/a/b.py", "docs/a.md"]
    assert unpacked(tmp_path, "aioregistry/*.py") == ["aioregistry/a/b.py"]
