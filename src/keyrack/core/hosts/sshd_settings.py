"""A server's SSH settings: show and change what its sshd is to do; must not speak to sshd, the agent does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from keyrack.core import lookups
from keyrack.core.instance import Instance
from keyrack.core.lookups import own_server
from keyrack.core.work import Attempt, Work
from keyrack.errors import invalid
from keyrack.model import Actor, Server
from keyrack.store.hosts import servers

PENDING = "pending"
APPLIED = "applied"
REFUSED = "refused"
UNMANAGED = "unmanaged"
LOG_ENTRY = "Updated SSHD Config"
"""The event of a change."""


@dataclass(frozen=True, slots=True)
class SshdKeyword:
    """A setting as sshd knows it (sshd_config(5)), which OpenSSH does not do unless told to.

    yes, no: its values where the setting is wanted and where not; words: the setting, for people.
    """

    keyword: str
    yes: str
    no: str
    words: str


KEYWORDS = {
    "passwordless_login": SshdKeyword("PasswordAuthentication", "no", "yes", "Keys alone, no passwords"),
    "prevent_root_login": SshdKeyword("PermitRootLogin", "no", "yes", "No login as root"),
    "use_dns": SshdKeyword("UseDNS", "yes", "no", "Look up the names of those who connect"),
}
"""All settings, by their names in SshSettings. The agent sets only keywords in its SETTINGS (agent/sshd/drop_in.py)."""


@dataclass(frozen=True, slots=True)
class SshSettings:
    """What a server's sshd is to do, or what it does where nothing was asked.

    state: UNMANAGED while nothing was asked; PENDING until the host obeys, then APPLIED; REFUSED where it obeys and
    reports that its sshd does otherwise, for example because its administrator keeps Keyrack from sshd.
    """

    server_id: int
    passwordless_login: bool
    prevent_root_login: bool
    use_dns: bool
    state: str
    created_at: datetime
    updated_at: datetime


def get(instance: Instance, actor: Actor, server_id: int) -> SshSettings:
    """A server's SSH settings. Raises Refusal MISSING."""
    attempt = Attempt(
        instance, actor, "sshconfig:read", "see SSH settings", target_kind="SSH settings", server_id=server_id
    )
    with attempt:
        return _settings(attempt.read(lambda connection: lookups.server(connection, actor, server_id)))


def change(instance: Instance, actor: Actor, server_id: int, wishes: Mapping[str, bool]) -> SshSettings:
    """Ask a server's sshd for settings; wishes: names of KEYWORDS; those left out stay as they are.

    The host validates them first, and keeps the old ones where they would not work. Raises Refusal MISSING, or INVALID
    without any wish.
    """
    attempt = Attempt(
        instance,
        actor,
        "sshconfig:write",
        "change SSH settings",
        target_kind="SSH settings",
        target_id=server_id,
        server_id=server_id,
    )
    with attempt:
        if not wishes:
            raise invalid("passwordless_login", "Name at least one SSH setting to change.")

        def run(work: Work) -> SshSettings:
            server = own_server(work, server_id)
            wanted = dict(server.sshd)
            for name, wish in wishes.items():
                setting = KEYWORDS[name]
                wanted[setting.keyword] = setting.yes if wish else setting.no
            if wanted != server.sshd:
                revision = work.bump_revision(server.id)
                values = {"sshd": wanted, "sshd_changed_at": work.now, "sshd_revision": revision}
                servers.change(work.connection, server.id, values)
            work.record(LOG_ENTRY, target_id=server.id, level="warning", details={"wanted": wanted})
            return _settings(own_server(work, server.id))

        return attempt.write(run)


def _settings(server: Server) -> SshSettings:
    reported = server.facts.get("sshd")
    state = UNMANAGED
    if server.sshd_revision is not None:
        state = APPLIED if server.applied_revision >= server.sshd_revision else PENDING
        if state == APPLIED and isinstance(reported, Mapping):
            done = all(reported.get(keyword, value) == value for keyword, value in server.sshd.items())
            state = APPLIED if done else REFUSED
    return SshSettings(
        server_id=server.id,
        passwordless_login=_is(server, "passwordless_login"),
        prevent_root_login=_is(server, "prevent_root_login"),
        use_dns=_is(server, "use_dns"),
        state=state,
        created_at=server.created_at,
        updated_at=server.sshd_changed_at or server.created_at,
    )


def _is(server: Server, name: str) -> bool:
    """What is wanted; else what the host reports that its sshd does; else OpenSSH's default."""
    setting = KEYWORDS[name]
    if setting.keyword in server.sshd:
        return server.sshd[setting.keyword] == setting.yes
    reported = server.facts.get("sshd")
    effective = reported.get(setting.keyword) if isinstance(reported, Mapping) else None
    return bool(effective == setting.yes)
