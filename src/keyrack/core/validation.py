"""What the core accepts as a key, a name, an end: parsers' and policy's answers as refusals; must store nothing."""

from __future__ import annotations

from datetime import datetime, timedelta

from keyrack import policy
from keyrack.core.instance import Instance
from keyrack.errors import Kind, Refusal, invalid
from keyrack.ssh import known_private, names, options
from keyrack.ssh.public_key import KeyProblem, PublicKey, parse

LONGEST_TITLE = 255
LONGEST_LIFE = timedelta(days=3650)


def public_key(instance: Instance, text: object, *, field: str = "public_key") -> PublicKey:
    """The one way in for public keys; raises Refusal INVALID with the parser's or policy's words.

    Invariant 1: only the strict parser makes a public key; callers store and deliver its normal form.
    """
    try:
        key = parse(text, max_bytes=4 * instance.settings.max_key_characters)
    except KeyProblem as problem:
        raise Refusal(Kind.INVALID, problem.code, str(problem), field=field) from None
    if isinstance(text, str) and len(text.strip()) > instance.settings.max_key_characters:
        raise invalid(
            field,
            f"This key is longer than {instance.settings.max_key_characters} characters. "
            "Use a shorter key type, for example ed25519.",
            "too-long",
        )
    refusal = policy.key_problem(key, instance.key_rules)
    if refusal is None and known_private.is_known(key):
        refusal = policy.compromised()
    if refusal is not None:
        raise Refusal(refusal.kind, refusal.code, refusal.message, field=field)
    return key


def username(value: object, *, field: str = "username") -> str:
    """A system user's name by the field's grammar; raises Refusal INVALID."""
    problem = names.username_problem(value)
    if problem is not None:
        raise invalid(field, problem)
    return str(value)


def text(value: object, *, field: str, maximum: int = LONGEST_TITLE) -> str:
    """A title, label or name that people read; maximum in characters; raises Refusal INVALID."""
    problem = names.display_text_problem(value, maximum=maximum)
    if problem is not None:
        raise invalid(field, problem)
    return str(value)


def restrictions(value: object, key_type: str | None = None, *, field: str = "restrictions") -> dict[str, object]:
    """What a key may do, as options.Restrictions reads it, in its one form; None restricts nothing.

    key_type: of the one key it is for, which must be able to obey it; None where it is for keys to come.
    Raises Refusal INVALID with what to write instead.
    """
    try:
        read = options.Restrictions.from_json({} if value is None else value)
        options.check_rendered(options.render(read, key_type or "sk-"))
    except ValueError as problem:
        raise invalid(field, str(problem)) from None
    return read.to_json()


def end(now: datetime, expires_at: datetime | None, *, field: str = "expires_at") -> datetime | None:
    """An end that lies ahead and not absurdly far; None means no end. Raises Refusal INVALID."""
    if expires_at is None:
        return None
    if expires_at.tzinfo is None:
        raise invalid(field, "This time names no zone; write it with Z or an offset.")
    if expires_at <= now:
        raise invalid(field, "This time is past already.")
    if expires_at > now + LONGEST_LIFE:
        raise invalid(field, "This time is more than ten years ahead; leave it out for no end.")
    return expires_at
