"""Instances for both sides."""

from __future__ import annotations

from typing import Any

from aioregistry._model import ServiceInstance
from tests.support.documents import ADDRESS_AND_PORT

URI_SPEC = ADDRESS_AND_PORT
SPRING_PAYLOAD = {"id": "application-1", "name": "chat", "metadata": {"instance_status": "UP", "zone": "eu-1"}}

# The payload that a Python program registers → the class that Java sees and the value in it
PAYLOADS: dict[str, tuple[Any, str | None]] = {
    "map": ({"zone": "eu-1", "load": 12, "deep": {"list": [1, {"a": None}]}}, "java.util.LinkedHashMap"),
    "empty map": ({}, "java.util.LinkedHashMap"),
    "list": ([1, "two", {"three": [3]}], "java.util.ArrayList"),
    "list of strings": (["com.example.First", "second"], "java.util.ArrayList"),
    "pair that looks like Jackson's mark": (["java.lang.Long", 5], "java.util.ArrayList"),
    "empty list": ([], "java.util.ArrayList"),
    "string": ("grüße ☃", "java.lang.String"),
    "none": (None, None),
    "integer": (7, "java.lang.Integer"),
    "large integer": (2**53 + 1, "java.lang.Long"),
    "float": (1.5, "java.lang.Double"),
    "boolean": (True, "java.lang.Boolean"),
}


def chat(**fields: Any) -> ServiceInstance[Any]:
    defaults: dict[str, Any] = {"address": "10.0.0.7", "port": 7000}
    return ServiceInstance("chat", **defaults | fields)


def java(**fields: Any) -> dict[str, Any]:
    """An instance for Curator's builder."""
    return {"name": "chat", "id": "java-1", "address": "10.0.0.8", "port": 8000, **fields}
