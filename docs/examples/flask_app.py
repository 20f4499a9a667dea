"""A Flask application under gunicorn: each worker follows a service, and the port is listed as long as one serves it.

gunicorn --preload --workers 2 --config docs/examples/gunicorn_conf.py docs.examples.flask_app:app
"""

from __future__ import annotations

import os

from flask import Flask, jsonify
from flask.typing import ResponseReturnValue

from aioregistry import ServiceInstance, blocking

# Nothing is connected here: each worker opens its own when it uses it first.
registry = blocking.connect(os.environ["AIOREGISTRY_ZOOKEEPER"])
prices = registry.discover("prices")

# All workers serve one port, so they share one id: the first is listed, the next one when that has gone.
me = registry.register(
    ServiceInstance("shop", address="127.0.0.1", port=int(os.environ.get("PORT", "8000"))),
    on_conflict="wait",
    wait=False,
)

app = Flask(__name__)


@app.get("/price")
def price() -> ResponseReturnValue:
    """Ask one instance of the service; here: say which."""
    with prices.pick() as pick:  # the block is the call: how it ends is reported
        return jsonify({"from": f"{pick.instance.address}:{pick.instance.port}"})


@app.get("/whoami")
def whoami() -> ResponseReturnValue:
    """Which worker serves, and whether it is the one that is listed."""
    return jsonify({"pid": os.getpid(), "status": me.status.name})
