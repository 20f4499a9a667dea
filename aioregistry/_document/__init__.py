"""The JSON of an instance: read as Apache Curator reads it, written so that Curator can. Pure.

The document of an instance is what Curator's ``JsonInstanceSerializer`` writes (as of Curator 5.4), so that Java
services with Curator or Spring Cloud ZooKeeper read these documents, and the other way round::

    {"name": "chat", "id": "10.0.0.7:7000", "address": "10.0.0.7", "port": 7000, "sslPort": null,
     "payload": {"zone": "eu-1"}, "registrationTimeUTC": 1763680000000, "serviceType": "DYNAMIC", "uriSpec": null}

* Nulls are written. ``enabled`` is written only when it is false, and ``sessionTimeoutMs``, which Curator does not
  have, only when it is known: readers older than CURATOR-275 (2.11.1, 3.2.1) refuse documents with a field they do not
  know. If absent, the first means true, and the second that it is unknown.
* Jackson marks a payload's class (see :mod:`._java`). The class is kept in ``payload_class``, written back, and no part
  of ``payload``. A list is always written with a class (as an ArrayList unless told otherwise), without which Jackson
  cannot read it.
* Fields that are not known here are kept in ``extra`` and written back.

**What Curator reads, we read.** Curator leaves the reading to Jackson, which coerces scalars: ``"8080"`` and 8080.0 are
ports, a number is an id, null is "not enabled", a text is a uriSpec. A repaired value is remembered as it was
written, and written back so unless the field is changed. A document as the library writes it takes the fast way,
through msgspec; anything else takes the other, which is Jackson's, as measured with Curator 5.4 (tests/interop).

**What is not an instance says why**, in words of our own that name the field and the value.
"""

from __future__ import annotations

from .reading import decode
from .writing import encode, names_itself

__all__ = ["decode", "encode", "names_itself"]
