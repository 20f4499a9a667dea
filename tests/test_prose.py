"""The linter of prose finds what docs/style.md rules out, and nothing else."""

from __future__ import annotations

import pytest

from tools import prose


def test_the_pages_keep_the_style() -> None:
    assert prose.main() == 0


@pytest.mark.parametrize(
    "line",
    [
        "Who expires registers anew.",
        "What waits is served.",
        "It waits. What comes first is served.",
        "There is none.",
        "It waits for nobody.",
        "It ends. It goes on.",
        "It has an ACL. So it ends.",
        "It has names. aiohttp has others.",
        "It ran 30 times. 40 are enough.",
        "It ends. [It](a.md) goes on.",
        "- `a` ends. `b` begins.",
        "It is no port.",
        "It is no JSON.",
        "It is no `Guard`.",
        "It waits; who comes second is refused.",
        "It is left to whoever waits.",
        "It is counted no more, and waits.",
        "It is read anew.",
        "It returns what was read.",
        "It sends what is still known, and ends.",
        "It forgets what is not listed.",
        " ".join(["a"] * 41),
        "a" * 201,
    ],
)
def test_a_form_that_is_ruled_out_is_found(line: str) -> None:
    assert {number for number, _ in prose.problems(f"# Title\n\n{line}\n")} == {3}


@pytest.mark.parametrize(
    "text",
    [
        "A client whose session expired registers again.",
        "Who is listed?",
        'It costs no more than that, and says "no more like this".',
        "What is listed?",
        "There is no port, and it is no longer listed.",
        "| Who expires | There is none. It ends. |",
        "```text\nThere is none. It ends.\n```",
        "It runs on ZooKeeper 3.8 and e.g. 3.9.",
        "Give `guard=None`, or `None`.",
        "[It ends](https://example.org/a.B. C)",
        "The rules are in [what is repeated](httpx.md#what-is-repeated).",
        "It asks what is missing, and says what is wrong.",
        "It is `what was read`.",
        " ".join(["a"] * 40),
        f"[It ends](https://example.org/{'a' * 200})",
    ],
)
def test_all_else_is_left_alone(text: str) -> None:
    assert [*prose.problems(text)] == []


def test_of_tests_only_the_subject_is_asked_for() -> None:
    assert [*prose.hard_words("What waits is served.", prose.WORDS[:1])] != []
    assert [*prose.hard_words("There is none.", prose.WORDS[:1])] == []


def test_docstrings_are_read_too() -> None:
    names = {name for name, text in prose.docstrings() if text}
    assert names >= {
        "aioregistry",
        "aioregistry.connect",
        "aioregistry.Registration.update",
        "aioregistry.View.snapshot",
    }
    assert [*prose.hard_words("Return it, None where there is none.")] != []
    assert [*prose.hard_words("Waits. Who comes first wins.")] != []
    assert [*prose.hard_words("The guard is no :class:`Guard`.")] != []
    assert [*prose.hard_words("Return it, or None; ``none`` is a word.")] == []
    assert [*prose.hard_words("Return what was read.", prose.PUBLIC)] != []


def test_a_module_of_the_package_names_its_nouns() -> None:
    source = '"""Return what was read."""\nraise Refused("what was read is bad")  # what is left is kept\n'
    assert [number for number, text in prose.notes(source) for _ in prose.hard_words(text, prose.NOUNS)] == [2, 1]


@pytest.mark.parametrize(
    "text",
    [
        "look at what is sent",
        "give what connect() returns",
        "What follows is bad",
        "it waits no more, and ends",
        "there is none",
    ],
)
def test_a_text_of_the_package_is_found_wherever_it_stands(text: str) -> None:
    source = f'"""Say what it may."""\n\nHELP = {{"key": f"{text}"}}\n"""Say what it may."""\n'
    assert {number for number, found in prose.texts(source) for _ in prose.hard_words(found, prose.TEXTS)} == {3}


@pytest.mark.parametrize(
    "text", ["; what to do: ", "what is listed?", "default-src 'none'", "init-addr libc,none", "give a string, or None"]
)
def test_a_text_of_the_package_is_left_alone(text: str) -> None:
    assert [*prose.hard_words(text, prose.TEXTS)] == []


SOURCE = '''
"""The rules.

Who comes first wins.
"""

# Nobody asks.
LIMIT = 3
"""Of these there is none."""


def _checked(port):
    if port is None:
        log.warning("%s is no port", port)
        raise InvalidArgument("port", port, f"{port} is no port: give one")
    return {"none of these": "a key that nobody reads"}
'''


def test_sources_are_read_with_all_their_docstrings_comments_errors_and_logs() -> None:
    found = [number for number, text in prose.in_source(SOURCE) for _ in prose.hard_words(text)]
    assert sorted(found) == [4, 7, 9, 14, 15]
