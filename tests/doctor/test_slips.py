"""Where a registry could be whose path has a slip in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioregistry._doctor.picture import Picture
from aioregistry._doctor.root_checks import typing_error
from aioregistry._doctor.slips import below, instead, looked_at

PLACES = ("/prod/eu/services", "/prod/eu/services-withdrawn", "/prod/eu/services-overrides", "/kafka/brokers")


def children_of(places: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"": []}
    for place in places:
        parts = place.strip("/").split("/")
        for number, part in enumerate(parts):
            names = found.setdefault("".join(f"/{each}" for each in parts[:number]), [])
            if part not in names:
                names.append(part)
    return found


def found(chroot: str, base: str, tree: Mapping[str, Sequence[str]]) -> list[str]:
    children = {path: tree.get(path, ()) for path in looked_at(chroot, base)}
    return instead(chroot, base, children | {path: tree.get(path, ()) for path in below(chroot, children)})


@pytest.mark.parametrize(
    ("chroot", "base"),
    [
        ("/prd/eu", "/services"),
        ("/prod/ue", "/services"),
        ("/prod", "/services"),
        ("/eu", "/services"),
        ("", "/services"),
        ("/prod/eu/eu", "/services"),
        ("/x/prod/eu", "/services"),
        ("/prod/eu", "/service"),
        ("/prod/eu", "/sevrices"),
    ],
)
def test_one_slip(chroot: str, base: str) -> None:
    assert "/prod/eu/services" in found(chroot, base, children_of(PLACES))


def test_the_most_alike_comes_first() -> None:
    tree = children_of([f"/{name}/eu/services" for name in ("aaaa", "prod", "zzzz")])
    assert found("/prd/eu", "/services", tree)[0] == "/prod/eu/services"


def test_of_many_alike_the_ten_most_alike_are_looked_at() -> None:
    names = [f"/services{number:02}" for number in range(20)]
    assert len({*found("", "/services", children_of(names))} & {*names}) == 10


def test_what_is_beside_the_base_path_is_no_registry_for_that() -> None:
    tree = children_of(["/services-withdrawn/x", "/services-overrides/x", "/kafka/brokers", "/brokers/ids"])
    assert {"/services-withdrawn", "/services-overrides", "/kafka", "/brokers"}.isdisjoint(found("", "/services", tree))


NAMES = st.text("ab", min_size=1, max_size=2)
PATHS = st.lists(NAMES, max_size=4).map(lambda parts: "".join(f"/{part}" for part in parts))


@given(st.lists(PATHS.filter(bool), max_size=10), PATHS, NAMES)
def test_each_place_is_there_once_and_never_the_one_that_was_asked_for(
    places: list[str], chroot: str, base: str
) -> None:
    tree = children_of([f"{place}/{base}" for place in places])
    told = found(chroot, f"/{base}", tree)
    assert len(set(told)) == len(told)
    assert f"{chroot}/{base}" not in told
    assert all(path.startswith("/") and "//" not in path for path in told)


@given(st.lists(NAMES, min_size=1, max_size=4), st.integers(0, 3), NAMES)
def test_any_one_part_may_be_wrong(parts: list[str], at: int, wrong: str) -> None:
    right = "".join(f"/{part}" for part in parts)
    slipped = [*parts[: at % len(parts)], wrong, *parts[at % len(parts) + 1 :]]
    chroot = "".join(f"/{part}" for part in slipped)
    assert chroot == right or f"{right}/s" in found(chroot, "/s", children_of([f"{right}/s"]))


def test_of_many_places_the_likeliest_are_named() -> None:
    elsewhere = {f"/{name}/services": number for number, name in enumerate("abcdefgh")}
    ((_, text),) = typing_error(Picture([], elsewhere=elsewhere))
    assert text.startswith("has no services, but /b/services has 1, ")
    assert text.endswith("/f/services has 5, and 2 more places have some")
