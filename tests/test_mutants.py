"""`tools.mutants`: which mistakes are made, that they can be told, and that the list of survivors is up to date."""

from __future__ import annotations

import ast
import itertools
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tools.mutants import (
    EXPLAINED,
    MODULE,
    ROOMS,
    ROOT,
    Job,
    Key,
    Mutant,
    Verdict,
    deciding,
    drawn_of_each,
    explained,
    found,
    mutants,
    part_of,
    source_of,
    stale,
    tried,
)

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


def test_to_return_nothing_at_the_end_of_a_function_is_no_mistake() -> None:
    text = "def f(a):\n    if a:\n        return None\n    g()\n    return None\n"
    assert [mutant.line for mutant in mutants(text) if mutant.what == "return is missing"] == [3]


def test_what_a_branch_has_behind_it_stays() -> None:
    (found,) = (m for m in mutants("if a:\n    b()\nelse:\n    c()\n") if m.what == "the condition never holds")
    assert found.text == "if False:\n    b()\nelse:\n    c()\n"


def test_a_mistake_is_named_by_the_function_that_it_is_in() -> None:
    text = "A = 1\n\n\nclass B:\n    C = 2\n\n    def d(self, e=3):\n        def f():\n            return 4\n"
    assert {mutant.scope for mutant in mutants(text)} == {MODULE, "B", "B.d", "B.d.f"}
    moved = "import other\n\n\n" + text.removeprefix("A = 1\n\n\n")
    assert {mutant.key for mutant in mutants(moved)} == {each.key for each in mutants(text) if each.scope != MODULE}


def test_an_explanation_of_what_cannot_happen_is_found() -> None:
    text = "| in | line | mistake | why |\n| --- | --- | --- | --- |\n| `f` | `a < b` | Lt is LtE | never equal |\n"
    assert explained(text) == {Key("f", "a < b", "Lt is LtE")}
    (made, *_) = mutants(source_of(PATHS))
    no_such_line, no_such_place = Key(made.scope, "no such line", "3 is 4"), made.key._replace(scope="nowhere")
    assert stale({made.key, no_such_line, no_such_place}, [PATHS]) == sorted([no_such_line, no_such_place])


def test_every_explanation_is_of_a_mistake_that_can_be_made() -> None:
    known = explained(EXPLAINED.read_text(encoding="utf-8"))
    assert known
    assert stale(known, deciding()) == []


def test_the_tests_that_decide_are_those_that_import_the_module_or_what_is_made_of_it() -> None:
    chosen = deciding()
    assert chosen[PATHS] == ("tests/test_paths.py",)
    for module, tests in chosen.items():
        assert all((ROOT / test).is_file() for test in tests), module
    sources = {module: source_of(module) for module in chosen}
    assert not any("import asyncio" in text for text in sources.values())


def test_the_parts_of_a_run_are_the_run() -> None:
    todo = [(f"{name}.py", Mutant(line, "", "", "", "")) for line in range(5) for name in "ba"]
    parts = [part_of(todo, f"{number}/3") for number in (1, 2, 3)]
    assert [len(part) for part in parts] == [3, 3, 4]
    assert sorted(itertools.chain(*parts)) == sorted(todo)
    assert [module for module, _ in parts[0]] == ["a.py"] * 3


def test_as_many_may_be_drawn_of_each_room_as_of_every_other() -> None:
    modules = deciding()
    drawn = drawn_of_each(modules, 7, 2)
    rooms = {module: room for room in ROOMS for module in found(room) if module in modules}
    assert Counter(rooms[module] for module, _ in drawn) == dict.fromkeys(rooms.values(), 2)
    assert drawn == drawn_of_each(modules, 7, 2) != drawn_of_each(modules, 8, 2)


def test_a_package_s_own_names_are_its_init_s_and_it_stays_a_package(tmp_path: Path) -> None:
    room = "aioregistry/_cli/__init__.py"
    assert deciding()[room] == ("tests/cli/test_parser.py",)
    (tmp_path / "test_it.py").write_text(
        "import aioregistry._cli\nimport aioregistry._cli.streams\n\n"
        "def test_it():\n    assert not hasattr(aioregistry._cli, 'mistaken')\n"
    )
    assert verdicts_of(room, tmp_path / "test_it.py") == "[False, True]"


def test_every_room_has_modules_and_tests() -> None:
    chosen = deciding()
    assert [room for room, tests in ROOMS.items() if not all(found(each) for each in (room, *tests))] == []
    assert [room for room in ROOMS if not chosen.keys() & set(found(room))] == []


def verdicts_of(module: str, tests: Path) -> str:
    """Whether *tests* catch a *module* as it is, and with one name more."""
    script = f"""
import math
import tools.mutants as m
m.preload()
source = m.source_of("{module}")
made = [m.Mutant(0, "", "", "", text) for text in (source, source + "\\nmistaken = True\\n")]
jobs = [m.Job("{module}", mutant, ("{tests}",), 60.0) for mutant in made]
verdicts = sorted(m.tried(jobs, 1, math.inf), key=lambda verdict: len(verdict.job.mutant.text))
print([verdict.caught for verdict in verdicts])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    return done.stdout.strip() or done.stderr


def test_a_mutant_that_nobody_notices_survives(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import aioregistry._paths\n\ndef test_it():\n    assert not hasattr(aioregistry._paths, 'mistaken')\n"
    )
    assert verdicts_of(PATHS, tmp_path / "test_it.py") == "[False, True]"


def test_no_more_run_at_a_time_than_there_are_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    running: list[object] = []
    most = 0

    class Trial:
        def __init__(self, job: Job) -> None:
            nonlocal most
            running.append(self)
            most = max(most, len(running))
            self.job, self.looks = job, 3

        def verdict(self) -> Verdict | None:
            self.looks -= 1
            if self.looks:
                return None
            running.remove(self)
            return Verdict(self.job, True, 0.0)

    monkeypatch.setattr("tools.mutants.Trial", Trial)
    jobs = [Job("module", Mutant(line, "", "", "", ""), (), 1.0) for line in range(10)]
    verdicts = list(tried(jobs, 3, math.inf))
    assert sorted(verdict.job.mutant.line for verdict in verdicts if verdict.job.mutant) == list(range(10))
    assert most == 3


PATHS = "aioregistry/_paths.py"
