"""Payload types: through their own validators, or refused at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

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
    [(complex, True), (list[complex], True), (Callable, True), (int | complex, True), (5, False), ({}, False)],
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
