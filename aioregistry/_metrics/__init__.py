"""Metrics of a registry: a table of what is measured, and one reading of all of it."""

from __future__ import annotations

__all__: list[str] = []
