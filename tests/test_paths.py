"""Paths and their segments: what ZooKeeper would refuse is refused here, by its name."""

from __future__ import annotations

import pytest

from aioregistry._errors import InvalidArgument
from aioregistry._paths import check_name, check_path, check_segment, place_of


@pytest.mark.parametrize(("given", "kept"), [("/", "/"), ("/a", "/a"), ("/a/", "/a"), ("/a/b//", "/a/b")])
def test_paths_lose_the_slash_at_their_end(given: str, kept: str) -> None:
    assert check_path("base_path", given) == kept


@pytest.mark.parametrize("path", ["", "a", "a/b", " /a", "/a//b", "/./a", "/a\x1f", "/\ud800", "/\x85", None])
def test_paths_are_refused_by_name(path: object) -> None:
    with pytest.raises(InvalidArgument) as raised:
        check_path("base_path", path)
    assert raised.value.field == "base_path"
    assert raised.value.value == path


@pytest.mark.parametrize("segment", ["chat", "10.0.0.7:7000", "a b", "…", "\uf900"])
def test_segments_that_are_good(segment: str) -> None:
    assert check_segment("name", segment) == segment


@pytest.mark.parametrize("segment", ["", ".", "..", "a/b", "\0", "\x7f", "\ue000", "\ufff0", "\U0001f600", 7])
def test_segments_are_refused_by_name(segment: object) -> None:
    with pytest.raises(InvalidArgument) as raised:
        check_segment("name", segment)
    assert raised.value.field == "name"
    assert raised.value.value == segment


@pytest.mark.parametrize("name", [7, None, ["a/b"], b"a/b"])
def test_a_name_that_is_no_text_is_refused(name: object) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_name("name", name)
    assert isinstance(refused.value, TypeError)


@pytest.mark.parametrize("name", ["chat", "a b", "a/b", "/a/b", "a/b/", "//a/b/c//"])
def test_a_name_may_have_slashes_between_before_and_behind(name: str) -> None:
    assert check_name("name", name) == name
    assert place_of(name) == name.strip("/")


@pytest.mark.parametrize("name", ["", ".", "..", "/", "//", "a//b", "a/./b", "../a", "a\x1f", "a/\x1f", "a/b\ue000"])
def test_a_name_whose_segments_zookeeper_refuses_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_name("name", name)
    assert (refused.value.field, refused.value.value) == ("name", name)


@pytest.mark.parametrize("segment", [".", "..", "\x1f", "\ue000"])
def test_every_segment_of_a_path_is_looked_at(segment: str) -> None:
    for path in (f"/{segment}", f"/{segment}/a", f"/a/{segment}", f"/a/{segment}/"):
        with pytest.raises(InvalidArgument):
            check_path("base_path", path)
