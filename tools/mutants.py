"""`python -m tools.mutants`: small mistakes in the pure modules, one at a time, and whether their tests notice.

A mutant is a module in which one expression or statement is another: a comparison or its boundary, a constant, a row of
a table, a condition, what is returned, an argument or a whole statement that is missing. Which ones are tried is drawn
by a seed. Each is run in a process of its own by the tests of its module, until one fails. Nothing is written into the
repository: the changed module is put in the place of the original when it is imported.

`tests/mutants.md` explains the survivors that are known.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import itertools
import math
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple, TypeAlias

ROOT: Final = Path(__file__).parents[1]
EXPLAINED: Final = ROOT / "tests" / "mutants.md"

MODULES: Final[dict[str, tuple[str, ...]]] = {
    "aioregistry/_addresses.py": ("tests/test_addresses.py",),
    "aioregistry/_incidents.py": ("tests/test_incidents.py",),
    "aioregistry/_paths.py": ("tests/test_paths.py",),
    "aioregistry/_discovery/guard.py": ("tests/discovery/test_guard.py",),
    "aioregistry/_discovery/kept.py": ("tests/discovery/test_kept.py",),
    "aioregistry/_discovery/mirror.py": ("tests/discovery/test_mirror.py",),
    "aioregistry/_protocol/framing.py": ("tests/protocol/test_framing.py",),
    "aioregistry/_protocol/jute.py": ("tests/protocol/test_jute.py", "tests/protocol/test_messages.py"),
    "aioregistry/_protocol/transactions.py": ("tests/protocol/test_messages.py",),
    "aioregistry/_registration/plan.py": ("tests/registration/test_plan.py", "tests/registration/test_claimants.py"),
    "aioregistry/_registration/reach.py": ("tests/registration/test_reach.py",),
    "aioregistry/_registration/remedies.py": ("tests/registration/test_plan.py",),
    "aioregistry/_registration/transactions.py": (
        "tests/registration/test_transactions.py",
        "tests/registration/test_claimants.py",
    ),
    "aioregistry/_session/backoff.py": ("tests/session/test_backoff.py",),
    "aioregistry/_session/hosts.py": ("tests/session/test_hosts.py",),
    "aioregistry/_session/isolation.py": ("tests/session/test_isolation.py",),
    **dict.fromkeys(
        ("aioregistry/_session/decisions.py", "aioregistry/_session/machine.py"),
        (
            "tests/session/test_machine.py",
            "tests/session/test_states.py",
            "tests/session/test_machine_and_ensemble.py",
        ),
    ),
    "aioregistry/_session/watch_table.py": ("tests/session/test_watch_table.py",),
    "aioregistry/balancing/_ejection.py": ("tests/balancing/test_ejection.py", "tests/balancing/test_picker.py"),
    "aioregistry/balancing/_picker.py": ("tests/balancing/test_picker.py",),
    "aioregistry/balancing/_admission.py": ("tests/balancing/test_picker.py",),
    "aioregistry/balancing/_rings.py": ("tests/balancing/test_rings.py", "tests/balancing/test_strategies.py"),
    "aioregistry/balancing/_weighted.py": ("tests/balancing/test_weighted.py",),
    "aioregistry/balancing/_zones.py": ("tests/balancing/test_zones.py",),
    "aioregistry/server/_acl.py": ("tests/server/test_acl.py",),
    "aioregistry/server/_tree.py": ("tests/server/test_tree.py",),
}
"""Each module and the tests that decide about it."""

AS_LONG: Final = 8.0
"""A mutant may take as many times as long as the original; one that takes longer goes round in circles."""

LEAST: Final = 20.0
"""Seconds that each may take."""

# ---------------------------------------------------------------- what may be wrong


class Mutant(NamedTuple):
    """One mistake.

    Args:
        line: where.
        code: the line as it is.
        what: which mistake it is.
        text: of the whole module with it.
    """

    line: int
    code: str
    what: str
    text: str


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
"""Methods whose texts nobody goes by."""


def mutants(source: str) -> Iterator[Mutant]:
    """Yield everything that may be wrong with a module."""
    tree = ast.parse(source)
    members = _members(tree)
    for node in _judged(tree):
        for what, other in _others(node, members):
            mutated = _with(source, node, other)
            if mutated != source:
                yield Mutant(node.lineno, source.splitlines()[node.lineno - 1].strip(), what, mutated)


def _judged(node: ast.AST) -> Iterator[Any]:
    """Yield the expressions and statements that do something; not types, texts for people, imports or assertions."""
    for name, child in _children(node):
        if name in ("annotation", "returns", "decorator_list", "type_params", "bases"):
            continue
        match child:
            case ast.Assert() | ast.Import() | ast.ImportFrom() | ast.JoinedStr():
                continue
            case ast.Raise(exc=ast.Call() as call):
                yield child
                yield from _judged(call.func)
                continue
            case ast.FunctionDef(name=name) if name in _TOLD_ONLY:
                continue
            case ast.AnnAssign(annotation=ast.Name(id="TypeAlias")) | ast.Assign(targets=[ast.Name(id="__all__")]):
                continue
            case ast.Call(func=ast.Name(id="TypeVar" | "cast")) | ast.Subscript(value=ast.Name(id="Final" | "Literal")):
                continue
            case ast.Expr(value=ast.Constant()):
                continue
        if isinstance(child, ast.expr | ast.stmt):
            yield child
        yield from _judged(child)


def _children(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for name, value in ast.iter_fields(node):
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.AST):
                yield name, each


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
            for other in (value + 1, value - 1):
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
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:  # noqa: ARG002
        """Make a usual module."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Run the other text."""
        exec(compile(self._text, self._path, "exec", dont_inherit=True), module.__dict__)


def name_of(module: str) -> str:
    """Return the dotted name of a file."""
    return module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def run_tests(module: str, text: str, tests: Sequence[str]) -> None:
    """Run tests with the module's text replaced, and end the process with pytest's code."""
    import pytest  # in the child, where it is loaded already

    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    sys.meta_path.insert(0, Replaced(name_of(module), ROOT / module, text))
    options = (
        "-q",
        "-x",
        "--no-header",
        "--tb=no",
        "--assert=plain",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:random_order",
    )
    try:
        code = pytest.main([*options, "--hypothesis-profile=mutants", "--hypothesis-seed=0", *tests])
    except BaseException:  # noqa: BLE001  # whatever it is, it was noticed
        code = 1
    os._exit(int(code))


class Verdict(NamedTuple):
    """What became of a mutant, and how long that took."""

    module: str
    mutant: Mutant
    caught: bool
    seconds: float


class Trial:
    """One mutant that runs.

    Args:
        module: the file.
        mutant: what is wrong with it.
        seconds: that it may take.
    """

    def __init__(self, module: str, mutant: Mutant, seconds: float) -> None:
        self.module, self.mutant = module, mutant
        self._began = time.monotonic()
        self._until = self._began + seconds
        self._process = _started(module, mutant.text)

    def verdict(self) -> Verdict | None:
        """Return what became of it, None while that is open."""
        if self._process.is_alive():
            if time.monotonic() < self._until:
                return None
            self._process.kill()
        self._process.join()
        took = time.monotonic() - self._began
        return Verdict(self.module, self.mutant, self._process.exitcode != 0, took)

    def end(self) -> None:
        """Stop it."""
        self._process.kill()
        self._process.join()


def _started(module: str, text: str) -> ForkProcess:
    process = multiprocessing.get_context("fork").Process(target=run_tests, args=(module, text, MODULES[module]))
    process.start()
    return process


def limits_of(modules: Sequence[str], jobs: int) -> dict[str, float]:
    """Return the seconds that a mutant of each module may take; raises SystemExit where tests fail by themselves."""
    originals = [(module, Mutant(0, "", "", (ROOT / module).read_text(encoding="utf-8"))) for module in modules]
    began = time.monotonic()
    limits: dict[str, float] = {}
    for verdict in tried(originals, dict.fromkeys(modules, math.inf), jobs, math.inf):
        if verdict.caught:
            sys.exit(f"the tests of {verdict.module} fail by themselves: {' '.join(MODULES[verdict.module])}")
        limits[verdict.module] = max(LEAST, AS_LONG * verdict.seconds)
        print(f"\r{len(limits)}/{len(modules)} originals in {time.monotonic() - began:.0f} s", end="", file=sys.stderr)
    print(file=sys.stderr)
    return limits


def tried(todo: Iterable[tuple[str, Mutant]], limits: dict[str, float], jobs: int, until: float) -> Iterator[Verdict]:
    """Yield what becomes of each, as it comes, until the time is over."""
    waiting, running = iter(todo), list[Trial]()
    try:
        while time.monotonic() < until:
            for module, mutant in itertools.islice(waiting, jobs - len(running)):
                running.append(Trial(module, mutant, limits[module]))
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


def explained(text: str) -> set[tuple[str, str, str]]:
    """Read the survivors that are known: the rows of tables with module, line and mistake."""
    rows = (line.split(" | ") for line in text.splitlines() if line.startswith("| `"))
    return {(row[0].strip("| `"), row[1].strip("`"), row[2].strip("`")) for row in rows if len(row) > 2}


def stale(known: Iterable[tuple[str, str, str]]) -> Iterator[tuple[str, str, str]]:
    """Yield the explanations of what cannot happen any more."""
    made: dict[str, set[tuple[str, str]]] = {}
    for module, code, what in known:
        if module not in made:
            text = (ROOT / module).read_text(encoding="utf-8") if (ROOT / module).is_file() else ""
            made[module] = {(mutant.code, mutant.what) for mutant in mutants(text)}
        if (code, what) not in made[module]:
            yield module, code, what


def drawn(modules: Sequence[str], seed: int, most: int) -> list[tuple[str, Mutant]]:
    """Return so many mutants of each module at most, those of all modules in turns."""
    draw = random.Random(f"mutants {seed}")
    chosen: list[tuple[float, str, Mutant]] = []
    for module in modules:
        found = list(mutants((ROOT / module).read_text(encoding="utf-8")))
        some = draw.sample(found, min(most, len(found)))
        chosen += [(place / len(some), module, mutant) for place, mutant in enumerate(some)]
    return [(module, mutant) for _, module, mutant in sorted(chosen, key=lambda each: each[:2])]


def main() -> int:
    """Do as the command line says; return how to exit."""
    options = parsed()
    sys.path.insert(0, str(ROOT))
    os.chdir(ROOT)
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = tempfile.mkdtemp(prefix="mutants-")
    preload()
    modules = [module for module in MODULES if not options.only or any(part in module for part in options.only)]
    until = time.monotonic() + options.seconds
    limits = limits_of(modules, options.jobs)
    known = explained(EXPLAINED.read_text(encoding="utf-8"))
    counts = {module: [0, 0] for module in modules}
    survivors: list[Verdict] = []
    todo = drawn(modules, options.seed, options.most)
    for number, verdict in enumerate(tried(todo, limits, options.jobs, until), start=1):
        counts[verdict.module][0] += 1
        counts[verdict.module][1] += verdict.caught
        if not verdict.caught:
            survivors.append(verdict)
        print(f"\r{number}/{len(todo)} mutants, {len(survivors)} survived", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return told(counts, survivors, known, options.seed, len(todo))


def told(
    counts: dict[str, list[int]], survivors: list[Verdict], known: set[tuple[str, str, str]], seed: int, drawn: int
) -> int:
    """Print what came of it; 1 where a survivor is not explained, or what is explained is outdated."""
    for module, (ran, caught) in counts.items():
        if ran:
            print(f"{module}: {caught} of {ran} caught")
    unexplained = 0
    for module, mutant, *_ in sorted(survivors):
        is_known = (module, mutant.code, mutant.what) in known
        unexplained += not is_known
        print(f"{'explained' if is_known else 'SURVIVED'}: {module}:{mutant.line}: {mutant.what}: {mutant.code}")
    outdated = sorted(stale(known))
    for module, code, what in outdated:
        print(f"explained, and cannot happen any more: {module}: {what}: {code}")
    ran, caught = (sum(column) for column in zip(*counts.values(), strict=True))
    print(f"seed {seed}: {ran} of {drawn} mutants were run, {caught} caught ({caught / max(ran, 1):.1%}),")
    print(f"{ran - caught - unexplained} survivors are explained, {unexplained} are not")
    return 1 if unexplained or outdated else 0


def preload() -> None:
    """Import once what every child needs, but nothing of aioregistry's; and say how Hypothesis is to run."""
    import aiozk  # noqa: F401
    import anyio  # noqa: F401
    import msgspec  # noqa: F401
    import pytest_asyncio  # noqa: F401
    from hypothesis import HealthCheck, Phase, settings

    # A failure is enough, nobody reads the smallest example; and what is slow on a busy machine is no failure.
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
    parser.add_argument("--most", type=int, default=30, help="mutants of each module (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--seconds", type=float, default=3600.0, help="when to end (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
