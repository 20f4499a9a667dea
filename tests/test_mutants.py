"""`tools.mutants`: which mistakes are made, that they can be told, and that the list of survivors is up to date."""

from __future__ import annotations

import ast
import math
import subprocess
import sys
from pathlib import Path

import pytest

from tools.mutants import ROOT, Mutant, Verdict, explained, mutants, stale, tried

SOURCE = """
from enum import Enum
LIMIT = 3


def over(value: int, *, strict: bool = False) -> bool:
    \"\"\"Whether it is.\"\"\"
    if strict and value == LIMIT:
        return True
    log(value, level=Level.INFO)
    return value > LIMIT or not Level.DEBUG
"""

MISTAKES = [
    ("LIMIT = 3", "3 is 4"),
    ("LIMIT = 3", "3 is 2"),
    ("def over(value: int, *, strict: bool = False) -> bool:", "False is True"),
    ("if strict and value == LIMIT:", "the condition never holds"),
    ("if strict and value == LIMIT:", "the condition always holds"),
    ("if strict and value == LIMIT:", "the condition is the opposite"),
    ("if strict and value == LIMIT:", "And is Or"),
    ("if strict and value == LIMIT:", "without strict"),
    ("if strict and value == LIMIT:", "without value == LIMIT"),
    ("if strict and value == LIMIT:", "Eq is NotEq"),
    ("return True", "True is False"),
    ("log(value, level=Level.INFO)", "the statement is missing"),
    ("log(value, level=Level.INFO)", "without level="),
    ("log(value, level=Level.INFO)", "Level.INFO is Level.DEBUG"),
    ("return value > LIMIT or not Level.DEBUG", "nothing is returned"),
    ("return value > LIMIT or not Level.DEBUG", "Or is And"),
    ("return value > LIMIT or not Level.DEBUG", "without value > LIMIT"),
    ("return value > LIMIT or not Level.DEBUG", "without not Level.DEBUG"),
    ("return value > LIMIT or not Level.DEBUG", "Gt is GtE"),
    ("return value > LIMIT or not Level.DEBUG", "Gt is LtE"),
    ("return value > LIMIT or not Level.DEBUG", "not is missing"),
    ("return value > LIMIT or not Level.DEBUG", "Level.DEBUG is Level.INFO"),
]


def test_each_kind_of_mistake_is_made_once_at_its_place() -> None:
    found = list(mutants(SOURCE))
    assert sorted((mutant.code, mutant.what) for mutant in found) == sorted(MISTAKES)
    for mutant in found:
        assert len(mutant.text.splitlines()) == len(SOURCE.splitlines())
        changed = [one != other for one, other in zip(SOURCE.splitlines(), mutant.text.splitlines(), strict=True)]
        assert sum(changed) == 1, mutant
        ast.parse(mutant.text)


def test_what_a_branch_has_behind_it_stays() -> None:
    (found,) = (m for m in mutants("if a:\n    b()\nelse:\n    c()\n") if m.what == "the condition never holds")
    assert found.text == "if False:\n    b()\nelse:\n    c()\n"


def test_an_explanation_of_what_cannot_happen_is_found() -> None:
    text = (
        "| module | line | mistake | why |\n| --- | --- | --- | --- |\n| `m.py` | `a < b` | Lt is LtE | never equal |\n"
    )
    assert explained(text) == {("m.py", "a < b", "Lt is LtE")}
    paths = "aioregistry/_paths.py"
    (made, *_) = mutants((ROOT / paths).read_text(encoding="utf-8"))
    known = {(paths, made.code, made.what), (paths, "no such line", "3 is 4"), ("no/such.py", "a", "b")}
    assert sorted(stale(known)) == [("aioregistry/_paths.py", "no such line", "3 is 4"), ("no/such.py", "a", "b")]


def test_a_mutant_that_nobody_notices_survives(tmp_path: Path) -> None:
    script = f"""
import math
import tools.mutants as m
m.MODULES["{MODULE}"] = ("{tmp_path}/test_it.py",)
m.preload()
source = (m.ROOT / "{MODULE}").read_text()
made = [m.Mutant(0, "", "", text) for text in (source, source + "\\nmistaken = True\\n")]
tried = m.tried([("{MODULE}", mutant) for mutant in made], {{"{MODULE}": 60.0}}, 1, math.inf)
print([verdict.caught for verdict in sorted(tried, key=lambda verdict: len(verdict.mutant.text))])
"""
    (tmp_path / "test_it.py").write_text(
        "import aioregistry._paths\n\ndef test_it():\n    assert not hasattr(aioregistry._paths, 'mistaken')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "[False, True]", done.stderr


def test_no_more_run_at_a_time_than_there_are_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    running: list[object] = []
    most = 0

    class Trial:
        def __init__(self, module: str, mutant: Mutant, seconds: float) -> None:
            nonlocal most
            running.append(self)
            most = max(most, len(running))
            self.of, self.looks = (module, mutant), 3

        def verdict(self) -> Verdict | None:
            self.looks -= 1
            if self.looks:
                return None
            running.remove(self)
            return Verdict(*self.of, True, 0.0)

    monkeypatch.setattr("tools.mutants.Trial", Trial)
    todo = [("module", Mutant(line, "", "", "")) for line in range(10)]
    verdicts = list(tried(todo, {"module": 1.0}, 3, math.inf))
    assert sorted(verdict.mutant.line for verdict in verdicts) == list(range(10))
    assert most == 3


MODULE = "aioregistry/_paths.py"
