"""The documentation is true: its programs run, its snippets compile, its links lead somewhere, its commands are CI's.

A block fenced as ```` ```python run ```` is a whole program; it is run against a real ZooKeeper, which it is told of as
127.0.0.1:2181. One fenced as ```` ```python test ```` is a module of tests, which pass. Those of a page that are fenced
as ```` ```python ours ```` are one program together, which may await outside of functions; the instance of such a
page is a small HTTP server of the test.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import dataclasses
import itertools
import json
import os
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from aioregistry import Registry, Status, balancing, blocking, connect
from aioregistry.events import EVENTS
from benchmarks import picking
from benchmarks.report import RESULTS
from tests.support.processes import outcome_of
from tests.support.zookeeper import ZooKeeperServer
from tools import returns, tables

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")])
pytest_plugins = ["pytester"]

ADDRESS_IN_DOCS = "127.0.0.1:2181"
PROGRAM_TIMEOUT = 60.0

FENCED = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```\s*$", re.MULTILINE | re.DOTALL)
# On GitHub and on PyPI alike: the README's links say where the repository is.
REPOSITORY = "https://github.com/aioregistry/aioregistry"
IN_REPOSITORY = re.compile(rf"{re.escape(REPOSITORY)}/(?:blob|tree)/main/")
LINK = re.compile(r"\]\((?!\w+:)(?P<path>[^)#\s]*)(?:#(?P<anchor>[^)\s]*))?\)")
EXTERNAL = re.compile(r"\]\((?P<url>\w+://[^)\s]*)\)")
# A host that pages lead to → the paths that it serves under the same name for good, without a redirect. A link to
# anywhere else is looked at, and then added; `nox -s links` asks all of them.
ELSEWHERE = {
    "anyio.readthedocs.io": r"/en/stable/\w+\.html",
    "arxiv.org": r"/abs/\d{4}\.\d{5}",
    "curator.apache.org": r"/",
    "docs.aiohttp.org": r"/en/stable/\w+\.html(#[\w-]+)?",
    "github.com": r"/[\w-]+/[\w-]+(/issues/\d+|/(blob|tree)/main/\S+)?",
    "issues.apache.org": r"/jira/browse/ZOOKEEPER-\d+",
    "kazoo.readthedocs.io": r"/en/latest/",
    "keepachangelog.com": r"/en/1\.1\.0/",
    "lamport.azurewebsites.net": r"/pubs/[\w-]+\.pdf",
    "pypi.org": r"/project/[a-z0-9-]+/",
    "pytest-asyncio.readthedocs.io": r"/en/stable/",
    "semver.org": r"/spec/v2\.0\.0\.html",
    "www.envoyproxy.io": r"/docs/envoy/latest/intro/arch_overview/upstream/\w+(/\w+)?",
    "zookeeper.apache.org": r"/",
}
HEADING = re.compile(r"^#+ +(?P<title>.+?)\s*$", re.MULTILINE)


class Block(NamedTuple):
    place: str
    info: str
    text: str


def blocks(page: str, text: str) -> Iterator[Block]:
    for found in FENCED.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(f"{page}:{line}", found["info"].strip(), textwrap.dedent(found["text"]))


def blocks_of_all_pages() -> list[Block]:
    return [block for page in PAGES for block in blocks(page.name, page.read_text(encoding="utf-8"))]


def compiles(text: str) -> None:
    compile(text, "<block>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


def broken_links(page: Path, text: str) -> Iterator[str]:
    here = f"{os.path.relpath(ROOT, page.parent)}/"
    for found in LINK.finditer(IN_REPOSITORY.sub(here, FENCED.sub("", text))):
        target = (page.parent / found["path"]).resolve() if found["path"] else page
        if not target.exists():
            yield f"{page.name}: {found['path']} does not exist"
        elif found["anchor"] and found["anchor"] not in anchors(target.read_text(encoding="utf-8")):
            yield f"{page.name}: {found['path']} has no heading #{found['anchor']}"


def unknown_links(text: str) -> Iterator[str]:
    for found in EXTERNAL.finditer(FENCED.sub("", text)):
        scheme, _, rest = found["url"].partition("://")
        host, slash, path = rest.partition("/")
        if scheme != "https" or not re.fullmatch(ELSEWHERE.get(host, "(?!)"), slash + path):
            yield found["url"]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of headings."""
    titles = (found["title"].lower() for found in HEADING.finditer(FENCED.sub("", text)))
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_snippets_compile(page: Path) -> None:
    for block in blocks(page.name, page.read_text(encoding="utf-8")):
        if block.info in ("python", "python ours", "python test") or block.info.startswith("python file "):
            # Fails by raising: SyntaxError, where a block is no Python.
            compiles(block.text)


@pytest.mark.parametrize(
    "block", [b for b in blocks_of_all_pages() if b.info == "python test"], ids=lambda block: block.place
)
def test_tests_pass(block: Block, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(block.text)
    options = ("asyncio_mode=auto", "asyncio_default_fixture_loop_scope=function")
    result = pytester.runpytest_subprocess("-W", "error", *(f"-o{option}" for option in options))
    assert result.ret == pytest.ExitCode.OK


@pytest.mark.parametrize(
    "block", [b for b in blocks_of_all_pages() if b.info == "python run"], ids=lambda block: block.place
)
async def test_program_runs(block: Block, zookeeper: ZooKeeperServer, chroot: str) -> None:
    assert ADDRESS_IN_DOCS in block.text or "ZooKeeperServer(" in block.text
    await runs(block.text.replace(ADDRESS_IN_DOCS, f"{zookeeper.address}{chroot}"))


async def runs(program: str, *arguments: str) -> None:
    code, _, stderr = await outcome_of(
        *(sys.executable, "-W", "error", "-c", program, *arguments), cwd=ROOT, seconds=PROGRAM_TIMEOUT
    )
    # A warning that the machine stood still is about the machine, not about the page.
    told = [line for line in stderr.decode().splitlines() if not line.startswith("the event loop was blocked")]
    assert (code, told) == (0, [])


# As `python -m asyncio` runs each line
AWAITING = """
import ast, asyncio, inspect, sys
code = compile(sys.argv[1], "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
result = eval(code, {"__name__": "__main__"})
if inspect.iscoroutine(result):
    asyncio.run(result)
"""


async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request over HTTP, as the instance of a page."""
    with contextlib.closing(writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]")
        await writer.drain()


def ours(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    return "".join(block.text for block in blocks(page.name, text) if block.info == "python ours")


@pytest.mark.parametrize("page", [page for page in PAGES if ours(page)], ids=lambda page: page.name)
async def test_what_a_page_has_on_the_right_runs(page: Path, zookeeper: ZooKeeperServer, chroot: str) -> None:
    program = ours(page)
    assert ADDRESS_IN_DOCS in program
    async with await asyncio.start_server(answers, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        program = re.sub(r"\b7000\b", str(port), program.replace("10.0.0.7", host))
        await runs(AWAITING, program.replace(ADDRESS_IN_DOCS, f"{zookeeper.address}{chroot}"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert list(broken_links(page, page.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_to_elsewhere_are_of_a_form_that_lasts(page: Path) -> None:
    assert list(unknown_links(page.read_text(encoding="utf-8"))) == []


def test_links_of_the_readme_work_on_pypi() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [found["path"] for found in LINK.finditer(FENCED.sub("", text))] == []


def test_the_project_urls_are_the_repositorys() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [url for url in project["urls"].values() if not url.startswith(REPOSITORY)] == []


def test_ci_runs_the_second_command_of_the_readme() -> None:
    commands = [
        block for block in blocks("README.md", (ROOT / "README.md").read_text(encoding="utf-8")) if block.info == "sh"
    ]
    assert len(commands) >= 2
    assert (ROOT / ".ci/run").read_text(encoding="utf-8").endswith(f"\n{commands[1].text}")


@pytest.mark.parametrize("name", tables.TABLES)
def test_a_table_is_that_of_the_code(name: str) -> None:
    place, _ = tables.TABLES[name]
    page = (ROOT / place).read_text(encoding="utf-8")
    assert tables.filled(name, page) == page, "python -m tools.tables writes it anew"


@pytest.mark.parametrize("page", ["", "<!-- events: generated -->\n\n<!-- costs: end -->\n"])
def test_a_page_without_the_marks_of_its_table_is_found(page: str) -> None:
    with pytest.raises(ValueError, match="0 places for the table events"):
        tables.filled("events", page)


def test_the_costs_are_those_of_every_strategy() -> None:
    found = json.loads((RESULTS / "picking.json").read_text(encoding="utf-8"))
    assert [*found["strategies"]] == [repr(strategy) for strategy in picking.STRATEGIES]
    public = [getattr(balancing, name) for name in balancing.__all__]
    kinds = {each for each in public if isinstance(each, type) and hasattr(each, "pool")}
    assert {type(strategy) for strategy in picking.STRATEGIES} == kinds - {balancing.Strategy}


def test_every_event_is_in_the_table_with_its_fields() -> None:
    assert rows_of("reference/events.md", "event") == {
        name: ", ".join(f"`{field}`" for field in fields) for name, fields in emitted_events().items()
    }


def test_every_event_is_a_class_with_the_fields_that_are_told() -> None:
    told = {name: [field.name for field in dataclasses.fields(kind)] for name, kind in EVENTS.items()}
    assert told == emitted_events()


def emitted_events() -> dict[str, list[str]]:
    """Yield the events of the hook, by the calls in the source: names and fields."""
    trees = (ast.parse(file.read_text(encoding="utf-8")) for file in ROOT.glob("aioregistry/**/*.py"))
    calls = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {
        str(call.args[0].value): [keyword.arg or "**" for keyword in call.keywords]
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and call.func.attr in ("emit", "_emit")
        and isinstance(call.args[0], ast.Constant)
    }


def rows_of(page: str, heading: str) -> dict[str, str]:
    """The second column of a page's table by the first, which holds names as code; *heading* is the first one's."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    _, _, table = text.partition(f"\n| {heading} |")
    rows = itertools.takewhile(lambda line: line.startswith("| "), table.splitlines()[2:])
    cells = ([cell.strip() for cell in row.strip("|").split(" | ")] for row in rows)
    return {first.strip("`"): second for first, second, *_ in cells}


def test_every_status_is_in_the_table() -> None:
    assert list(rows_of("registration.md", "status")) == [status.name for status in Status]


def test_every_logger_is_in_the_table() -> None:
    sources = (file.read_text(encoding="utf-8") for file in ROOT.glob("aioregistry/**/*.py"))
    loggers = {name for text in sources for name in re.findall(r'= logging\.getLogger\("([\w.]+)"\)', text)}
    assert loggers - {"aioregistry"} == set(rows_of("how-to/logging.md", "logger"))


def test_every_fact_names_its_test() -> None:
    tests = re.findall(r"def (test_\w+)", (ROOT / "tests/test_zookeeper_facts.py").read_text(encoding="utf-8"))
    named = re.findall(r"`(test_\w+)`", (ROOT / "docs/facts.md").read_text(encoding="utf-8"))
    assert sorted(named) == sorted(tests)


def test_there_is_a_page_for_each_of_those_from_which_people_come() -> None:
    pages = {page.stem for page in PAGES if ours(page)}
    assert pages >= {"kazoo", "aiozk", "curator", "consul", "eureka", "nacos"}


def test_there_is_a_program_to_run() -> None:
    assert any(block.info == "python run" for block in blocks_of_all_pages())


# ---------------------------------------------------------------- the checks can fail


def test_a_snippet_that_does_not_compile_is_found() -> None:
    (block,) = blocks("page", "text\n\n```python\nawait x()\nasync with y() as z: ...\nreturn -> 2\n```\n")
    assert block == ("page:3", "python", "await x()\nasync with y() as z: ...\nreturn -> 2\n")
    with pytest.raises(SyntaxError):
        compiles(block.text)


def test_an_indented_block_is_found() -> None:
    (block,) = blocks("page", "- item\n\n  ```python run\n  x = 1\n  ```\n")
    assert block == ("page:3", "python run", "x = 1\n")


def test_a_broken_link_is_found() -> None:
    assert list(broken_links(ROOT / "README.md", "[a](docs/absent.md)"))
    assert list(broken_links(ROOT / "README.md", "# Here\n[a](LICENSE#nowhere)"))
    assert list(broken_links(ROOT / "README.md", f"[a]({REPOSITORY}/blob/main/docs/absent.md)"))
    assert list(broken_links(ROOT / "docs/cli.md", f"[a]({REPOSITORY}/blob/main/docs/cli.md#nowhere)"))
    assert not list(broken_links(ROOT / "docs/cli.md", f"[a]({REPOSITORY}/blob/main/docs/cli.md#register)"))
    assert not list(broken_links(ROOT / "README.md", "[a](https://example.org/x), [b](LICENSE)"))


@pytest.mark.parametrize(
    "url",
    [
        "http://zookeeper.apache.org/",  # in the clear
        "https://pypi.org/project/uhashring",  # redirects
        "https://zookeeper.apache.org",
        "https://example.org/a",  # a host that was not looked at
        "https://github.com/Netflix/eureka/pull/1073/files",
        "ftp://zookeeper.apache.org/",
    ],
)
def test_a_link_that_may_not_last_is_found(url: str) -> None:
    assert list(unknown_links(f"[a]({url}), [b](https://pypi.org/project/uhashring/)")) == [url]


def test_the_reference_follows_what_public_names_return() -> None:
    # a property, an overload, a generic one of a name that is imported for type checkers alone
    assert {"SessionInfo", "Overrides", "RegistryClient", "View"} <= {each.__name__ for each in returns.of(Registry)}
    assert {each.__name__ for each in returns.of(connect)} == {"Registry", "ThreadRegistry"}
    assert "BlockingStream" in {each.__name__ for each in returns.of(blocking.View)}
    assert {each.__name__ for each in returns.of(blocking.Registry.overrides)} == {"BlockingOverrides"}
