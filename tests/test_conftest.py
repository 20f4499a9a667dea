"""What the tests share does what it is for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import LONGEST

ROOT = Path(__file__).parents[1]
LEAVES_SOMETHING_OPEN = """
import gc
import aioregistry

async def test_one():
    registry = aioregistry.connect("127.0.0.1:1")
    registry.itself = registry
    assert not registry

def test_another():
    gc.collect()
"""


def test_what_a_failed_test_left_open_fails_no_other(tmp_path: Path) -> None:
    file = tmp_path / "test_two.py"
    file.write_text(LEAVES_SOMETHING_OPEN)
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-c", "pyproject.toml"]
    command = [sys.executable, "-m", "pytest", *options, str(file)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert "1 failed, 1 passed" in run.stdout, run.stdout + run.stderr


def test_the_files_that_come_first_are_there() -> None:
    assert [file for file in LONGEST if not (ROOT / file).exists()] == []
