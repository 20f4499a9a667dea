"""The ids of processes that serve one port beside others."""

from __future__ import annotations

import multiprocessing
import os

from aioregistry import ServiceInstance

from ._ports import ports_of
from ._settings import Settings

__all__ = ["worker_id"]


def worker_id(settings: Settings, address: str) -> str:
    """The id to register: the server's, and where it has several worker processes that are listed, the worker's."""
    instance = settings.instance
    server = settings.id
    if server is None:
        server = ServiceInstance(instance.name, address=address, port=instance.port, ssl_port=instance.ssl_port).id
        if not ports_of(instance):
            return server  # it is random: no two workers have the same
    return f"{server}#{os.getpid()}" if not settings.shared and _is_worker() else server


def _is_worker() -> bool:
    """Whether a server started this process beside others like it.

    No worker knows its number. The process id will do: a worker that ends withdraws it, one that crashed leaves a
    ghost that still leads to the server, and expires.
    """
    # Gunicorn's arbiter forks and puts its name into the environment; uvicorn and hypercorn use multiprocessing.
    by_gunicorn = os.environ.get("SERVER_SOFTWARE", "").startswith("gunicorn/")
    return by_gunicorn or multiprocessing.parent_process() is not None
