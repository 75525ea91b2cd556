"""Keys that were revoked everywhere before that was noted are noted from the audit log when the tables change."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import MetaData, Table, insert, select

from keyrack.store import tables
from keyrack.store.engine import migrate
from tests.store.test_migrations import connected

AT = datetime(2026, 1, 1, tzinfo=UTC)
GONE, BACK = (f"SHA256:{letter * 43}" for letter in "AB")


def event(action: str, fingerprint: str, outcome: str = "done", target: str = "key") -> dict[str, Any]:
    """A line of the audit log, as it was then."""
    texts = dict.fromkeys(("token_name", "address", "door", "reason", "summary", "level"), "")
    what = {"action": action, "outcome": outcome, "target_kind": target, "details": {"fingerprint": fingerprint}}
    return {"workspace_id": 1, "at": int(AT.timestamp()) * 1_000_000, "actor_name": "olga", **texts, **what}


def test_revoked_keys_that_were_not_registered_again_are_noted_by_the_migration(bare_url: str) -> None:
    migrate.upgrade(bare_url, to="0007")
    with connected(bare_url) as conn:
        conn.execute(insert(tables.workspaces).values(uid="a" * 32, name="acme", created_at=AT))
        user = {"uid": "b" * 32, "workspace_id": 1, "name": "alice", "role": "member", "policies": [], "created_at": AT}
        conn.execute(insert(tables.users).values(user))
        key = {"workspace_id": 1, "user_id": 1, "comment": "", "fingerprint": BACK, "created_at": AT, "seal": b""}
        conn.execute(insert(tables.user_keys).values(key))
        events = Table("events", MetaData(), autoload_with=conn)
        for one in (
            event("keys:revoke", GONE),
            event("keys:revoke", BACK),
            event("keys:revoke", f"SHA256:{'C' * 43}", outcome="refused"),
            event("credentials:write", f"SHA256:{'D' * 43}"),
            event("keys:revoke", f"SHA256:{'E' * 43}", target="credential"),
        ):
            conn.execute(insert(events).values(one))
    migrate.upgrade(bare_url)
    with connected(bare_url) as conn:
        noted = conn.execute(select(tables.revoked_keys)).all()
    assert [(one.fingerprint, one.revoked_by, one.revoked_at) for one in noted] == [(GONE, "olga", AT)]
