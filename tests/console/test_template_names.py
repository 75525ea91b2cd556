"""Every name that a template asks for is one that its page gives, or that what it asks has; nothing is rendered.

What pages hand to `visit.show` is followed by its declared type through loops, macros and filters. A name that is
asked of something whose type nobody declares must be one that anything has.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import nodes
from jinja2.runtime import LoopContext

from keyrack.web import console
from keyrack.web.console import templates, visits
from tests.console.declared import MISSING, UNKNOWN, Handler, attribute, called, either, hints, merged, unpacked

BY_ATTRIBUTE = ("selectattr", "rejectattr", "map", "sort", "groupby", "unique", "min", "max", "sum")
SET = ("here",)
"""What a template says to the one that it extends, which asks whether it did."""
AS_IT_WAS = ("selectattr", "rejectattr", "sort", "list", "unique", "select", "reject", "reverse", "default")


@dataclass(frozen=True, eq=False)
class Macro:
    """A macro where it is written."""

    template: str
    node: nodes.Macro
    scope: dict[str, Any]


def handlers() -> Iterator[Handler]:
    """Every function of the console's modules."""
    for module in pkgutil.iter_modules(console.__path__, f"{console.__name__}."):
        for function in vars(importlib.import_module(module.name)).values():
            if inspect.isfunction(function) and function.__module__ == module.name:
                yield Handler(function)


@cache
def pages() -> dict[str, dict[str, Any]]:
    """What each template that a page shows gets, by name."""
    shown: dict[str, list[dict[str, Any]]] = {}
    for handler in handlers():
        for call in ast.walk(handler.tree):
            match call:
                case ast.Call(func=ast.Attribute(attr="show"), args=[ast.Constant(value=template)], keywords=given):
                    shown.setdefault(str(template), []).append(handler.named(ast.Call(ast.Name("dict"), [], given)))
    show = Handler(visits.Visit.show)
    show.parameters["self"] = visits.Visit
    always = show.named(ast.Name("given"))
    return {template: {**always, **merged(some)} for template, some in shown.items()}


class Reader:
    """Goes over templates as they would run, and notes each name that is nowhere. changed: templates that read
    otherwise.
    """

    def __init__(self, changed: dict[str, str] | None = None) -> None:
        self.changed = changed or {}
        self.wrong: set[str] = set()
        self.template = ""
        self.read: set[str] = set()
        self.given = {name for names in pages().values() for name in names} | {"caller"}
        self.given |= {*templates.environment().globals, *SET}

    def all(self) -> set[str]:
        """What is wrong in any page."""
        for name, scope in pages().items():
            self.file(name, dict(scope))
        return self.wrong

    def file(self, name: str, scope: dict[str, Any]) -> dict[str, Any]:
        """A template with what it gets; answers that, and what the template adds."""
        text = self.changed.get(name) or (templates.FOLDER / "templates" / name).read_text()
        body = templates.environment().parse(text).body
        # What a page sets is known to what it extends, which runs after that.
        self.inside(name, sorted(body, key=lambda node: not isinstance(node, nodes.Assign)), scope)
        return scope

    def inside(self, template: str, body: list[nodes.Node], scope: dict[str, Any]) -> None:
        before, self.template = self.template, template
        self.read.add(template)
        self.body(body, scope)
        self.template = before

    def body(self, body: list[nodes.Node], scope: dict[str, Any]) -> None:
        for node in body:
            self.statement(node, scope)

    def statement(self, node: nodes.Node, scope: dict[str, Any]) -> None:
        """One statement of a template, which may add names."""
        match node:
            case nodes.Extends(template=nodes.Const(value=name)):
                self.file(name, scope)
            case nodes.Include(template=nodes.Const(value=name)):
                self.file(name, dict(scope))
            case nodes.Import(template=nodes.Const(value=name), target=target):
                scope[target] = self.file(name, dict(scope))
            case nodes.Macro():
                scope[node.name] = Macro(self.template, node, scope)
            case nodes.For():
                inner = {**scope, "loop": LoopContext}
                self.bind(node.target, unpacked(self.kind(node.iter, scope), None), inner)
                self.body([*([node.test] if node.test else ()), *node.body], inner)
                self.body(node.else_, dict(scope))
            case nodes.Assign():
                self.bind(node.target, self.kind(node.node, scope), scope)
            case nodes.CallBlock() | nodes.Block():
                self.body(list(node.iter_child_nodes()), dict(scope))
            case nodes.Expr():
                self.kind(node, scope)
            case _:
                self.body(list(node.iter_child_nodes()), scope)

    def bind(self, target: nodes.Node, kind: Any, scope: dict[str, Any]) -> None:
        if isinstance(target, nodes.Name):
            scope[target.name] = kind
        elif isinstance(target, nodes.Tuple):
            for at, one in enumerate(target.items):
                self.bind(one, unpacked(kind, at), scope)

    def ask(self, kind: Any, names: str, node: nodes.Node) -> Any:
        """What a value has under a name, or under names with dots between."""
        for name in names.split("."):
            found = attribute(kind, name)
            if found is MISSING:
                self.wrong.add(f"{self.template}:{node.lineno}: {name} of {kind}")
            kind = UNKNOWN if found is MISSING else found
        return kind

    def kind(self, node: nodes.Node, scope: dict[str, Any]) -> Any:
        """What an expression is, whose names are looked for."""
        match node:
            case nodes.Name(name=name):
                if name not in scope and name not in self.given:
                    self.wrong.add(f"{self.template}:{node.lineno}: {name}, which no page gives")
                return scope.get(name, UNKNOWN)
            case nodes.Getattr(node=of, attr=name) | nodes.Getitem(node=of, arg=nodes.Const(value=str() as name)):
                return self.ask(self.kind(of, scope), name, node)
            case nodes.Getitem(node=of, arg=argument):
                kind, _ = self.kind(of, scope), self.kind(argument, scope)
                at = argument.value if isinstance(argument, nodes.Const) else None
                return kind if isinstance(argument, nodes.Slice) else unpacked(kind, at)
            case nodes.Call(node=of, args=arguments, kwargs=named):
                function, given = self.kind(of, scope), [self.kind(one, scope) for one in arguments]
                by_name = {one.key: self.kind(one.value, scope) for one in named}
                return self.macro(function, given, by_name) if isinstance(function, Macro) else called(function, given)
            case nodes.Filter(name=name):
                return self.filtered(node, scope)
            case nodes.CondExpr(test=test, expr1=one, expr2=other):
                self.kind(test, scope)
                return either(*(self.kind(part, scope) for part in (one, other) if part))
            case nodes.Or(left=one, right=other) | nodes.And(left=one, right=other):
                return either(self.kind(one, scope), self.kind(other, scope))
            case nodes.Tuple(items=items):
                return tuple[tuple(self.kind(one, scope) for one in items)]  # type: ignore[misc]
            case nodes.Const(value=value):
                return type(value)
        self.body(list(node.iter_child_nodes()), scope)
        return UNKNOWN

    def filtered(self, node: nodes.Filter, scope: dict[str, Any]) -> Any:
        """What a filter leaves of a value, whose attributes it may name."""
        kind = self.kind(node.node, scope) if node.node else UNKNOWN
        self.body([*node.args, *(one.value for one in node.kwargs)], scope)
        named = [one.value for one in node.kwargs if one.key == "attribute"]
        named += node.args[:1] if node.name in ("selectattr", "rejectattr", "groupby") else []
        if node.name in BY_ATTRIBUTE and named and isinstance(named[0], nodes.Const):
            asked, of = named[0].value, unpacked(kind, None)
            found = unpacked(of, asked) if isinstance(asked, int) else self.ask(of, asked, node)
            if node.name == "map":
                return list[found]  # type: ignore[valid-type]
        if node.name in AS_IT_WAS:
            return kind
        if node.name in ("first", "last"):
            return unpacked(kind, None)
        own = templates.environment().filters[node.name]
        return hints(own).get("return", UNKNOWN) if own.__module__.startswith("keyrack") else UNKNOWN

    def macro(self, macro: Macro, given: list[Any], by_name: dict[str, Any]) -> Any:
        """Goes over a macro with what a call gives it."""
        names = [one.name for one in macro.node.args]
        defaults = dict(zip(names[::-1], macro.node.defaults[::-1], strict=False))
        inner = {**macro.scope, **{name: self.kind(one, macro.scope) for name, one in defaults.items()}}
        mark = f"{macro.template} {macro.node.name} {given} {by_name}"
        if mark not in self.read:
            self.read.add(mark)
            self.inside(macro.template, macro.node.body, {**inner, **dict(zip(names, given, strict=False)), **by_name})
        return str


def test_every_name_in_a_template_exists() -> None:
    reader = Reader()
    assert reader.all() == set()
    there = {one.name for one in (templates.FOLDER / "templates").iterdir()}
    assert there - reader.read == set(), "no page shows these"


ONCE = (
    ("_receipts.html", "has_host", "host"),
    ("_removed.html", "has_host", "host"),
    ("_offboarding.html", "has_host", "host"),
    ("_welcome_lines.html", "applied", "there"),
    ("_welcome_lines.html", "enforced", "opens"),
    ("welcome.html", "applied", "there"),
    ("key.html", "shown.art", "shown.fingerprint"),
    ("hosts.html", "row.unconfirmed", "row.not_confirmed"),
)
"""Names that were another's, or nobody's: the first six stood so in templates when a field had got another name."""


def test_a_name_that_only_another_has_is_found() -> None:
    folder = templates.FOLDER / "templates"
    changed = {template: (folder / template).read_text() for template, _, _ in ONCE}
    for template, name, once in ONCE:
        assert name in changed[template]
        changed[template] = changed[template].replace(name, once)
    wrong = Reader(changed).all()
    for template, _, once in ONCE:
        missing = once.rpartition(".")[2]
        assert any(one.startswith(f"{template}:") and f": {missing} of " in one for one in wrong), (template, once)
