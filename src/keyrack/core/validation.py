"""What the core accepts as a key, a name, an end: parsers' and policy's answers as refusals; must store nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from keyrack import policy
from keyrack.core import lifetimes
from keyrack.core.instance import Instance
from keyrack.core.keys import key_rules
from keyrack.core.lifetimes import LifetimeError
from keyrack.errors import Kind, Refusal, invalid
from keyrack.policy import KeyRules
from keyrack.ssh import known_private, names, options
from keyrack.ssh.fingerprint import is_fingerprint
from keyrack.ssh.public_key import KeyProblem, PublicKey, parse

KEEP: Final = object()
"""What a caller gives for a field that is to stay as it is."""
LONGEST_TITLE = 255
LONGEST_REASON = 1000
LONGEST_LIFE = timedelta(days=3650)


def public_key(
    instance: Instance,
    workspace_id: int | None,
    public_key: object,
    *,
    rules: KeyRules | None = None,
) -> PublicKey:
    """The one way in for public keys; raises Refusal INVALID with the parser's or policy's words.

    workspace_id: where it is to count; None for one that is to be made; rules: what it must meet, where that is not
    what the workspace asks for now. Raises Refusal FORBIDDEN where its policy of keys is damaged.
    """
    key = parsed_key(instance, public_key)
    refusal = policy.key_problem(key, rules or key_rules.of_workspace(instance, workspace_id))
    if refusal is None and known_private.is_known(key):
        refusal = policy.compromised()
    if refusal is not None:
        raise Refusal(refusal.kind, refusal.code, refusal.message, field="public_key")
    return key


def refusals(*judged: tuple[object, Callable[[Any], object]]) -> tuple[Refusal, ...]:
    """What rules refuse of the values that each is for, all of it; None is left out."""
    found = []
    for value, rule in judged:
        try:
            if value is not None:
                rule(value)
        except Refusal as refusal:
            found.append(refusal)
    return tuple(found)


def parsed_key(instance: Instance, public_key: object) -> PublicKey:
    """A key that is only looked for or compared, whatever the policy says now; raises Refusal INVALID as public_key().

    Invariant 1: only the strict parser makes a public key; callers store and deliver its normal form.
    """
    try:
        key = parse(public_key, max_bytes=4 * instance.settings.max_key_characters)
    except KeyProblem as problem:
        raise Refusal(Kind.INVALID, problem.code, str(problem), field="public_key") from None
    if isinstance(public_key, str) and len(public_key.strip()) > instance.settings.max_key_characters:
        raise invalid(
            "public_key",
            f"This key is longer than {instance.settings.max_key_characters} characters. "
            "Use a shorter key type, for example ed25519.",
            "too-long",
        )
    return key


def username(value: object) -> str:
    """The name of an account that a host is to make, by the field's grammar; raises Refusal INVALID."""
    problem = names.username_problem(value)
    if problem is not None:
        raise invalid("username", problem)
    return str(value)


def account(value: object, *, field: str = "username") -> str:
    """The name of an account that a host may have, whoever made it; raises Refusal INVALID."""
    problem = names.account_problem(value)
    if problem is not None:
        raise invalid(field, problem)
    return str(value)


def fingerprint(value: object, *, field: str = "fingerprint") -> str:
    """A fingerprint as ssh-keygen -l prints it; raises Refusal INVALID."""
    if not isinstance(value, str) or not is_fingerprint(value):
        raise invalid(field, "Write the key's fingerprint as ssh-keygen -l prints it: SHA256:…")
    return value


def text(value: object, *, field: str, maximum: int = LONGEST_TITLE) -> str:
    """A title, label or name that people read; maximum in characters; raises Refusal INVALID."""
    problem = names.display_text_problem(value, maximum=maximum)
    if problem is not None:
        raise invalid(field, problem)
    return str(value)


def reason(value: object, *, maximum: int = LONGEST_REASON) -> str:
    """Why something is done, for those who ask later; "" where nobody says why. Raises Refusal INVALID."""
    return "" if value in (None, "") else text(value, field="reason", maximum=maximum)


def called(value: object) -> str:
    """A name that is told from others by sight, in its one spelling (names.composed); raises Refusal INVALID."""
    return names.composed(text(value, field="name"))


def new_name(value: object) -> str:
    """A new name of anything, told from others by sight, as it was written; raises Refusal INVALID.

    What has a name already keeps it, and is found by it: there text() is asked.
    """
    written = text(value, field="name")
    problem = names.blank_problem(written)
    if problem is not None:
        raise invalid("name", problem)
    return written


def name(value: object) -> str:
    """A new name that a path can hold and that is told from others by sight; raises Refusal INVALID."""
    cleaned = names.composed(new_name(value))
    problem = names.name_problem(cleaned)
    if problem is not None:
        raise invalid("name", problem)
    return cleaned


def restrictions(value: object, key_type: str | None = None) -> dict[str, object]:
    """What a key may do, as options.Restrictions reads it, in its one form; None restricts nothing.

    key_type: of the one key it is for, which must be able to obey it; None where it is for keys to come.
    Raises Refusal INVALID with what to write instead; also for a list that is empty, which would restrict nothing
    where whoever made it up meant nobody.
    """
    if value is None:
        return {}
    for name in ("sources", "permitopen", "permitlisten"):
        if isinstance(value, Mapping) and value.get(name) == []:
            raise invalid("restrictions", f"{name} names nothing; leave it out where it is not to be restricted.")
    try:
        read = options.Restrictions.from_json(value)
        options.check_rendered(options.render(read, key_type or "sk-"))
    except ValueError as problem:
        raise invalid("restrictions", str(problem)) from None
    if read.forwards_nothing and (read.permitopen or read.permitlisten):
        raise invalid(
            "restrictions",
            "permitopen and permitlisten name what of port forwarding is allowed, and give none: set port_forwarding "
            "to true, or leave them out.",
        )
    return read.to_json()


def end(
    now: datetime,
    expires_at: object,
    *,
    duration: object = None,
    field: str = "expires_at",
    begins: datetime | None = None,
) -> datetime | None:
    """An end that lies ahead and not absurdly far, in UTC; None where neither is given means no end.

    expires_at: a time, or what lifetimes.read takes; duration: the same by another name, and only one of them;
    begins: when a span begins that does not begin now; field: the name of expires_at. Raises Refusal INVALID.
    """
    if duration is not None:
        if expires_at is not None:
            raise invalid("duration", f"Name either {field} or duration.")
        expires_at, field = duration, "duration"
    if expires_at is None:
        return None
    at = _instant(begins or now, expires_at, field)
    if at <= now:
        raise invalid(field, "This time is past already.", "past")
    if at > now + LONGEST_LIFE:
        raise invalid(field, "This time is more than ten years ahead; leave it out for no end.")
    return at


def other_end(now: datetime, expires_at: object, duration: object) -> datetime:
    """The end that something gets in place of the one it has: as `end`, but one must be given. Raises Refusal."""
    at = end(now, expires_at, duration=duration)
    if at is None:
        raise invalid("duration", "Say for how long, such as 12h, or until when.")
    return at


def is_span(value: object) -> bool:
    """Whether an end was given by how long it lasts."""
    return isinstance(value, str) and lifetime(value, field="expires_at").span is not None


def lifetime(value: object, *, field: str) -> lifetimes.Lifetime:
    """What somebody wrote about how long something lasts. Raises Refusal INVALID with what to write instead."""
    try:
        return lifetimes.read(value if isinstance(value, str) else "")
    except LifetimeError as problem:
        raise invalid(field, f"{field} {problem}.") from None


def _instant(start: datetime, value: object, field: str) -> datetime:
    try:
        if isinstance(value, datetime):
            return lifetimes.zoned(value)
        return lifetime(value, field=field).end(start)
    except LifetimeError as problem:
        raise invalid(field, f"{field} {problem}.") from None
