"""What a change of keys means for hosts: revocations, revisions; must be called inside a unit of work."""

from __future__ import annotations

from collections.abc import Iterable

from keyrack.core.work import Work
from keyrack.store import openings, revocations


def granted(work: Work, server_ids: Iterable[int], fingerprint: str) -> int:
    """A key was given to servers: they may no longer refuse it. Answers the last new revision, or 0."""
    return max(granted_all(work, server_ids, (fingerprint,)).values(), default=0)


def withdrawn(
    work: Work, server_ids: Iterable[int], gone: Iterable[tuple[str, str]], *, workspace_id: int | None = None
) -> None:
    """Keys were taken from servers; gone: pairs of fingerprint and public key (type and base64); workspace_id: the
    servers', where that is not the actor's.

    RevokedKeys speaks for a whole host, so a key goes in only when nothing on it lets the key in any more. Answers
    where something does: pairs of server and fingerprint.
    """
    pairs, workspace = tuple(gone), work.actor.workspace_id if workspace_id is None else workspace_id
    for server_id in sorted(server_ids):
        revision = work.bump_revision(server_id)
        for fingerprint, public_key in pairs:
            if not openings.lets_in(work.connection, server_id, workspace, fingerprint, work.now):
                revocations.add(work.connection, server_id, fingerprint, public_key, work.now, revision)
