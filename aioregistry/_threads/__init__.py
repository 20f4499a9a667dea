"""Threads: the registry on an event loop of its own, and its face for callers on other loops and in plain threads."""

from __future__ import annotations

from .balancer import shared
from .blocking_balancer import BlockingBalancer
from .face import Fronting, ThreadChanges, ThreadRegistration, ThreadRegistry, ThreadSession, ThreadView, remote_of
from .facts import Newest, RegistrationFacts, SessionFacts, ViewFacts
from .handle import BlockingHandle
from .loop import LoopThread
from .maintenance import BlockingOverrides
from .streams import BlockingStream

__all__ = [
    "BlockingBalancer",
    "BlockingHandle",
    "BlockingOverrides",
    "BlockingStream",
    "Fronting",
    "LoopThread",
    "Newest",
    "RegistrationFacts",
    "SessionFacts",
    "ThreadChanges",
    "ThreadRegistration",
    "ThreadRegistry",
    "ThreadSession",
    "ThreadView",
    "ViewFacts",
    "remote_of",
    "shared",
]
