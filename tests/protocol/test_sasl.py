"""SASL's DIGEST-MD5: the examples of RFC 2831, and challenges that nobody should answer."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioregistry._protocol import SASLToken
from aioregistry._protocol.sasl import DIGEST_URI, BadChallenge, answer_challenge
from aioregistry._secrets import Secret

SECRET = Secret(b"secret")
CHALLENGE = b'realm="zk-sasl-md5",nonce="abc",charset=utf-8,algorithm=md5-sess,qop="auth"'


def directives(token: bytes) -> dict[str, str]:
    found = re.findall(r'([\w-]+)=(?:"((?:[^"\\]|\\.)*)"|([^,"]+))(?:,|$)', token.decode())
    return {name: quoted or plain for name, quoted, plain in found}


# Section 4: those of IMAP and of ACAP.
EXAMPLES = {
    "imap/elwood.innosoft.com": (
        ("OA6MG9tEQGm2hh", "OA6MHXh6VqTrRk"),
        ("d388dad90d4bbd760a152321f2143af7", "ea40f60335c427b5527b84dbabcdfffd"),
    ),
    "acap/elwood.innosoft.com": (
        ("OA9BSXrbuRhWay", "OA9BSuZWMSpW8m"),
        ("6084c6db3fede7352c551284490fd0fc", "2f0b3d7c3c2e486600ef710726aa2eae"),
    ),
}


@pytest.mark.parametrize("uri", EXAMPLES)
def test_the_examples_of_the_rfc(uri: str) -> None:
    (nonce, cnonce), (response, proof) = EXAMPLES[uri]
    challenge = (f'realm="elwood.innosoft.com",nonce="{nonce}",qop="auth",algorithm=md5-sess,charset=utf-8').encode()
    answer = answer_challenge(challenge, "chris", SECRET, cnonce=cnonce, digest_uri=uri)
    assert directives(answer.token) == {
        "charset": "utf-8",
        "username": "chris",
        "realm": "elwood.innosoft.com",
        "nonce": nonce,
        "nc": "00000001",
        "cnonce": cnonce,
        "digest-uri": uri,
        "response": response,
        "qop": "auth",
    }
    assert answer.proof == f"rspauth={proof}".encode()


def test_what_is_not_said_has_its_default() -> None:
    answer = directives(answer_challenge(b"nonce=abc,algorithm=md5-sess", "a", SECRET, cnonce="c").token)
    assert "realm" not in answer
    assert answer["qop"] == "auth"
    assert answer["digest-uri"] == DIGEST_URI


def test_of_several_realms_the_first_counts() -> None:
    challenge = b'realm="one" , realm="two",\r\n nonce="abc",, algorithm=md5-sess, qop="auth-conf, AUTH"'
    assert directives(answer_challenge(challenge, "a", SECRET, cnonce="c").token)["realm"] == "one"


def test_quotes_are_kept_apart() -> None:
    challenge = rb'realm="a\"b\\c",nonce="n\"",algorithm=md5-sess'
    token = answer_challenge(challenge, 'x"y', SECRET, cnonce="c").token
    assert rb'username="x\"y",realm="a\"b\\c",nonce="n\""' in token


@pytest.mark.parametrize(
    ("challenge", "why"),
    [
        (b"", "nonce"),
        (b"\xff", "UTF-8"),
        (b"rspauth=12", "nonce"),
        (b'realm="a",algorithm=md5-sess', "nonce"),
        (b'nonce="",algorithm=md5-sess', "nonce"),
        (b'nonce="a",nonce="b",algorithm=md5-sess', "more than one nonce"),
        (b'nonce="a",algorithm=md5-sess,algorithm=md5-sess', "more than one algorithm"),
        (b'nonce="a"', "md5-sess"),
        (b'nonce="a",algorithm=md5', "md5-sess"),
        (CHALLENGE.replace(b'"auth"', b'"auth-conf,auth-int"'), "qop"),
        (b'nonce="a', "cannot be read from character 0"),
        (b'algorithm=md5-sess, nonce="a"b', "cannot be read from character 20"),
        (b"\x60\x06\x06\x04", "cannot be read"),
        (CHALLENGE + b"," * 2048, "2048"),
    ],
)
def test_what_cannot_be_answered(challenge: bytes, why: str) -> None:
    with pytest.raises(BadChallenge, match=why):
        answer_challenge(challenge, "a", SECRET, cnonce="c")


def test_a_challenge_has_2048_bytes_at_most() -> None:
    longest = CHALLENGE.ljust(2048, b",")
    assert directives(answer_challenge(longest, "a", SECRET, cnonce="c").token)["nonce"] == "abc"
    with pytest.raises(BadChallenge, match="it has 2049 bytes"):
        answer_challenge(longest + b",", "a", SECRET, cnonce="c")


@given(st.binary(max_size=100) | st.text('a=",\\ \t', max_size=40).map(str.encode))
def test_any_bytes_are_answered_or_refused(challenge: bytes) -> None:
    try:
        token = answer_challenge(CHALLENGE + b"," + challenge, "a", SECRET, cnonce="c").token
    except BadChallenge:
        return
    assert directives(token)["nonce"] == "abc"


@pytest.mark.parametrize(("user", "octets"), [("pÿ", b"p\xff"), ("p€", "p€".encode())])
def test_characters_are_hashed_in_latin_1_where_they_can_be(user: str, octets: bytes) -> None:
    """RFC 2831, 2.1.2.1: of two users whose octets are the same, the responses are."""
    written = answer_challenge(CHALLENGE, user, Secret(user.encode()), cnonce="c")
    assert f'username="{user}"'.encode() in written.token
    plain = octets.decode("latin-1")
    same = answer_challenge(CHALLENGE, plain, Secret(plain.encode()), cnonce="c")
    assert directives(written.token)["response"] == directives(same.token)["response"]


def test_no_token_shows_itself() -> None:
    answer = answer_challenge(CHALLENGE, "chris", SECRET, cnonce="c")
    told = repr([answer, SASLToken(answer.token), SASLToken(answer.token).serialize(1), str(SASLToken(answer.token))])
    assert "chris" not in told
    assert "rspauth" not in told


def test_a_program_without_a_login_does_not_import_it() -> None:
    program = (
        "import asyncio, sys, aioregistry\n"
        "async def main():\n"
        "    auth = [('digest', 'chat:secret')]\n"
        "    async with aioregistry.connect('127.0.0.1:1', wait=False, auth=auth) as registry:\n"
        "        await registry.discover('chat').aclose()\n"
        "asyncio.run(main())\n"
        "print(*sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert "aioregistry._session.credentials" in modules
    assert "aioregistry._protocol.sasl" not in modules
