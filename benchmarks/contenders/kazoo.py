"""kazoo as its users get the most out of it: pipelined, with its own watches, and every advice on sessions followed."""

from __future__ import annotations

import contextlib
import functools
import json
import queue
import threading
from collections.abc import Sequence
from typing import Any

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import KazooException, NodeExistsError
from kazoo.protocol.states import EventType, WatchedEvent, ZnodeStat
from kazoo.recipe.watchers import ChildrenWatch
from kazoo.retry import KazooRetry

from benchmarks.contender import ADDED, REMOVED, SESSION_TIMEOUT, UPDATED, Tell
from benchmarks.workload import BASE_PATH, Sample

PATIENCE = 60.0


class Kazoo:
    """Registers and discovers.

    An own node is looked at after every connect and on every event of it: created where it is missing, replaced where
    another session owns it. Discovery is a ChildrenWatch, and a read with a watch for every child.
    """

    def __init__(self) -> None:
        self.client: KazooClient
        self.mirror: dict[str, Any] = {}
        self.registered: dict[str, Sample] = {}
        self.suspect: queue.SimpleQueue[Sample | None] = queue.SimpleQueue()
        self.publisher: threading.Thread | None = None

    async def open(self, address: str) -> None:
        # The default gives up after a while, or waits for seconds: neither is what a service wants.
        retry = KazooRetry(max_tries=-1, delay=0.1, backoff=2, max_delay=1.0)
        self.client = KazooClient(address, timeout=SESSION_TIMEOUT, connection_retry=retry)
        self.client.add_listener(self._state_changed)
        self.client.start(timeout=PATIENCE)

    async def cold_sync(self, service: str) -> list[Any]:
        path = f"{BASE_PATH}/{service}"
        names = self.client.get_children(path, watch=_ignore)
        asked = [(name, self.client.get_async(f"{path}/{name}", watch=_ignore)) for name in names]
        for name, result in asked:
            self.mirror[name] = json.loads(result.get()[0])
        return [instance["payload"] for instance in self.mirror.values()]

    async def follow(self, service: str, tell: Tell) -> None:
        await self.cold_sync(service)
        ChildrenWatch(self.client, f"{BASE_PATH}/{service}", functools.partial(self._children, service, tell))

    async def register(self, samples: Sequence[Sample]) -> None:
        self.registered = {sample.path: sample for sample in samples}
        self._publish(samples)
        self.publisher = threading.Thread(target=self._keep, daemon=True)
        self.publisher.start()

    async def close(self) -> None:
        if self.publisher is not None:
            self.suspect.put(None)
            self.publisher.join()
        self.client.stop()
        self.client.close()

    def _state_changed(self, state: str) -> None:
        if state == KazooState.CONNECTED:
            for sample in self.registered.values():
                self.suspect.put(sample)

    def _node_changed(self, event: WatchedEvent) -> None:
        if event.type != EventType.NONE:
            self.suspect.put(self.registered[event.path])

    def _keep(self) -> None:
        while (sample := self.suspect.get()) is not None:
            samples = {sample: None}
            while not self.suspect.empty() and (sample := self.suspect.get()) is not None:
                samples[sample] = None
            # A read that fails for want of a connection is tried again after the next connect.
            with contextlib.suppress(KazooException):
                self._publish(list(samples))
            if sample is None:
                return

    def _publish(self, samples: Sequence[Sample]) -> None:
        looked = [(sample, self.client.exists_async(sample.path, watch=self._node_changed)) for sample in samples]
        writes = []
        for sample, result in looked:
            stat: ZnodeStat | None = result.get()
            if stat is None:
                create = self.client.create_async(sample.path, sample.document, ephemeral=True, makepath=True)
                writes.append((sample, create))
            elif stat.ephemeralOwner != self.client.client_id[0]:
                takeover = self.client.transaction()
                takeover.delete(sample.path, stat.version)
                takeover.create(sample.path, sample.document, ephemeral=True)
                writes.append((sample, takeover.commit_async()))
        for sample, result in writes:
            try:
                result.get()
            except NodeExistsError:
                self.suspect.put(sample)

    def _children(self, service: str, tell: Tell, names: list[str]) -> None:
        now = set(names)
        for name in self.mirror.keys() - now:
            del self.mirror[name]
            tell(REMOVED, name)
        for name in now - self.mirror.keys():
            self.mirror[name] = None
            self._read(service, tell, ADDED, name)

    def _read(self, service: str, tell: Tell, kind: str, name: str) -> None:
        def changed(event: WatchedEvent) -> None:
            if event.type == EventType.CHANGED:
                self._read(service, tell, UPDATED, name)

        def arrived(result: Any) -> None:
            if result.successful() and name in self.mirror:
                self.mirror[name] = json.loads(result.get_nowait()[0])
                tell(kind, name)

        self.client.get_async(f"{BASE_PATH}/{service}/{name}", watch=changed).rawlink(arrived)


def _ignore(event: WatchedEvent) -> None:
    """The cold sync is measured with its watches, and nothing changes meanwhile."""


def contender() -> Kazoo:
    return Kazoo()
