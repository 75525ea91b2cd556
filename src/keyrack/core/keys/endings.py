"""Announces ends of keys and grants before they come, and deletes what has ended; sshd never waits for this, as the end
is in the line itself (invariant 5).
"""

from __future__ import annotations

from datetime import timedelta

from keyrack.core.instance import Instance
from keyrack.core.work import Attempt, Work
from keyrack.model import Actor
from keyrack.store.keys import endings, expired_keys, grants, requests, user_keys
from keyrack.store.people import users

BATCH_SIZE = 200


def announce(instance: Instance, keyrack: Actor) -> int:
    """Record an event, once, for each key and grant that ends within `notice_hours` and has lived three quarters of its
    time; answers how many.
    """
    span = timedelta(hours=instance.settings.notice_hours)
    if not span:
        return 0
    at = instance.now()
    if not instance.database.read(lambda connection: endings.ending(connection, at, at + span, 1)):
        return 0
    with Attempt(instance, keyrack, "credentials:write", "announce ends", target_kind="credential") as attempt:

        def change(work: Work) -> int:
            soon = endings.ending(work.connection, work.now, work.now + span, BATCH_SIZE)
            for one in soon:
                endings.note(work.connection, one, work.now)
                work.record(
                    f"{one.words} ends {one.expires_at:%Y-%m-%d %H:%M:%S} UTC; renew it before, if it is still needed",
                    target_kind=one.kind,
                    target_id=one.id,
                    server_id=one.server_id,
                    workspace_id=one.workspace_id,
                    level="warning",
                    details={"ends_at": f"{one.expires_at:%Y-%m-%dT%H:%M:%SZ}", "fingerprint": one.fingerprint},
                )
            if not soon:
                work.no_event("another process was quicker")
            return len(soon)

        return attempt.write(change)


def end_user_keys(instance: Instance, keyrack: Actor) -> int:
    """Delete users' keys whose end has come, each with its event; answers how many."""
    at = instance.now()
    if not instance.database.read(lambda connection: endings.ended_user_keys(connection, at, 1)):
        return 0
    with Attempt(instance, keyrack, "credentials:write", "end expired SSH keys", target_kind="user key") as attempt:

        def change(work: Work) -> int:
            ended = endings.ended_user_keys(work.connection, work.now, BATCH_SIZE)
            for key in ended:
                user_keys.remove_user_key(work.connection, key.id)
                if key.fingerprint is not None:
                    expired_keys.add(
                        work.connection,
                        key.workspace_id,
                        key.fingerprint,
                        work.now,
                        user_id=key.user_id,
                        title=key.title,
                    )
                opened = grants.servers_of_user(work.connection, key.user_id)
                work.bumped.clear()
                work.bump_revisions(opened)
                owner = users.user_names(work.connection, (key.user_id,)).get(key.user_id, "?")
                work.record(
                    f"SSH key {key.title or 'without a title'} ({key.fingerprint}) of {owner} reached its end",
                    target_id=key.id,
                    workspace_id=key.workspace_id,
                    details={"title": key.title, "fingerprint": key.fingerprint},
                )
            if not ended:
                work.no_event("another process was quicker")
            return len(ended)

        return attempt.write(change)


def close_requests(instance: Instance, keyrack: Actor) -> int:
    """End the requests whose grant's end has come, and delete the grant, each with its event; answers how many.

    A request whose grant was taken back before ends too.
    """
    at = instance.now()
    if not instance.database.read(lambda connection: requests.over(connection, at, 1)):
        return 0
    with Attempt(instance, keyrack, "grants:write", "close what requests opened", target_kind="grant") as attempt:

        def change(work: Work) -> int:
            over = requests.over(work.connection, work.now, BATCH_SIZE)
            for request_id, grant in over:
                requests.set_state(work.connection, request_id, state=requests.ENDED)
                if grant is None:
                    work.no_event("taking it back left one")
                    continue
                opened = grants.servers_of_grant(work.connection, grant)
                grants.remove_grant(work.connection, grant.id)
                work.bumped.clear()
                work.bump_revisions(opened)
                work.record(
                    f"Grant {grant.id} of the login as {grant.system_user}, opened by a request, reached its end",
                    target_id=grant.id,
                    server_id=grant.server_id,
                    workspace_id=grant.workspace_id,
                )
            if not over:
                work.no_event("another process was quicker")
            return len(over)

        return attempt.write(change)
