"""Payloads of a caller's own type: from JSON by msgspec or by pydantic's validator, and to JSON.

Pure, but for the caller's own code, which may raise whatever it likes.

An error is in words of our own, with the place: ``payload: load is 'much', which is not of type int``. The
words of msgspec and pydantic change with their releases; those of the caller's own validators are quoted.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Final, NotRequired, Required, Union, get_args, get_origin

import msgspec
import msgspec.inspect

from . import _foreign as foreign
from ._errors import InvalidArgument, InvalidInstance, InvalidType
from ._frozen import MAX_DEPTH, TooDeep

__all__ = ["check_payload_type", "convert", "fresh_json", "plain"]

# ---------------------------------------------------------------- to JSON


def plain(payload: Any) -> Any:
    """Return *payload* as builtin values that msgspec can write; raises what msgspec or the payload's type does."""
    return msgspec.to_builtins(payload, str_keys=True, enc_hook=_dumped)


def fresh_json(field: str, value: Any) -> Any:
    """Return *value* as fresh builtin JSON values, as a consumer will see it: no tuples, say.

    Raises:
        InvalidArgument: where it has no such form; names the place.
    """
    try:
        builtins = foreign.call(plain, value)
    except foreign.ForeignError as error:
        problem = _unwritable(value, field, MAX_DEPTH) or f"{type(value).__name__} cannot be written as JSON"
        raise InvalidArgument(field, value, problem) from error
    defect = _unwritable(builtins, field, MAX_DEPTH)
    if defect is not None:
        raise InvalidArgument(field, value, defect)
    return msgspec.json.decode(msgspec.json.encode(builtins))


def _dumped(value: Any) -> Any:
    if not _is_pydantic(type(value)):
        raise NotImplementedError
    return value.model_dump(mode="json", by_alias=True)


def _unwritable(value: Any, where: str, levels: int) -> str | None:
    """Return what in *value* is not JSON, and where."""
    if value is None or type(value) in (bool, int):
        return None
    if isinstance(value, float) and not math.isfinite(value):  # msgspec writes it as null
        return f"{where} is {value}, and JSON has finite numbers only"
    if isinstance(value, str):
        return None if _is_unicode(value) else f"{where} has half a surrogate pair, which is not text"
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        if not levels:
            return str(TooDeep())
        return next(filter(None, _unwritable_items(value, where, levels - 1)), None)
    try:
        foreign.call(plain, value)
    except foreign.ForeignError:
        return f"{where} is of type {type(value).__name__}, which cannot be written as JSON"
    return None


def _unwritable_items(value: Any, where: str, levels: int) -> Iterator[str | None]:
    if not isinstance(value, Mapping):
        for index, item in enumerate(value):
            yield _unwritable(item, f"{where}[{index}]", levels)
        return
    for key, item in value.items():
        try:
            foreign.call(lambda key: msgspec.json.encode(plain({key: None})), key)
        except foreign.ForeignError:
            yield f"{where} has the key {key!r:.80}, which cannot be written as JSON"
        yield _unwritable(item, f"{where}.{key}", levels)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# ---------------------------------------------------------------- which types

# One of each kind of JSON value: a type without an instance among them fits no payload.
_JSON_VALUES: Final[tuple[Any, ...]] = ({}, [], "", 0, 0.0, True, None)


def _is_type(value: object) -> bool:
    """Return whether *value* stands for a type, a generic one or one of typing's included."""
    return isinstance(value, type) or get_origin(value) is not None or type(value).__module__ == "typing"


def check_payload_type(payload_type: Any) -> Any:
    """Return *payload_type* if payloads can be converted to it: by msgspec, or by pydantic where it is pydantic's.

    Raises:
        InvalidArgument: no payload can fit it; says why.
    """
    try:
        information = msgspec.inspect.type_info(payload_type)
        parts = list(_parts(information, {}))
    except Exception as error:
        kind = InvalidArgument if _is_type(payload_type) else InvalidType
        raise kind("payload_type", payload_type, "is not a type that JSON can be converted to") from error
    validated = any(_is_pydantic(part) for part in parts)
    for part in parts:
        if not _is_pydantic(part) and not _is_plain(part):
            name = getattr(part, "__name__", repr(part))
            raise InvalidArgument("payload_type", payload_type, f"no JSON value converts to {name}")
        if dataclasses.is_dataclass(part) and _is_pydantic(part) and _has_structs(information):
            problem = f"{_name(part)} is a dataclass of pydantic's inside a Struct, which would not check it"
            raise InvalidArgument("payload_type", payload_type, problem)
    if validated and not _has_structs(information):
        try:
            _adapter(payload_type)
        except Exception as error:
            raise InvalidArgument("payload_type", payload_type, "is not a type that pydantic validates") from error
    return payload_type


def _parts(information: Any, seen: dict[Any, None]) -> Iterator[Any]:
    """The classes in a type that are not msgspec's to convert, and dataclasses; each once."""
    if isinstance(information, msgspec.inspect.CustomType | msgspec.inspect.DataclassType):
        if information.cls in seen:
            return
        seen[information.cls] = None
        yield information.cls
    elif isinstance(information, msgspec.inspect.Type) and hasattr(information, "cls"):
        if information.cls in seen:
            return
        seen[information.cls] = None
    for inner in _inner(information):
        yield from _parts(inner, seen)


def _inner(information: Any) -> Iterator[Any]:
    for name in information.__struct_fields__:
        value = getattr(information, name)
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, msgspec.inspect.Type | msgspec.inspect.Field):
                yield each


def _is_plain(part: Any) -> bool:
    """Whether *part* is a class that some JSON value is an instance of, or a dataclass, which msgspec fills itself."""
    return dataclasses.is_dataclass(part) or any(isinstance(value, part) for value in _JSON_VALUES)


def _has_structs(information: Any, seen: frozenset[Any] = frozenset()) -> bool:
    if isinstance(information, msgspec.inspect.StructType):
        return True
    cls = getattr(information, "cls", None)
    if cls in seen:
        return False
    return any(_has_structs(inner, seen | {cls} if cls else seen) for inner in _inner(information))


def _is_pydantic(part: Any) -> bool:
    """Whether *part* is a model or a dataclass of pydantic's; pydantic itself is imported only where such types are."""
    return isinstance(part, type) and hasattr(part, "__pydantic_validator__")


def _adapter(payload_type: Any) -> Any:
    import pydantic

    return pydantic.TypeAdapter(payload_type)


# ---------------------------------------------------------------- from JSON


def convert(payload: Any, payload_type: Any) -> Any:
    """Return *payload*, JSON, converted to *payload_type*, a type that :func:`check_payload_type` let pass.

    Raises:
        InvalidInstance: it does not fit; says where.
    """
    try:
        adapter = _validator(payload_type)
    except TypeError:  # a type with arguments that cannot be hashed
        adapter = _validator.__wrapped__(payload_type)
    try:
        return foreign.call(_converted, payload, payload_type, adapter)
    except foreign.ForeignError as failure:
        reason = _why(failure, payload, payload_type, adapter is not None)
        raise InvalidInstance(f"payload: {reason}") from failure.error


def _converted(payload: Any, payload_type: Any, adapter: Any = None) -> Any:
    if adapter is not None:
        return adapter.validate_json(msgspec.json.encode(payload))
    return msgspec.convert(payload, payload_type, str_keys=True, dec_hook=_validated)


@functools.lru_cache(maxsize=256)
def _validator(payload_type: Any) -> Any:
    """The adapter of pydantic's for types that are for pydantic to convert, else None."""
    information = msgspec.inspect.type_info(payload_type)
    if _has_structs(information) or not any(map(_is_pydantic, _parts(information, {}))):
        return None
    return _adapter(payload_type)


def _validated(payload_type: Any, value: Any) -> Any:
    if _is_pydantic(payload_type):
        return payload_type.model_validate_json(msgspec.json.encode(value))
    if isinstance(value, payload_type):
        return value
    raise TypeError(payload_type)


def _why(failure: foreign.ForeignError, payload: Any, payload_type: Any, by_pydantic: bool) -> str:
    error = failure.error
    if isinstance(error, RecursionError):
        return str(TooDeep())
    if isinstance(error, msgspec.ValidationError):
        return _misfit("", payload, payload_type, MAX_DEPTH)
    problems = getattr(error, "errors", None)
    if by_pydantic and callable(problems):
        try:
            return _problem(foreign.call(problems, include_url=False)[0], payload_type)
        except foreign.ForeignError as other:
            failure = other
    # Of the caller's own code: __post_init__ and validators may raise anything.
    return f"it is {_shown(payload)}, which {_name(payload_type)} refuses: {failure!s:.200}"


def _problem(details: dict[str, Any], payload_type: Any) -> str:
    """Say what pydantic found."""
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in details["loc"]).removeprefix(".")
    if details["type"] == "missing":
        owner, _, field = where.rpartition(".")
        return f"{owner or 'it'} has no {field!r}"
    return f"{where or 'it'} is {_shown(details['input'])}, which {_name(payload_type)} refuses: {details['msg']}"


def _misfit(where: str, value: Any, wanted: Any, levels: int) -> str:
    """Say where in *value*, which does not fit the type *wanted*, the reason is: as deep as it can be found."""
    for inner, item, item_type in _members(where, value, wanted) if levels else ():
        if item is _MISSING:
            return f"{where or 'it'} has no {inner!r}"
        if not _converts(item, item_type):
            return _misfit(inner, item, item_type, levels - 1)
    refusal = _refusal(value, wanted)
    return f"{where or 'it'} is {_shown(value)}, which {refusal or f'is not of type {_name(wanted)}'}"


def _refusal(value: Any, wanted: Any) -> str | None:
    """The error of the caller's own validator (``__post_init__``): msgspec raises from it."""
    try:
        foreign.call(_converted, value, wanted)
    except foreign.ForeignError as failure:
        cause = failure.error.__cause__
        return None if cause is None else f"{_name(wanted)} refuses: {foreign.shown(cause)!s:.200}"
    return None


_MISSING: Final = object()


def _members(where: str, value: Any, wanted: Any) -> Iterator[tuple[str, Any, Any]]:
    """The parts of *value*: its place, itself and its type, for the types that are taken apart here."""
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin is Annotated:
        yield from _members(where, value, arguments[0])
    elif origin in (Union, UnionType):
        others = [each for each in arguments if each is not type(None)]
        if len(others) == 1:
            yield from _members(where, value, others[0])
    elif isinstance(value, dict):
        yield from _members_of_object(where, value, wanted)
    elif isinstance(value, list) and arguments and isinstance(origin, type):
        types = arguments if origin is tuple and arguments[-1] is not ... else (arguments[0],) * len(value)
        for index, (item, item_type) in enumerate(zip(value, types, strict=False)):
            yield f"{where}[{index}]", item, item_type


def _members_of_object(where: str, value: dict[str, Any], wanted: Any) -> Iterator[tuple[str, Any, Any]]:
    origin, arguments = get_origin(wanted), get_args(wanted)
    if isinstance(origin, type) and issubclass(origin, Mapping) and len(arguments) == 2:
        for key, item in value.items():
            yield _member(where, key), item, arguments[1]
    for name, field_type, required in _fields(origin or wanted):
        if name in value:
            yield _member(where, name), value[name], field_type
        elif required:
            yield name, _MISSING, field_type


def _member(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _fields(wanted: Any) -> list[tuple[str, Any, bool]]:
    """The name in JSON, the type, and whether it must be there, of a class's fields; nothing for classes without."""
    try:
        if issubclass(wanted, msgspec.Struct) and not wanted.__struct_config__.array_like:
            return [(field.encode_name, field.type, field.required) for field in msgspec.structs.fields(wanted)]
        hints = typing.get_type_hints(wanted, include_extras=True)
        if dataclasses.is_dataclass(wanted):
            fields = [field for field in dataclasses.fields(wanted) if field.init]
            return [(field.name, hints[field.name], _is_required(field)) for field in fields]
        required = getattr(wanted, "__required_keys__", None)  # a TypedDict's
        return [] if required is None else [_key(name, hint, name in required) for name, hint in hints.items()]
    except Exception:  # noqa: BLE001 - no class, or names in annotations that are not to be found: not taken apart
        return []


def _key(name: str, hint: Any, required: bool) -> tuple[str, Any, bool]:
    """The field of a TypedDict; what its own annotation says counts, which Python overlooks where that is a text."""
    qualifier = get_origin(hint)
    if qualifier in (Required, NotRequired):
        return name, get_args(hint)[0], qualifier is Required
    return name, hint, required


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _converts(value: Any, wanted: Any) -> bool:
    try:
        foreign.call(_converted, value, wanted)
    except foreign.ForeignError:
        return False
    return True


def _name(payload_type: Any) -> str:
    return payload_type.__name__ if isinstance(payload_type, type) and not get_args(payload_type) else str(payload_type)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


_MAX_SHOWN: Final = 80
