"""The lock files in locks/: what `nox` installs, by exact versions and hashes.

Each begins with the requirements that it was resolved from: comparing them with pyproject.toml finds a lock that is out
of date, without a network. `python -m tools.locks` resolves all again (with uv, on the newest versions).
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

__all__ = ["FOLDER", "LOCKS", "check", "outdated", "recorded", "requirements", "resolve"]

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = ROOT / "locks"

HEADER: Final = "# `nox -s lock` resolved this from"
INPUT: Final = "#   "


class Contents(NamedTuple):
    """The requirements of a lock file, which holds their closure.

    Args:
        project: whether what the project needs to run, and to be installed from its sources.
        groups: dependency groups of pyproject.toml.
    """

    project: bool
    groups: tuple[str, ...] = ()


# The first is resolved first, and holds the others to its versions.
LOCKS: Final[Mapping[str, Contents]] = {
    "lint": Contents(True, ("lint",)),
    "test": Contents(True, ("test",)),
    "run": Contents(True),
    "plot": Contents(True, ("plot", "test")),
    "docs": Contents(True, ("docs", "test")),  # the reference imports every integration
    "package": Contents(False, ("package",)),
    "nox": Contents(False, ("nox",)),
}

# The packages that hatchling asks for when it installs a project as editable, beside what pyproject.toml says.
EDITABLE: Final = ("editables>=0.3",)


# ---------------------------------------------------------------- pure


def requirements(pyproject: Mapping[str, Any], contents: Contents) -> list[str]:
    """The requirements, sorted, each once, that a lock file with these *contents* is resolved from.

    Raises:
        KeyError: a group is missing in *pyproject*.
    """
    found = list(itertools.chain.from_iterable(_group(pyproject, group) for group in contents.groups))
    if contents.project:
        found += [*pyproject["project"]["dependencies"], *pyproject["build-system"]["requires"], *EDITABLE]
    return sorted(set(found))


def _group(pyproject: Mapping[str, Any], name: str) -> Iterator[str]:
    for entry in pyproject["dependency-groups"][name]:
        if isinstance(entry, str):
            yield entry
        else:
            yield from _group(pyproject, entry["include-group"])


def header(python: str, resolved_from: Sequence[str]) -> str:
    """The lines that a lock file begins with."""
    return "".join(f"{line}\n" for line in [HEADER, *(f"{INPUT}{item}" for item in [_python(python), *resolved_from])])


def _python(requires: str) -> str:
    return f"python{requires}"


def recorded(lock: str) -> list[str]:
    """The requirements that a lock file says it was resolved from, Python's first; empty where it says nothing."""
    first, *lines = lock.splitlines() or [""]
    if first != HEADER:
        return []
    return [line.removeprefix(INPUT) for line in itertools.takewhile(lambda line: line.startswith(INPUT), lines)]


def outdated(pyproject: Mapping[str, Any], locks: Mapping[str, str]) -> Iterator[str]:
    """The faults of the lock files' texts, by name: one that is missing, or resolved from something else."""
    for name, contents in LOCKS.items():
        if name not in locks:
            yield f"locks/{name}.txt is missing: nox -s lock"
            continue
        wanted = [_python(pyproject["project"]["requires-python"]), *requirements(pyproject, contents)]
        found = recorded(locks[name])
        for text, which in ((set(wanted) - set(found), "misses"), (set(found) - set(wanted), "still has")):
            yield from (f"locks/{name}.txt {which} {item}: nox -s lock" for item in sorted(text))
    for name in sorted(set(locks) - set(LOCKS)):
        yield f"locks/{name}.txt belongs to nothing"


# ---------------------------------------------------------------- the files


def check() -> list[str]:
    """The faults of this repository's lock files."""
    texts = {file.stem: file.read_text(encoding="utf-8") for file in FOLDER.glob("*.txt")}
    return list(outdated(_pyproject(), texts))


def resolve() -> None:
    """Write every lock file again. Raises CalledProcessError where uv finds no solution."""
    pyproject = _pyproject()
    oldest = pyproject["project"]["requires-python"].removeprefix(">=")
    FOLDER.mkdir(exist_ok=True)
    first = FOLDER / f"{next(iter(LOCKS))}.txt"
    for name, contents in LOCKS.items():
        wanted = requirements(pyproject, contents)
        constraints = [] if name == first.stem else ["--constraints", str(first)]
        text = compiled(wanted, "--universal", "--python-version", oldest, "--generate-hashes", *constraints)
        head = header(pyproject["project"]["requires-python"], wanted)
        (FOLDER / f"{name}.txt").write_text(head + text, encoding="utf-8")


def compiled(resolved_from: Sequence[str], *options: str) -> str:
    """Return uv's resolution of requirements, as pip reads it. Raises CalledProcessError where there is no solution."""
    done = subprocess.run(
        ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", *options, "-"],
        input="\n".join(resolved_from), stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def _pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def main() -> int:
    """Resolve, or check, or print the lowest versions that are admitted."""
    options = argparse.ArgumentParser(prog="python -m tools.locks", description=__doc__)
    options.add_argument("--check", action="store_true", help="say what is out of date, and fail if anything is")
    options.add_argument("--lowest", metavar="LOCK", choices=LOCKS, help="print the lowest versions that are admitted")
    given = options.parse_args()
    if given.lowest:
        print(compiled(requirements(_pyproject(), LOCKS[given.lowest]), "--resolution", "lowest-direct"), end="")
        return 0
    if not given.check:
        resolve()
    wrong = check()
    print("\n".join(wrong) or "the lock files are those of pyproject.toml")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
