"""`python -m tools.mutants`: small mistakes in the pure modules, one at a time, and whether their tests notice.

A mutant is a module in which one expression or statement is another: a comparison or its boundary, a constant, a row of
a table, a condition, what is returned, an argument or a whole statement that is missing. Which ones are tried is drawn
by a seed. Each is run in a process of its own by the tests of its module, the quickest first, until one fails. Nothing
is written into the repository: the changed module is put in the place of the original when it is imported.

`tests/mutants.md` explains the survivors that are known.
"""

from __future__ import annotations

import argparse
import ast
import copy
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import itertools
import json
import math
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Final, NamedTuple, TypeAlias

import pytest

ROOT: Final = Path(__file__).parents[1]
EXPLAINED: Final = ROOT / "tests" / "mutants.md"

ROOMS: Final[dict[str, tuple[str, ...]]] = {
    "aioregistry/_addresses.py": ("tests/test_addresses.py",),
    "aioregistry/_arguments.py": ("tests/test_arguments.py",),
    "aioregistry/_bounds.py": ("tests/test_bounds.py",),
    "aioregistry/_java.py": ("tests/test_document.py",),
    "aioregistry/_markers.py": ("tests/discovery/test_departures.py",),
    "aioregistry/_settings.py": ("tests/test_settings.py",),
    "aioregistry/_incidents.py": ("tests/test_incidents.py",),
    "aioregistry/_overrides.py": ("tests/test_overrides.py",),
    "aioregistry/_paths.py": ("tests/test_paths.py",),
    "aioregistry/_payload.py": ("tests/test_payload.py", "tests/test_model.py"),
    "aioregistry/_words.py": ("tests/cli/test_pure.py",),
    "aioregistry/_cli/__init__.py aioregistry/_cli/*_options.py": ("tests/cli/test_parser.py",),
    " ".join(
        f"aioregistry/_cli/{name}.py"
        for name in ("checking", "completion", "doctor", "overview", "selection", "telling")
    ): ("tests/cli/test_pure.py",),
    "aioregistry/_console/*.py": (
        *("tests/console/test_pure.py", "tests/console/test_past.py", "tests/console/test_rows.py"),
        "tests/console/test_history.py",
    ),
    "aioregistry/_discovery/*.py": ("tests/discovery/test_*.py", "tests/simulation/test_explore_core.py"),
    " ".join(
        f"aioregistry/_discovery/{name}.py" for name in ("balancer", "pick", "subscriptions", "view", "waiting")
    ): tuple(f"tests/discovery/test_{name}.py" for name in ("balancer", "options", "suspects", "view", "view_kept")),
    "aioregistry/_document/*.py": ("tests/test_document.py", "tests/test_model.py"),
    "aioregistry/_doctor/*_checks.py": ("tests/doctor/test_checks.py",),
    "aioregistry/_doctor/words.py": ("tests/doctor/test_checks.py",),
    "aioregistry/_doctor/slips.py": ("tests/doctor/test_slips.py",),
    "aioregistry/_exports/*.py": ("tests/exports/test_renderers.py", "tests/exports/test_selection.py"),
    "aioregistry/_health/table.py": ("tests/health/test_table.py",),
    "aioregistry/_metrics/table.py": ("tests/metrics/test_metrics.py",),
    "aioregistry/_model/*.py": ("tests/test_model.py", "tests/test_document.py", "tests/test_overrides.py"),
    "aioregistry/_protocol/*.py": ("tests/protocol/test_*.py",),
    "aioregistry/_registration/*.py": ("tests/registration/test_*.py",),
    "aioregistry/_session/*.py": ("tests/session/test_*.py",),
    "aioregistry/balancing/*.py": ("tests/balancing/test_*.py",),
    "aioregistry/integrations/_hosts.py": ("tests/frameworks/test_hosts.py",),
    "aioregistry/server/_acl.py": ("tests/server/test_acl.py",),
    "aioregistry/server/_requests.py": ("tests/server/test_requests.py",),
    "aioregistry/server/_sessions.py": ("tests/server/test_sessions.py",),
    "aioregistry/server/_tree.py": ("tests/server/test_tree.py",),
}
"""Where the pure modules are, and the tests among which are those that decide about them.

A later row says more of a module than one before it: handles are pure, and what they do shows on a loop only.
"""

IMPURE: Final = frozenset({"asyncio", "logging", "random", "selectors", "socket", "ssl", "threading", "time"})
"""A module that imports one of these is not pure; but for chance, no test of pure modules needs them."""

SERVERS: Final = frozenset({"zookeeper", "own_zookeeper", "start_zookeeper", "ensemble"})
"""Fixtures whose tests decide about nothing: they take too long."""

AS_LONG: Final = 8.0
"""A mutant may take as many times what the original does; one that takes more goes round in circles."""

LEAST: Final = 20.0
"""Seconds of the processor that each may take."""

WAITING: Final = 30.0
"""The seconds of a clock in which a mutant gets one of the processor, on a machine that does other things as well."""

# ---------------------------------------------------------------- what may be wrong


MODULE: Final = "(module)"
"""The scope of what is in no class and no function."""


class Key(NamedTuple):
    """Which mistake it is, wherever its code is."""

    scope: str
    code: str
    what: str


class Mutant(NamedTuple):
    """One mistake.

    Args:
        line: where.
        scope: the class and function that it is in, dotted; MODULE outside of them.
        code: the line as it is.
        what: which mistake it is.
        text: of the whole module with it.
    """

    line: int
    scope: str
    code: str
    what: str
    text: str

    @property
    def key(self) -> Key:
        """The part that stays the same when the code around it changes, or moves to another file."""
        return Key(self.scope, self.code, self.what)


Members: TypeAlias = dict[str, list[str]]
"""The members of enumerations that a module names, by class."""

Other: TypeAlias = tuple[str, ast.AST]
"""Which mistake it is, and what stands there by it."""

_SWAPPED: Final[dict[type[ast.AST], tuple[type[ast.AST], ...]]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Add,),
    ast.FloorDiv: (ast.Mult,),
    ast.Div: (ast.Mult,),
    ast.Mod: (ast.FloorDiv,),
    ast.BitOr: (ast.BitAnd,),
    ast.BitAnd: (ast.BitOr,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
}

_TOLD_ONLY: Final = frozenset({"__repr__", "__str__", "__rich_repr__"})
"""Methods whose texts decide nothing."""


def mutants(source: str) -> Iterator[Mutant]:
    """Yield everything that may be wrong with a module."""
    tree = ast.parse(source)
    members = _members(tree)
    lines = source.splitlines()
    for scope, node in _judged(tree, ()):
        for what, other in _others(node, members):
            mutated = _with(source, node, other)
            if mutated != source:
                yield Mutant(node.lineno, ".".join(scope) or MODULE, lines[node.lineno - 1].strip(), what, mutated)


Scope: TypeAlias = tuple[str, ...]


def _judged(node: ast.AST, scope: Scope) -> Iterator[tuple[Scope, Any]]:
    """Yield the expressions and statements that do something; not types, texts for people, imports or assertions."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        scope = (*scope, node.name)
    for child in _children(node):
        match child:
            case ast.Assert() | ast.Import() | ast.ImportFrom() | ast.JoinedStr():
                continue
            case ast.Raise(exc=ast.Call()):
                yield scope, child
                continue
            case ast.FunctionDef(name=called) if called in _TOLD_ONLY:
                continue
            case ast.AnnAssign(annotation=ast.Name(id="TypeAlias")) | ast.Assign(targets=[ast.Name(id="__all__")]):
                continue
            case ast.Call(func=ast.Name(id="TypeVar" | "cast")) | ast.Subscript(value=ast.Name(id="Final" | "Literal")):
                continue
            case ast.Expr(value=ast.Constant()):
                continue
        if isinstance(child, ast.expr | ast.stmt):
            yield scope, child
        yield from _judged(child, scope)


_UNJUDGED: Final = frozenset({"annotation", "returns", "decorator_list", "type_params", "bases"})


def _children(node: ast.AST) -> Iterator[ast.AST]:
    for name, value in ast.iter_fields(node):
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.AST) and name not in _UNJUDGED and not _does_nothing(node, each):
                yield each


def _does_nothing(node: ast.AST, statement: ast.AST) -> bool:
    """Whether it tells nothing to do, asserts an equal length, or ends a function that returns nothing anyway."""
    match node, statement:
        case (_, ast.If(test=ast.Name(id="TYPE_CHECKING"))) | (ast.keyword(arg="strict" | "gc"), _):
            return True
        case ast.FunctionDef(body=[*_, last]), ast.Return(value=ast.Constant(value=None)):
            return last is statement
    return False


def _members(tree: ast.AST) -> Members:
    """The members of enumerations and the like that the module names, by class."""
    found: dict[str, dict[str, None]] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=owner), attr=attr) if attr.isupper() and owner[:1].isupper():
                found.setdefault(owner, {})[attr] = None
    return {owner: list(attrs) for owner, attrs in found.items()}


def _others(node: ast.AST, members: Members) -> Iterator[Other]:
    """Yield what may stand there by mistake."""
    if (operator := _OPERATORS.get(type(node))) is not None:
        yield from operator(node, members)


def _of_comparison(node: ast.Compare, _: Members) -> Iterator[Other]:
    op, *more = node.ops
    for other in _SWAPPED.get(type(op), ()):
        yield _named(op, other), _changed(node, ops=[other(), *more])


def _of_condition(node: ast.BoolOp, _: Members) -> Iterator[Other]:
    for other in _SWAPPED[type(node.op)]:
        yield _named(node.op, other), _changed(node, op=other())
    for number, part in enumerate(node.values):
        rest = node.values[:number] + node.values[number + 1 :]
        yield f"without {ast.unparse(part)}", rest[0] if len(rest) == 1 else _changed(node, values=rest)


def _of_calculation(node: ast.BinOp, _: Members) -> Iterator[Other]:
    for other in _SWAPPED.get(type(node.op), ()):
        yield _named(node.op, other), _changed(node, op=other())


def _of_negation(node: ast.UnaryOp, _: Members) -> Iterator[Other]:
    if isinstance(node.op, ast.Not):
        yield "not is missing", node.operand


def _of_constant(node: ast.Constant, _: Members) -> Iterator[Other]:
    match node.value:
        case bool(value):
            yield f"{value} is {not value}", ast.Constant(not value)
        case int(value) | float(value):
            for other in {value + 1, value - 1} - {value}:  # 1e308 is as large with one more
                yield f"{value} is {other}", ast.Constant(other)


def _of_member(node: ast.Attribute, members: Members) -> Iterator[Other]:
    if isinstance(node.value, ast.Name) and node.attr in (there := members.get(node.value.id, [])):
        for other in there:
            if other != node.attr:
                yield f"{node.value.id}.{node.attr} is {node.value.id}.{other}", _changed(node, attr=other)


def _of_choice(node: ast.IfExp, _: Members) -> Iterator[Other]:
    yield "always the first", node.body
    yield "always the second", node.orelse


def _of_call(node: ast.Call, _: Members) -> Iterator[Other]:
    for number, keyword in enumerate(node.keywords):
        if keyword.arg == "strict":
            continue  # an assertion: it says that both are as long
        rest = node.keywords[:number] + node.keywords[number + 1 :]
        yield f"without {keyword.arg}=", _changed(node, keywords=rest)


def _of_branch(node: ast.If, _: Members) -> Iterator[Other]:
    yield "the condition never holds", _changed(node, test=ast.Constant(False))
    yield "the condition always holds", _changed(node, test=ast.Constant(True))
    yield "the condition is the opposite", _changed(node, test=ast.UnaryOp(ast.Not(), node.test))


def _of_loop(node: ast.While, _: Members) -> Iterator[Other]:
    yield "the condition never holds", _changed(node, test=ast.Constant(False))


def _of_return(node: ast.Return, _: Members) -> Iterator[Other]:
    match node.value:
        case None | ast.Constant(value=None):
            yield "return is missing", ast.Pass()
        case ast.Constant(value=bool()):
            pass  # the constant is turned round by itself, and nothing is as good as False
        case _:
            yield "nothing is returned", ast.Return(ast.Constant(None))


def _of_statement(_: ast.AST, __: Members) -> Iterator[Other]:
    yield "the statement is missing", ast.Pass()


def _of_expression(node: ast.Expr, _: Members) -> Iterator[Other]:
    if isinstance(node.value, ast.Call | ast.Await):
        yield "the statement is missing", ast.Pass()


def _of_assignment(node: ast.Assign, _: Members) -> Iterator[Other]:
    if isinstance(node.targets[0], ast.Attribute | ast.Subscript):
        yield "the statement is missing", ast.Pass()


_OPERATORS: Final[dict[type[ast.AST], Callable[[Any, Members], Iterator[Other]]]] = {
    ast.Compare: _of_comparison,
    ast.BoolOp: _of_condition,
    ast.BinOp: _of_calculation,
    ast.UnaryOp: _of_negation,
    ast.Constant: _of_constant,
    ast.Attribute: _of_member,
    ast.IfExp: _of_choice,
    ast.Call: _of_call,
    ast.If: _of_branch,
    ast.While: _of_loop,
    ast.Return: _of_return,
    ast.Expr: _of_expression,
    ast.Assign: _of_assignment,
    **dict.fromkeys((ast.AugAssign, ast.Delete, ast.Continue, ast.Break, ast.Raise), _of_statement),
}


def _named(op: ast.AST, other: type[ast.AST]) -> str:
    return f"{type(op).__name__} is {other.__name__}"


def _changed(node: ast.AST, **fields: Any) -> ast.AST:
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def _with(source: str, node: Any, other: ast.AST) -> str:
    """The source with another node in the place of one; lines keep their numbers where that is possible."""
    lines = source.encode().splitlines(keepends=True)
    before: bytes = b"".join(lines[: node.lineno - 1]) + lines[node.lineno - 1][: node.col_offset]
    after: bytes = lines[node.end_lineno - 1][node.end_col_offset :] + b"".join(lines[node.end_lineno :])
    if isinstance(other, ast.stmt):
        indent = "\n" + " " * node.col_offset
        text = indent.join(ast.unparse(ast.fix_missing_locations(other)).splitlines())
    else:
        text = f"({ast.unparse(ast.fix_missing_locations(other))})"
    mutated: bytes = before + text.encode() + after
    return mutated.decode()


# ---------------------------------------------------------------- whether somebody notices


class Replaced(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Has another text than its file's imported as a module.

    Args:
        name: of the module.
        path: of its file, which errors and coverage go by.
        text: in its place.
    """

    def __init__(self, name: str, path: Path, text: str) -> None:
        self._name, self._path, self._text = name, path, text

    def find_spec(self, fullname: str, _: Any = None, __: Any = None) -> importlib.machinery.ModuleSpec | None:
        """Say that this module is loaded from here."""
        if fullname != self._name:
            return None
        inside = [str(self._path.parent)] if self._path.stem == "__init__" else None
        return importlib.util.spec_from_file_location(
            fullname, self._path, loader=self, submodule_search_locations=inside
        )

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:  # noqa: ARG002
        """Make a usual module."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Run the other text."""
        exec(compile(self._text, self._path, "exec", dont_inherit=True), module.__dict__)


def name_of(module: str) -> str:
    """Return the dotted name of a file."""
    return module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


class Quickest:
    """A plugin of pytest: runs the quickest tests first, and notes how long each took.

    Args:
        seconds: of the processor that each takes, by its name.
        notes: a file for what each took; or None.
    """

    def __init__(self, seconds: Mapping[str, float], notes: Path | None) -> None:
        self._seconds, self._notes = seconds, notes
        self._took: dict[str, float] = {}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Order them; leave out those that need servers."""
        items[:] = [item for item in items if not SERVERS & set(item.fixturenames)]
        items.sort(key=lambda item: self._seconds.get(item.nodeid, 0.0))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Generator[None, object, object]:
        """Take note of what a test takes."""
        began = time.process_time()
        result = yield
        self._took[item.nodeid] = time.process_time() - began
        return result

    def pytest_sessionfinish(self) -> None:
        """Write it down."""
        if self._notes is not None:
            self._notes.write_text(json.dumps(self._took), encoding="utf-8")


class Job(NamedTuple):
    """The work for a process.

    Args:
        module: the file that is replaced.
        mutant: what is wrong with it; None for the module as it is.
        tests: the files of the tests.
        limit: seconds of the processor that it may take.
        seconds: of the processor that each test takes, where that is known.
        notes: a file for what each test took; or None.
    """

    module: str
    mutant: Mutant | None
    tests: tuple[str, ...]
    limit: float
    seconds: Mapping[str, float] = MappingProxyType({})
    notes: Path | None = None


def run_tests(job: Job) -> None:
    """Run the tests with the module's text replaced, and end the process with pytest's code."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    if job.limit < math.inf:
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(job.limit), math.ceil(job.limit) + 1))
    if job.mutant is not None:
        sys.meta_path.insert(0, Replaced(name_of(job.module), ROOT / job.module, job.mutant.text))
    options = (
        *("-q", "-x", "--no-header", "--tb=no", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:random_order"),
        *("--hypothesis-profile=mutants", "--hypothesis-seed=0"),
    )
    try:
        code = pytest.main([*options, *job.tests], plugins=[Quickest(job.seconds, job.notes)])
    except BaseException:  # noqa: BLE001  # whatever it is, it was noticed
        code = 1
    # A file of which all tests need servers says nothing.
    os._exit(0 if code == pytest.ExitCode.NO_TESTS_COLLECTED else int(code))


class Verdict(NamedTuple):
    """The fate of a mutant, and how long that took."""

    job: Job
    caught: bool
    seconds: float


class Trial:
    """A job that runs in a process of its own."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._began = time.monotonic()
        self._process = multiprocessing.get_context("fork").Process(target=run_tests, args=(job,))
        self._process.start()

    def verdict(self) -> Verdict | None:
        """Return what became of it, None while that is open."""
        if self._process.is_alive():
            if time.monotonic() < self._began + WAITING * self._job.limit:
                return None
            self._process.kill()
        self._process.join()
        return Verdict(self._job, self._process.exitcode != 0, time.monotonic() - self._began)

    def end(self) -> None:
        """Stop it."""
        self._process.kill()
        self._process.join()


def tried(jobs: Iterable[Job], most: int, until: float) -> Iterator[Verdict]:
    """Yield what becomes of each, as it comes, *most* at a time, until the time is over."""
    waiting, running = iter(jobs), list[Trial]()
    try:
        while time.monotonic() < until:
            running += [Trial(job) for job in itertools.islice(waiting, most - len(running))]
            if not running:
                return
            time.sleep(0.02)
            for trial in list(running):
                if (verdict := trial.verdict()) is not None:
                    running.remove(trial)
                    yield verdict
    finally:
        for trial in running:
            trial.end()


# ---------------------------------------------------------------- which tests decide about which module


def source_of(module: str) -> str:
    """Return the text of a file, empty where it is not there."""
    return (ROOT / module).read_text(encoding="utf-8") if (ROOT / module).is_file() else ""


class Imports:
    """Which files a file imports names from; of a package, those that the names come from."""

    def __init__(self) -> None:
        self._known: dict[str, frozenset[str]] = {}

    def of(self, file: str) -> frozenset[str]:
        """Return the files that it imports from, by their paths."""
        if file not in self._known:
            self._known[file] = frozenset(
                meant for folder, name in imported(file) for meant in self._meant(folder, name)
            )
        return self._known[file]

    def _meant(self, folder: str, name: str) -> Iterator[str]:
        init = f"{folder}/__init__.py"
        if (ROOT / f"{folder}/{name}.py").is_file():
            yield f"{folder}/{name}.py"
        elif (ROOT / f"{folder}/{name}/__init__.py").is_file():
            yield from self.of(f"{folder}/{name}/__init__.py")  # which of its names are meant is not known
        elif (ROOT / f"{folder}.py").is_file():
            yield f"{folder}.py"
        elif (ROOT / init).is_file():
            origins = [inner for inner, each in imported(init) if each == name]
            for inner in origins:
                yield from self._meant(inner, name)
            if not origins:
                yield init  # which defines it


@functools.cache
def imported(file: str) -> list[tuple[str, str]]:
    """Return what a file imports: the path of a module or a package, and a name in it."""
    pairs = []
    for node in ast.walk(ast.parse(source_of(file))):
        if isinstance(node, ast.ImportFrom):
            above = list(Path(file).parts[: -node.level]) if node.level else []
            folder = "/".join([*above, *(node.module or "").split(".")]).rstrip("/")
            pairs += [(folder, alias.name) for alias in node.names]
    return pairs


def is_pure(file: str, *, besides: str = "") -> bool:
    """Whether a file imports neither clock, loop, log nor chance; *besides* is one of them that it may."""
    for node in ast.walk(ast.parse(source_of(file))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            names = [node.module]
        if any(name.partition(".")[0] in IMPURE - {besides} for name in names):
            return False
    return True


def found(patterns: str) -> list[str]:
    """Return the files that patterns mean, with blanks between them."""
    return sorted(str(path.relative_to(ROOT)) for pattern in patterns.split() for path in ROOT.glob(pattern))


def deciding() -> dict[str, tuple[str, ...]]:
    """Return the pure modules, each with the files of the tests that decide about it; the one of its name first.

    These are those of its room that import it, or another pure module of the room that is made of it.
    """
    imports, modules = Imports(), dict[str, tuple[str, ...]]()
    for room, patterns in ROOMS.items():
        pure = {module for module in found(room) if is_pure(module)}
        files = [
            file for each in patterns for file in found(each) if "*" not in each or is_pure(file, besides="random")
        ]
        modules.update(_deciding(pure, files, imports))
    return modules


def _deciding(pure: set[str], files: list[str], imports: Imports) -> Iterator[tuple[str, tuple[str, ...]]]:
    seen = {file: _closure(file, pure, imports) for file in files}
    for module in sorted(pure):
        named = f"test_{Path(module).stem.removeprefix('_')}"
        tests = [(Path(file).stem != named, module not in imports.of(file), file) for file in files]
        chosen = tuple(file for *_, file in sorted(tests) if module in seen[file])
        if chosen and next(mutants(source_of(module)), None) is not None:
            yield module, chosen


def _closure(file: str, pure: set[str], imports: Imports) -> set[str]:
    """The pure modules that a test file imports, or those that it shares with others of its folder, or theirs."""
    folder = str(Path(file).parent)
    there, todo = set[str](), [file]
    while todo:
        new = {each for each in imports.of(todo.pop()) if each in pure or str(Path(each).parent) == folder} - there
        there |= new
        todo += new
    return there


def measured(files: Iterable[str], most: int) -> dict[str, dict[str, float]]:
    """Return how many seconds each test of each file takes; raises SystemExit where one fails by itself."""
    began, seconds = time.monotonic(), dict[str, dict[str, float]]()
    with tempfile.TemporaryDirectory() as scratch:
        jobs = [Job("", None, (file,), math.inf, notes=Path(scratch, f"{n}")) for n, file in enumerate(files)]
        for verdict in tried(jobs, most, math.inf):
            (file,) = verdict.job.tests
            if verdict.caught or verdict.job.notes is None:
                sys.exit(f"the tests of {file} fail by themselves")
            notes = verdict.job.notes
            seconds[file] = json.loads(notes.read_text(encoding="utf-8")) if notes.exists() else {}
            print(f"\r{len(seconds)}/{len(jobs)} files in {time.monotonic() - began:.0f} s", end="", file=sys.stderr)
    print(file=sys.stderr)
    return seconds


# ---------------------------------------------------------------- what is known


def explained(text: str) -> set[Key]:
    """Read the survivors that are known: the rows of tables with scope, line and mistake."""
    rows = (line.split(" | ") for line in text.splitlines() if line.startswith("| `"))
    return {Key(row[0].strip("| `"), row[1].strip("`"), row[2].strip("`")) for row in rows if len(row) > 2}


def stale(known: Iterable[Key], modules: Iterable[str]) -> list[Key]:
    """Return the explanations of what cannot happen any more."""
    made = {mutant.key for module in modules for mutant in mutants(source_of(module))}
    return sorted(set(known) - made)


def drawn(modules: Iterable[str], seed: int, count: int) -> list[tuple[str, Mutant]]:
    """Return so many mutants of all modules together."""
    there = [(module, mutant) for module in modules for mutant in mutants(source_of(module))]
    return random.Random(f"mutants {seed}").sample(there, min(count, len(there)))


def drawn_of_each(modules: Iterable[str], seed: int, count: int) -> list[tuple[str, Mutant]]:
    """Return so many mutants of each room."""
    there = set(modules)
    room_of = {module: room for room in ROOMS for module in found(room) if module in there}
    rooms: dict[str, list[str]] = {}
    for module in sorted(room_of):
        rooms.setdefault(room_of[module], []).append(module)
    return [each for room in rooms.values() for each in drawn(room, seed, count)]


def part_of(todo: list[tuple[str, Mutant]], part: str) -> list[tuple[str, Mutant]]:
    """Return a part, as ``2/3``, of what is to be tried; those of one module are together."""
    number, parts = (int(each) for each in part.split("/"))
    ordered = sorted(todo, key=lambda each: each[0])
    return ordered[(number - 1) * len(todo) // parts : number * len(todo) // parts]


def main() -> int:
    """Do as the command line says; return how to exit."""
    options = parsed()
    sys.path.insert(0, str(ROOT))
    os.chdir(ROOT)
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = tempfile.mkdtemp(prefix="mutants-")
    preload()
    until = time.monotonic() + options.seconds
    all_modules = deciding()
    modules = {
        module: tests
        for module, tests in all_modules.items()
        if not options.only or any(part in module for part in options.only)
    }
    draw = drawn_of_each if options.of_each else drawn
    todo = part_of(draw(modules, options.seed, options.of_each or options.count), options.part)
    seconds = measured(sorted({file for module, _ in todo for file in modules[module]}), options.jobs)
    jobs = [job_of(module, mutant, modules[module], seconds) for module, mutant in todo]
    known = explained(EXPLAINED.read_text(encoding="utf-8"))
    verdicts: list[Verdict] = []
    for verdict in tried(jobs, options.jobs, until):
        verdicts.append(verdict)
        survived = sum(not each.caught for each in verdicts)
        if not verdict.caught and verdict.job.mutant is not None:
            key = verdict.job.mutant.key
            word = "explained" if key in known else "SURVIVED"
            print(f"\n{word}: {verdict.job.module}:{verdict.job.mutant.line}: {' | '.join(key)}", flush=True)
        print(f"\r{len(verdicts)}/{len(todo)} mutants, {survived} survived", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return told(verdicts, known, stale(known, all_modules), f"seed {options.seed}: {len(verdicts)} of {len(todo)}")


def job_of(module: str, mutant: Mutant, tests: tuple[str, ...], seconds: Mapping[str, Mapping[str, float]]) -> Job:
    """Return what is to be tried of a mutant, with the time that it may take."""
    each = {test: took for file in tests for test, took in seconds[file].items()}
    return Job(module, mutant, tests, max(LEAST, AS_LONG * sum(each.values())), each)


def told(verdicts: Sequence[Verdict], known: set[Key], outdated: Sequence[Key], begin: str) -> int:
    """Print what came of it; 1 where a survivor is not explained, or what is explained is outdated."""
    counts: dict[str, list[int]] = {}
    unexplained = 0
    for (module, mutant, *_), caught, _ in verdicts:
        count = counts.setdefault(module, [0, 0])
        count[0] += 1
        count[1] += caught
        unexplained += not caught and mutant is not None and mutant.key not in known
    for module, (number, noticed) in sorted(counts.items()):
        print(f"{module}: {noticed} of {number} caught")
    for key in outdated:
        print(f"explained, and cannot happen any more: {' | '.join(key)}")
    ran, good = len(verdicts), sum(verdict.caught for verdict in verdicts)
    times = os.times()
    print(f"{begin} mutants were run, {good} caught ({good / max(ran, 1):.1%}),")
    print(f"{ran - good - unexplained} survivors are explained, {unexplained} are not;")
    print(f"{times.user + times.system + times.children_user + times.children_system:.0f} s of CPU")
    return 1 if unexplained or outdated else 0


def preload() -> None:
    """Import once what every child needs, but nothing of aioregistry's; and say how Hypothesis is to run."""
    import aiozk  # noqa: F401
    import anyio  # noqa: F401
    import msgspec  # noqa: F401
    import pytest_asyncio  # noqa: F401
    from hypothesis import HealthCheck, Phase, settings

    # A failure is enough, without the smallest example; and a test that is slow on a busy machine does not fail.
    settings.register_profile(
        "mutants",
        settings.get_profile("default"),
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
        deadline=None,
        database=None,
    )


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__)
    parser.add_argument("only", nargs="*", help="parts of modules' names; all modules unless given")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="which mutants")
    parser.add_argument("--count", type=int, default=200, help="how many mutants (default: %(default)s)")
    parser.add_argument("--of-each", type=int, default=0, help="instead: how many of each room")
    parser.add_argument("--part", default="1/1", help="which of how many parts of them (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--seconds", type=float, default=3600.0, help="when to end (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
