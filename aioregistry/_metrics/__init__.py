"""Metrics of a registry: a table of the measurements, and one reading of all of them."""

from __future__ import annotations

__all__: list[str] = []
