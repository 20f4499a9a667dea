"""Celery workers that are listed, and that call a service: a prefork pool, each process with a session of its own.

celery -A docs.examples.celery_app worker --pool prefork --concurrency 2
python -c "from docs.examples.celery_app import price; print(price.delay().get(timeout=30))"
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import worker_process_init, worker_process_shutdown

from aioregistry import ServiceInstance, blocking

folder = os.environ.get("BROKER_FOLDER", "/tmp/aioregistry-celery")
app = Celery("prices", broker="filesystem://", backend=f"file://{folder}")
app.conf.broker_transport_options = {
    "data_folder_in": folder,
    "data_folder_out": folder,
    "control_folder": f"{folder}/control",
}

# Made in the parent, opened in each child.
registry = blocking.connect(os.environ["AIOREGISTRY_ZOOKEEPER"])
prices = registry.discover("prices")


@worker_process_init.connect
def enter(**_: Any) -> None:
    """List this process of the pool."""
    registry.register(ServiceInstance("workers", id=f"worker-{os.getpid()}", address="127.0.0.1")).open()


@worker_process_shutdown.connect
def leave(**_: Any) -> None:
    """Withdraw it."""
    registry.close()


@app.task
def price() -> str:
    """Ask one instance of the service; here: say which."""
    with prices.pick() as pick:
        return f"{pick.instance.address}:{pick.instance.port}"
