"""JSON that cannot be changed: everybody who looks at an instance is given the same one. Pure."""

from __future__ import annotations

from typing import Any, Final, NoReturn, Self

__all__ = ["CONTAINERS", "MAX_DEPTH", "FrozenDict", "FrozenList", "TooDeep", "freeze"]


def _refuse(self: object, *_: object, **__: object) -> NoReturn:
    raise TypeError(f"{type(self).__name__} is shared and cannot be changed: make a copy with dict() or list()")


class FrozenDict(dict[str, Any]):
    """A JSON object that cannot be changed: everybody who looks at an instance is given the same one."""

    __slots__ = ()
    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, Any]]]:
        return type(self), (dict(self),)  # pickle's default fills an empty one item by item


class FrozenList(list[Any]):
    """A JSON array that cannot be changed; equal to a list of the same items."""

    __slots__ = ()
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __reduce__(self) -> tuple[type[Self], tuple[list[Any]]]:
        return type(self), (list(self),)


CONTAINERS: Final = frozenset((dict, list))

# Comparing, showing or pickling a value nested deeper than Python's stack reaches fails, and so would a view. Far
# deeper than real documents, and a tenth of what Jackson bears (StreamReadConstraints.DEFAULT_MAX_DEPTH, 1000).
MAX_DEPTH: Final = 100


class TooDeep(ValueError):
    """A value is nested deeper than ``MAX_DEPTH`` levels."""

    def __init__(self) -> None:
        super().__init__(f"it is nested deeper than {MAX_DEPTH} levels")


def freeze(value: Any, levels: int = MAX_DEPTH) -> Any:
    """Return *value*, fresh from a decoder, with its containers frozen; what *value* was is used up.

    Raises:
        TooDeep: it is nested deeper than *levels*.
    """
    if type(value) is dict:
        if not levels:
            raise TooDeep
        for key, item in value.items():
            if type(item) in CONTAINERS:
                value[key] = freeze(item, levels - 1)  # in the place of another: the iteration does not mind
        return FrozenDict(value)
    if type(value) is list:
        if not levels:
            raise TooDeep
        for item in value:
            if type(item) in CONTAINERS:
                return FrozenList([freeze(item, levels - 1) for item in value])
        return FrozenList(value)
    return value
