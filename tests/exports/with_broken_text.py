"""``aioregistry`` whose texts for HAProxy and nginx are broken while the file BROKEN exists."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from aioregistry._cli import export, main
from aioregistry._exports import Rendered, render


def rendered(*arguments: Any) -> Rendered:
    made = render(*arguments)
    return made._replace(text=f"{made.text}\nno_such_directive 7;\n") if Path(os.environ["BROKEN"]).exists() else made


if __name__ == "__main__":
    with mock.patch.object(export, "render", rendered):
        sys.exit(main())
