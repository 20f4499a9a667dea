"""Documents as others write them, and what Curator 5.4 reads them as; tests/interop has it read each."""

from __future__ import annotations

import gzip
import json
from typing import Any, Final, NamedTuple

PLAIN: Final[dict[str, Any]] = {
    "name": "chat",
    "id": "a",
    "address": "10.0.0.7",
    "port": 7000,
    "sslPort": None,
    "payload": None,
    "registrationTimeUTC": 1763680000000,
    "serviceType": "DYNAMIC",
    "uriSpec": None,
}


def written(raw: dict[str, str] | None = None, *, without: str = "", **fields: Any) -> bytes:
    """A document of Curator's with other *fields*, and members with the text *raw*; *without* one of its own."""
    members = {key: json.dumps(value) for key, value in (PLAIN | fields).items() if key != without} | (raw or {})
    return b"{%s}" % ",".join(f'"{key}":{text}' for key, text in members.items()).encode("utf-8", "surrogatepass")


class Read(NamedTuple):
    """A document, and what of it Curator reads otherwise than in `PLAIN`."""

    document: bytes
    curator: dict[str, Any]
    ours: dict[str, Any] = {}  # noqa: RUF012 - attributes of an instance where they are not what Curator says


SCHEME = [{"value": "scheme", "variable": True}, {"value": "://x", "variable": False}]


def _by(
    curator: dict[str, Any],
    payload_class: str | None = None,
    *,
    without: tuple[str, ...] = (),
    seen: dict[str, Any] | None = None,
    ours: dict[str, Any] | None = None,
    read_as: str | None = None,
) -> Read:
    """The document of a program that writes these fields, its payload with the class; *without* some of Curator's.

    A payload without a class is *read_as* what Jackson takes for it; *seen* is what Curator makes of other fields.
    """
    document = {key: value for key, value in (PLAIN | curator).items() if key not in without}
    if payload_class:
        document["payload"] = {"@class": payload_class, **curator["payload"]}
    java_class = payload_class or read_as
    curators = curator | ({"payloadClass": java_class} if java_class else {}) | (seen or {})
    here = (ours or {}) | ({"payloadClass": None} if read_as else {})
    return Read(json.dumps(document, separators=(",", ":")).encode(), curators, here)


UUID = "0f0e7c5a-3f0b-4d7e-9a51-6d1f6b1d2c3e"
ADDRESS_AND_PORT = {
    "parts": [
        {"value": "scheme", "variable": True},
        {"value": "://", "variable": False},
        {"value": "address", "variable": True},
        {"value": ":", "variable": False},
        {"value": "port", "variable": True},
    ]
}
_DUBBO = {
    "dubbo.endpoints": '[{"port":20880,"protocol":"dubbo"}]',
    "dubbo.metadata.revision": "1",
    "dubbo.metadata.storage-type": "local",
    "timestamp": "1763680000000",
}

WRITERS: Final[dict[str, Read]] = {
    # Nine fields: 2.0 to 2.11, 3.0 to 3.2, and 4.0 to 5.9 unless they are told to write `enabled`
    "Curator": _by({"id": UUID}),
    "Curator 2.12, 2.13 and 3.3": _by({"id": UUID, "enabled": True}),
    "Curator told to write enabled": _by({"id": UUID, "enabled": False}),
    "Curator's REST server": _by(
        {"id": UUID, "payload": "From Test", "serviceType": "STATIC"}, read_as="java.lang.String"
    ),
    "Spring Cloud Zookeeper": _by(
        {
            "id": UUID,
            "address": "chat-1.local",
            "payload": {"id": "application-1", "name": "chat", "metadata": {"instance_status": "UP"}},
            "uriSpec": ADDRESS_AND_PORT,
        },
        "org.springframework.cloud.zookeeper.discovery.ZookeeperInstance",
        seen={"uri": "http://chat-1.local:7000"},
    ),
    "Druid without TLS": _by({"name": "druid:broker", "id": UUID, "port": 8082, "sslPort": -1}, ours={"sslPort": None}),
    "Druid with TLS alone": _by({"name": "druid:broker", "id": UUID, "port": -1, "sslPort": 8282}, ours={"port": None}),
    "Dubbo": _by(
        {
            "id": "10.0.0.7:20880",
            "port": 20880,
            "payload": {"id": "10.0.0.7:20880", "name": "chat", "metadata": _DUBBO},
        },
        "org.apache.dubbo.registry.zookeeper.ZookeeperInstance",
    ),
    "Dubbo 2.7": _by(
        {"id": "10.0.0.7:20880", "port": 20880, "payload": {"id": None, "name": "chat", "metadata": {}}},
        "org.apache.dubbo.registry.zookeeper.ZookeeperInstance",
    ),
    # Go leaves zeros out: it writes no registration time, and knows of no type, sslPort and uriSpec
    "Dubbo-go": _by(
        {
            "id": "10.0.0.7:20000",
            "port": 20000,
            "payload": {"id": "10.0.0.7:20000", "metadata": _DUBBO, "name": "chat"},
            "registrationTimeUTC": 0,
        },
        without=("sslPort", "registrationTimeUTC", "serviceType", "uriSpec"),
        ours={"registrationTimeUTC": None},
        read_as="java.util.LinkedHashMap",
    ),
    "GBIF": _by(
        {
            "id": UUID,
            "payload": {
                "groupId": "org.gbif.chat",
                "artifactId": "chat",
                "version": "1.0",
                "serviceConfiguration": {"httpPort": 7000, "httpAdminPort": -1, "host": "a", "stopSecret": None},
                "status": "RUNNING",
                "name": "chat",
                "externalUrl": "http://a:7000/",
                "fullName": "chat-1.0",
            },
            "uriSpec": {"parts": [{"value": "http://a:7000/", "variable": False}]},
        },
        "org.gbif.ws.discovery.conf.ServiceDetails",
        seen={"uri": "http://a:7000/"},
    ),
}
"""The documents of programs, by the fields in their sources; docs/compatibility.md says which."""

READ: Final[dict[str, Read]] = {
    **WRITERS,
    # ports
    **{
        f"{field} {text}": Read(written({field: text}), {field: port}, {} if port in range(65536) else {field: None})
        for field in ("port", "sslPort")
        for text, port in [
            ("-1", -1),
            ("0", 0),
            ("65536", 65536),
            ("2147483647", 2**31 - 1),
            ("-2147483648", -(2**31)),
            ("8080.0", 8080),
            ("8080.9", 8080),
            ("8.08e3", 8080),
            ("-0.5", 0),
            ("-0", 0),
            ('"8080"', 8080),
            ('" 8080\\n"', 8080),
            ('"+8080"', 8080),
            ('"08080"', 8080),
            ('"-1"', -1),
            ("2147483647.0", 2**31 - 1),
            ("1E+3", 1000),
            ("1e-400", 0),
            ("1e-99999999999", 0),
            ("-0.0", 0),
            ('"-0"', 0),
            ('"\\t80\\n"', 80),
            ('"00000000000080"', 80),
            ('"\\u0668\\u0660"', 80),  # in Arabic digits
        ]
    },
    **{f"port {text}": Read(written({"port": text}), {"port": None}) for text in ('""', '"  "', '"null"', "null")},
    # times
    **{
        f"time {text}": Read(written({"registrationTimeUTC": text}), {"registrationTimeUTC": time})
        for text, time in [
            ("-1", -1),
            ("1456326281.161", 1456326281),
            ('"1456326281161"', 1456326281161),
            ("1.456326281161E12", 1456326281161),
            ("9007199254740993", 2**53 + 1),
            ("-9.223372036854775808e18", -(2**63)),
            ("9223372036854775807.0", 2**63 - 1),
            ('"-9223372036854775808"', -(2**63)),
            ("5.999", 5),
            ('" +5 "', 5),
            ('"000000000000000000000005"', 5),
        ]
    },
    **{
        f"time {text}": Read(
            written({"registrationTimeUTC": text}), {"registrationTimeUTC": 0}, {"registrationTimeUTC": None}
        )
        for text in ("null", "0", '""', "-0.9", '"null"', '"  "')
    },
    # enabled
    **{
        f"enabled {text}": Read(written({"enabled": text}), {"enabled": enabled})
        for text, enabled in [
            ("true", True),
            ("false", False),
            ("null", False),
            ("1", True),
            ("2", True),
            ("-1", True),
            ("0", False),
            ('"true"', True),
            ('"True"', True),
            ('" TRUE "', True),
            ('"false"', False),
            ('""', False),
            ('"null"', False),
            ('" null "', False),
            ('" "', False),
            ('"FALSE"', False),
            ("-0", False),
            ("2147483648", True),
            ("1000000000000000000000000000000", True),
        ]
    },
    # texts
    **{
        f"{field} {text}": Read(written({field: text}), {field: value})
        for field in ("name", "id", "address")
        for text, value in [
            ("7", "7"),
            ("1.50", "1.50"),
            ("1e5", "1e5"),
            ("1E400", "1E400"),
            ("-0", "-0"),
            ("12345678901234567890", "12345678901234567890"),
            ("true", "true"),
            ('"a\\/b"', "a/b"),
        ]
        if (field, value) != ("id", "a/b")
    },
    "id missing": Read(written(without="id"), {"id": ""}, {"id": "a"}),
    "id null": Read(written(id=None), {"id": None}, {"id": "a"}),
    "id empty": Read(written(id=""), {"id": ""}, {"id": "a"}),
    "address missing": Read(written(without="address"), {"address": None}),
    "address empty": Read(written(address=""), {"address": ""}),
    "address blank": Read(written(address="my host"), {"address": "my host"}),
    # kinds
    **{
        f"type {text}": Read(written({"serviceType": text}), {"serviceType": kind})
        for text, kind in [
            ("0", "DYNAMIC"),
            ("1", "STATIC"),
            ("2", "PERMANENT"),
            ("3", "DYNAMIC_SEQUENTIAL"),
            ('"1"', "STATIC"),
            ('" STATIC "', "STATIC"),
            ('"DYNAMIC\\u0000"', "DYNAMIC"),
            ('"01"', "STATIC"),
            ('"3 "', "DYNAMIC_SEQUENTIAL"),
            ("-0", "DYNAMIC"),
        ]
    },
    "type null": Read(written(serviceType=None), {"serviceType": "null"}, {"serviceType": "DYNAMIC"}),
    # templates of URIs
    "uri text": Read(written(uriSpec="{ scheme }://x"), {"uri": "http://x"}, {"uriSpec": {"parts": SCHEME}}),
    "uri plain text": Read(
        written(uriSpec="x"), {"uri": "x"}, {"uriSpec": {"parts": [{"value": "x", "variable": False}]}}
    ),
    "uri empty text": Read(written(uriSpec=""), {"uri": ""}, {"uriSpec": {"parts": []}}),
    "uri empty": Read(written(uriSpec={}), {"uri": ""}, {"uriSpec": {"parts": []}}),
    "uri parts": Read(
        written(uriSpec={"parts": [{"value": "scheme", "variable": "true"}, {"value": "://x"}], "more": 1}),
        {"uri": "http://x"},
        {"uriSpec": {"parts": SCHEME}},
    ),
    **{
        f"uri of parts {text}": Read(
            written({"uriSpec": f'{{"parts":[{text}]}}'}),
            {"uri": "" if part["variable"] else part["value"]},
            {"uriSpec": {"parts": [part]}},
        )
        for text, part in [
            ("{}", {"value": "", "variable": False}),
            ('{"value":5}', {"value": "5", "variable": False}),
            ('{"value":-0}', {"value": "-0", "variable": False}),
            ('{"value":1.50}', {"value": "1.50", "variable": False}),
            ('{"value":1e5}', {"value": "1e5", "variable": False}),
            ('{"value":null}', {"value": "null", "variable": False}),
            ('{"value":true}', {"value": "true", "variable": False}),
            ('{"value":"a","x":1}', {"value": "a", "variable": False}),
            ('{"value":"a","variable":null}', {"value": "a", "variable": False}),
            ('{"value":"a","variable":0}', {"value": "a", "variable": False}),
            ('{"value":"a","variable":""}', {"value": "a", "variable": False}),
            ('{"value":"a","variable":"false"}', {"value": "a", "variable": False}),
            ('{"value":"a","variable":1}', {"value": "a", "variable": True}),
        ]
    },
    **{
        f"uri {template}": Read(
            written(uriSpec=template),
            {"uri": ""},
            {"uriSpec": {"parts": [{"value": name, "variable": True} for name in names]}},
        )
        for template, names in [("{}", ""), ("{ }", [""]), ("{a}{b}", "ab"), ("{\u00a0scheme}", ["\u00a0scheme"])]
    },
    "uri of another case": Read(written(uriSpec={"Parts": []}), {"uri": ""}, {"uriSpec": {"parts": []}}),
    "uri parts twice": Read(
        written({"uriSpec": '{"parts":[{"value":"a"}],"parts":[]}'}), {"uri": ""}, {"uriSpec": {"parts": []}}
    ),
    # keys
    "key escaped": Read(written().replace(b'"port"', b'"p\\u006frt"'), {}),
    "keys of another case": Read(written(Port="1", ID="x", serviceTYPE=7), {}),
    "key empty": Read(written({"": "1"}), {}),
    # another writer's
    **{
        f"timeout {text}": Read(written({"sessionTimeoutMs": text}), {})
        for text in ('"10 s"', "0", "-1", "1.5", "null", "[1]", '{"a":1}', "2147483648", "true")
    },
    **{
        f"status {text} of one that is {'' if enabled else 'not '}enabled": Read(
            written({"status": text, "enabled": str(enabled).lower()}),
            {"enabled": enabled},
            {} if enabled or text != '"failing"' else {"status": "failing"},
        )
        for text in ('"failing"', '"UP"', '"Failing "', '""', "null", "7", "true", "[1]", '{"a":1}')
        for enabled in (True, False)
    },
    "unknown": Read(written(weight=3, tags=["a", {"b": None}]), {}),
    "unknown and beyond a float": Read(written({"weight": "1e999"}), {}),
    "unknown and of a huge exponent": Read(written({"weight": "1e99999999999"}), {}),
    "unknown and of 1000 digits": Read(written({"weight": "1" * 1000}), {}),
    "unknown and deep": Read(written({"weight": "[" * 90 + "]" * 90}), {}),
    # bytes
    "mark": Read(b"\xef\xbb\xbf" + written(), {}),
    **{
        kind: Read(written(address="Köln").decode().encode(kind), {"address": "Köln"})
        for kind in ("utf-16", "utf-16-le")
    },
    **{kind: Read(written().decode().encode(kind), {}) for kind in ("utf-16-be", "utf-32", "utf-32-be", "utf-32-le")},
    "zero behind": Read(written() + b"\0", {}),
    "line behind": Read(b" \n" + written() + b"\r\n", {}),
    "more behind": Read(written() + b"} x", {}),
    **{
        f"{kind} behind": Read(written() + behind, {})
        for kind, behind in [
            ("a byte of no character", b"\xff"),
            ("half a character", b"\xf0\x9f"),
            ("a mark", b"\xfe\xff"),
            ("a zero and a byte of no character", b"\0\xff"),
        ]
    },
    "a zero behind UTF-16": Read(written().decode().encode("utf-16") + b"\0", {}),
    "half a pair behind UTF-16": Read(written().decode().encode("utf-16-be") + b"\xd8\x00", {}),
    "zeros behind UTF-32": Read(written().decode().encode("utf-32-be") + b"\0\0\0", {}),
    "a second behind": Read(written() + written(port=1), {}),
    "twice": Read(written()[:-1] + b',"port":1}', {"port": 1}),
    "on lines": Read(json.dumps(PLAIN | {"weight": [1, {"a": 2}]}, indent=2).encode(), {}),
}

REFUSED: Final[dict[str, tuple[bytes, str]]] = {
    # Other contents of nodes where instances are looked for
    "Drill's protocol buffer": (
        b"\n$" + UUID.encode() + b"\x10\x80\xb0\xcb\xd2\xa93\x1a\x05\n\x01a\x10\x01",
        "not UTF-8 at byte 39",
    ),
    "apisix-seed's list of nodes": (b'[{"host":"10.0.0.7","port":80,"weight":1}]', "it is a list, not a JSON object"),
    "compressed": (gzip.compress(written(), mtime=0), "not JSON: it is compressed by gzip"),
    "serialized by Java": (b"\xac\xed\x00\x05t\x00\x04chat", "not JSON: it is a serialized object of Java"),
    "nothing": (b"", "the node is empty"),
    "space": (b" \n", "the node is empty"),
    "zeros": (b"\0\0", "the node is empty"),
    "null": (b"null", "it is null, not a JSON object"),
    "list": (b"[1]", "it is a list, not a JSON object"),
    "text": (b'"h1:80"', "it is text, not a JSON object"),
    "number": (b"8080", "it is a number, not a JSON object"),
    "plain text": (b"10.0.0.1", "not JSON at byte 4: '.' is unexpected"),
    "half": (written()[:-9], "it ends too early"),
    "half a text": (b'{"name":"chat', "not JSON at byte 8: it ends too early"),
    "Latin-1": ('{"name":"grün"}'.encode("latin-1"), "not UTF-8 at byte 11"),
    "comment": (b"/* */" + written(), "not JSON at byte 0: '/' is unexpected"),
    "single quotes": (b"{'name':'chat'}", 'not JSON at byte 1: "\'" is unexpected'),
    "trailing comma": (written()[:-1] + b",}", "'}' is unexpected"),
    "control character": (written({"address": '"a\tb"'}), "'\\t' is unexpected"),
    "NaN": (written({"weight": "NaN"}), "not JSON: NaN is not a number in JSON"),
    "leading zero": (written({"port": "0080"}), "not JSON"),
    **{f"number {text}": (written({"weight": text}), "not JSON") for text in ("+1", ".5", "5.", "1e", "0x10", "--1")},
    "number of 1001 digits": (written({"weight": "1" * 1001}), "not JSON: a number has more than 1000 digits"),
    "wide space before": ("\u00a0".encode() + written(), "not JSON at byte 0: '\\xa0' is unexpected"),
    "vertical tab before": (b"\x0b" + written(), "not JSON at byte 0: '\\x0b' is unexpected"),
    "two marks": (b"\xef\xbb\xbf" * 2 + written(), "not JSON at byte 3: '\\ufeff' is unexpected"),
    "half a character": (written()[:-1] + b"\xc3", "not UTF-8 at byte"),
    "line in a text": (written(address="?").replace(b"?", b"\n"), "'\\n' is unexpected"),
    "wrong escape": (written({"address": '"\\x41"'}), "not JSON"),
    "port in words": (written(port="http"), "port is 'http', not a whole number of 32 bits"),
    "port as a float in text": (written(port="8080.0"), "port is '8080.0', not a whole number of 32 bits"),
    "port too large": (written(port=2**31), "port is 2147483648, not a whole number of 32 bits"),
    "port infinite": (written({"port": "1e999"}), "port is inf, not a whole number of 32 bits"),
    "port of a huge exponent": (written({"port": "1e99999999999"}), "port is inf, not a whole number of 32 bits"),
    "port one half too large": (written({"port": "2147483647.5"}), "not a whole number of 32 bits"),
    "port of a halved number": (written({"port": "-2147483648.5"}), "not a whole number of 32 bits"),
    **{
        f"port as {text}": (written({"port": f'"{text}"'}), f"port is {text!r}, not a whole number of 32 bits")
        for text in ("0x50", "8_0", "1e3", "--1", "+-1", "+", "NaN", "NULL", "2147483648", "999999999999")
    },
    "port after a wide space": (written(port="\u00a080"), "not a whole number of 32 bits"),
    "port true": (written(port=True), "port is True, not a whole number of 32 bits"),
    "port in a list": (written(port=[8080]), "port is [8080], not a whole number of 32 bits"),
    "time too large": (written(registrationTimeUTC=2**63), "not a whole number of 64 bits"),
    "time true": (written(registrationTimeUTC=True), "registrationTimeUTC is True, not a whole number of 64 bits"),
    "time in a list": (written(registrationTimeUTC=[5]), "registrationTimeUTC is [5], not a whole number of 64 bits"),
    **{
        f"time as {text}": (
            written({"registrationTimeUTC": f'"{text}"'}),
            f"registrationTimeUTC is {text!r}, not a whole number of 64 bits",
        )
        for text in ("9223372036854775808", "5.0", "1E5", "0x5")
    },
    **{
        f"time of {text}": (written({"registrationTimeUTC": text}), "not a whole number of 64 bits")
        for text in ("9.3e18", "-9.3e18")
    },
    "enabled in words": (written(enabled="yes"), "enabled is 'yes', not true or false"),
    "enabled as a float": (written(enabled=1.0), "enabled is 1.0, not true or false"),
    **{
        f"enabled {text}": (written({"enabled": text}), "enabled is ")
        for text in ('"tRUE"', '"T"', '"0"', '"Null"', "0.0", "-1e0", "[]", "{}", "[true]")
    },
    "enabled one in text": (written(enabled="1"), "enabled is '1', not true or false"),
    "id in a list": (written(id=["a"]), "id is ['a'], not text"),
    "address as an object": (written(address={}), "address is {}, not text"),
    "unknown kind": (written(serviceType="ETERNAL"), "serviceType is 'ETERNAL', not one of DYNAMIC, STATIC"),
    "kind in lower case": (written(serviceType="dynamic"), "serviceType is 'dynamic', not one of"),
    "kind empty": (written(serviceType=""), "serviceType is '', not one of"),
    **{
        f"kind {text}": (written({"serviceType": text}), "serviceType is ")
        for text in ("1.0", "true", "[]", "{}", '["STATIC"]', '"1.0"', '"0x1"', '"  "', '"null"', '"-1"', "2147483648")
    },
    "kind 4": (written(serviceType=4), "serviceType is 4, not one of"),
    "uri a number": (written(uriSpec=7), "uriSpec is 7, not an object with parts"),
    "uri a list": (written(uriSpec=["x"]), "uriSpec is ['x'], not an object with parts"),
    "uri true": (written(uriSpec=True), "uriSpec is True, not an object with parts"),
    "uri parts a text": (written(uriSpec={"parts": ""}), "uriSpec.parts is '', not a list"),
    "uri part null": (written(uriSpec={"parts": [None]}), "uriSpec.parts[0] is None, not an object"),
    "uri part a list": (written(uriSpec={"parts": [[]]}), "uriSpec.parts[0] is [], not an object"),
    "uri value a list": (written(uriSpec={"parts": [{"value": []}]}), "uriSpec.parts[0].value is [], not text"),
    "uri variable in words": (
        written(uriSpec={"parts": [{"variable": "yes"}]}),
        "uriSpec.parts[0].variable is 'yes', not true or false",
    ),
    "uri parts null": (written(uriSpec={"parts": None}), "uriSpec.parts is None, not a list"),
    "uri part text": (written(uriSpec={"parts": ["a"]}), "uriSpec.parts[0] is 'a', not an object"),
    "uri unclosed": (written(uriSpec="{scheme"), "uriSpec is '{scheme', not a template"),
    "uri nested": (written(uriSpec="{a{b}}"), "uriSpec is '{a{b}}', not a template"),
    "payload too deep": (written({"payload": "[" * 1500 + "]" * 1500}), "nested deeper than 100 levels"),
}
"""The documents that Curator refuses too, and the reason here."""

STRICTER: Final[dict[str, tuple[bytes, str]]] = {
    "name missing": (written(without="name"), "not a Curator service instance: it has no `name`"),
    "name null": (written(name=None), "not a Curator service instance: it has no `name`"),
    "name empty": (written(name=""), "not a Curator service instance: it has no `name`"),
    "nothing in it": (b"{}", "not a Curator service instance: it has no `name`"),
    "another service": (written(name="pay"), "name is 'pay', but the node belongs to service 'chat'"),
    "another id": (written(id="b"), "id is 'b', but the node is 'a'"),
    "payload deep": (written({"payload": '{"a":' * 200 + "1" + "}" * 200}), "nested deeper than 100 levels"),
    "two bytes for one": (written(address="?").replace(b"?", b"\xc0\xb1"), "not UTF-8"),
    "three bytes for one": (written(address="?").replace(b"?", b"\xe0\x80\xb1"), "not UTF-8"),
    "beyond Unicode": (written(address="?").replace(b"?", b"\xf4\x90\x80\x80"), "not UTF-8"),
}
"""The documents that Curator reads, and that are refused here with this reason."""
