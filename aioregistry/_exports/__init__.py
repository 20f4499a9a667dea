"""The listed instances, as other programs read them: Prometheus, Envoy, HAProxy, nginx, or JSON. Pure."""

from __future__ import annotations

from .renderers import CONTENT_TYPES, FORMATS, Rendered, render
from .selection import ALIKE, Quiet, Selection, Services, Weights, selected, usable, weights_of

__all__ = [
    "ALIKE",
    "CONTENT_TYPES",
    "FORMATS",
    "Quiet",
    "Rendered",
    "Selection",
    "Services",
    "Weights",
    "render",
    "selected",
    "usable",
    "weights_of",
]
