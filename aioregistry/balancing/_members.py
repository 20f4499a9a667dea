"""The members that strategies choose among, and the traits that they go by."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Set
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar
from weakref import WeakValueDictionary

from aioregistry import _foreign as foreign
from aioregistry._arguments import check_number
from aioregistry._errors import InvalidArgument, InvalidType, wrong_argument
from aioregistry._frozen import FrozenDict
from aioregistry._model import ServiceInstance
from aioregistry._reprs import shown_half_made

from ._newcomers import Newcomers
from ._panic import UNIT, units_of

__all__ = [
    "FAILING",
    "HEAVIEST",
    "LIGHTEST",
    "SUSPECT",
    "WELL",
    "Census",
    "Field",
    "Filter",
    "Load",
    "Loads",
    "Member",
    "Traits",
    "Weight",
    "check_field",
    "check_name",
    "field_of",
    "filter_of",
    "out_of_service",
    "payload_field",
    "place_of",
    "serves",
    "weight_of",
]

P = TypeVar("P")

Field: TypeAlias = str | Callable[[ServiceInstance[P]], object]
"""A field of the payload, with dots between the names where it lies deeper (``metadata.zone``), or a function."""

Weight: TypeAlias = str | Callable[[ServiceInstance[P]], float]
"""A field of the payload that holds the weight, or a function of the instance that returns it."""

Filter: TypeAlias = Mapping[str, object] | Callable[[ServiceInstance[P]], bool]
"""The required values of payload fields, each one value or a set of allowed ones; or a function of the instance."""

LIGHTEST: Final = 1e-9
_SPRING: Final = "org.springframework.cloud.zookeeper.discovery.ZookeeperInstance"
STATUS: Final = "metadata.instance_status"
"""Where Spring Cloud's servers say whether they are to be called."""

HEAVIEST: Final = 1e9
"""The bounds of weights other than 0. Within them a sum over any service keeps every weight's share."""


WELL, SUSPECT, FAILING = 0, 1, 2
"""The kinds of knowledge about a member, besides how calls went; the ejection has a floor for each of these kinds."""


class Traits(NamedTuple):
    """The traits that strategies go by; an instance whose traits stay the same keeps its place in the strategy."""

    weight: float = 1.0
    """The published weight, from 1e-9 to 1e9; only proportions count."""
    local: bool = False
    """Whether it is in the zone of the caller."""


class Load:
    """The calls that are under way at one address, which may come and go meanwhile.

    Attributes:
        calls: how many there are, those of loads that it adopted among them.
        heir: the load that adopted it, because its member went and another is at its address.
    """

    __slots__ = ("__weakref__", "calls", "heir")

    def __init__(self) -> None:
        self.calls: int = 0
        self.heir: Load | None = None

    def count(self, calls: int) -> None:
        """Take note that so many *calls* more are under way."""
        load: Load | None = self
        while load is not None:
            load.calls += calls
            load = load.heir

    def adopt(self, other: Load) -> None:
        """Count the calls of *other* here, too."""
        other.heir = self
        self.count(other.calls)

    def leave_heir(self) -> None:
        """Stop counting its calls at the heir, too."""
        heir, self.heir = self.heir, None
        if heir is not None:
            heir.count(-self.calls)


def place_of(instance: ServiceInstance[Any]) -> Hashable:
    """Return what serves the calls to *instance*: its address and ports, or itself where it publishes no address."""
    if instance.address is None:
        return instance.id
    return instance.address, instance.port, instance.ssl_port


@shown_half_made
class Member(Generic[P]):
    """An instance that may be chosen.

    Attributes:
        id: the instance's.
        instance: as it is now.
        traits: as they are now; unchanged for as long as the member is in a pool.
        weight: the part of its share that it gets, by an operator's word, above 0; unchanged for as long, too.
        load: of the address where it is now.
        suspect: whether the guard of the view holds it: ZooKeeper no longer lists it.
        failing: whether its own checks fail; it is a member during a panic only.
        kind: WELL, or SUSPECT, whether it is failing as well or not, or FAILING.
        rank: that of the pool it belongs to; the least is picked first.
        answered: whether a call to it was good since it became suspect, or ceased to be.
    """

    __slots__ = ("answered", "failing", "id", "instance", "kind", "load", "rank", "suspect", "traits", "weight")

    def __init__(
        self,
        instance: ServiceInstance[P],
        traits: Traits,
        load: Load,
        rank: int = 0,
        *,
        suspect: bool = False,
        failing: bool = False,
        weight: float = 1.0,
    ) -> None:
        self.id: str = instance.id
        self.instance: ServiceInstance[P] = instance
        self.traits: Traits = traits
        self.load: Load = load
        self.suspect: bool = suspect
        self.failing: bool = failing
        self.kind: int = SUSPECT if suspect else FAILING if failing else WELL
        self.rank: int = rank
        self.weight: float = weight
        self.answered: bool = False

    def __repr__(self) -> str:
        return f"<Member {self.id} {self.traits} outstanding={self.load.calls}>"


class Loads:
    """The calls that go on at addresses whose instances are gone, for those that come back, or are there.

    By the id and the address, and else by the address alone: a server that registers again may have another id, which
    may be listed before the former one is gone. Several instances may publish one address: each has its own calls while
    it is there, and where more than one is left, those of one that went are not theirs. Each is forgotten with the last
    of its calls.
    """

    __slots__ = ("_by_place", "_empty", "_exact", "_here")

    def __init__(self) -> None:
        self._empty = True  # said in advance, because to ask the dictionaries is what most changes would pay for
        self._exact: WeakValueDictionary[Hashable, Load] = WeakValueDictionary()
        self._by_place: WeakValueDictionary[Hashable, Load] = WeakValueDictionary()
        self._here: dict[Hashable, set[Load]] = {}

    def leave(self, member: Member[Any], *, moves: bool = False) -> None:
        """*member* is gone, or *moves* to another address: then its calls are not those of another instance here."""
        place, load = place_of(member.instance), member.load
        here = self._here[place]
        here.discard(load)
        if not here:
            del self._here[place]
        if not load.calls:
            return
        self._exact[member.id, place] = load
        self._empty = False
        if len(here) == 1 and not moves:
            next(iter(here)).adopt(load)
            return
        if (earlier := self._by_place.get(place)) is not None:
            load.adopt(earlier)
        self._by_place[place] = load

    def take(self, instance: ServiceInstance[Any]) -> Load:
        """Return the calls under way where *instance* is."""
        place = place_of(instance)
        load = Load() if self._empty else self._kept(instance.id, place)
        here = self._here.get(place)
        if here is None:
            self._here[place] = {load}
        else:
            here.add(load)
        return load

    def _kept(self, id: str, place: Hashable) -> Load:
        self._empty = not self._by_place and not self._exact
        load = self._exact.pop((id, place), None)
        orphan = self._by_place.get(place)
        if load is None:
            load = Load()
        else:
            load.leave_heir()
        if orphan is not None:
            del self._by_place[place]
            if orphan is not load:
                load.adopt(orphan)
        return load


class Census:
    """How many members there are, those that are set aside included: the difference shows a zone that fails.

    Args:
        newcomers: those of them that are new; None where the strategy does not ask for them.

    Attributes:
        weight: the sum of their weights, in units.
        reduced: the members that weigh less than 1 by an operator's word, by id.
    """

    __slots__ = ("local", "newcomers", "reduced", "total", "weight")

    def __init__(self, newcomers: Newcomers | None = None) -> None:
        self.total: int = 0
        self.local: int = 0
        self.weight: int = 0
        self.newcomers: Newcomers | None = newcomers
        self.reduced: dict[str, Member[Any]] = {}

    def count(self, member: Member[Any], number: int) -> None:
        """Take note that *member* came (*number* is 1), or went (-1)."""
        self.total += number
        self.local += number * member.traits.local
        plain = member.weight == member.traits.weight == 1
        self.weight += number * (UNIT if plain else units_of(member.traits.weight, member.weight))
        if member.weight < 1:
            if number > 0:
                self.reduced[member.id] = member
            else:
                del self.reduced[member.id]


# ---------------------------------------------------------------- what payloads say


def payload_field(instance: ServiceInstance[Any], field: str) -> object:
    """Return the payload's *field*: a key of a mapping, an attribute of anything else; None if it is missing.

    A path with dots, unless it is a field by itself, leads from one to the next.

    Raises:
        InvalidArgument: the payload is of a type whose attribute raises.
    """
    payload = instance.payload
    if type(payload) is FrozenDict and (found := payload.get(field)) is not None:
        return found  # of JSON, as most payloads are: no code of others is reached, which the guard would be for
    try:
        return foreign.call(_field, payload, field)
    except foreign.ForeignError as failure:
        raise InvalidArgument(field, None, f"of {instance.id}: reading it raised {failure}") from failure.error


def _field(payload: object, field: str) -> object:
    found = _part(payload, field)
    if found is None and "." in field:
        found = payload
        for part in field.split("."):
            found = _part(found, part)
    return found


def _part(payload: object, name: str) -> object:
    return payload.get(name) if isinstance(payload, Mapping) else getattr(payload, name, None)


def field_of(field: Field[P], instance: ServiceInstance[P], name: str) -> object:
    """Return what *instance* has in *field*, or None if that is missing.

    Raises:
        InvalidArgument: reading it, or the function, raised; names *name* where it is a function.
    """
    if isinstance(field, str):
        return payload_field(instance, field)
    try:
        return foreign.call(field, instance)
    except foreign.ForeignError as failure:
        raise InvalidArgument(name, None, f"of {instance.id}: the function raised {failure}") from failure.error


def out_of_service(instance: ServiceInstance[Any]) -> bool:
    """Return whether a server of Spring Cloud's says that it is not to be called, as Spring's own clients read it.

    Blank is up, and case does not matter.
    """
    if instance.payload_class != _SPRING:
        return False
    status = payload_field(instance, STATUS)
    return status is not None and str(status).strip().upper() not in {"", "UP"}


def serves(instance: ServiceInstance[Any]) -> bool:
    """Return whether *instance* is to be called, as its own document says.

    It is if it is enabled, and in service if it is a server of Spring Cloud's. It is not if its payload cannot be read.
    """
    try:
        return instance.enabled and not out_of_service(instance)
    except InvalidArgument:
        return False


def weight_of(weight: Weight[P], instance: ServiceInstance[P]) -> float:
    """Return the weight of *instance*.

    Raises:
        InvalidArgument: it is not a number, negative, not finite, or beyond what can be told apart; or the function
            raised.
    """
    name = weight if isinstance(weight, str) else "weight"
    value = field_of(weight, instance, name)
    check_number(name, value, at_least=0, at_most=HEAVIEST, of=instance.id)
    assert isinstance(value, int | float)
    if 0 < value < LIGHTEST:
        raise InvalidArgument(name, value, f"of {instance.id}: must be 0, or at least {LIGHTEST:g}")
    return float(value)


def filter_of(where: Filter[P]) -> Callable[[ServiceInstance[P]], bool]:
    """Return *where* as a function; it raises :class:`InvalidArgument` where a function of the caller's answers amiss.

    Raises:
        InvalidArgument: *where* is neither a mapping nor a function, or has nothing in it.
    """
    if isinstance(where, Mapping):
        return _matching(where)
    if not callable(where):
        raise InvalidType("where", where, "must be a mapping of payload fields to values, or a function")
    asked = where

    def accepted(instance: ServiceInstance[P]) -> bool:
        try:
            answer = foreign.call(asked, instance)
        except foreign.ForeignError as failure:
            raise InvalidArgument("where", None, f"of {instance.id}: the function raised {failure}") from failure.error
        # A coroutine, say, would let everything through.
        if not isinstance(answer, bool):
            raise InvalidArgument("where", answer, f"of {instance.id}: the function must return a bool")
        return answer

    return accepted


def _matching(where: Mapping[str, object]) -> Callable[[ServiceInstance[Any]], bool]:
    if not where:
        raise InvalidArgument("where", where, "an empty filter has no effect: leave it out")
    for field, wanted in where.items():
        check_name("where", field)
        if isinstance(wanted, Set) and not wanted:
            raise InvalidArgument(f"where[{field!r}]", wanted, "it allows no value: no instance could ever be picked")
    fields = tuple(where.items())

    def accepted(instance: ServiceInstance[Any]) -> bool:
        return all(_is(payload_field(instance, field), wanted) for field, wanted in fields)

    return accepted


def _is(value: object, wanted: object) -> bool:
    if isinstance(wanted, Set):
        return any(_is(value, each) for each in wanted)  # what JSON holds need not be hashable
    return isinstance(value, bool) is isinstance(wanted, bool) and value == wanted  # JSON's true is not 1


# ---------------------------------------------------------------- what callers give


def check_name(field: str, value: object) -> None:
    """Raise :class:`InvalidArgument` unless *value* is a string with something in it."""
    if not isinstance(value, str) or not value:
        raise wrong_argument(field, value, "must be a string, and not an empty one", str)


def check_field(field: str, value: object) -> None:
    """Raise :class:`InvalidArgument` unless *value* names a payload's field or is a function."""
    if not (isinstance(value, str) and value) and not callable(value):
        raise wrong_argument(field, value, "must be the name of a payload's field, or a function of an instance", str)
