"""What the expressions of a page's handlers are, as far as types are declared; must guess nothing and run none."""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property, reduce
from types import ModuleType, NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

UNKNOWN: Any = Any
MISSING: Any = object()
SAME_ELEMENTS = (list, sorted, tuple, set, reversed)


@dataclass(frozen=True)
class Known:
    """A module, a class or a function itself, and not what it makes."""

    value: Any


@cache
def hints(of: Any) -> dict[str, Any]:
    """What a class or a function declares; nothing where a type is imported for mypy alone."""
    try:
        return get_type_hints(of)
    except (NameError, TypeError):
        return {}


@cache
def every_name() -> frozenset[str]:
    """Each name that something has: classes of ours, and what values are made of."""
    ours = [vars(module) for name, module in list(sys.modules.items()) if name.startswith("keyrack.")]
    classes = {one for names in ours for one in names.values() if isinstance(one, type)}
    return frozenset(name for one in (*classes, str, int, dict, list, datetime) for name in (*dir(one), *hints(one)))


def alternatives(kind: Any) -> list[Any]:
    """What a value may be beside None."""
    if get_origin(kind) in (Union, UnionType):
        return [one for part in get_args(kind) for one in alternatives(part)]
    return [] if kind in (None, NoneType) else [UNKNOWN if kind is object or isinstance(kind, TypeVar) else kind]


def either(*kinds: Any) -> Any:
    """One of these; unknown where any is."""
    found = list(dict.fromkeys(one for kind in kinds for one in alternatives(kind)))
    if len(found) == 1:
        return found[0]
    plain = found and UNKNOWN not in found and all(isinstance(get_origin(one) or one, type) for one in found)
    return reduce(lambda one, other: Union[one, other], found) if plain else UNKNOWN


def attribute(kind: Any, name: str) -> Any:
    """What a value has under a name; MISSING where none that it may be has it."""
    if isinstance(kind, dict):  # a template that was imported
        return kind.get(name, MISSING)
    found = [one for one in (_attribute(one, name) for one in alternatives(kind)) if one is not MISSING]
    return either(*found) if found else UNKNOWN if not alternatives(kind) else MISSING


def _attribute(kind: Any, name: str) -> Any:
    origin = get_origin(kind) or kind
    if isinstance(kind, Known):
        return of_value(getattr(kind.value, name)) if hasattr(kind.value, name) else MISSING
    if kind is UNKNOWN or not isinstance(origin, type):
        return UNKNOWN if name in every_name() else MISSING
    member = inspect.getattr_static(origin, name, None)
    # An exception keeps what it is made of under the same names.
    made_of = hints(vars(origin).get("__init__")) if issubclass(origin, Exception) else {}
    declared = made_of | hints(origin)
    if name in declared:
        found = declared[name]
    elif isinstance(member, property | cached_property):
        found = hints(member.fget if isinstance(member, property) else member.func).get("return", UNKNOWN)
    elif member is not None:
        return Known(member) if callable(member) else UNKNOWN
    else:
        return (*get_args(kind), UNKNOWN, UNKNOWN)[1] if issubclass(origin, Mapping) else MISSING
    given = dict(zip(getattr(origin, "__parameters__", ()), get_args(kind), strict=False))
    free = getattr(found, "__parameters__", ())
    return given.get(found, UNKNOWN) if isinstance(found, TypeVar) else (
        found[tuple(given.get(one, UNKNOWN) for one in free)] if free else found
    )  # fmt: skip


def unpacked(kind: Any, at: int | None) -> Any:
    """One of a value's elements: the one at a place, or any."""
    found = []
    for one in alternatives(kind):
        origin, parts = get_origin(one) or one, get_args(one)
        if origin is tuple and parts and parts[-1] is not ...:
            found.append(parts[at] if at is not None and -len(parts) <= at < len(parts) else either(*parts))
        else:
            found.append(str if one is str else parts[0] if parts and isinstance(origin, type) else UNKNOWN)
    return either(*found)


def called(function: Any, arguments: Iterable[Any]) -> Any:
    """What a call answers."""
    if not isinstance(function, Known):
        return UNKNOWN
    if function.value is next:
        return unpacked(next(iter(arguments), UNKNOWN), None)
    if function.value in SAME_ELEMENTS:
        return list[unpacked(next(iter(arguments), UNKNOWN), None)]  # type: ignore[misc]
    return function.value if isinstance(function.value, type) else hints(function.value).get("return", UNKNOWN)


def of_value(value: Any) -> Any:
    """What a value of a module is."""
    if isinstance(value, tuple) and value:
        return tuple[tuple(of_value(one) for one in value)]  # type: ignore[misc]
    return Known(value) if isinstance(value, ModuleType | type) or callable(value) else type(value)


class Handler:
    """A function of a page's module: what its expressions are."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        self.globals, self.parameters = vars(sys.modules[function.__module__]), dict(hints(function))
        self.bound: dict[str, list[tuple[ast.expr, Callable[[Any], Any]]]] = {}
        self.asked: set[str] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value is not None:
                for target in node.targets if isinstance(node, ast.Assign) else (node.target,):
                    self._bind(target, node.value, lambda kind: kind)
            elif isinstance(node, ast.For | ast.comprehension):
                self._bind(node.target, node.iter, lambda kind: unpacked(kind, None))
            elif isinstance(node, ast.ExceptHandler) and node.name and node.type:
                self._bind(ast.Name(node.name), ast.Call(node.type, [], []), lambda kind: kind)

    def _bind(self, target: ast.expr, value: ast.expr, take: Callable[[Any], Any]) -> None:
        if isinstance(target, ast.Name):
            self.bound.setdefault(target.id, []).append((value, take))
        elif isinstance(target, ast.Tuple):
            for at, one in enumerate(target.elts):
                self._bind(one, value, lambda kind, at=at: unpacked(take(kind), at))  # type: ignore[misc]

    def kind(self, node: ast.expr) -> Any:
        """What an expression is."""
        match node:
            case ast.Name(id=name) if name in self.bound and name not in self.asked:
                self.asked.add(name)
                found = either(*(take(self.kind(value)) for value, take in self.bound[name]))
                self.asked.discard(name)
                return found
            case ast.Name(id=name):
                known = {**vars(builtins), **self.globals}
                return self.parameters.get(name, of_value(known[name]) if name in known else UNKNOWN)
            case ast.Attribute(value=of, attr=name):
                found = attribute(self.kind(of), name)
                return UNKNOWN if found is MISSING else found
            case ast.Call(func=function, args=arguments):
                return called(self.kind(function), map(self.kind, arguments))
            case ast.Subscript(value=of, slice=ast.Slice()):
                return self.kind(of)
            case ast.Subscript(value=of, slice=ast.Constant(value=int() as at)):
                return unpacked(self.kind(of), at)
            case ast.NamedExpr(value=value):
                return self.kind(value)
            case ast.DictComp(value=value):
                return dict[str, self.kind(value)]  # type: ignore[misc]
            case ast.IfExp(body=one, orelse=other):
                return either(self.kind(one), self.kind(other))
            case ast.BoolOp(values=values):
                return either(*map(self.kind, values))
            case ast.ListComp(elt=one) | ast.GeneratorExp(elt=one):
                return list[self.kind(one)]  # type: ignore[misc]
            case ast.Tuple(elts=elements):
                return tuple[tuple(map(self.kind, elements))]  # type: ignore[misc]
            case ast.Constant(value=value):
                return type(value)
        return UNKNOWN

    def named(self, node: ast.expr) -> dict[str, Any]:
        """What a dict holds that is handed on by **, by name."""
        match node:
            case ast.Dict(keys=keys, values=values):
                pairs = [
                    self.named(value) if key is None else {ast.literal_eval(key): self.kind(value)}
                    for key, value in zip(keys, values, strict=True)
                ]
                return {name: kind for pair in pairs for name, kind in pair.items()}
            case ast.Name(id=name):
                return merged(self.named(value) for value, _ in self.bound.get(name, ()))
            case ast.IfExp(body=one, orelse=other):
                return merged((self.named(one), self.named(other)))
            case ast.Call(func=ast.Name(id="dict"), keywords=given):
                return merged({one.arg: self.kind(one.value)} if one.arg else self.named(one.value) for one in given)
            case ast.Call(func=function):
                called = Handler(self.kind(function).value)
                returns = (one for one in ast.walk(called.tree) if isinstance(one, ast.Return) and one.value)
                return merged(called.named(one.value) for one in returns if one.value)
        return {}


def merged(given: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What there is by name in any of several."""
    found: dict[str, Any] = {}
    for some in given:
        for name, kind in some.items():
            found[name] = either(found[name], kind) if name in found else kind
    return found
