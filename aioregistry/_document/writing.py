"""An instance written as Curator writes it; what another writer wrote otherwise, as that did. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from aioregistry._java import marked
from aioregistry._model import FIELDS, Draft, ServiceInstance, as_written
from aioregistry._payload import plain

__all__ = ["encode", "encode_json", "fields_of", "names_itself"]

encode_json = msgspec.json.Encoder().encode


def encode(instance: ServiceInstance[Any]) -> bytes:
    """Return the document of *instance*."""
    document = {**fields_of(instance), **instance.extra}
    for field in as_written(instance):
        if all(getattr(instance, attribute) == value for attribute, value in field.read_as.items()):
            if field.text is None:
                document.pop(field.name, None)
            else:
                document[field.name] = msgspec.Raw(field.text)
    return encode_json(document)


def names_itself(instance: ServiceInstance[Any]) -> bool:
    """Return whether the document of *instance* alone tells its id."""
    return all(field.name != "id" for field in as_written(instance))


def fields_of(instance: Draft[Any] | ServiceInstance[Any]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": instance.name,
        "id": instance.id,
        "address": instance.address,
        "port": instance.port,
        "sslPort": instance.ssl_port,
        "payload": marked(plain(instance.payload), instance.payload_class),
        "registrationTimeUTC": instance.registration_time_ms or 0,  # a Java long: there is no null
        "serviceType": instance.service_type.value,
        "uriSpec": instance.uri_spec,
    }
    for field in _OPTIONAL:
        value = getattr(instance, field.attribute)
        if value != field.default:
            document[str(field.name)] = value
    return document


_OPTIONAL: Final = tuple(field for field in FIELDS if field.is_optional)
