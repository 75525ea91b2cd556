"""What a key may do, as fields of a form; must hold no rule of its own, the core checks them."""

from __future__ import annotations

from typing import Any

from keyrack.web.console.visits import Form

PERMISSIONS = (
    ("permit_pty", "Terminal"),
    ("port_forwarding", "Port forwarding"),
    ("agent_forwarding", "Agent forwarding"),
    ("x11_forwarding", "X11 forwarding"),
    ("user_rc", "~/.ssh/rc"),
)
LISTS = ("sources", "permitopen", "permitlisten")
FLAGS = ("restrict", "verify_required", "no_touch_required")
FIELDS = (*LISTS, "command", *FLAGS, *(name for name, _ in PERMISSIONS))
"""Every field of ssh.options.Restrictions."""


def asked(form: Form) -> dict[str, Any]:
    """All that a form asks a key to be restricted to, as the core takes it; {} for nothing."""
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
    return wanted
