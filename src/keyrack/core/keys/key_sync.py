"""Keeps users' keys in step with their accounts at GitHub and GitLab: adds and deletes; must speak no HTTP itself.

A key is deleted only when the account is known by its number to be the same, and its whole list was read. No answer, a
cut one, a deleted or a renamed account delete nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection

from keyrack.core.instance import Instance
from keyrack.core.keys import user_keys
from keyrack.core.lookups import is_oneself, user_named
from keyrack.core.people.actors import system_actor
from keyrack.core.work import Attempt
from keyrack.errors import Kind, Refusal
from keyrack.logs import logger
from keyrack.model import Actor, UserKey
from keyrack.ssh.fingerprint import of_public_key
from keyrack.store.audit import events
from keyrack.store.keys import key_sources
from keyrack.store.keys import user_keys as user_key_rows
from keyrack.store.keys.key_sources import KeySource
from keyrack.store.people import users

log = logger("keyrack")

ALARMS = ("gone", "renamed", "moved")
BATCH_SIZE = 50
LONGEST_WAIT = timedelta(days=1)
LONGEST_TAG = 500
TAG = re.compile(r'(W/)?"[!#-~\x80-\xff]*"')


class NoHttpAnswer(Exception):
    """The service did not answer, or not as it must; the message says why, for people."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A service's answer: the status, the headers by lower-case name, the whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Ask = Callable[[str, Mapping[str, str]], HttpAnswer]
"""GET of an address with headers; raises NoHttpAnswer. See web/outgoing.py."""


class _Ended(Exception):
    """A sync ended before it changed anything; state, words: of the source from now on; wait: until the next try."""

    def __init__(self, state: str, words: str, wait: timedelta | None = None) -> None:
        super().__init__(words)
        self.state, self.words, self.wait = state, words, wait


def longest_wait(instance: Instance) -> timedelta:
    """The longest time between two syncs of a source."""
    return max(timedelta(minutes=instance.settings.key_source_minutes), LONGEST_WAIT)


def sync_due(instance: Instance, ask: Ask) -> int:
    """Sync the sources that are due; answers how many. Only one process syncs each."""
    now = instance.now()
    every = timedelta(minutes=instance.settings.key_source_minutes)

    def claim(connection: Connection) -> tuple[KeySource, ...]:
        due = key_sources.due(connection, now, BATCH_SIZE)
        for source in due:
            key_sources.change(connection, source.id, {"next_at": now + every})
        return due

    if not instance.database.read(lambda connection: key_sources.due(connection, now, 1)):
        return 0
    due = instance.database.write(claim)
    for source in due:
        sync(instance, source, ask)
    return len(due)


def sync_all(instance: Instance, actor: Actor, ask: Ask) -> tuple[KeySource, ...]:
    """Sync every source of the actor's workspace now, and answer them as they are then."""
    sources = instance.database.read(lambda connection: key_sources.of_workspace(connection, actor.workspace_id))
    return tuple(sync(instance, source, ask) for source in sources)


def sync_user(instance: Instance, actor: Actor, name: str, ask: Ask) -> tuple[KeySource, ...]:
    """Sync a user's sources now, and answer them as they are then. Raises Refusal MISSING or FORBIDDEN.

    A source whose service asked for a pause is answered as it is.
    """
    action = user_keys.ADD if is_oneself(actor, name) else "people:write"
    with Attempt(
        instance, actor, action, "look at the accounts that keys come from", target_kind="key source"
    ) as tried:
        sources = tried.read(lambda connection: key_sources.of_user(connection, user_named(connection, actor, name).id))
        now = instance.now()
        return tuple(
            one if one.state == "waiting" and one.next_at > now else sync(instance, one, ask) for one in sources
        )


def sync(instance: Instance, source: KeySource, ask: Ask) -> KeySource:
    """Sync one source: add and delete what changed, and answer it as it is then.

    Raises nothing for what the service answers; that is in the source's state and words.
    """
    before = source
    try:
        listed = _listed(source, ask)
        in_step = replace(source, state="in step", words="")
        source = in_step if listed is None else _synced(instance, source, ask, listed)
    except _Ended as end:
        source = replace(source, state=end.state, words=end.words)
        if end.wait is not None:
            source = replace(source, next_at=instance.now() + min(end.wait, LONGEST_WAIT))
    except NoHttpAnswer as error:
        source = replace(source, state="no answer", words=str(error))
    source = replace(source, checked_at=instance.now())
    _keep(instance, before, source)
    return source


def _listed(source: KeySource, ask: Ask) -> tuple[dict[str, str], str, str] | None:
    """The account's keys: lines by fingerprint, the list's ETag, and a problem with lines that are no keys, or "".

    None where the list is the same as at the last sync.
    """
    known = source.etag and source.account_id and source.state not in ALARMS
    headers = {"If-None-Match": source.etag} if known else {}
    answer = ask(f"{source.url}/{quote(source.account)}.keys", headers)
    if answer.status == 304 and headers:
        return None
    _refuse_bad(answer, source)
    if not answer.headers.get("content-type", "").startswith("text/plain"):
        raise NoHttpAnswer("The list of keys did not come as plain text.")
    lines: dict[str, str] = {}
    problem = ""
    for line in filter(None, (part.strip() for part in answer.body.decode("utf-8", "replace").split("\n"))):
        bare = " ".join(line.split()[:2])
        made = of_public_key(bare)
        if made is None:
            problem = "The list holds a line that is no key."
        else:
            lines[made] = bare
    etag = answer.headers.get("etag", "")
    # It is stored and sent back: an overlong or malformed one (RFC 9110, 8.8.3) would make each later request fail.
    return lines, etag if len(etag) <= LONGEST_TAG and TAG.fullmatch(etag) else "", problem


def _synced(instance: Instance, source: KeySource, ask: Ask, listed: tuple[dict[str, str], str, str]) -> KeySource:
    """Add and delete keys so that they are those listed, and answer the source as it is then."""
    lines, etag, problem = listed
    gone = [fingerprint for fingerprint in source.keys if fingerprint not in lines]
    new = [fingerprint for fingerprint in lines if fingerprint not in source.keys]
    if gone or new or source.account_id is None or source.state in ALARMS:
        source = _same_account(source, ask)
    if problem and gone:
        raise NoHttpAnswer(f"{problem} Nothing was changed.")
    actor = system_actor(source.workspace_id, channel="key-source")
    key_ids = dict(source.keys)
    problems = [problem] if problem else []
    keys_held = {
        key.fingerprint: key for key in instance.database.read(lambda c: user_key_rows.keys_of_user(c, source.user_id))
    }
    for fingerprint in gone:
        key = keys_held.get(fingerprint)
        if key is not None and key.id == key_ids[fingerprint]:
            try:
                user_keys.delete(instance, actor, key.id, user_id=source.user_id)
            except Refusal as refusal:
                # Somebody, or another sync of the same account, may have deleted it since.
                if refusal.kind is not Kind.MISSING:
                    raise
        del key_ids[fingerprint]
    for index, fingerprint in enumerate(new):
        try:
            key_ids[fingerprint] = _added(instance, actor, source, keys_held.get(fingerprint), lines[fingerprint])
        except Refusal as refusal:
            problems.append(f"{fingerprint}: {refusal.message}")
            if refusal.kind is Kind.LIMIT:
                # All others, perhaps thousands, would be refused alike, at each sync.
                problems.append(f"{len(new) - index - 1} more keys were left out.")
                break
    state = "partly" if problems else "in step"
    return replace(source, keys=key_ids, etag="" if problems else etag, state=state, words=" ".join(problems)[:2000])


def _added(instance: Instance, actor: Actor, source: KeySource, held: UserKey | None, line: str) -> int | None:
    """The id of the key that was made of a line; None where the user has the key from elsewhere: no sync deletes it."""
    title = f"{source.kind}: {source.account}"
    if held is not None:
        return held.id if held.title == title else None
    return user_keys.add(instance, actor, title=title, public_key=line, user_id=source.user_id).id


def _same_account(source: KeySource, ask: Ask) -> KeySource:
    """The source with the account's number. Raises _Ended where the account is another one by now, or gone."""
    if source.kind == "github":
        api = "https://api.github.com" if source.url == "https://github.com" else f"{source.url}/api/v3"
        answer = ask(f"{api}/users/{quote(source.account)}", {})
    else:
        answer = ask(f"{source.url}/api/v4/users?username={quote(source.account)}", {})
    _refuse_bad(answer, source)
    try:
        said: Any = json.loads(answer.body)
        if source.kind == "gitlab":
            if said == []:
                raise _gone(source)
            said = said[0]
        number = said["id"]
        if isinstance(number, bool) or not isinstance(number, int):
            raise ValueError(number)
    except (ValueError, LookupError, TypeError):
        raise NoHttpAnswer("The service did not say which account this is.") from None
    if source.account_id not in (None, str(number)):
        words = f"Under the name {source.account} there is another account now, with the number {number}."
        raise _Ended("renamed", f"{words} Nothing was changed; name the account anew if this is meant.")
    return replace(source, account_id=str(number))


def _refuse_bad(answer: HttpAnswer, source: KeySource) -> None:
    """Raise _Ended or NoHttpAnswer for an answer that says nothing about keys."""
    if answer.status in (404, 410):
        raise _gone(source)
    if 300 <= answer.status < 400:
        raise _Ended("moved", f"The account {source.account} moved elsewhere. Nothing was changed.")
    spent = answer.headers.get("x-ratelimit-remaining") == "0" or "retry-after" in answer.headers
    if answer.status == 429 or (answer.status == 403 and spent):
        raise _Ended("waiting", "The service wants fewer requests.", _wait(answer))
    if answer.status != 200:
        raise NoHttpAnswer(f"The service answered with the status {answer.status}.")


def _gone(source: KeySource) -> _Ended:
    return _Ended("gone", f"There is no account {source.account} at {source.url} any more. Nothing was changed.")


def _wait(answer: HttpAnswer) -> timedelta:
    """How long the service asks to be left alone."""
    after = answer.headers.get("retry-after", "")
    if after.isascii() and after.isdigit():
        return timedelta(seconds=int(after[:9]))
    reset, now = answer.headers.get("x-ratelimit-reset", ""), answer.headers.get("x-now", "")
    if reset.isascii() and reset.isdigit() and now:
        return timedelta(seconds=max(0, int(reset[:12]) - int(now)))
    return timedelta(hours=1)


def _keep(instance: Instance, before: KeySource, source: KeySource) -> None:
    """Write the source as it is now; a new alarm leaves an event."""
    names = ("account_id", "keys", "etag", "state", "words", "checked_at", "next_at")

    def write(connection: Connection) -> None:
        stored = key_sources.by_id(connection, source.id)
        if stored is None or (stored.url, stored.account) != (source.url, source.account):
            return  # another account was named meanwhile
        values: dict[str, Any] = {name: getattr(source, name) for name in names}
        if source.next_at == before.next_at:
            values.pop("next_at")
        key_sources.change(connection, source.id, values)
        if source.state in ALARMS and source.state != before.state:
            _alarm(connection, source, instance.now())

    instance.database.write(write)
    if source.state in ALARMS and source.state != before.state:
        log.error("alarm", key_source=source.id, reason=source.words)


def _alarm(connection: Connection, source: KeySource, at: datetime) -> None:
    user = users.user(connection, source.user_id)
    events.add(
        connection,
        system_actor(source.workspace_id, channel="key-source"),
        at=at,
        action="people:write",
        outcome="refused",
        reason=f"key-source-{source.state}",
        target_kind="key source",
        target_id=source.id,
        server_id=None,
        summary=f"Keys of {user.name if user else 'a user'} are no longer kept in step: {source.words}",
        level="alarm",
        details={},
    )
