"""Host keys, and which servers a user may log in on: what calls take and answer; must call no use case."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from keyrack.core.hosts.host_keys import Reachable
from keyrack.store.hosts.host_keys import HostKey as HostKeyRecord
from keyrack.web.examples import FINGERPRINT
from keyrack.web.native.shapes import (
    Answer,
    Fingerprint,
    Flag,
    Id,
    Name,
    PublicKey,
    Query,
    Request,
    Time,
    about,
    time,
    time_or_null,
)


class HostKey(Answer):
    """A host key of a server, as its own agent reported it."""

    fingerprint: Annotated[Fingerprint, about("Its fingerprint.")]
    public_key: Annotated[PublicKey, about("The key, by type and base64.")]
    port: Annotated[int, about("The port on which sshd shows it.", 22)]
    shown: Annotated[Flag, about("Whether the agent's last report has it.")]
    confirmed: Annotated[Flag, about("Whether people may trust it; if not, it is an alarm.")]
    first_at: Annotated[Time, about("When the host's agent first reported it.")]
    confirmed_at: Annotated[Time | None, about("Since when it is trusted.")]
    confirmed_by: Annotated[str | None, about("Who confirmed it; null for the first keys of a host.", "olga")]


class HostKeys(Answer):
    """The host keys of a server."""

    changed: Annotated[Flag, about("Whether it shows one that nobody confirmed.")]
    items: Annotated[list[HostKey], about("The keys.")]


class Confirmation(Request):
    """Which keys were seen."""

    fingerprints: Annotated[
        list[Fingerprint] | None,
        about("Those not confirmed that were seen; left out: whatever it shows now.", [FINGERPRINT]),
    ] = None


class SshConfigAsked(Query):
    """Who."""

    user: Annotated[str | None, about("A user, by name; the caller where it is left out.", "alice")] = None


class SshHost(Answer):
    """A server that the user may log in on."""

    server: Annotated[Name, about("Its name.")]
    server_id: Annotated[Id, about("Its id.")]
    address: Annotated[str, about("Its address.", "192.0.2.10")]
    port: Annotated[int, about("The port of its sshd.", 22)]
    system_users: Annotated[list[str], about("As which system users.", ["deploy"])]
    host_keys: Annotated[list[PublicKey], about("The host keys that may be trusted.")]
    changed: Annotated[Flag, about("Whether it shows another one, which nobody confirmed.")]


class SshConfig(Answer):
    """All servers that the user may log in on."""

    items: Annotated[list[SshHost], about("The servers.")]


def host_keys(records: Iterable[HostKeyRecord]) -> HostKeys:
    """The host keys of a server."""
    items = [
        HostKey(
            fingerprint=one.fingerprint,
            public_key=one.public_key,
            port=one.port,
            shown=one.shown,
            confirmed=one.confirmed,
            first_at=time(one.first_at),
            confirmed_at=time_or_null(one.confirmed_at),
            confirmed_by=one.confirmed_by,
        )
        for one in records
    ]
    return HostKeys(changed=any(one.shown and not one.confirmed for one in items), items=items)


def ssh_config(reachable: Iterable[Reachable]) -> SshConfig:
    """All servers that the user may log in on."""
    return SshConfig(
        items=[
            SshHost(
                server=one.server.name,
                server_id=one.server.id,
                address=one.server.address,
                port=one.port,
                system_users=list(one.accounts),
                host_keys=list(one.keys),
                changed=one.changed,
            )
            for one in reachable
        ]
    )
