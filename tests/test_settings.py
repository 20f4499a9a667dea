from __future__ import annotations

import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioregistry import InvalidArgument
from aioregistry._secrets import Secret
from aioregistry._settings import DEFAULTS, FIELDS, AclPart, acl_parts, config_file, credentials, login, resolve

SECRET = "hunter2-cannot-be-shown"

ACL = "auth::cdrwa,world:anyone:r"

# By field: what the command line or a variable says, and what a file says, for the same value.
SAMPLES: dict[str, list[tuple[str, Any, Any]]] = {
    "zookeeper": [("zk1,zk2/prod", "zk1,zk2/prod", "zk1,zk2/prod")],
    "session_timeout": [("10", 10, 10.0), ("2.5", 2.5, 2.5), ("2147483.647", 2147483.647, 2147483.647)],
    "base_path": [("/services", "/services", "/services"), ("/a/", "/a/", "/a")],
    "tls_ca": [("/ca.pem", "/ca.pem", "/ca.pem")],
    "tls_cert": [("/cert.pem", "/cert.pem", "/cert.pem")],
    "tls_key": [("/key.pem", "/key.pem", "/key.pem")],
    "auth_file": [("/auth", "/auth", "/auth")],
    "sasl": [("/login", "/login", "/login")],
    "acl": [(ACL, ACL, ACL), ("ip:10.0.0.0/8:r", "ip:10.0.0.0/8:r", "ip:10.0.0.0/8:r")],
    "verbose": [("0", 0, 0), ("1", 1, 1), ("7", 7, 2), ("9" * 5000, 10**14, 2)],
    "log_format": [("json", "json", "json"), ("text", "text", "text")],
}
WRONG: dict[str, list[Any]] = {
    "zookeeper": [",", "zk1:99999", "https://zk1", 7, ["zk1"]],
    "session_timeout": ["soon", "0", "-1", "nan", "inf", 0, -1, True, [10], 2147483.648, 1e9, "1e999"],
    "base_path": ["services", "/a//b", "/..", 7],
    "tls_ca": [7, True, "\0"],
    "tls_cert": [7],
    "tls_key": [7],
    "auth_file": [7],
    "sasl": [7],
    "acl": ["auth", "auth:", "auth::", "auth::x", "::r", "auth::r,", ",auth::r", "auth::r;world:anyone:r", 7, [ACL]],
    "verbose": ["loud", -1, 1.5, True, "1.0", "²", "\u0661"],
    "log_format": ["xml", 7, ["json"]],
}


def test_every_field_has_samples() -> None:
    assert set(SAMPLES) == set(WRONG) == set(FIELDS) == set(DEFAULTS)


@pytest.mark.parametrize(("name", "sample"), [(name, each) for name in SAMPLES for each in SAMPLES[name]], ids=str)
def test_a_value_is_the_same_from_everywhere(name: str, sample: tuple[str, Any, Any]) -> None:
    text, in_file, expected = sample
    line = f"{name.replace('_', '-')} = {in_file!r}"
    for settings in (
        resolve({name: text}, {}),
        resolve({}, {f"AIOREGISTRY_{name.upper()}": text}),
        resolve({}, {}, config_file("/etc/a.toml", line)),
        resolve({}, {}, config_file("/etc/a.toml", f"{name} = {in_file!r}")),
    ):
        assert settings.values[name] == expected
        assert type(settings.values[name]) is type(expected)
        assert {key: value for key, value in settings.values.items() if key != name} == {
            key: value for key, value in DEFAULTS.items() if key != name
        }


@pytest.mark.parametrize("name", FIELDS)
@given(said=st.sets(st.sampled_from(["given", "environment", "file"])))
def test_the_first_that_says_something_counts(name: str, said: set[str]) -> None:
    values = {"given": SAMPLES[name][0], "environment": SAMPLES[name][-1], "file": SAMPLES[name][0]}
    settings = resolve(
        {name: values["given"][0] if "given" in said else None},
        {f"AIOREGISTRY_{name.upper()}": values["environment"][0] if "environment" in said else ""},
        config_file("a.toml", f"{name} = {values['file'][1]!r}" if "file" in said else ""),
    )
    first = next((each for each in ("given", "environment", "file") if each in said), None)
    assert settings.values[name] == (DEFAULTS[name] if first is None else values[first][2])
    expected = {"given": name, "environment": f"AIOREGISTRY_{name.upper()}", "file": f"a.toml: {name}", None: None}
    assert settings.sources.get(name) == expected[first]


@pytest.mark.parametrize(("name", "value"), [(name, each) for name in WRONG for each in WRONG[name]], ids=str)
def test_a_wrong_value_is_refused_by_source_field_and_value(name: str, value: Any) -> None:
    file = config_file("/etc/a.toml", "")
    file = type(file)(file.path, {name: value}, {name: name})
    with pytest.raises(InvalidArgument) as raised:
        resolve({}, {}, file)
    assert raised.value.field == f"/etc/a.toml: {name}"
    if isinstance(value, str) and "\0" not in value:
        with pytest.raises(InvalidArgument) as raised:
            resolve({}, {f"AIOREGISTRY_{name.upper()}": value})
        assert raised.value.field == f"AIOREGISTRY_{name.upper()}"
        with pytest.raises(InvalidArgument) as raised:
            resolve({name: value}, {})
        assert raised.value.field == name
        told = str(raised.value)
        assert value in told or f"={float(value)!r}" in told


def test_what_does_not_count_is_not_refused() -> None:
    wrong = config_file("a.toml", "session-timeout = 'soon'")
    assert resolve({"session_timeout": "3"}, {"AIOREGISTRY_SESSION_TIMEOUT": "late"}, wrong).values[
        "session_timeout"
    ] == pytest.approx(3)


def test_a_command_has_its_own_defaults_and_fields() -> None:
    settings = resolve({}, {"AIOREGISTRY_TLS_CA": "/x"}, None, {"session_timeout": 4.0, "zookeeper": None})
    assert dict(settings.values) == {"session_timeout": 4.0, "zookeeper": None}


@pytest.mark.parametrize("name", ["tls_ca", "tls_cert", "tls_key", "auth_file", "sasl"])
def test_every_path_in_a_file_begins_in_its_folder(name: str) -> None:
    assert resolve({}, {}, config_file("/etc/a.toml", f"{name} = 'x'")).values[name] == "/etc/x"


def test_paths_in_a_file_begin_in_its_folder() -> None:
    file = config_file("/etc/aioregistry/a.toml", "tls-ca = 'ca.pem'\ntls-cert = '/abs.pem'")
    values = resolve({"tls_key": "key.pem"}, {}, file).values
    assert (values["tls_ca"], values["tls_cert"], values["tls_key"]) == (
        "/etc/aioregistry/ca.pem",
        "/abs.pem",
        "key.pem",
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (f"password = '{SECRET}'", "'password'"),
        (f"auth = ['digest:{SECRET}']", "'auth'"),
        ("tls-ca = 'a'\ntls_ca = 'b'", "tls_ca"),
        (f"[auth]\nx = '{SECRET}'", "'auth'"),
    ],
)
def test_a_file_with_a_key_that_is_not_a_setting(text: str, named: str) -> None:
    with pytest.raises(InvalidArgument, match=r"config='a\.toml'") as raised:
        config_file("a.toml", text)
    assert named in str(raised.value)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "text", ["zookeeper", "= 3", f"auth = {SECRET}", "a = 1\na = 2", "x=" + "[" * 100_000, "verbose=" + "9" * 5000]
)
def test_a_file_that_is_not_toml(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is not TOML") as raised:
        config_file("a.toml", text)
    assert SECRET not in str(raised.value)


def shown(error: BaseException) -> str:
    """Its traceback, with the variables of all frames but the test's own."""
    frames = traceback.TracebackException.from_exception(error, capture_locals=True).stack
    return f"{error}{[frame.locals for frame in frames if '/tests/' not in frame.filename]}"


def test_credentials() -> None:
    text = Secret(b"# comment\n\ndigest:ada:a b:c\n  sasl:x:y  \n")
    assert credentials("auth_file", "f", text) == [("digest", b"ada:a b:c"), ("sasl", b"x:y")]


def test_a_login() -> None:
    assert login("sasl", "f", Secret("# comment\n\n ada:a b:c€  \n".encode())) == "ada:a b:c€".encode()


@pytest.mark.parametrize("line", [SECRET, f":{SECRET}", "digest:", f"di gest:{SECRET}"])
def test_a_line_that_is_no_credential_is_named_and_not_shown(line: str) -> None:
    with pytest.raises(InvalidArgument, match="line 2") as raised:
        credentials("AIOREGISTRY_AUTH_FILE", "/run/auth", Secret(f"digest:a:{SECRET}\n{line}".encode()))
    assert (raised.value.field, "/run/auth" in str(raised.value)) == ("AIOREGISTRY_AUTH_FILE", True)
    assert SECRET not in shown(raised.value)


@pytest.mark.parametrize(
    ("text", "why"), [(b"", "no credential"), (b"# nothing\n\n", "no credential"), (b"digest:a\xff", "is not UTF-8")]
)
def test_a_file_without_credentials(text: bytes, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why) as raised:
        credentials("AIOREGISTRY_AUTH_FILE", "/run/auth", Secret(text))
    assert (raised.value.field, "/run/auth" in str(raised.value)) == ("AIOREGISTRY_AUTH_FILE", True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "has 0 logins"),
        (f"\n{SECRET}", "line 2"),
        (f":{SECRET}", "line 1"),
        (f"{SECRET}:", "line 1"),
        (f"a:{SECRET}\nb:{SECRET}", "has 2 logins"),
        (f"a:{SECRET}\udcff", "is not UTF-8"),
    ],
)
def test_a_file_that_has_no_login_is_named_and_not_shown(text: str, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why) as raised:
        login("AIOREGISTRY_SASL", "/run/login", Secret(text.encode(errors="surrogateescape")))
    assert (raised.value.field, "/run/login" in str(raised.value)) == ("AIOREGISTRY_SASL", True)
    assert SECRET not in shown(raised.value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("world:anyone:r", [("world", "anyone", "r")]),
        (ACL, [("auth", "", "cdrwa"), ("world", "anyone", "r")]),
        ("digest:ada:sbQ1+/=:wr", [("digest", "ada:sbQ1+/=", "wr")]),
        ("x509:CN=a,OU=b:c,O=d:cd,ip:fe80::1:r", [("x509", "CN=a,OU=b:c,O=d", "cd"), ("ip", "fe80::1", "r")]),
    ],
)
def test_an_acl_is_written_as_zookeepers_own_command_line_has_it(text: str, parts: list[AclPart]) -> None:
    assert acl_parts(text) == parts


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "auth",
        "auth:",
        "auth::",
        "auth::x",
        "::r",
        "auth::r,",
        ",auth::r",
        "auth::r,,",
        "auth:ada:r",
        "world::r",
    ],
)
def test_what_is_no_acl(text: str) -> None:
    with pytest.raises(ValueError, match="SCHEME:ID:PERMISSIONS"):
        acl_parts(text)
