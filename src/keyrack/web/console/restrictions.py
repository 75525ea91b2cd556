"""What a key may do, as fields of a form and as words; must hold no rule of its own, the core checks them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyrack.core.keys import restricting
from keyrack.web.console.visits import CONFIRMED, Form

PERMISSIONS = (
    ("permit_pty", "Terminal"),
    ("port_forwarding", "Port forwarding"),
    ("agent_forwarding", "Agent forwarding"),
    ("x11_forwarding", "X11 forwarding"),
    ("user_rc", "~/.ssh/rc"),
)
LISTS = ("sources", "permitopen", "permitlisten")
FLAGS = ("restrict", "verify_required", "no_touch_required")
WORDS = {
    "sources": "From where",
    "command": "Only this command",
    "restrict": "Nothing but what is allowed here",
    **dict(PERMISSIONS),
    "permitopen": "Forwarding only to",
    "permitlisten": "Listening only on",
    "verify_required": "A security key must ask for its PIN",
    "no_touch_required": "A security key need not be touched",
}
"""What people read each restriction as, in the order of the form."""
FIELDS = (*LISTS, "command", *FLAGS, *(name for name, _ in PERMISSIONS))
"""Every field of ssh.options.Restrictions."""


def asked(form: Form) -> dict[str, Any]:
    """The restrictions that a form asks for, as the core takes them; {} for none."""
    wanted: dict[str, Any] = {}
    for name in LISTS:
        if entries := form.text(name).replace(",", " ").split():
            wanted[name] = entries
    if command := form.text("command").strip():
        wanted["command"] = command
    wanted.update((name, True) for name in FLAGS if form.flag(name))
    for name, _ in PERMISSIONS:
        if form.text(name) in ("yes", "no"):
            wanted[name] = form.text(name) == "yes"
    return restricting.with_named_places(wanted)


def kept(form: Form, *others: str) -> list[tuple[str, str]]:
    """The fields of such a form, and these others, as hidden fields of the form that confirms it."""
    return [*((name, form.text(name)) for name in (*FIELDS, *others)), (CONFIRMED, "yes")]


def said(restrictions: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is restricted and how, in words; what is not restricted is left out."""
    return [(words, _value(name, restrictions[name])) for name, words in WORDS.items() if name in restrictions]


def difference(held: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What would change: what it is, how it is restricted now and how it would be; "" for not restricted."""
    was, then = dict(said(held)), dict(said(wanted))
    both = [(words, was.get(words, ""), then.get(words, "")) for words in WORDS.values()]
    return [row for row in both if row[1] != row[2]]


def _value(name: str, value: Any) -> str:
    if name in dict(PERMISSIONS):
        return "allowed" if value else "not allowed"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(str(one) for one in value) if isinstance(value, (list, tuple)) else str(value)
