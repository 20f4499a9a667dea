"""The lock files are those of pyproject.toml, complete, and know no host; and the check of that can fail."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tools import locks

PYPROJECT: dict[str, Any] = {
    "build-system": {"requires": ["hatchling>=1"]},
    "project": {"requires-python": ">=3.11", "dependencies": ["msgspec>=1", "anyio>=4"]},
    "dependency-groups": {
        "test": ["pytest>=8"],
        "lint": [{"include-group": "test"}, {"include-group": "nox"}, "ruff>=1"],
        "nox": ["nox>=1"],
        "package": ["build>=1"],
        "plot": ["matplotlib>=3"],
        "docs": ["sphinx>=8"],
    },
}
TESTED = ["anyio>=4", "editables>=0.3", "hatchling>=1", "msgspec>=1", "pytest>=8"]


def texts(pyproject: dict[str, Any]) -> dict[str, str]:
    return {
        name: locks.header(pyproject["project"]["requires-python"], locks.requirements(pyproject, contents)) + "x==1\n"
        for name, contents in locks.LOCKS.items()
    }


def test_the_locks_are_those_of_pyproject() -> None:
    assert locks.check() == []


@pytest.mark.parametrize("name", locks.LOCKS)
def test_every_version_is_exact_and_has_a_hash(name: str) -> None:
    text = (locks.FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    entries = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "").splitlines()
    assert entries
    exact = re.compile(r"[\w.-]+==(\d+!)?[\w.]+ .*--hash=sha256:[0-9a-f]{64}")
    assert [entry for entry in entries if not exact.match(entry)] == []


@pytest.mark.parametrize("name", locks.LOCKS)
def test_no_lock_knows_where_packages_come_from(name: str) -> None:
    text = (locks.FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    assert re.findall(r"\w+://\S*|^ *--(?!hash)\S+", text, flags=re.MULTILINE) == []


def test_requirements_are_collected_through_groups_each_once() -> None:
    assert locks.requirements(PYPROJECT, locks.Contents(True, ("test",))) == TESTED
    assert locks.requirements(PYPROJECT, locks.Contents(True, ("test", "lint"))) == [
        *("anyio>=4", "editables>=0.3", "hatchling>=1", "msgspec>=1", "nox>=1", "pytest>=8", "ruff>=1")
    ]
    with pytest.raises(KeyError):
        locks.requirements(PYPROJECT, locks.Contents(False, ("absent",)))


def test_a_lock_says_what_it_was_resolved_from() -> None:
    assert locks.recorded(texts(PYPROJECT)["test"]) == ["python>=3.11", *TESTED]
    assert locks.recorded("") == locks.recorded("x==1\n") == []


def test_what_is_up_to_date_is_not_found() -> None:
    assert list(locks.outdated(PYPROJECT, texts(PYPROJECT))) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"project": {"requires-python": ">=3.12", "dependencies": ["msgspec>=1", "anyio>=4"]}}, "python>=3.12"),
        ({"project": {"requires-python": ">=3.11", "dependencies": ["msgspec>=2", "anyio>=4"]}}, "msgspec>=2"),
        ({"build-system": {"requires": ["hatchling>=2"]}}, "hatchling>=2"),
        ({"dependency-groups": PYPROJECT["dependency-groups"] | {"nox": ["nox>=2"]}}, "nox>=2"),
    ],
)
def test_a_lock_left_behind_is_found(change: dict[str, Any], expected: str) -> None:
    found = list(locks.outdated(PYPROJECT | change, texts(PYPROJECT)))
    assert [line for line in found if f"misses {expected}" in line]
    assert [line for line in found if "still has" in line]


def test_a_lock_too_few_and_too_many_is_found() -> None:
    found = texts(PYPROJECT)
    found["attic"] = found.pop("run")
    assert [line.partition(":")[0] for line in locks.outdated(PYPROJECT, found)] == [
        "locks/run.txt is missing",
        "locks/attic.txt belongs to nothing",
    ]
