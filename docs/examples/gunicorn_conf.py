"""gunicorn's settings for docs/examples/flask_app.py."""

from __future__ import annotations

from typing import Any


def post_worker_init(worker: Any) -> None:  # noqa: ARG001 - gunicorn's
    """List the application once a worker can serve it; the interpreter's exit withdraws it."""
    from docs.examples.flask_app import me

    me.open()
