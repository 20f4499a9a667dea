"""The tutorial works: its files are written and its commands are run, in one shell, as a reader would do it.

A block ```` ```python file NAME ```` is a file. Of a block ```` ```console ```` each line after `$ ` is a command, and
what follows it is its output, where `…` stands for anything. A command with an output is run until it has that output:
what was started just before it may take a while. A block ```` ```sh ```` installs packages: by default a test compares
it with the packages that are here, and `nox -s tutorial` runs it, which needs a package index.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import os
import re
import shlex
import signal
import sys
import tomllib
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement

from aioregistry.testing._ports import ReservedPort

ROOT = Path(__file__).parents[1]
FENCED = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
PORTS = ("2181", "8000", "8001", "8002")
DEADLINE = 100.0
INSTALLING = 600.0
REPOSITORY = re.compile(r"(?<= @ )git\+https://\S+(?=')")
END = "end of the output, exit code "


class File(NamedTuple):
    name: str
    text: str


class Command(NamedTuple):
    text: str
    output: str


class Installation(NamedTuple):
    text: str


def steps(page: str) -> Iterator[File | Command | Installation]:
    """The acts of the *page*'s reader, in this order."""
    for found in FENCED.finditer(page):
        kind, _, name = found["info"].partition(" file ")
        if name:
            assert kind == "python"
            yield File(name, found["text"])
        elif kind == "console":
            for command in found["text"].removeprefix("$ ").split("\n$ "):
                line, _, output = command.partition("\n")
                yield Command(line, output.rstrip("\n"))
        elif kind == "sh":
            yield from map(Installation, found["text"].splitlines())


def matches(expected: str, output: str) -> bool:
    """Whether *output* is what is *expected*, blanks at the ends of lines and between columns aside."""
    pattern = re.escape(" ".join(expected.split(" "))).replace("…", ".*")
    return re.fullmatch(re.sub(r"(\\ )+", " +", pattern).replace("\n", " *\n"), output.strip(), re.DOTALL) is not None


class Shell:
    """A shell that runs one command after the other, as in a terminal."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def run(self, command: str, patience: float = DEADLINE) -> tuple[str, int]:
        """Run the *command*, and return what it wrote to the standard output, and its exit code."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\ncode=$?; echo; echo '{END}'$code\n".encode())
        lines: list[str] = []
        async with asyncio.timeout(patience):
            while not (line := (await self._process.stdout.readline()).decode()).startswith(END):
                assert line, f"the shell ended at {command!r}"
                lines.append(line)
        return "".join(lines).rstrip("\n"), int(line.removeprefix(END))


@asynccontextmanager
async def shell(folder: Path, zookeeper: str, programs: str) -> AsyncIterator[Shell]:
    """Open a shell in the *folder*, which finds the folder *programs* first."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AIOREGISTRY", "PYTEST"))}
    environment["PATH"] = f"{programs}:{environment['PATH']}"
    environment["AIOREGISTRY_ZOOKEEPER"] = zookeeper  # the page has the default's port
    with (folder / "errors.log").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *("bash", "--norc"),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors,
            cwd=folder, env=environment, start_new_session=True,
        )  # fmt: skip
    try:
        yield Shell(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with all that the shell started
        await process.wait()


@asynccontextmanager
async def with_logs(folder: Path) -> AsyncIterator[None]:
    """A step that fails shows what the programs wrote."""
    try:
        yield
    except Exception as error:
        for log in sorted(folder.glob("*.log")):
            error.add_note(f"--- {log.name} ---\n{log.read_text(errors='replace')[-4000:]}")
        raise


async def follow(shell: Shell, command: Command) -> None:
    """Run the *command*, again and again until it writes what the page says."""
    output, code = await shell.run(command.text)
    if not command.output:
        async with asyncio.timeout(DEADLINE):
            while code != 0 and command.text.startswith("aioregistry "):  # ZooKeeper may start slower than it waits
                output, code = await shell.run(command.text)
        assert output == ""
        assert code == 0 or command.text.startswith("wait "), f"{command.text}: exit code {code}"
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE):
            while not matches(command.output, output):
                assert "failures" not in output or output.startswith("0 failures"), output
                await asyncio.sleep(0.5)
                output, _ = await shell.run(command.text)
    assert matches(command.output, output), f"{command.text}\n{output}\n--- expected ---\n{command.output}"


async def walk(page: str, folder: Path, programs: Path, wheel: Path | None) -> list[File | Command | Installation]:
    """Do every step of the *page* in the *folder*, on free ports; return those steps, in order.

    Installations are left out without a *wheel*, which takes the place of the package's repository.
    """
    with ExitStack() as stack:
        numbers = sorted(stack.enter_context(ReservedPort()).number for _ in PORTS)  # tables are sorted by address
        free = dict(zip(PORTS, map(str, numbers), strict=True))
        done = []
        async with shell(folder, f"127.0.0.1:{free['2181']}", str(programs)) as terminal:
            for step in steps(re.sub("|".join(PORTS), lambda found: free[found[0]], page)):
                done.append(step)
                if isinstance(step, File):
                    (folder / step.name).write_text(step.text, encoding="utf-8")
                elif isinstance(step, Command):
                    await follow(terminal, step)
                elif wheel is not None:
                    output, code = await terminal.run(REPOSITORY.sub(wheel.as_uri(), step.text), INSTALLING)
                    assert code == 0, f"{step.text}: exit code {code}\n{output}\n{(folder / 'errors.log').read_text()}"
    return done


async def test_every_step_of_the_tutorial(tmp_path: Path) -> None:
    page = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
    done = await walk(page, tmp_path, Path(sys.executable).parent, None)
    assert len([step for step in done if isinstance(step, Command) and step.output]) >= 10


@pytest.mark.index
async def test_every_step_of_the_tutorial_with_its_installation(tmp_path: Path) -> None:
    page = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
    done = await walk(page, tmp_path, Path(sys.base_prefix, "bin"), Path(os.environ["AIOREGISTRY_WHEEL"]))
    installations = [step.text for step in done if isinstance(step, Installation)]
    assert [line.split()[0] for line in installations] == ["python3", ".", "pip", "pip"]
    assert len([line for line in installations if REPOSITORY.search(line)]) == 1
    assert (tmp_path / "venv/bin/aioregistry").exists()


@pytest.mark.parametrize(
    ("expected", "output"),
    [("0 failures; a", "1 failures; a"), ("a\n…", "b\nc"), ("x  y", "x"), ("1 passed in …", "1 failed in 3 s")],
)
def test_another_output_is_noticed(expected: str, output: str) -> None:
    assert not matches(expected, output)


def test_the_steps_of_a_page_are_found() -> None:
    page = "```python file a.py\nx = 1\n```\n\n```console\n$ b &\n$ c\nd\ne …\n```\n\n```sh\nf\n```\n"
    assert [*steps(page)] == [File("a.py", "x = 1\n"), Command("b &", ""), Command("c", "d\ne …"), Installation("f")]


def packages(page: str) -> list[Requirement]:
    """The requirements in the `pip install` lines of the *page*'s ```` ```sh ```` blocks."""
    lines = [shlex.split(step.text) for step in steps(page) if isinstance(step, Installation)]
    return [Requirement(word) for pip, *words in lines if pip == "pip" for word in words if word != "install"]


def foreign_modules(source: str) -> set[str]:
    """The modules outside of the standard library that *source* imports, each by the first part of its name."""
    nodes = [*ast.walk(ast.parse(source))]
    named = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    named += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in named} - sys.stdlib_module_names


def test_the_tutorial_installs_what_its_steps_run_with() -> None:
    # pip is not run here: it fetches from an index, and the default tests need no network. Instead each requirement is
    # compared with this environment, in which all other steps run, and each import with the requirements.
    page = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ours, *others = packages(page)
    assert (ours.name, ours.url) == (project["name"], f"git+{project['urls']['Homepage']}")
    in_clone = re.search(r"`pip install '\.\[([\w,]+)\]'`", page)
    assert in_clone is not None
    assert {*in_clone[1].split(",")} == ours.extras
    wanted = [
        *others,
        *(Requirement(each) for extra in ours.extras for each in project["optional-dependencies"][extra]),
    ]
    for each in wanted:
        assert each.specifier.contains(version(each.name), prereleases=True), each
    files = [step for step in steps(page) if isinstance(step, File)]
    imported = set().union(*(foreign_modules(each.text) for each in files))
    written = {each.name.removesuffix(".py") for each in files}
    assert imported - written - {"aioregistry"} <= {each.name for each in wanted}
    assert {"fastapi", "httpx2"} <= imported


def test_the_packages_of_a_page_are_found() -> None:
    page = "```sh\nx\npip install 'a[b] @ git+https://example.org/a'\n```\n\n```sh\npip install c>=1 d\n```\n"
    assert [(each.name, each.extras, each.url) for each in packages(page)] == [
        ("a", {"b"}, "git+https://example.org/a"),
        ("c", set(), None),
        ("d", set(), None),
    ]
    assert foreign_modules("import os.path, a.b\nfrom c.d import e\n") == {"a", "c"}
