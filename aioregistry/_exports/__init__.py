"""What is listed, as other programs read it: Prometheus, Envoy, HAProxy, nginx, or JSON. Pure."""

from __future__ import annotations

from .renderers import CONTENT_TYPES, FORMATS, Rendered, render
from .selection import Quiet, Selection, Services, selected, usable, weights_of

__all__ = [
    "CONTENT_TYPES",
    "FORMATS",
    "Quiet",
    "Rendered",
    "Selection",
    "Services",
    "render",
    "selected",
    "usable",
    "weights_of",
]
