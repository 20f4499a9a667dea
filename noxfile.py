"""What checks aioregistry: `nox` runs what has to pass, `nox -s NAME` what takes longer (`nox -l` lists it)."""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
import tempfile
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import nox

nox.needs_version = ">=2025.10.16"
nox.options.sessions = ["lint", "tests"]
nox.options.reuse_venv = "yes"

PYPROJECT = nox.project.load_toml("pyproject.toml")

# Debian package → the command or file that shows that it is there
ZOOKEEPER = {
    "openjdk-17-jre-headless": "java",
    "libzookeeper-java": "/usr/share/java/zookeeper.jar",
    "libslf4j-java": "/usr/share/java/slf4j-simple.jar",
}
CURATOR = {
    "openjdk-17-jdk-headless": "javac",
    "libcurator-discovery-java": "/usr/share/java/curator-x-discovery.jar",
    "libcurator-recipes-java": "/usr/share/java/curator-recipes.jar",  # for its ServiceCache
}
CHROMIUM = {"chromium": "chromium"}


class Packed(NamedTuple):
    """A source distribution on PyPI that has a ZooKeeper server inside, beside what it is made for."""

    requirement: str
    sha256: str
    jars: tuple[str, ...]


ELSEWHERE = {
    "3.5": Packed(
        "apache-flink-libraries==1.16.3",
        "d15df4185e9c507836b031879b64e18f68955dd7e90cd7d39b450513ed64ebbe",
        ("flink-shaded-zookeeper-3.5.9.jar",),
    ),
    "3.9": Packed(
        "pyspark==4.3.0",
        "e8c517948eff7088a7aa07449aa8eafa4a15a8d50319de2525a6fd26622476c6",
        ("zookeeper-*.jar", "netty-*.jar", "snappy-java-*.jar", "metrics-core-*.jar"),
    ),
}
"""ZooKeeper's releases besides Debian's 3.8."""


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff (rules and format), mypy --strict, and whether the locks are those of pyproject.toml."""
    install(session, "lint")
    look(session)


def look(session: nox.Session) -> None:
    session.run("python", "-m", "tools.locks", "--check")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """The default test run, on a real ZooKeeper and in a real browser, with branch coverage."""
    provide(session, ZOOKEEPER | CHROMIUM)
    install(session, "test")
    cover(session)


def cover(session: nox.Session) -> None:
    session.run("coverage", "erase")
    # Most tests wait for a server more than they compute: files side by side, each worker with a ZooKeeper of its own.
    session.run("coverage", "run", "-m", "pytest", "-n", "2", "--dist", "loadfile", *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session
def demo(session: nox.Session) -> None:
    """`aioregistry demo`; it brings its own server unless it is given one."""
    install(session, "run")
    session.run("aioregistry", "demo", *session.posargs)


@nox.session(default=False)
def chat(session: nox.Session) -> None:
    """The chat of docs/examples, to be tried in a browser; it brings its own ZooKeeper unless it is given one."""
    install(session, "test")
    session.run("python", "-m", "docs.examples.chat", *session.posargs)


@nox.session(default=False)
def interop(session: nox.Session) -> None:
    """What Java Curator registers is seen from Python, and the other way round."""
    provide(session, ZOOKEEPER | CURATOR)
    install(session, "test")
    session.run("pytest", "-m", "interop", *session.posargs)


@nox.session(default=False)
@nox.parametrize("release", [nox.param(release, id=release) for release in sorted(["3.8", *ELSEWHERE])])
def conformance(session: nox.Session, release: str) -> None:
    """Random histories on the embedded server and on a real ZooKeeper; how many can be given, 20000 by default."""
    provide(session, ZOOKEEPER)
    install(session, "test")
    histories, *options = session.posargs or ["20000"]
    session.run(
        *("pytest", "-n", "2", "tests/server/differential", "tests/server/test_hostile_bytes.py"),
        *("-o", "faulthandler_timeout=7200", *options),
        env={"AIOREGISTRY_HISTORIES": histories} | zookeeper_of(session, release),
    )


@nox.session(default=False)
@nox.parametrize("release", [nox.param(release, id=release) for release in sorted(ELSEWHERE)])
def releases(session: nox.Session, release: str) -> None:
    """The default test run, on another release of ZooKeeper than Debian's."""
    provide(session, ZOOKEEPER | CHROMIUM)
    install(session, "test")
    environment = zookeeper_of(session, release)
    session.run("pytest", "-n", "2", "--dist", "loadfile", *session.posargs, env=environment)


@nox.session(default=False)
@nox.parametrize("loop", ["uvloop", "eager"] if sys.version_info >= (3, 12) else ["uvloop"])
def loops(session: nox.Session, loop: str) -> None:
    """The tests on uvloop, and with eager tasks where Python has them."""
    provide(session, ZOOKEEPER)
    install(session, "test")
    session.run("python", "-m", "pytest", "-p", "tests.support.loops", "--loop", loop, *session.posargs)


@nox.session(default=False)
def soak(session: nox.Session) -> None:
    """The tests that take minutes."""
    provide(session, ZOOKEEPER)
    install(session, "test")
    session.run("pytest", "-m", "soak", "-o", "faulthandler_timeout=3600", *session.posargs)


@nox.session(default=False)
def simulate(session: nox.Session) -> None:
    """Simulated worlds (docs/simulation.md): `nox -s simulate -- --seeds 1000`."""
    install(session, "test")
    session.run("python", "-m", "tests.simulation", *session.posargs)


@nox.session(default=False)
def explore(session: nox.Session) -> None:
    """Every order of events for one session, and for several claimants of one id, within ten minutes each."""
    install(session, "test")
    session.run("python", "-m", "tests.simulation.explore", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """The benchmarks, against kazoo, aiozk and a raw socket."""
    provide(session, ZOOKEEPER)
    install(session, "test")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(default=False)
def outages(session: nox.Session) -> None:
    """Simulated: consumers with and without the guard (docs/guard.md), and what the rules of choosing are worth."""
    install(session, "test")
    session.run("python", "-m", "benchmarks.outages", *session.posargs)
    session.run("python", "-m", "benchmarks.choosing", *session.posargs)


@nox.session(default=False)
def plots(session: nox.Session) -> None:
    """Draw what `outages` measures: docs/plots."""
    install(session, "plot")
    session.run("python", "-m", "benchmarks.plots", *session.posargs)


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """Write the lock files anew, on the newest versions that pyproject.toml admits."""
    session.install("uv")
    session.run("python", "-m", "tools.locks")


@nox.session(default=False, reuse_venv=False)
def newest(session: nox.Session) -> None:
    """Lint and tests on the newest versions that pyproject.toml admits, whatever the locks say."""
    provide(session, ZOOKEEPER | CHROMIUM)
    session.install("-e", ".", *nox.project.dependency_groups(PYPROJECT, "lint"))
    look(session)
    cover(session)


@nox.session(default=False, reuse_venv=False)
def oldest(session: nox.Session) -> None:
    """Lint and tests on the lowest versions that pyproject.toml admits."""
    provide(session, ZOOKEEPER | CHROMIUM)
    session.install("uv")
    lowest = session.run("python", "-m", "tools.locks", "--lowest", "lint", silent=True)
    session.install(*str(lowest).split(), silent=False)
    session.install("--no-deps", "--no-build-isolation", "-e", ".")
    look(session)
    cover(session)


def install(session: nox.Session, lock: str) -> None:
    """Install what a lock file says, and the project, as editable."""
    session.install("--require-hashes", "-r", f"locks/{lock}.txt")
    session.install("--no-deps", "--no-build-isolation", "-e", ".")


def present(evidence: str) -> bool:
    return shutil.which(evidence) is not None or Path(evidence).is_file()


def provide(session: nox.Session, packages: dict[str, str]) -> None:
    """Install the Debian *packages* that are missing, or say in one line what to install."""
    missing = [package for package, evidence in packages.items() if not present(evidence)]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        session.error(f"packages are missing; as root: apt-get install --no-install-recommends {' '.join(missing)}")
    noninteractive = {"DEBIAN_FRONTEND": "noninteractive"}
    session.run("apt-get", "update", "-qq", external=True, silent=True)
    session.run(
        *("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing),
        env=noninteractive,
        external=True,
        silent=True,
    )


def zookeeper_of(session: nox.Session, release: str) -> dict[str, str]:
    """The environment in which the tests run on a *release* of ZooKeeper; its jars are fetched once."""
    if release not in ELSEWHERE:
        return {}
    packed = ELSEWHERE[release]
    name = packed.requirement.replace("==", "-")
    jars = Path(session.cache_dir, name)
    if not jars.exists():
        with tempfile.TemporaryDirectory(dir=session.cache_dir) as scratch:
            download(session, packed, Path(scratch))
            unpack(Path(scratch, f"{name}.tar.gz"), packed.jars, into=Path(scratch, name))
            Path(scratch, name).rename(jars)
    return {"AIOREGISTRY_ZOOKEEPER_JARS": str(jars.resolve())}


def download(session: nox.Session, packed: Packed, into: Path) -> None:
    # pip asks every source distribution for its metadata, which these two need a setuptools for that builds wheels.
    session.install("setuptools>=70.1")
    wanted = into / "requirements.txt"
    wanted.write_text(f"{packed.requirement} --hash=sha256:{packed.sha256}\n")
    session.run(
        *("python", "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--no-build-isolation"),
        *("--no-cache-dir", "--dest", str(into), "--requirement", str(wanted)),
    )


def unpack(archive: Path, patterns: tuple[str, ...], into: Path) -> None:
    into.mkdir()
    with tarfile.open(archive) as members:
        for member in members:
            name = Path(member.name).name
            content = members.extractfile(member) if any(fnmatch(name, pattern) for pattern in patterns) else None
            if content is not None:
                (into / name).write_bytes(content.read())
