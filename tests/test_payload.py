"""Payload types: through their own validators, or refused at once."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NoReturn, NotRequired, Required, TypedDict

import msgspec
import pydantic
import pydantic.dataclasses
import pytest

from aioregistry import InvalidArgument, ServiceInstance
from aioregistry._document import decode, encode
from aioregistry._errors import InvalidInstance
from aioregistry._model import check_payload_type, with_payload_type


class Model(pydantic.BaseModel):
    load: Annotated[int, pydantic.Field(ge=0)]


@pydantic.dataclasses.dataclass
class Checked:
    load: Annotated[int, pydantic.Field(ge=0)]


class Odd(pydantic.BaseModel):
    load: int

    @pydantic.field_validator("load")
    @classmethod
    def checked(cls, load: int) -> int:
        raise RuntimeError("odd")


class Raising(msgspec.Struct):
    load: int

    def __post_init__(self) -> None:
        raise asyncio.CancelledError


def holding(payload: Any) -> ServiceInstance[Any]:
    return ServiceInstance("chat", id="a", payload=payload)


@pytest.mark.parametrize("payload_type", [Callable, type, complex, range, "Model", lambda: None])
def test_a_type_that_fits_no_payload_is_refused_at_once(payload_type: Any) -> None:
    with pytest.raises(InvalidArgument) as raised:
        check_payload_type(payload_type)
    assert raised.value.field == "payload_type"


@pytest.mark.parametrize(
    ("payload_type", "is_a_type"),
    [
        (complex, True),
        (list[complex], True),
        (Callable, True),
        (int | complex, True),
        (NoReturn, True),
        (5, False),
        ({}, False),
    ],
)
def test_what_is_no_type_at_all_is_a_type_error(payload_type: Any, is_a_type: bool) -> None:
    with pytest.raises(InvalidArgument) as raised:
        check_payload_type(payload_type)
    assert isinstance(raised.value, TypeError) is not is_a_type


@pytest.mark.parametrize("payload_type", [Model, Checked])
def test_pydantics_types_check_by_their_own_validators(payload_type: Any) -> None:
    check_payload_type(payload_type)
    typed = with_payload_type(holding({"load": 3}), payload_type)
    assert typed.payload == payload_type(load=3)
    assert decode(encode(typed.replace(enabled=False))).payload == {"load": 3}
    with pytest.raises(InvalidInstance, match=r"payload: load is -1, which \w+ refuses"):
        with_payload_type(holding({"load": -1}), payload_type)
    with pytest.raises(InvalidInstance, match="payload: it has no 'load'"):
        with_payload_type(holding({}), payload_type)


def test_a_list_of_models_is_checked_too() -> None:
    check_payload_type(list[Model])
    assert with_payload_type(holding([{"load": 1}]), list[Model]).payload == [Model(load=1)]
    with pytest.raises(InvalidInstance, match=r"payload: \[0\].load is -1"):
        with_payload_type(holding([{"load": -1}]), list[Model])


def test_whatever_a_validator_raises_the_instance_is_invalid() -> None:
    with pytest.raises(InvalidInstance, match="refuses: CancelledError"):
        with_payload_type(holding({"load": 1}), Raising)
    with pytest.raises(InvalidInstance) as raised:
        with_payload_type(holding({"load": 1}), Odd)
    assert raised.value.reason.endswith("which Odd refuses: RuntimeError: odd")


# ---------------------------------------------------------------- where a payload does not fit


class Meta(msgspec.Struct):
    zone: str
    load: int = 0


class Holder(msgspec.Struct, rename="camel"):
    meta: Meta
    all_metas: list[Meta] = []


class Listed(msgspec.Struct, array_like=True):
    load: int


class Picky(msgspec.Struct):
    load: int

    def __post_init__(self) -> None:
        if self.load > 9:
            raise ValueError("too   much")


class Wrapped(msgspec.Struct):
    pickies: list[Picky] = []
    models: list[Model] = []


@dataclasses.dataclass
class Plain:
    zone: str
    load: int = 0
    tags: list[str] = dataclasses.field(default_factory=list)
    last: int = 0
    seen: int = dataclasses.field(init=False, default=1)


@dataclasses.dataclass
class Branch:
    branches: list[Branch] = dataclasses.field(default_factory=list)


class Typed(TypedDict):
    zone: str
    load: NotRequired[int]
    metas: NotRequired[list[Meta]]


class Partial(TypedDict, total=False):
    zone: Required[str]
    load: int


class Tree(msgspec.Struct):
    children: list[Tree] = []
    load: int = 0


class Parent(pydantic.BaseModel):
    children: list[Model]


@dataclasses.dataclass
class Annotations:
    unknown: NoSuchName  # type: ignore[name-defined]  # noqa: F821


MISFITS: list[tuple[Any, Any, str]] = [
    (Meta, 5, "it is 5, which is not of type Meta"),
    (Meta, {}, "it has no 'zone'"),
    (Meta, {"zone": "a", "load": "much"}, "load is 'much', which is not of type int"),
    (Meta, {"zone": "a", "load": None}, "load is None, which is not of type int"),
    (Meta | None, {"load": 1}, "it has no 'zone'"),
    (Annotated[Meta, "about"], {"load": 1}, "it has no 'zone'"),
    (int | str, [1], "it is [1], which is not of type int | str"),
    (dict[str, Meta], {"a": {"zone": "x"}, "b": {"zone": 1}}, "b.zone is 1, which is not of type str"),
    (Mapping[str, int], {"a": 1, "b": "x"}, "b is 'x', which is not of type int"),
    (list[Meta], [{"zone": "x"}, {}], "[1] has no 'zone'"),
    (list[Meta], {}, "it is {}, which is not of type list["),
    (tuple[int, str], [1, 2], "[1] is 2, which is not of type str"),
    (tuple[int, str], [1], "it is [1], which is not of type tuple[int, str]"),
    (tuple[()], [1], "it is [1], which is not of type tuple[()]"),
    (tuple[int, ...], [1, 2, "x"], "[2] is 'x', which is not of type int"),
    (Holder, {"meta": {}}, "meta has no 'zone'"),
    (Holder, {"meta": {"zone": "a"}, "allMetas": [{"zone": 1}]}, "allMetas[0].zone is 1, which is not of type str"),
    (Listed, ["x"], "it is ['x'], which is not of type Listed"),
    (Tree, {"children": [{"children": [{"load": "x"}]}]}, "children[0].children[0].load is 'x', which is not of"),
    (Plain, {"load": 1}, "it has no 'zone'"),
    (Plain, {"zone": "a", "load": "x"}, "load is 'x', which is not of type int"),
    (Plain, {"zone": "a", "tags": ["x", 1]}, "tags[1] is 1, which is not of type str"),
    (Plain, {"zone": "a", "last": "x"}, "last is 'x', which is not of type int"),
    (Typed, {}, "it has no 'zone'"),
    (Typed, {"zone": "a", "load": "x"}, "load is 'x', which is not of type int"),
    (Partial, {"load": 1}, "it has no 'zone'"),
    (Partial, {"zone": "a", "load": "x"}, "load is 'x', which is not of type int"),
    (Typed, {"zone": "a", "metas": [{}]}, "metas[0] has no 'zone'"),
    (Picky, {"load": 10}, "it is {'load': 10}, which Picky refuses: ValueError: too much"),
    (Picky, {"load": "x"}, "load is 'x', which is not of type int"),
    (Wrapped, {"pickies": [{"load": 10}]}, "pickies[0] is {'load': 10}, which Picky refuses: ValueError: too much"),
    (Wrapped, {"models": [{"load": -1}]}, "models[0] is {'load': -1}, which Model refuses: "),
    (Model, 5, "it is 5, which Model refuses: "),
    (Parent, {"children": [{"load": 1}, {"load": -1}]}, "children[1].load is -1, which Parent refuses: "),
    (Parent, {"children": [{}]}, "children[0] has no 'load'"),
    (dict[str, Model], {"a": {}}, "a has no 'load'"),
    (int, "x" * 78, f"it is '{'x' * 78}', which is not of type int"),
    (int, "x" * 79, f"it is '{'x' * 79}..., which is not of type int"),
]


@pytest.mark.parametrize(("payload_type", "payload", "reason"), MISFITS)
def test_a_payload_that_does_not_fit_says_where(payload_type: Any, payload: Any, reason: str) -> None:
    check_payload_type(payload_type)
    with pytest.raises(InvalidInstance) as raised:
        with_payload_type(holding(payload), payload_type)
    assert raised.value.reason.startswith(f"payload: {reason}")
    if not reason.endswith((": ", "[")):
        assert raised.value.reason in (f"payload: {reason}", f"payload: {reason} type int")


HARMFUL = "k\n2026-11-30 CRITICAL \x1b[2J\u202e"


class Strict(pydantic.BaseModel, extra="forbid"):
    pass


class Quoting(pydantic.BaseModel):
    zone: str

    @pydantic.field_validator("zone")
    @classmethod
    def known(cls, zone: str) -> str:
        raise ValueError(f"{zone} is not known")


@dataclasses.dataclass
class Quoted:
    zone: str

    def __post_init__(self) -> None:
        raise ValueError(f"{self.zone} is not known")


@pytest.mark.parametrize(
    ("payload_type", "payload"),
    [
        (dict[str, int], {HARMFUL: "x"}),
        (dict[str, dict[str, int]], {"a": {HARMFUL: "x"}}),
        (Strict, {HARMFUL: 1}),
        (Quoting, {"zone": HARMFUL}),
        (Quoted, {"zone": HARMFUL}),
    ],
    ids=["key", "inner key", "field", "model", "dataclass"],
)
def test_a_reason_is_one_line_whatever_the_payload_says(payload_type: Any, payload: Any) -> None:
    """Any client that may write the node writes its payload, and the reason is logged."""
    with pytest.raises(InvalidInstance) as raised:
        with_payload_type(holding(payload), payload_type)
    assert raised.value.reason.isprintable()
    assert "CRITICAL" in raised.value.reason


FITTING: list[tuple[Any, Any, Any]] = [
    (Meta, {"zone": "a"}, Meta("a")),
    (Wrapped, {"models": [{"load": 1}], "pickies": [{"load": 9}]}, Wrapped([Picky(9)], [Model(load=1)])),
    (Tree, {"children": [{"load": 1}]}, Tree([Tree(load=1)])),
    (Branch, {"branches": [{}]}, Branch([Branch()])),
    (list[list[Wrapped]], [[{"models": [{"load": 1}]}]], [[Wrapped([], [Model(load=1)])]]),
    (Plain, {"zone": "a"}, Plain("a")),
    (Typed, {"zone": "a"}, {"zone": "a"}),
    (Partial, {"zone": "a"}, {"zone": "a"}),
    (Listed, [1], Listed(1)),
    (dict[int, str], {"1": "a"}, {1: "a"}),
    (Parent, {"children": [{"load": 1}]}, Parent(children=[Model(load=1)])),
    (Annotated[list[Model], ["no hash"]], [{"load": 1}], [Model(load=1)]),
    (Any, [1], [1]),
    (object, {"a": 1}, {"a": 1}),
]


@pytest.mark.parametrize(("payload_type", "payload", "value"), FITTING)
def test_a_payload_that_fits_is_of_the_type(payload_type: Any, payload: Any, value: Any) -> None:
    assert check_payload_type(payload_type) is payload_type
    assert with_payload_type(holding(payload), payload_type).payload == value


def test_a_dataclass_of_pydantics_that_a_struct_would_not_check_is_refused() -> None:
    inside = msgspec.defstruct("Inside", [("checked", Checked)])
    with pytest.raises(InvalidArgument, match="Checked is a dataclass of pydantic's inside a Struct"):
        check_payload_type(inside)


def test_a_name_that_is_not_to_be_found_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        check_payload_type(Annotations)


# ---------------------------------------------------------------- what is not JSON


class Owner(msgspec.Struct):
    value: Any


def nested(levels: int) -> Any:
    payload: Any = 1
    for number in range(levels):
        payload = [payload] if number % 2 else {"a": payload}
    return payload


UNWRITABLE: list[tuple[Any, str]] = [
    (float("nan"), "payload is nan, and JSON has finite numbers only"),
    ({"a": [1.5, (True, float("inf"))]}, "payload.a[1][1] is inf, and JSON has finite numbers only"),
    (Owner(float("inf")), "payload.value is inf, and JSON has finite numbers only"),
    ("\ud800", "payload has half a surrogate pair, which is not text"),
    ({"a": None, "b": "\ud800"}, "payload.b has half a surrogate pair, which is not text"),
    ({"a": [1, object()]}, "payload.a[1] is of type object, which cannot be written as JSON"),
    (Owner(object()), "payload is of type Owner, which cannot be written as JSON"),
    ({"a": {1j: 1}}, "payload.a has the key 1j, which cannot be written as JSON"),
    ({"\ud800": 1}, "payload has the key '\\ud800', which cannot be written as JSON"),
    (nested(101), "it is nested deeper than 100 levels"),
]


@pytest.mark.parametrize(("payload", "reason"), UNWRITABLE)
def test_what_is_not_json_says_where(payload: Any, reason: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        holding(payload)
    assert (raised.value.field, raised.value.reason) == ("payload", reason)


@pytest.mark.parametrize(
    ("payload", "seen"),
    [
        (nested(100), nested(100)),
        ((1, [2, {"a": None}]), [1, [2, {"a": None}]]),
        ({1: "a"}, {"1": "a"}),
        (Owner((1,)), {"value": [1]}),
        (Model(load=1), {"load": 1}),
        ({"model": Model(load=1)}, {"model": {"load": 1}}),
        (frozenset([1]), [1]),
    ],
)
def test_what_is_json_is_what_a_consumer_will_see(payload: Any, seen: Any) -> None:
    assert decode(encode(holding(payload))).payload == seen
