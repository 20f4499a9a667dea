"""The classes of aioregistry that its public properties, methods and functions return, by their annotations."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import typing
from collections.abc import Iterator
from importlib import import_module
from importlib.util import resolve_name
from types import FunctionType
from typing import Any

__all__ = ["of"]


def of(value: object) -> Iterator[type]:
    """Yield the classes of the package that *value*, a function or a class with its public members, returns."""
    if isinstance(value, type):
        for name, member in inspect.getmembers_static(value):
            if not name.startswith("_"):
                yield from of_member(member)
    else:
        yield from of_member(value)


def of_member(member: object) -> Iterator[type]:
    """Yield the classes that one property, method or function returns."""
    if isinstance(member, property):
        member = member.fget
    elif isinstance(member, functools.cached_property):
        member = member.func
    function = inspect.unwrap(getattr(member, "__func__", member))  # type: ignore[arg-type] # whatever it is
    if isinstance(function, FunctionType) and function.__module__.partition(".")[0] == "aioregistry":
        for each in (function, *typing.get_overloads(function)):
            written = each.__annotations__.get("return")
            yield from classes_in(evaluated(written, each.__module__) if isinstance(written, str) else written)


def classes_in(kind: Any) -> Iterator[type]:
    """Yield the package's classes in an annotation."""
    origin = typing.get_origin(kind)
    if isinstance(kind, type) and origin is None and kind.__module__.partition(".")[0] == "aioregistry":
        yield kind
    if origin is not None:
        yield from classes_in(origin)
    for argument in typing.get_args(kind):
        for each in argument if isinstance(argument, list) else [argument]:
            yield from classes_in(each)


def evaluated(written: str, module: str) -> Any:
    """Return what an annotation in *module* means, with the names that are imported for type checkers alone."""
    return eval(written, imported(module) | vars(sys.modules[module]))


@functools.cache
def imported(module: str) -> dict[str, Any]:
    """Return what *module* imports under ``if TYPE_CHECKING:``."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    package = sys.modules[module].__package__
    blocks = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {
        alias.asname or alias.name: getattr(import_module(resolve_name(source, package)), alias.name)
        for node, source in ((node, "." * node.level + (node.module or "")) for node in imports)
        for alias in node.names
    }
