"""The checks of aioregistry: `nox` runs those that have to pass, `nox -s NAME` one that takes longer (see `nox -l`)."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import nox

nox.needs_version = ">=2025.10.16"
nox.options.sessions = ["lint", "docs", "tests"]
nox.options.reuse_venv = "yes"

PYPROJECT = nox.project.load_toml("pyproject.toml")

# Most tests wait for a server more than they compute: with two workers two processors are busy for three fifths of the
# time. Files side by side, each worker with a ZooKeeper of its own. The order is that of tests/conftest.py: xdist's own
# begins with the files of most tests, and the dearest have few.
IN_PARALLEL = ("-n", "3", "--dist", "loadfile", "--no-loadscope-reorder")

CACHED = {"PYTHONDONTWRITEBYTECODE": ""}

# Debian package → the command, or the pattern of a file, that shows that it is there
ZOOKEEPER = {
    "default-jre-headless": "java",
    "libzookeeper-java": "/usr/share/java/zookeeper.jar",
    "libslf4j-java": "/usr/share/java/slf4j-simple.jar",
}
CURATOR = {
    "default-jdk-headless": "javac",
    "libcurator-discovery-java": "/usr/share/java/curator-x-discovery.jar",
    "libcurator-recipes-java": "/usr/share/java/curator-recipes.jar",  # for its ServiceCache
}
EXPORTED_TO = {"prometheus": "prometheus", "haproxy": "haproxy", "nginx-light": "nginx"}
CHROMIUM = {"chromium": "chromium", "libatomic1": "/usr/lib/*/libatomic.so.1"}  # the second for what drives it
SHELLS = {"zsh": "zsh", "fish": "fish"}
PROMETHEUS = {"prometheus": "promtool"}


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
    """Ruff (rules and format), mypy --strict, complete public types, plain prose, and locks of today."""
    install(session, "lint")
    look(session)


def look(session: nox.Session) -> None:
    session.run("python", "-m", "tools.locks", "--check")
    session.run("python", "-m", "tools.prose")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    # Pyright's verdict on what users see, from a package that brings its Node.js: all of it has a known type.
    session.run("basedpyright", "--verifytypes", "aioregistry", "--ignoreexternal")


@nox.session
def tests(session: nox.Session) -> None:
    """The default test run, on a real ZooKeeper, in a real browser, and with what reads exported files."""
    provide(session, ZOOKEEPER | CHROMIUM | EXPORTED_TO)
    install(session, "test")
    run_tests(session, "-m", "not index and not interop and not operations and not releases and not soak")


def run_tests(session: nox.Session, *options: str, **environment: str) -> None:
    """Run pytest, which starts hundreds of Pythons: they share what they compile, wherever that is switched off."""
    session.run("pytest", *IN_PARALLEL, *options, *session.posargs, env=CACHED | environment)


@nox.session(default=False)
def coverage(session: nox.Session) -> None:
    """The default test run with branch coverage, which makes it twice as dear before Python 3.14."""
    provide(session, ZOOKEEPER | CHROMIUM)
    install(session, "test")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *IN_PARALLEL, *session.posargs, env=CACHED)
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
    """Java Curator and aioregistry see each other's instances."""
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
    """The default test run, on another release of ZooKeeper than Debian's, and the tests of the two side by side."""
    provide(session, ZOOKEEPER | CHROMIUM)
    install(session, "test")
    chosen = "not exports and not index and not interop and not operations and not soak"
    run_tests(session, "-m", chosen, **zookeeper_of(session, release))


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
    """Every order of events for one session, for several claimants of one id, and for two minutes for a view's core."""
    install(session, "test")
    session.run("python", "-m", "tests.simulation.explore_core")
    session.run("python", "-m", "tests.simulation.explore", *session.posargs)


@nox.session(default=False)
def exports(session: nox.Session) -> None:
    """Prometheus, HAProxy and nginx read the files that are exported for them."""
    provide(session, ZOOKEEPER | EXPORTED_TO)
    install(session, "test")
    session.run("pytest", "-m", "exports", *session.posargs)


@nox.session(default=False)
def operations(session: nox.Session) -> None:
    """The tools that operators use beside aioregistry: the shells whose completion it writes, and Prometheus."""
    provide(session, ZOOKEEPER | SHELLS | PROMETHEUS)
    install(session, "test")
    session.run("pytest", "-m", "operations", *session.posargs)


@nox.session(default=False)
def mutants(session: nox.Session) -> None:
    """Small mistakes in the pure modules, which their tests must notice: `nox -s mutants -- --seed 7 remedies`."""
    install(session, "test")
    session.run("python", "-m", "tools.mutants", *session.posargs)


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
    for instances in ("1", "2", "3"):
        session.run("python", "-m", "benchmarks.outages", *session.posargs, "--instances", instances)
    session.run("python", "-m", "benchmarks.choosing", *session.posargs)


@nox.session(default=False)
def plots(session: nox.Session) -> None:
    """Draw what `outages` measures: docs/plots."""
    install(session, "plot")
    session.run("python", "-m", "benchmarks.plots", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site in dist/site; a warning is an error, a link or an anchor that leads nowhere is one."""
    install(session, "docs")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "dist/site", *session.posargs)


@nox.session(default=False)
def links(session: nox.Session) -> None:
    """Ask every external link of the site; needs a network."""
    install(session, "docs")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "linkcheck", "docs", "dist/links", *session.posargs)


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """Write the lock files again, on the newest versions that pyproject.toml admits."""
    session.install("uv")
    session.run("python", "-m", "tools.locks")


@nox.session(default=False, reuse_venv=False)
def newest(session: nox.Session) -> None:
    """Lint and tests on the newest versions that pyproject.toml admits, whatever the locks say."""
    provide(session, ZOOKEEPER | CHROMIUM)
    session.install("-e", ".", *nox.project.dependency_groups(PYPROJECT, "lint"))
    look(session)
    run_tests(session)


@nox.session(default=False, reuse_venv=False)
def oldest(session: nox.Session) -> None:
    """Lint and tests on the lowest versions that pyproject.toml admits."""
    provide(session, ZOOKEEPER | CHROMIUM)
    session.install("uv")
    lowest = session.run("python", "-m", "tools.locks", "--lowest", "lint", silent=True)
    session.install(*str(lowest).split(), silent=False)
    session.install("--no-deps", "--no-build-isolation", "-e", ".")
    look(session)
    run_tests(session)


@nox.session(default=False)
def package(session: nox.Session) -> None:
    """Wheel and source distribution in dist/: checked, the tests of the one, a smoke test of the other."""
    provide(session, ZOOKEEPER | CHROMIUM)
    session.install("--require-hashes", "-r", "locks/package.txt")
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build", "--no-isolation")
    (wheel,), (archive,) = Path("dist").glob("*.whl"), Path("dist").glob("*.tar.gz")
    session.run("twine", "check", "--strict", str(wheel), str(archive))
    session.run("check-wheel-contents", str(wheel))
    with tempfile.TemporaryDirectory() as scratch:  # far from the checkout, and from git
        try_wheel(session, wheel.resolve(), Path(scratch))
        try_sources(session, archive.resolve(), Path(scratch))
    session.notify("tutorial")


def try_wheel(session: nox.Session, wheel: Path, scratch: Path) -> None:
    """Run the smoke test with each extra alone, without extras, and with all, on the locked versions."""
    version = wheel.name.split("-")[1]
    smoke = shutil.copy("tools/smoke.py", scratch)
    constraints = scratch / "constraints.txt"
    constraints.write_text(re.sub(r" \\\n +--hash=\S+", "", Path("locks/test.txt").read_text()))
    extras = sorted(PYPROJECT["project"]["optional-dependencies"])
    for number, chosen in enumerate([[], *([extra] for extra in extras), extras]):
        python = venv(session, scratch / f"venv-{number}")
        wanted = f"{wheel}[{','.join(chosen)}]" if chosen else str(wheel)
        session.run(python, "-m", "pip", "install", "-q", "-c", str(constraints), wanted, external=True)
        session.run(python, "-I", str(smoke), version, *chosen, external=True)


def try_sources(session: nox.Session, archive: Path, scratch: Path) -> None:
    with tarfile.open(archive) as members:
        members.extractall(scratch, filter="data")
    python = venv(session, scratch / "venv-sources")
    with session.chdir(scratch / archive.name.removesuffix(".tar.gz")):
        session.run(python, "-m", "pip", "install", "-q", "--require-hashes", "-r", "locks/test.txt", external=True)
        session.run(python, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "-e", ".", external=True)
        session.run(python, "-m", "pytest", *IN_PARALLEL, *session.posargs, env=CACHED, external=True)


def venv(session: nox.Session, place: Path) -> str:
    """Make a virtual environment beside the session's own, and return its Python."""
    session.run("python", "-m", "venv", str(place))
    return str(place / "bin" / "python")


@nox.session(default=False)
def tutorial(session: nox.Session) -> None:
    """The tutorial as a reader follows it, its installation too, on the newest versions; needs a package index."""
    install(session, "test")
    with tempfile.TemporaryDirectory() as scratch:
        build = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", scratch)
        session.run("python", "-m", "pip", *build, ".")
        (wheel,) = Path(scratch).glob("*.whl")
        session.run(
            "pytest", "-m", "index", "tests/test_tutorial.py", *session.posargs, env={"AIOREGISTRY_WHEEL": str(wheel)}
        )


@nox.session(default=False)
def stress(session: nox.Session) -> None:
    """The default tests five times, each in another order, while all processors are kept busy; it ends red for one."""
    provide(session, ZOOKEEPER | CHROMIUM)
    install(session, "test")
    failed = []
    for _ in range(5):
        seed = random.SystemRandom().randrange(10**6)
        with busy_processors():
            try:
                run_tests(session, f"--random-order-seed={seed}", "-o", "faulthandler_timeout=1200")
            except nox.command.CommandFailed:
                failed.append(seed)
    if failed:
        session.error(f"red with --random-order-seed {', '.join(map(str, failed))}")


@contextlib.contextmanager
def busy_processors() -> Iterator[None]:
    """Something to do for every processor, which ends with this process, however that ends."""
    program = f"import os\nwhile os.getppid() == {os.getpid()}:\n    sum(range(100_000))"
    busy = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


# Debian's suite → its Python
SUITES = {"trixie": "3.13", "forky": "3.14"}
IN_ROOT = ["python3", "python3-venv", "ca-certificates", "git", "util-linux", *ZOOKEEPER, *CHROMIUM]


@nox.session(default=False, venv_backend="none")
@nox.parametrize("suite", [nox.param(suite, id=python) for suite, python in SUITES.items()])
def pythons(session: nox.Session, suite: str) -> None:
    """The default test run on newer Pythons, each in a folder with the Debian that brings it, JDK and ZooKeeper."""
    if os.geteuid() != 0:
        session.error("folders with another Debian are made and entered by root")
    provide(session, {"debootstrap": "debootstrap"})
    root = root_of(session, suite)
    inside(session, root, "test -e /venv || python3 -m venv /venv")
    inside(session, root, "/venv/bin/pip install -q --require-hashes -r locks/test.txt")
    inside(session, root, "/venv/bin/pip install -q --no-deps --no-build-isolation -e .")
    inside(session, root, shlex.join(["/venv/bin/python", "-m", "pytest", *IN_PARALLEL, *session.posargs]))


def root_of(session: nox.Session, suite: str) -> Path:
    """A folder with the *suite* of Debian and the packages that the tests need; it is made once."""
    root = Path(session.cache_dir, suite).resolve()
    if not root.exists():
        scripts = Path("/usr/share/debootstrap/scripts")
        # An older debootstrap has no script of its own for a newer suite: they are all the same.
        script = next(script for script in (scripts / suite, scripts / "sid") if script.exists())
        scratch = root.with_name(f"{suite}.unfinished")
        shutil.rmtree(scratch, ignore_errors=True)
        session.run("debootstrap", "--variant=minbase", suite, str(scratch), "", str(script), external=True)
        inside(session, scratch, "apt-get -o Acquire::Check-Valid-Until=false update -qq")
        inside(session, scratch, f"apt-get install -y -qq --no-install-recommends {' '.join(IN_ROOT)}")
        scratch.rename(root)
    return root


def inside(session: nox.Session, root: Path, command: str) -> None:
    """Run a shell's *command* in the folder as the root of all, where this checkout is /src.

    Names are looked up, and certificates checked, as outside; pip's cache is shared. Mounts end with the command.
    """
    cache = Path.home() / ".cache" / "pip"
    binds = {Path.cwd(): root / "src", Path("/dev"): root / "dev", cache: root / "root/.cache/pip"}
    for source, target in binds.items():
        source.mkdir(parents=True, exist_ok=True)
        target.mkdir(parents=True, exist_ok=True)
    for file in (Path("/etc/resolv.conf"), Path("/etc/hosts"), Path("/etc/ssl/certs/ca-certificates.crt")):
        if file.exists():
            (root / file.relative_to("/")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, root / file.relative_to("/"))
    lines = [
        f"mount -t proc proc {shlex.quote(str(root / 'proc'))}",
        *(f"mount --rbind {shlex.quote(str(a))} {shlex.quote(str(b))}" for a, b in binds.items()),
        f"exec chroot {shlex.quote(str(root))} sh -c {shlex.quote(f'cd /src && {command}')}",
    ]
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    session.run(
        *("unshare", "--mount", "--propagation", "private", "sh", "-ec", "\n".join(lines)),
        env={"PATH": path, "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive", **CACHED},
        external=True,
    )


def install(session: nox.Session, lock: str) -> None:
    """Install what a lock file says, and the project, as editable."""
    session.install("--require-hashes", "-r", f"locks/{lock}.txt")
    session.install("--no-deps", "--no-build-isolation", "-e", ".")


def present(evidence: str) -> bool:
    return shutil.which(evidence) is not None or any(Path("/").glob(evidence.removeprefix("/")))


def provide(session: nox.Session, packages: dict[str, str]) -> None:
    """Install the Debian *packages* that are missing, or say in one line what to install."""
    missing = [package for package, evidence in packages.items() if not present(evidence)]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        session.error(f"packages are missing; as root: apt-get install --no-install-recommends {' '.join(missing)}")
    noninteractive = {"DEBIAN_FRONTEND": "noninteractive"}
    session.run("apt-get", "update", "-qq", external=True, silent=True)
    with no_service_started():
        session.run(
            *("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing),
            env=noninteractive,
            external=True,
            silent=True,
        )


@contextlib.contextmanager
def no_service_started() -> Iterator[None]:
    """Debian starts the servers that it installs, unless this file says no; tests start their own, on free ports."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():  # an administrator's, or a container's, who says the same
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()


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
