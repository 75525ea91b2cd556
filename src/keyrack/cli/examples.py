"""An example for each command whose own help shows none; must import no command: every help loads this module."""

from __future__ import annotations

import click

# By command, what comes after it.
EXAMPLES = {
    "up": "",
    "serve": "--data /var/lib/keyrack --listen 127.0.0.1:8000 --public-url https://keys.example.org",
    "apply": "team.toml --dry-run",
    "login": "https://keys.example.org",
    "servers accounts": "web-1",
    "servers delete": "web-1 --dry-run",
    "servers delete-account": "web-1 deploy --dry-run",
    "servers enrol": "web-1",
    "servers keys": "web-1",
    "servers list": "--search web",
    "servers delete-key": "web-1 7 --dry-run",
    "servers host-keys": "web-1",
    "servers show": "web-1",
    "repos change": "acme/site --visibility 10",
    "repos create": "acme/site --member alice=developer",
    "repos delete": "acme/site --yes",
    "repos list": "--json",
    "grants list": "--json",
    "grants take-back": "7 --dry-run",
    "groups delete": "ops --dry-run",
    "groups list": "--json",
    "groups remove": "ops alice --dry-run",
    "people delete": "alice --dry-run",
    "people list": "--json",
    "people me": "",
    "people keys": "alice",
    "people delete-key": "alice 7 --dry-run",
    "people sources list": "alice",
    "people sources remove": "alice github",
    "leaver list": "",
    "leaver show": "3",
    "leaver undo": "3",
    "requests cancel": "7",
    "requests rules list": "",
    "requests rules delete": "production",
    "requests approve": '7 --reason "release 12"',
    "requests list": "--state pending",
    "requests refuse": '7 --reason "not today"',
    "requests deny": '7 --reason "not today"',
    "keys claim": "~/.ssh/id_ed25519",
    "keys confirm": "7",
    "keys find": "--weak --unused --unused-days 90",
    "keys list": "--user alice",
    "keys mine delete": "7 --dry-run",
    "keys mine list": "",
    "keys where": "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
    "sessions end": "web-1 4211",
    "sessions list": "web-1",
    "policy show": "",
    "freeze end": "2 --dry-run",
    "freeze list": "",
    "freeze show": "2",
    "sync-keys": "--data /var/lib/keyrack",
    "tokens create": "ci --scope credentials:write --for 90d",
    "tokens list": "",
    "tokens revoke": "7",
    "tokens rotate": "7 --overlap 1h",
    "webhooks create": "https://alerts.example.org/keyrack --level alarm",
    "webhooks delete": "1",
    "webhooks deliveries": "1 --limit 20",
    "webhooks list": "",
    "webhooks test": "1",
    "audit alarms": "",
    "audit settle": "4711",
    "audit list": "--since 2026-01-01 --person alice",
    "audit verify": "--data /var/lib/keyrack",
    "audit export": "audit.jsonl --data /var/lib/keyrack",
    "events": "web-1 --from 2026-01-01",
    "hosts accept": "web-1 7 --label laptop",
    "hosts copy-gone": "web-1",
    "hosts damaged": "web-1",
    "hosts end-session": "web-1 4211",
    "hosts enforce": "web-1 --dry-run",
    "hosts enrol": "web-1",
    "hosts events": "web-1 --from 2026-01-01",
    "hosts host-keys": "web-1",
    "hosts ignore": "web-1 7",
    "hosts keys": "web-1",
    "hosts list": "",
    "hosts move": "web-1 192.0.2.10 --tag web",
    "hosts observe": "web-1",
    "hosts offline-policy": "web-1 --after 1h --then keep",
    "hosts receipts": "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
    "hosts remove": "web-1 7",
    "hosts rename": "web-1 web-2",
    "hosts resync": "--all",
    "hosts revoke": "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU --wait 60",
    "hosts revoked": "",
    "hosts sessions": "web-1",
    "hosts show": "web-1",
    "hosts unmanaged": "web-1",
    "backup": "/var/backups/keyrack.db --data /var/lib/keyrack",
    "restore": "/var/backups/keyrack.db --data /var/lib/keyrack",
    "tidy": "--apply",
    "completion": "bash",
    "export": "--output team.toml",
    "logout": "",
    "ssh-config": "--write",
    "git-host": "--data /var/lib/keyrack",
}


def _summary(text: str) -> str:
    """The first sentence of a help, without the example in it: click would cut it off where it is long."""
    first = " ".join(text.split("\n\n")[0].split())
    said = first.partition(". ")[0].partition(": keyrack ")[0].partition("; ")[0]
    return said.removesuffix(", such as").rstrip(".") + "."


def with_example(command: click.Command, path: str) -> click.Command:
    """The command, whose help ends with an example where it shows none; likewise those of a group.

    path: its words after `keyrack`.
    """
    if path in EXAMPLES and command.epilog is None and f"keyrack {path} " not in f"{command.help} ":
        command.epilog = f"Example: keyrack {path} {EXAMPLES[path]}".rstrip()
    command.short_help = command.short_help or _summary(command.help or "")
    if isinstance(command, click.Group):
        for name, one in command.commands.items():
            with_example(one, f"{path} {name}")
    return command
