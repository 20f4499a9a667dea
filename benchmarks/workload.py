"""The instances that the benchmarks register and discover: documents of about 260 bytes, with a small payload."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import msgspec

BASE_PATH = "/services"


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """An instance as every contender is given it."""

    service: str
    address: str
    port: int
    payload: dict[str, Any]

    @property
    def id(self) -> str:
        return f"{self.address}:{self.port}"

    @property
    def path(self) -> str:
        return f"{BASE_PATH}/{self.service}/{self.id}"

    @property
    def document(self) -> bytes:
        """The instance in Curator's format."""
        return msgspec.json.encode(
            {
                "name": self.service,
                "id": self.id,
                "address": self.address,
                "port": self.port,
                "sslPort": None,
                "payload": self.payload,
                "registrationTimeUTC": 1_795_230_027_128,
                "serviceType": "DYNAMIC",
                "uriSpec": None,
            }
        )


def samples(service: str, count: int, *, network: int = 10) -> Iterator[Sample]:
    """The first *count* instances of *service*, the same ones each time; those of two networks have no id in common."""
    for number in range(count):
        address = f"{network}.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        payload = {"zone": f"eu-{number % 3}", "version": "2026.11.3", "load": number % 100, "tags": ["chat", "stable"]}
        yield Sample(service, address, 7000, payload)
