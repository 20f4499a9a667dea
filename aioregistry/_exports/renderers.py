"""Instances as the text that another program reads. Pure.

Anybody may have written the documents that names, ids and payloads come from. JSON escapes them. In the configurations
of HAProxy and nginx stands nothing of them but an address, a port, and a name of letters, digits, ``_``, ``-`` and
``.``: what has other characters is called by its own name with ``_`` in their place, and a digest.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from aioregistry._addresses import ip_address, problem_of
from aioregistry._document import encode
from aioregistry._model import ServiceInstance

from .selection import ALIKE, Services, Weights

__all__ = ["CONTENT_TYPES", "FORMATS", "Rendered", "render"]


_NO_WEIGHTS: Final[Mapping[str, Weights]] = MappingProxyType({})


class Rendered(NamedTuple):
    """A text, and the instances that it leaves out."""

    text: str
    left_out: tuple[str, ...]
    """``service/id: why`` of each instance that the format has no form for."""


def render(format: str, services: Services, weights: Mapping[str, Weights] = _NO_WEIGHTS) -> Rendered:
    """Return *services* in a *format*, one of :data:`FORMATS`; the same text for the same instances.

    Args:
        format: of the text.
        services: the services in it.
        weights: the weights of the instances, by service.
    """
    renderer = _RENDERERS[format]
    left_out: list[str] = []
    kept: dict[str, tuple[ServiceInstance[Any], ...]] = {}
    for name in sorted(services):
        fit = []
        for instance in services[name]:
            problem = renderer.problem(instance)
            if problem is None:
                fit.append(instance)
            else:
                left_out.append(f"{name}/{instance.id}: {problem}")
        kept[name] = tuple(fit)
    return Rendered(renderer.text(kept, weights), tuple(left_out))


# ---------------------------------------------------------------- what instances are made of


def _port(instance: ServiceInstance[Any]) -> int:
    return instance.port or instance.ssl_port or 0


def _place(instance: ServiceInstance[Any]) -> str:
    """Return ``address:port``, with an IPv6 address in brackets."""
    address = instance.address or ""
    return f"[{address}]:{_port(instance)}" if ":" in address else f"{address}:{_port(instance)}"


def _to_json(value: object) -> str:
    # In ASCII: half a surrogate, which is not text in UTF-8, is escaped too.
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"


def _no_problem(_: ServiceInstance[Any]) -> str | None:
    return None


def _address_problem(instance: ServiceInstance[Any]) -> str | None:
    """Why no configuration can name its address: others publish instances that were not checked here."""
    address = instance.address or ""
    problem = problem_of(address)
    if problem is not None:
        return f"it has no usable address: {problem}"
    if not address.isascii():
        return "its address is not written in ASCII"
    return "its address is of one link only" if "%" in address else None


def _ip_problem(instance: ServiceInstance[Any]) -> str | None:
    # Envoy resolves no names for EDS, and nginx resolves them when it starts: for one of them that it cannot take,
    # either refuses the whole file.
    problem = _address_problem(instance)
    if problem is None and ip_address(instance.address or "") is None:
        return "its address is a name, and only IP addresses are taken"
    return problem


_SAFE: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.-]")


def _names(names: Iterator[str] | list[str]) -> dict[str, str]:
    """Return names that a configuration may have, by what they stand for, each its own."""
    given = sorted(set(names))
    safe = {name: name for name in given if _SAFE.fullmatch(name)}
    taken = set(safe)
    for name in given:
        if name in safe:
            continue
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        length = 8
        readable = _UNSAFE.sub("_", name)[:64]
        while f"{readable}-{digest[:length]}" in taken:
            length += 1
        safe[name] = f"{readable}-{digest[:length]}"
        taken.add(safe[name])
    return safe


_FULL: Final = 100
"""The weight of an instance without an operator's weight, where others have less; HAProxy takes 256 at most."""


def _factor(instance: ServiceInstance[Any], weights: Weights) -> float | None:
    """Return the factor that an operator gave the instance; None if it is not below 1."""
    factor = weights.get(instance.id, 1.0)
    return factor if factor < 1 else None


def _shares(instances: tuple[ServiceInstance[Any], ...], weights: Weights) -> dict[str, int] | None:
    """Return whole numbers in proportion to the weights, 1 at least, by id; None where all are alike."""
    if all(_factor(instance, weights) is None for instance in instances):
        return None
    return {each.id: max(round(_FULL * weights.get(each.id, 1.0)), 1) for each in instances}


# ---------------------------------------------------------------- the formats

_PREFIX: Final = "__meta_aioregistry_"
_MOST_LABELS: Final = 64
_LONGEST_LABEL: Final = 1024


def _prometheus(services: Services, weights: Mapping[str, Weights]) -> str:
    groups = []
    for name, instances in services.items():
        for instance in instances:
            labels = {f"{_PREFIX}service": _text(name), f"{_PREFIX}id": _text(instance.id)}
            factor = _factor(instance, weights.get(name, ALIKE))
            if factor is not None:
                labels[f"{_PREFIX}weight"] = json.dumps(factor)
            for path, value in _scalars(instance.payload):
                if len(labels) < _MOST_LABELS:
                    labels.setdefault(f"{_PREFIX}payload_{path}", value)
            groups.append({"targets": [_place(instance)], "labels": labels})
    return _to_json(groups)


def _scalars(payload: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield what a payload says, by where: ``metadata_zone``."""
    if isinstance(payload, Mapping):
        for key, value in payload.items():
            part = re.sub(r"[^a-zA-Z0-9_]", "_", str(key))[:_LONGEST_LABEL]
            yield from _scalars(value, f"{path}_{part}" if path else part)
    elif path and isinstance(payload, str | bool | int | float):
        yield path, _text(payload if isinstance(payload, str) else json.dumps(payload))


def _text(text: str) -> str:
    """Return *text* as UTF-8 can have it, of a length that a label may be."""
    return text[:_LONGEST_LABEL].encode("utf-8", "replace").decode()


def _envoy(services: Services, weights: Mapping[str, Weights]) -> str:
    resources = []
    for name, instances in services.items():
        shares = _shares(instances, weights.get(name, ALIKE)) or {}
        resources.append(
            {
                "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [_endpoint(each, shares.get(each.id)) for each in instances]}],
            }
        )
    version = hashlib.sha256(_to_json(resources).encode()).hexdigest()[:16]
    type_url = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    return _to_json({"version_info": version, "type_url": type_url, "resources": resources})


def _endpoint(instance: ServiceInstance[Any], share: int | None) -> dict[str, object]:
    where = {"address": instance.address, "port_value": _port(instance)}
    weight = {} if share is None else {"load_balancing_weight": share}
    return {"endpoint": {"address": {"socket_address": where}}, "health_status": "HEALTHY", **weight}


_WRITTEN: Final = "# Written by aioregistry export, which overwrites your changes.\n"


def _haproxy(services: Services, weights: Mapping[str, Weights]) -> str:
    lines = [_WRITTEN]
    backends = _names(list(services))
    for name, instances in services.items():
        lines.append(f"backend {backends[name]}\n")
        servers = _names([instance.id for instance in instances])
        shares = _shares(instances, weights.get(name, ALIKE))
        for instance in instances:
            # Whose name is not known yet is not a reason to refuse all others.
            later = "" if ip_address(instance.address or "") else " init-addr libc,none"
            weight = "" if shares is None else f" weight {shares[instance.id]}"
            lines.append(f"    server {servers[instance.id]} {_place(instance)}{weight}{later}\n")
    return "".join(lines)


def _nginx(services: Services, weights: Mapping[str, Weights]) -> str:
    lines = [_WRITTEN]
    upstreams = _names(list(services))
    for name, instances in services.items():
        lines.append(f"upstream {upstreams[name]} {{\n")
        # nginx refuses an upstream without a server; one that is down answers 502.
        shares = _shares(instances, weights.get(name, ALIKE))
        servers: dict[str, int] = {}
        for instance in instances:
            place = _place(instance)
            servers[place] = max(servers.get(place, 0), 0 if shares is None else shares[instance.id])
        lines += [f"    server {place}{f' weight={share}' if share else ''};\n" for place, share in servers.items()]
        if not servers:
            lines.append("    server 127.0.0.1:1 down;\n")
        lines.append("}\n")
    return "".join(lines)


def _json(services: Services, weights: Mapping[str, Weights]) -> str:
    return _to_json(
        {
            name: [_document(instance, weights.get(name, ALIKE)) for instance in instances]
            for name, instances in services.items()
        }
    )


def _document(instance: ServiceInstance[Any], weights: Weights) -> Any:
    document = json.loads(encode(instance), parse_float=_number, parse_constant=str)
    document.pop("weight", None)  # a further field that its owner wrote is not what an operator says
    factor = _factor(instance, weights)
    return document if factor is None else document | {"weight": factor}


def _number(text: str) -> float | str:
    """Return the number; beyond a float's range, which JSON has no form for, text as Jackson writes it."""
    number = float(text)
    return number if math.isfinite(number) else "Infinity" if number > 0 else "-Infinity"


class _Renderer(NamedTuple):
    text: Callable[[Services, Mapping[str, Weights]], str]
    problem: Callable[[ServiceInstance[Any]], str | None]
    """Why the format has no form for an instance."""
    content_type: str


_RENDERERS: Final[Mapping[str, _Renderer]] = MappingProxyType(
    {
        "prometheus": _Renderer(_prometheus, _address_problem, "application/json"),
        "envoy": _Renderer(_envoy, _ip_problem, "application/json"),
        "haproxy": _Renderer(_haproxy, _address_problem, "text/plain; charset=utf-8"),
        "nginx": _Renderer(_nginx, _ip_problem, "text/plain; charset=utf-8"),
        "json": _Renderer(_json, _no_problem, "application/json"),
    }
)
FORMATS: Final = tuple(_RENDERERS)
CONTENT_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {format: renderer.content_type for format, renderer in _RENDERERS.items()}
)
