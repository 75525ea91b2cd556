"""Access keys: an id and a secret of a user, for signed requests; must show a secret once and keep it encrypted."""

from __future__ import annotations

from keyrack.core.instance import Instance
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor, User
from keyrack.store import access_keys

LONGEST = 128


def ensure(instance: Instance, actor: Actor, owner: User, *, key_id: str, secret: str) -> bool:
    """Make a user have this access key with this secret; False when that was so already.

    Raises Refusal TAKEN when the id is another user's, INVALID when it is too long.
    """
    known = instance.database.read(lambda connection: access_keys.get(connection, key_id))
    if known is not None and known.user_id == owner.id and instance.key.decrypt(known.sealed_secret, key_id) == secret:
        return False
    attempt = Attempt(instance, actor, "people:write", "set an access key", target_kind="access key")
    with attempt:
        if not (key_id.isascii() and key_id.isalnum() and len(key_id) <= LONGEST) or not secret:
            raise Refusal(
                Kind.INVALID,
                "access-key-malformed",
                "An access key's id has up to 128 letters and digits, and its secret is not empty.",
            )

        def change(work: Work) -> bool:
            row = access_keys.get(work.connection, key_id)
            sealed = instance.key.encrypt(secret, key_id)
            if row is None:
                access_keys.add(
                    work.connection,
                    {
                        "id": key_id,
                        "user_id": owner.id,
                        "sealed_secret": sealed,
                        "description": "",
                        "active": True,
                        "details": {},
                        "created_at": work.now,
                    },
                )
            elif row.user_id != owner.id:
                raise Refusal(Kind.TAKEN, "access-key-taken", "This access key id is another user's.")
            else:
                access_keys.change(work.connection, key_id, {"sealed_secret": sealed})
            work.record(f"Set access key {key_id} of {owner.name}", level="warning")
            return True

        return attempt.write(change)
