"""What the core accepts as a key, a name or an end: answers of parsers and policy as refusals; must store nothing."""

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
"""A caller passes this for a field that is to stay as it is."""
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
    """A public key that may be registered; every key is checked here. Raises Refusal INVALID.

    workspace_id: where it is to count, None for a workspace that is still to be created; rules: in place of the
    workspace's present ones. Raises Refusal FORBIDDEN where the workspace's policy of keys is damaged.
    """
    key = parsed_key(instance, public_key)
    refusal = policy.key_problem(key, rules or key_rules.of_workspace(instance, workspace_id))
    if refusal is None and known_private.is_known(key):
        refusal = policy.compromised()
    if refusal is not None:
        raise Refusal(refusal.kind, refusal.code, refusal.message, field="public_key")
    return key


def refusals(*checks: tuple[object, Callable[[Any], object]]) -> tuple[Refusal, ...]:
    """The refusals of pairs of a value and the rule that checks it; a value None is skipped."""
    raised = []
    for value, rule in checks:
        try:
            if value is not None:
                rule(value)
        except Refusal as refusal:
            raised.append(refusal)
    return tuple(raised)


def parsed_key(instance: Instance, public_key: object) -> PublicKey:
    """A key that is only looked for or compared, whatever the policy says now. Raises Refusal INVALID.

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
    """The name of an account that a host is to create. Raises Refusal INVALID."""
    problem = names.username_problem(value)
    if problem is not None:
        raise invalid("username", problem)
    return str(value)


def account(value: object, *, field: str = "username") -> str:
    """The name of an account that a host may have, whoever created it. Raises Refusal INVALID."""
    problem = names.account_problem(value)
    if problem is not None:
        raise invalid(field, problem)
    return str(value)


def fingerprint(value: object, *, field: str = "fingerprint") -> str:
    """A fingerprint as ssh-keygen -l prints it. Raises Refusal INVALID."""
    if not isinstance(value, str) or not is_fingerprint(value):
        raise invalid(field, "Write the key's fingerprint as ssh-keygen -l prints it: SHA256:…")
    return value


def text(value: object, *, field: str, maximum: int = LONGEST_TITLE) -> str:
    """A title, label or name that people read; maximum: characters. Raises Refusal INVALID."""
    problem = names.display_text_problem(value, maximum=maximum)
    if problem is not None:
        raise invalid(field, problem)
    return str(value)


def reason(value: object, *, maximum: int = LONGEST_REASON) -> str:
    """A reason in words, "" where none is given. Raises Refusal INVALID."""
    return "" if value in (None, "") else text(value, field="reason", maximum=maximum)


def called(value: object) -> str:
    """A name in its one spelling (names.composed), which people can tell from others. Raises Refusal INVALID."""
    return names.composed(text(value, field="name"))


def new_name(value: object) -> str:
    """A new name as it was written, which people can tell from others. Raises Refusal INVALID.

    Existing things keep names that were allowed before, so these are checked with text().
    """
    written = text(value, field="name")
    problem = names.blank_problem(written)
    if problem is not None:
        raise invalid("name", problem)
    return written


def name(value: object) -> str:
    """A new name that a path can hold, and that people can tell from others. Raises Refusal INVALID."""
    cleaned = names.composed(new_name(value))
    problem = names.name_problem(cleaned)
    if problem is not None:
        raise invalid("name", problem)
    return cleaned


def restrictions(value: object, key_type: str | None = None) -> dict[str, object]:
    """What a key may do, as options.Restrictions reads it, in its one form; None restricts nothing.

    key_type: of the one key it is for, which must be able to obey it; None for keys to come. Raises Refusal INVALID
    with what to write instead, also for an empty list: it would restrict nothing, where its writer may have meant
    nobody.
    """
    if value is None:
        return {}
    for name in ("sources", "permitopen", "permitlisten"):
        if isinstance(value, Mapping) and value.get(name) == []:
            raise invalid("restrictions", f"{name} names nothing; leave it out where it is not to be restricted.")
    try:
        parsed = options.Restrictions.from_json(value)
        options.check_rendered(options.render(parsed, key_type or "sk-"))
    except ValueError as problem:
        raise invalid("restrictions", str(problem)) from None
    if parsed.forwards_nothing and (parsed.permitopen or parsed.permitlisten):
        raise invalid(
            "restrictions",
            "permitopen and permitlisten name what of port forwarding is allowed, and give none: set port_forwarding "
            "to true, or leave them out.",
        )
    return parsed.to_json()


def end(
    now: datetime,
    expires_at: object,
    *,
    duration: object = None,
    field: str = "expires_at",
    begins: datetime | None = None,
) -> datetime | None:
    """An end in the future, at most LONGEST_LIFE ahead, in UTC; None where neither argument is given means no end.

    expires_at: a time, or what lifetimes.read takes; duration: the same under another name, and only one of the two;
    begins: when a span begins, None for now; field: the name of expires_at. Raises Refusal INVALID.
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
    """The end that replaces an old one: as end(), but one must be given. Raises Refusal INVALID."""
    at = end(now, expires_at, duration=duration)
    if at is None:
        raise invalid("duration", "Say for how long, such as 12h, or until when.")
    return at


def is_span(value: object) -> bool:
    """Whether an end was given as a span. Raises Refusal INVALID."""
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
