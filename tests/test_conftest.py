"""The tests' common parts do what they are for."""

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


AS_UNDER_NOHUP = ("sh", "-c", 'trap "" HUP INT QUIT; exec "$@"', "sh")
STARTS_A_PROGRAM = """
import os, signal, subprocess, sys

def test_what_it_ignores():
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGQUIT)
    program = "import signal; print([number for number in {1, 2, 3} if signal.getsignal(number) is signal.SIG_IGN])"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "[]\\n"
"""


def run_of(file: Path, text: str, *before: str) -> str:
    """pytest's report on a file with that *text*, started by the command *before*."""
    file.write_text(text)
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-c", "pyproject.toml"]
    command = [*before, sys.executable, "-m", "pytest", *options, str(file)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    return run.stdout + run.stderr


def test_what_a_failed_test_left_open_fails_no_other(tmp_path: Path) -> None:
    said = run_of(tmp_path / "test_two.py", LEAVES_SOMETHING_OPEN)
    assert "1 failed, 1 passed" in said, said


def test_what_a_run_ignores_is_not_inherited(tmp_path: Path) -> None:
    said = run_of(tmp_path / "test_one.py", STARTS_A_PROGRAM, *AS_UNDER_NOHUP)
    assert "1 passed" in said, said


def test_the_files_that_come_first_are_there() -> None:
    assert [file for file in LONGEST if not (ROOT / file).exists()] == []
