"""Logs for machines: a formatter for the standard library's handlers."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, Final

__all__ = ["JsonFormatter"]

_OF_EVERY_RECORD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object on one line, in ASCII.

    It has ``time`` (ISO 8601, UTC), ``level`` in lower case, ``logger``, ``message``, and all that the record carries
    besides (``extra=`` of the call that logged it). The records of aioregistry itself carry what they are about:
    ``session``, ``service``, ``id``, ``path``, ``status`` or ``check``; those about outages also the ``event`` of
    that name, and ``seconds``.
    A traceback is the field ``exception``. A value that JSON has no form for is shown as text.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return *record* as a line without its end."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in vars(record).items():
            if name not in _OF_EVERY_RECORD and name not in line:
                line[name] = _shown(value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line).replace("\x7f", "\\u007f")


def _shown(value: object) -> object:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return str(value)
    return value
