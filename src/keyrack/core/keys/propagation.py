"""What a change of keys means for hosts: revocations and new revisions; must be called inside a unit of work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from keyrack.core.work import Work
from keyrack.store.keys import keys_of_many, openings, revocations


def granted(work: Work, server_ids: Iterable[int], fingerprint: str) -> int:
    """Let a key in on servers: they no longer refuse it. Answers the last new revision, 0 where there is no server."""
    return max(granted_all(work, server_ids, (fingerprint,)).values(), default=0)


def granted_all(work: Work, server_ids: Iterable[int], fingerprints: Iterable[str]) -> dict[int, int]:
    """Let keys in on servers: they no longer refuse them. Answers the new revisions by server id."""
    ids = sorted(set(server_ids))
    unrevoke(work, ids, fingerprints)
    return work.bump_revisions(ids)


def unrevoke(work: Work, server_ids: Iterable[int], fingerprints: Iterable[str]) -> None:
    """Take keys from the lists of what servers refuse; a key that was revoked everywhere stays refused."""
    keys_of_many.unrevoke(work.connection, server_ids, fingerprints)


def withdrawn(
    work: Work, server_ids: Iterable[int], gone: Iterable[tuple[str, str]], *, workspace_id: int | None = None
) -> frozenset[tuple[int, str]]:
    """Raise the revisions of servers from which keys were taken, and have them refuse these keys.

    gone: pairs of fingerprint and public key (type and base64); workspace_id: the servers', where it is not the
    actor's. RevokedKeys counts for a whole host, so a key goes in only where nothing on the host lets it in any more.
    Answers where something does: pairs of server id and fingerprint.
    """
    with work.raising(server_ids) as revisions:
        return refuse(work, revisions, gone, workspace_id=workspace_id)


def refuse(
    work: Work, revisions: dict[int, int], gone: Iterable[tuple[str, str]], *, workspace_id: int | None = None
) -> frozenset[tuple[int, str]]:
    """As withdrawn, for servers whose revisions are being raised; revisions: by server id."""
    keys = dict(gone)
    return refuse_each(work, revisions, dict.fromkeys(revisions, keys), workspace_id=workspace_id)


def refuse_each(
    work: Work,
    revisions: Mapping[int, int],
    gone: Mapping[int, Mapping[str, str]],
    *,
    workspace_id: int | None = None,
) -> frozenset[tuple[int, str]]:
    """As refuse, where each server loses other keys; gone: server id to public key by fingerprint."""
    fingerprints = {fingerprint for keys in gone.values() for fingerprint in keys}
    if not fingerprints or not revisions:
        return frozenset()
    left = still_opened(work, revisions, fingerprints, workspace_id)
    if work.instance.rehearses:
        # A rehearsal asks what is let in, which these rows do not change; they may be very many.
        return left
    entries = [
        (server_id, fingerprint, public_key)
        for server_id in revisions
        for fingerprint, public_key in gone[server_id].items()
        if (server_id, fingerprint) not in left
    ]
    revocations.add_many(work.connection, entries, revisions, work.now)
    return left


def still_opened(
    work: Work, server_ids: Iterable[int], fingerprints: Iterable[str], workspace_id: int | None = None
) -> frozenset[tuple[int, str]]:
    """Where keys are let in on some of the servers: pairs of server id and fingerprint."""
    workspace = work.actor.workspace_id if workspace_id is None else workspace_id
    ids, fingerprints = list(server_ids), list(fingerprints)
    if len(ids) == len(fingerprints) == 1:
        one = openings.still_opens(work.connection, ids[0], workspace, fingerprints[0], work.now)
        return frozenset({(ids[0], fingerprints[0])} if one else ())
    return keys_of_many.still_opened(work.connection, ids, workspace, fingerprints, work.now)
