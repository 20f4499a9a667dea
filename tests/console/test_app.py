"""The console's answers, asked without a socket, on a real ZooKeeper."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiozk import ACL
from starlette.types import ASGIApp, Message

import aioregistry
from aioregistry import Registry
from aioregistry._console import hub as hub_module
from aioregistry._console.gate import COOKIE
from aioregistry._console.passwords import hashed, read_passwords
from tests.console.served import DEADLINE, ORIGIN, Served, instance, served
from tests.support.judge import Judge

PASSWORDS = read_passwords("users", [f"ann:{hashed('correct horse', b'0' * 16)}"])


# ---------------------------------------------------------------- what is there, and what was


async def test_what_happens_is_on_the_timeline_and_two_moments_differ(
    registry: Registry, servers: str, history: Path, judge: Judge, chroot: str
) -> None:
    async with served(servers, history) as console:
        chat = await registry.register(instance("chat", "a", {"zone": "eu"}))
        await console.until("/api/instance", lambda found: found["instance"] is not None, service="chat", id="a")
        found = await console.until("/api/instance", lambda found: len(found["events"]) == 1, service="chat", id="a")
        assert found["instance"]["state"] == "enabled"
        assert found["instance"]["place"] == "10.0.0.7:7000"
        assert found["instance"]["payload"] == ["{", '  "zone": "eu"', "}"]
        assert [event[1] for event in found["events"]] == ["joined"]
        then = found["now"]
        await chat.update(enabled=False)
        await judge.make(f"{chroot}/services/chat/broken", b"not JSON")
        window = {"since": then - 600, "until": time.time() + 600}
        line = await console.until(
            "/api/timeline", lambda line: {"state", "invalid"} <= {event[1] for event in line["events"]}, **window
        )
        assert line["services"][0][0] == "chat"
        assert line["bounds"][0] is not None
        lanes = await console.until("/api/timeline", lambda _: True, service="chat", **window)
        assert [lane[0] for lane in lanes["instances"]] == ["a", "broken"]
        assert [segment[2] for segment in lanes["instances"][0][2]][-1] in ("draining", "mixed")
        only = await console.until("/api/timeline", lambda _: True, kinds="state", **window)
        assert [event[1] for event in only["events"]] == ["state"]
        assert only["events"][0][6] == "enabled → draining"
        texts = await console.until("/api/timeline", lambda _: True, q="broken", **window)
        assert [event[4] for event in texts["events"]] == ["broken"]
        differ = await console.until("/api/compare", lambda _: True, a=then, b=time.time() + 1)
        kinds = {each[2]: each[4] for each in differ["differences"]}
        assert kinds == {"a": "changed", "broken": "came"}
        assert differ["totals"][1] == {"draining": 1, "invalid": 1}
        await judge.delete(f"{chroot}/services/chat/broken")
        await console.until(
            "/api/timeline",
            lambda line: any(event[1] == "left" and event[4] == "broken" for event in line["events"]),
            **window,
        )
        search = (await console.browser.get("/api/search", params={"q": "0.0.7"})).json()
        assert search["found"] == [["chat", "chat", "a", "a", "10.0.0.7:7000", "draining"]]
    await chat.aclose()
    async with served(servers, history) as console:
        line = await console.until(
            "/api/timeline",
            lambda line: any("while recording was off" in event[6] for event in line["events"]),
            **window,
        )
        assert [event[4] for event in line["events"] if "while recording was off" in event[6]] == ["a"]
        assert len([event for event in line["events"] if event[1] == "recording"]) == 2


async def test_a_service_of_which_only_its_operators_know(registry: Registry, servers: str, history: Path) -> None:
    acl = [ACL.make("auth", "", True, True, True, True, True)]
    async with (
        served(servers, history) as console,
        aioregistry.connect(servers, auth=[("digest", "ada:x")], acl=acl) as owner,
        registry.register(instance("chat", "a")),
        owner.register(instance("secret", "b")),
    ):
        async with asyncio.timeout(DEADLINE):
            while not (console.console.service("secret") or [None] * 11)[10]:
                await asyncio.sleep(0.05)
        assert console.console.service("chat") is not None
        row = console.console.service("secret")
        assert row is not None
        assert row[2] is None


async def test_halves_of_characters_do_not_end_the_recording(
    registry: Registry, servers: str, history: Path, judge: Judge, chroot: str
) -> None:
    document = b'{"name": "chat", "id": "odd", "address": "10.0.0.8", "port": 1, "payload": {"zone": "\\ud800"}}'
    async with served(servers, history) as console, registry.register(instance("chat", "a")):
        await console.until("/api/instance", lambda found: found["instance"] is not None, service="chat", id="a")
        await judge.make(f"{chroot}/services/chat/odd", document)
        await registry.overrides.drain("chat", "a", reason="half \ud800")
        for id, kind in (("odd", "joined"), ("a", "override")):
            await console.until(
                "/api/instance",
                lambda found, kind=kind: any(event[1] == kind for event in found["events"]),  # type: ignore[misc]
                service="chat",
                id=id,
            )
        assert console.console.recorder.failure is None


async def test_an_instance_that_is_new_is_shown_as_warming_up(registry: Registry, servers: str, history: Path) -> None:
    async with registry.register(instance("chat", "old")), served(servers, history, warm_up=3600.0) as console:
        await console.until("/api/instance", lambda found: found["instance"] is not None, service="chat", id="old")
        async with registry.register(instance("chat", "young")):
            found = await console.until(
                "/api/instance", lambda found: found["instance"] is not None, service="chat", id="young"
            )
            assert abs(found["now"] - found["instance"]["new"]) < DEADLINE
            shown, row = console.console.shown("chat"), console.console.service("chat")
            assert shown is not None
            assert row is not None
            # "old" was in the first list of its service, which proves nothing.
            assert (shown[1], row[11], row[12]) == ({"young": row[12]}, 1, found["instance"]["new"])


# ---------------------------------------------------------------- following


class Browser:
    """A browser that follows: the events of the stream, as they come; read by hand, so that it can be slow."""

    def __init__(self, app: ASGIApp, path: str, cookie: str = "") -> None:
        self.sent: asyncio.Queue[Message] = asyncio.Queue()
        self.gone = asyncio.Event()
        self.reads = asyncio.Event()
        self.reads.set()
        target, _, query = path.partition("?")
        headers = [(b"host", b"localhost"), (b"cookie", cookie.encode())]
        scope = {
            "type": "http",
            "method": "GET",
            "path": target,
            "query_string": query.encode(),
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "http_version": "1.1",
            "scheme": "http",
            "asgi": {"version": "3.0"},
        }
        self.task = asyncio.create_task(self._run(app, scope))

    async def _run(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        await app(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self.reads.wait()
        self.sent.put_nowait(message)

    async def next(self, event: str, true: Callable[[Any], bool] = lambda _: True) -> Any:
        async with asyncio.timeout(DEADLINE):
            while True:
                body = (await self.sent.get()).get("body", b"").decode()
                name, _, data = body.partition("\ndata: ")
                if name == f"event: {event}" and true(content := json.loads(data)):
                    return content

    async def leave(self) -> None:
        self.gone.set()
        async with asyncio.timeout(DEADLINE):
            await self.task


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "PAUSE", 0.02)


async def test_a_browser_is_sent_what_changes(registry: Registry, servers: str, history: Path, brisk: None) -> None:
    async with served(servers, history) as console, registry.register(instance("chat", "a")) as chat:
        browser = Browser(console.app, "/api/follow?service=chat")
        await browser.next("instances", lambda news: [row[0] for row in news["changed"]] == ["a"])
        await chat.update(enabled=False)
        news = await browser.next("instances", lambda news: news["changed"])
        assert [row[3] for row in news["changed"]] == ["draining"]
        async with registry.register(instance("pay", "b")):
            await browser.next("services", lambda news: any(row[0] == "pay" for row in news.get("changed", ())))
        await chat.aclose()
        news = await browser.next("instances", lambda news: news["gone"])
        assert news["gone"] == ["a"]
        assert len(console.console.hub) == 1
        await browser.leave()
        assert len(console.console.hub) == 0


async def test_a_slow_browser_is_sent_less_and_one_that_reads_nothing_is_let_go(
    registry: Registry, servers: str, history: Path, brisk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(servers, history) as console, registry.register(instance("chat", "a")) as chat:
        browser = Browser(console.app, "/api/follow?service=chat")
        await browser.next("instances", lambda news: news["changed"])
        browser.reads.clear()
        messages: list[str] = []
        for number in range(50):
            await chat.update(payload=number)
        async with asyncio.timeout(DEADLINE):
            while (shown := console.console.shown("chat")) is None or shown[0]["a"].payload != 49:
                await asyncio.sleep(0.02)
        browser.reads.set()
        # One was being sent, and the next has all that happened meanwhile.
        while True:
            news = await browser.next("instances", lambda news: news["changed"])
            messages.append(news["changed"][0][7])
            if messages[-1] == "49":
                break
        assert len(messages) <= 2
        await browser.leave()
        monkeypatch.setattr("aioregistry._console.answers._SENT_WITHIN", 0.05)
        deaf = Browser(console.app, "/api/follow")
        deaf.reads.clear()
        async with asyncio.timeout(DEADLINE):
            while not deaf.task.done():
                await asyncio.sleep(0.02)
        assert len(console.console.hub) == 0


async def test_browsers_are_bounded_and_end_with_the_console(
    servers: str, history: Path, brisk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "MOST_BROWSERS", 1)
    async with served(servers, history) as console:
        browser = Browser(console.app, "/api/follow")
        await browser.next("status")
        answer = await console.browser.get("/api/follow")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
        console.console.hub.close()
        async with asyncio.timeout(DEADLINE):
            await browser.task
        # Of those that ask in the same moment, one is faster.
        hub = hub_module.Hub()
        both = [hub.follow(console.console, None, lambda: True) for _ in range(2)]
        assert await anext(both[0]) == b"retry: 2000\n\n"
        with pytest.raises(StopAsyncIteration):
            await anext(both[1])
        await both[0].aclose()
        assert (await console.browser.get("/api/follow")).status_code == 503


# ---------------------------------------------------------------- maintenance


async def test_an_instance_is_drained_and_enabled_with_a_reason(
    registry: Registry, servers: str, history: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aioregistry.console")
    async with served(servers, history, allow_drain=True) as console, registry.register(instance("chat", "a")):
        await console.until("/api/instance", lambda found: found["instance"] is not None, service="chat", id="a")
        asked = {"service": "chat", "id": "a", "reason": "new disk", "seconds": 600}
        answer = await console.post("/api/drain", asked)
        assert (answer.status_code, answer.json()["until"] > time.time()) == (200, True)
        found = await console.until(
            "/api/instance", lambda found: found["instance"]["state"] == "maintenance", service="chat", id="a"
        )
        assert found["instance"]["override"]["reason"] == "new disk"
        await console.until(
            "/api/instance",
            lambda found: any(event[1] == "override" and "new disk" in event[6] for event in found["events"]),
            service="chat",
            id="a",
        )
        ended = {"service": "chat", "id": "a", "reason": "the disk\n is \ud800 in"}
        for wrong in ({**ended, "reason": 5}, {**ended, "reason": None}, {**ended, "reason": "x" * 301}):
            assert (await console.post("/api/enable", wrong)).status_code == 400, wrong
        assert (await console.post("/api/enable", ended)).status_code == 200
        await console.until(
            "/api/instance", lambda found: found["instance"]["state"] == "enabled", service="chat", id="a"
        )
        text = r"the disk\n is \ud800 in (by somebody)"
        await console.until(
            "/api/instance",
            lambda found: any(event[1] == "override-over" and event[6] == text for event in found["events"]),
            service="chat",
            id="a",
        )
        told = [record for record in caplog.records if record.name == "aioregistry.console" and hasattr(record, "id")]
        assert [(record.service, record.id) for record in told] == [("chat", "a")] * 2  # type: ignore[attr-defined]
        wrongs: list[Any] = [
            {**asked, "reason": " "},
            {**asked, "reason": 5},
            {**asked, "id": "nobody"},
            {**asked, "id": "a/b"},
            {**asked, "service": None},
            {**asked, "seconds": -1},
            {**asked, "seconds": "1"},
            {**asked, "any_incarnation": "yes"},
            {},
            [],
            "text",
        ]
        for wrong in wrongs:
            answer = await console.post("/api/drain", wrong)
            assert (answer.status_code, "error" in answer.json()) == (400, True), wrong
        assert (await console.post("/api/enable", {"service": "chat", "id": "a"})).status_code == 400
        assert (await console.post("/api/drain", asked, **{"content-type": "text/plain"})).status_code == 415
        long = await console.post("/api/drain", {**asked, "reason": "x" * 20_000})
        assert long.status_code == 413


async def test_a_console_is_read_only_and_credentials_may_not_do(
    registry: Registry, servers: str, history: Path
) -> None:
    asked = {"service": "chat", "id": "a", "reason": "new disk"}
    async with registry.register(instance("chat", "a")):
        async with served(servers, history) as console:
            answer = await console.post("/api/drain", asked)
            assert answer.status_code == 403
            assert "--allow-drain" in answer.json()["error"]
        readers = ACL.make("world", "anyone", True, False, False, False, False)
        await registry.client.create("/services-overrides", b"", acl=[readers])
        async with served(servers, history, allow_drain=True) as console:
            answer = await console.post("/api/drain", asked)
            assert answer.status_code == 403
            assert "credentials" in answer.json()["error"]


# ---------------------------------------------------------------- who may


CHANGES = ("/api/drain", "/api/enable", "/logout", "/login")


async def test_requests_from_pages_of_others_change_nothing(servers: str, history: Path) -> None:
    async with served(servers, history, allow_drain=True) as console:
        csrf = await console.csrf()
        for headers in (
            {},
            {"origin": "http://evil.example"},
            {"origin": "null"},
            {**ORIGIN, "sec-fetch-site": "cross-site"},
        ):
            for path in CHANGES:
                answer = await console.browser.post(path, json={}, headers={"x-csrf-token": csrf, **headers})
                assert answer.status_code == 403, (path, headers)
        for token in ({}, {"x-csrf-token": "guessed"}):
            assert (await console.browser.post("/api/drain", json={}, headers={**ORIGIN, **token})).status_code == 403
        for path in ("/api/timeline?since=0&until=1", "/api/follow", "/api/search?q=x"):
            answer = await console.browser.get(path, headers={"sec-fetch-site": "cross-site"})
            assert answer.status_code == 403


async def test_a_name_that_leads_here_opens_nothing(servers: str, history: Path) -> None:
    async with served(servers, history, hosts=frozenset({"ops.example"})) as console:
        for path in ("/", "/login", "/api/search?q=x", "/static/console.js"):
            for host, status in (("rebound.example", 400), ("", 400), ("ops.example:8765", 200)):
                answer = await console.browser.get(path, headers={"host": host})
                assert answer.status_code == status, (path, host)


async def test_every_answer_keeps_code_and_frames_out(servers: str, history: Path) -> None:
    async with served(servers, history, passwords=PASSWORDS) as console:
        for path in ("/", "/login", "/static/console.js", "/static/nothing", "/api/search?q=x", "/nowhere"):
            for host in ("localhost", "rebound.example"):
                headers = (await console.browser.get(path, headers={"host": host})).headers
                assert "default-src 'none'" in headers["content-security-policy"], path
                assert headers["x-content-type-options"] == "nosniff"
                assert headers["x-frame-options"] == "DENY"


async def test_pages_have_no_code_in_them(servers: str, history: Path) -> None:
    async with served(servers, history) as console:
        for path in ("/", "/timeline", "/compare", "/login"):
            page = (await console.browser.get(path)).text
            assert "<script>" not in page
            assert "style=" not in page
            assert " onclick" not in page


async def login(
    console: Served, password: str = "correct horse", user: str = "ann", wanted: str = "/"
) -> httpx.Response:
    fields = {"user": user, "password": password, "next": wanted}
    return await console.browser.post("/login", data=fields, headers=ORIGIN)


async def test_a_login_is_demanded_given_and_ended(servers: str, history: Path) -> None:
    async with served(servers, history, passwords=PASSWORDS, allow_drain=True) as console:
        answer = await console.browser.get("/timeline?range=60")
        assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Ftimeline%3Frange%3D60")
        assert (await console.browser.get("/api/search?q=x")).status_code == 401
        assert (await console.browser.get("/api/follow")).status_code == 401
        assert (await console.browser.get("/static/console.css")).status_code == 200
        assert (await login(console, "wrong")).status_code == 401
        assert (await login(console, user="bob")).status_code == 401
        answer = await login(console, wanted="/timeline?range=60")
        assert (answer.status_code, answer.headers["location"]) == (303, "/timeline?range=60")
        cookie = answer.headers["set-cookie"].lower()
        assert all(word in cookie for word in ("httponly", "samesite=lax", "path=/"))
        assert (await console.browser.get("/api/search?q=x")).status_code == 200
        csrf = await console.csrf()
        assert (await console.post("/api/drain", {})).status_code == 400
        assert (await console.browser.post("/api/drain", json={}, headers=ORIGIN)).status_code == 403
        stolen = console.browser.cookies[COOKIE]
        assert (await console.post("/logout", {}, **{"x-csrf-token": csrf})).status_code == 200
        answer = await console.browser.get("/api/search?q=x", headers={"cookie": f"{COOKIE}={stolen}"})
        assert answer.status_code == 401


async def test_logins_that_fail_are_told_once_and_then_counted(
    servers: str, history: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(servers, history, passwords=PASSWORDS) as console:
        for number in range(5):
            assert (await login(console, user=f"nobody{number}")).status_code == 401
        console.console.repeated.close()
    told = [record.getMessage() for record in caplog.records if "a login as" in record.getMessage()]
    assert "nobody0" in told[0]
    assert "nobody4" in told[-1]
    assert len(told) < 5
    failed = [record for record in caplog.records if "a login as" in record.getMessage()]
    assert vars(failed[0])["user"] == "nobody0"
    assert vars(failed[0])["address"] == "127.0.0.1"


async def test_a_login_leads_nowhere_else(servers: str, history: Path) -> None:
    async with served(servers, history, passwords=PASSWORDS) as console:
        for wanted in ("//evil.example", "https://evil.example", "/\\evil.example", "/\r\nx: y", "javascript:x"):
            assert (await login(console, wanted=wanted)).headers["location"] == "/"


async def test_a_browser_that_follows_is_sent_nothing_after_its_logout(
    servers: str, history: Path, brisk: None
) -> None:
    async with served(servers, history, passwords=PASSWORDS) as console:
        await login(console)
        browser = Browser(console.app, "/api/follow", f"{COOKIE}={console.browser.cookies[COOKIE]}")
        await browser.next("status")
        await console.post("/logout", {})
        console.console.hub.status_changed()
        async with asyncio.timeout(DEADLINE):
            await browser.task


async def test_guesses_are_bounded(servers: str, history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aioregistry._console.gate.is_password", lambda password, known: password == "correct horse")
    async with served(servers, history, passwords=PASSWORDS) as console:
        answers = [await login(console, str(number)) for number in range(12)]
        assert [answer.status_code for answer in answers] == [401] * 10 + [429] * 2
        assert int(answers[-1].headers["retry-after"]) > 200
        assert (await login(console)).status_code == 429  # also the right one, until the time is over
        others = [await login(console, "x", user=f"user-{number}") for number in range(12)]
        assert [answer.status_code for answer in others] == [401] * 10 + [429] * 2


async def test_a_proxy_names_the_user(servers: str, history: Path) -> None:
    settings = {"user_header": "x-forwarded-user", "proxies": frozenset({"10.0.0.1"})}
    async with served(servers, history, address=("10.0.0.1", 1), **settings) as console:
        assert (await console.browser.get("/")).status_code == 401
        page = await console.browser.get("/", headers={"x-forwarded-user": "ann\u003cb>"})
        assert 'data-user="ann&lt;b&gt;"' in page.text
        twice = await console.browser.get("/", headers=[("x-forwarded-user", "ann"), ("x-forwarded-user", "eve")])
        assert twice.status_code == 401
    async with served(servers, history, address=("10.0.0.2", 1), **settings) as console:
        assert (await console.browser.get("/", headers={"x-forwarded-user": "eve"})).status_code == 403


# ---------------------------------------------------------------- bad questions


async def test_a_form_with_too_much_in_it_is_refused(servers: str, history: Path) -> None:
    async with served(servers, history, passwords=PASSWORDS) as console:
        answer = await console.browser.post("/login", data={str(n): "x" for n in range(11)}, headers=ORIGIN)
        assert answer.status_code == 400
        assert (await login(console)).status_code == 303


async def test_a_defect_is_logged(
    servers: str, history: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    async with served(servers, history) as console:
        monkeypatch.setattr(console.console, "detail", fail)
        monkeypatch.setattr(console.console, "status", fail)
        with pytest.raises(RuntimeError, match="a defect"):
            await console.browser.get("/api/instance?service=chat&id=a")
        with pytest.raises(RuntimeError, match="a defect"):
            await asyncio.wait_for(Browser(console.app, "/api/follow").task, DEADLINE)
    told = [record.getMessage() for record in caplog.records if record.name == "aioregistry.console"]
    assert [text.rpartition(" ")[2] for text in told] == ["/api/instance", "/api/follow"]


async def test_a_question_that_makes_no_sense_is_refused(servers: str, history: Path) -> None:
    async with served(servers, history) as console:
        for path in (
            "/api/timeline",
            "/api/timeline?since=x&until=1",
            "/api/timeline?since=nan&until=1",
            "/api/timeline?since=0&until=1e300",
            "/api/timeline?since=2&until=1",
            "/api/timeline?since=1&until=1",
            "/api/compare?a=1",
            "/api/compare?a=-1&b=2",
            "/api/search",
            "/api/instance?service=chat",
        ):
            answer = await console.browser.get(path)
            assert (answer.status_code, list(answer.json())) == (400, ["error"]), path


async def test_files_are_kept_by_browsers_and_answers_are_not(servers: str, history: Path) -> None:
    async with served(servers, history) as console:
        page = await console.browser.get("/")
        assert page.headers["cache-control"] == "no-store"
        script = page.text.partition('<script src="')[2].partition('"')[0]
        answer = await console.browser.get(script, headers={"accept-encoding": "gzip"})
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["content-encoding"] == "gzip"
        old = await console.browser.get("/static/console.js?v=old", headers={"accept-encoding": "identity"})
        assert old.headers["cache-control"] == "no-cache"
        assert len(gzip.compress(old.content)) < 20_000
        assert (await console.browser.get("/static/..%2fapp.py")).status_code == 404
