"""aiozk's classes that ours derive from; the stub beside gives them the types that aiozk lacks."""

from __future__ import annotations

from aiozk import ZKClient as ZKClient
from aiozk.protocol.part import Part as Part
from aiozk.protocol.request import Request as Request

__all__ = ["Part", "Request", "ZKClient"]
