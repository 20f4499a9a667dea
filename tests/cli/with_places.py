"""The `aioregistry` command where the programs of servers are in the folder PLACES alone, beside PATH."""

from __future__ import annotations

import os
import sys
from unittest import mock

from aioregistry._cli import export, main, programs

if __name__ == "__main__":
    places = (os.environ["PLACES"],)
    with mock.patch.object(programs, "PLACES", places), mock.patch.object(export, "PLACES", places):
        sys.exit(main())
