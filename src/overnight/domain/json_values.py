"""Values of ours as JSON values, and back, by nothing but their types. Pure, and small enough for every process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache
from itertools import repeat
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NewType,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

T = TypeVar("T")
Loader = Callable[[Any], Any]
_ATOMS: Final = frozenset({str, int, float, bool, NoneType})


class Unfit(ValueError):
    """A document that does not fit; `path` leads to the first member that is wrong, `message` says what is."""

    def __init__(self, message: str, path: tuple[str, ...] = ()) -> None:
        super().__init__(f"{'.'.join(path)}: {message}" if path else message)
        self.message = message
        self.path = path

    def within(self, name: object) -> Unfit:
        """The same, seen from the value that has this one as a member."""
        return Unfit(self.message, (str(name), *self.path))


def dump(value: object) -> Any:
    """`value` as dictionaries, lists and what JSON knows besides; bytes as the UTF-8 text that they must be."""
    kind: Any = value.__class__
    if kind in _ATOMS:
        return value
    if kind is dict or isinstance(value, Mapping):
        pairs = cast("Mapping[str, object]", value).items()
        return {name: item if item.__class__ in _ATOMS else dump(item) for name, item in pairs}
    if isinstance(value, list | tuple | frozenset):
        return [item if item.__class__ in _ATOMS else dump(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        return value.decode()
    members = ((name, getattr(value, name)) for name in _names(kind))
    return {name: item if item.__class__ in _ATOMS else dump(item) for name, item in members}


def load(kind: type[T], document: object) -> T:
    """The reverse. Members that are not known are passed over, and bounds are not looked at: see `document.checked`.

    Raises Unfit for what is of another type, or is missing.
    """
    found: T = _loader(cast("Any", kind))(document)
    return found


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


@cache
def _loader(kind: Any) -> Loader:
    if isinstance(kind, NewType):
        return _loader(kind.__supertype__)
    if kind in _OTHERWISE:
        return _OTHERWISE[kind]
    if kind in _ATOMS:
        return _exactly(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _of_enum(kind)
    return _dataclass(kind) if is_dataclass(kind) else _of_parts(get_origin(kind), get_args(kind))


def _of_parts(origin: Any, parts: tuple[Any, ...]) -> Loader:
    if origin is Annotated:
        return _loader(parts[0])
    if origin is Literal:
        return _literal(parts)
    if origin in {Union, UnionType}:
        return _one_of(parts)
    if origin in {Mapping, dict}:
        return _mapping(_loader(parts[0]), _loader(parts[1]))
    if origin is tuple and parts[-1] is not ...:
        return _row([_loader(part) for part in parts])
    if origin in {tuple, Sequence}:
        return _items(_loader(parts[0]))
    raise TypeError(f"no JSON values are known for {origin!r}")


def _same(value: Any) -> Any:
    return value


def _float(value: Any) -> float:
    if value.__class__ is not float and value.__class__ is not int:
        raise Unfit("must be a number")
    return float(value)


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes | str):
        raise Unfit("must be text")
    return value.encode() if isinstance(value, str) else value


_OTHERWISE: Final[Mapping[Any, Loader]] = {Any: _same, object: _same, float: _float, bytes: _bytes}


def _exactly(kind: type) -> Loader:
    said = {str: "text", int: "a whole number", bool: "true or false", NoneType: "null"}[kind]

    def load_atom(value: Any) -> Any:
        if value.__class__ is not kind:
            raise Unfit(f"must be {said}")
        return value

    return load_atom


def _literal(texts: tuple[str, ...]) -> Loader:
    known = frozenset(texts)

    def load_literal(value: Any) -> Any:
        if value.__class__ is not str or value not in known:
            raise Unfit(f"must be one of {', '.join(texts)}")
        return value

    return load_literal


def _of_enum(kind: type[Enum]) -> Loader:
    known = {member.value: member for member in kind}

    def load_member(value: Any) -> Any:
        found = known.get(value) if isinstance(value, str) else None
        if found is None:
            raise Unfit(f"must be one of {', '.join(known)}")
        return found

    return load_member


def _one_of(parts: tuple[Any, ...]) -> Loader:
    """The first way that fits; what is wrong is said by the last."""
    ways = [_loader(part) for part in parts if part is not NoneType]
    nullable = NoneType in parts

    def load_any(value: Any) -> Any:
        if value is None and nullable:
            return None
        for way in ways[:-1]:
            try:
                return way(value)
            except Unfit:
                continue
        return ways[-1](value)

    return load_any


def _mapping(key: Loader, item: Loader) -> Loader:
    def load_mapping(value: Any) -> Any:
        _check_mapping(value)
        if item is _same or not value:
            return dict(value)
        found, name = {}, None
        try:
            for name, one in value.items():
                found[key(name)] = item(one)
        except Unfit as unfit:
            raise unfit.within(name) from None
        return found

    return load_mapping


def _check_mapping(value: Any) -> None:
    if value.__class__ is not dict and not isinstance(value, Mapping):
        raise Unfit("must be an object")


def _items(item: Loader) -> Loader:
    def load_items(value: Any) -> Any:
        return _each(repeat(item), value) if _listed(value) else ()

    return load_items


def _row(ways: Sequence[Loader]) -> Loader:
    def load_row(value: Any) -> Any:
        if len(_listed(value)) != len(ways):
            raise Unfit(f"must have {len(ways)} items")
        return _each(ways, value)

    return load_row


def _listed(value: Any) -> Sequence[Any]:
    if value.__class__ is not list and not isinstance(value, tuple):
        raise Unfit("must be a list")
    return value


def _each(ways: Iterable[Loader], values: Sequence[Any]) -> tuple[Any, ...]:
    found: list[Any] = []
    try:
        for way, value in zip(ways, values, strict=False):
            found.append(way(value))
    except Unfit as unfit:
        raise unfit.within(len(found)) from None
    return tuple(found)


def _dataclass(kind: Any) -> Loader:
    hints = get_type_hints(kind)
    ways = {field.name: _loader(hints[field.name]) for field in fields(kind) if field.init}
    needed = frozenset(field.name for field in fields(kind) if _is_needed(field))
    # Most members are as they are: looking at their class is a third of the work of calling what would.
    plain = {name: _classes(hints[name]) for name in ways}

    def load_dataclass(value: Any) -> Any:
        if value.__class__ is kind:
            return value
        _check_mapping(value)
        if not needed <= value.keys():
            raise Unfit("is missing", (min(needed - value.keys()),))
        found, name = {}, None
        try:
            for name, one in value.items():
                classes = plain.get(name)
                if classes is not None:
                    found[name] = one if one.__class__ in classes else ways[name](one)
        except Unfit as unfit:
            raise unfit.within(name) from None
        return kind(**found)

    return load_dataclass


def _classes(hint: Any) -> frozenset[type]:
    """Of which classes values may be that need not be looked at any further."""
    if isinstance(hint, NewType):
        return _classes(hint.__supertype__)
    if get_origin(hint) is Annotated:
        return _classes(get_args(hint)[0])
    if get_origin(hint) in {Union, UnionType}:
        return frozenset[type]().union(*map(_classes, get_args(hint)))
    return frozenset({hint} & _ATOMS)


def _is_needed(field: Field[Any]) -> bool:
    return field.init and field.default is MISSING and field.default_factory is MISSING
