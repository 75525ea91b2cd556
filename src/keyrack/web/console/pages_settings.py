"""Settings: tokens, the policy of keys, and where else there is something to set; must hold no rule of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass

from starlette.responses import Response

from keyrack.core import validation
from keyrack.core.hosts import modes
from keyrack.core.instance import Instance
from keyrack.core.keys import key_policy
from keyrack.core.people import access_keys, api_tokens, tokens
from keyrack.errors import Refusal, missing
from keyrack.protocol.document_words import KEEP_ALL
from keyrack.protocol.words import count
from keyrack.setting_values import KEY_TYPES
from keyrack.web import bodies
from keyrack.web.console import templates
from keyrack.web.console.pages_hosts import SPANS, THENS, offline_words
from keyrack.web.console.visits import Asked, Visit, change, cursor_of, page, paged, rehearsed, unless_changed

PER_PAGE = 100
HERE = "/settings"
POLICY = "/settings/key-policy"
ENDS = (("1h", "1 h"), ("7d", "7 days"), ("30d", "30 days"), ("90d", "90 days"), ("", "never"))


def settings(visit: Visit) -> Response:
    """Everything that is set here, and what the instance was started with."""
    piece = None
    if visit.may("people:read"):
        piece = tokens.find(visit.instance, visit.actor, cursor=cursor_of(visit), limit=PER_PAGE)
    shown_tokens = piece.items if piece else tokens.own(visit.instance, visit.actor)
    return visit.show(
        "settings.html",
        tokens=shown_tokens,
        access_keys=access_keys.find(visit.instance, visit.actor),
        config=visit.instance.settings,
        ends=ENDS,
        policy=(policy := key_policy.get(visit.instance, visit.actor)),
        key_types=[one for one in KEY_TYPES if one in policy.started_types],
        tried=_tried(visit, policy),
        seen_policy=_seen_policy(policy),
        offline=_offline(visit),
        spans=SPANS,
        thens=THENS,
        **(paged(visit, piece) if piece else {"first": "", "next": ""}),
    )


@dataclass(frozen=True, slots=True)
class Tried:
    """Rules for keys that somebody tries out. changes: whether they are others than those that hold;
    hits: whom they would hit, None where nobody asked; wrong: why not.
    """

    types: tuple[str, ...]
    bits: str
    changes: bool = False
    hits: key_policy.Hits | None = None
    wrong: Refusal | None = None


def _tried(visit: Visit, policy: key_policy.KeyPolicy) -> Tried:
    refused = visit.refusal if visit.request.url.path == POLICY else None
    if "bits" in visit.query and visit.may("people:read"):
        asked, bits = tuple(visit.request.query_params.getlist("type")), visit.query["bits"].strip()
    elif refused is not None:
        asked, bits = visit.form.texts("type"), visit.form.text("bits").strip()
    else:
        return Tried(policy.types, str(policy.rsa_minimum_bits))
    types = tuple(one for one in KEY_TYPES if one in asked)
    if refused is not None:
        return Tried(types, bits, wrong=refused)
    try:
        hits = key_policy.hits(visit.instance, visit.actor, types=types, rsa_minimum_bits=bodies.identifier(bits))
    except Refusal as refusal:
        return Tried(types, bits, wrong=refusal)
    others = set(types) != set(policy.types) or bits != str(policy.rsa_minimum_bits) or policy.damaged
    return Tried(types, bits, others, hits)


def _seen_policy(policy: key_policy.KeyPolicy) -> str:
    return json.dumps([policy.types, policy.rsa_minimum_bits, policy.damaged])


def set_policy(visit: Visit) -> Response:
    """Set which keys are accepted from now on; the page before showed which registered keys are not."""
    types, bits = visit.form.texts("type"), bodies.identifier(visit.form.text("bits").strip())
    made = unless_changed(
        visit,
        "keys:rule",
        lambda inner: _seen_policy(key_policy.get(inner, visit.actor)),
        lambda inner: key_policy.put(inner, visit.actor, types=types, rsa_minimum_bits=bits),
    )
    words = f"From now on {', '.join(made.types)} are accepted, RSA of at least {made.rsa_minimum_bits} bits."
    return visit.go("/settings", words)


def _offline(visit: Visit) -> list[tuple[str, int]]:
    """What hosts do without Keyrack, and how many do so."""
    if not visit.may("servers:read"):
        return []
    policies = modes.offline_policies(visit.instance, visit.actor)
    return [(offline_words(policy.after_seconds, policy.then), policy.hosts) for policy in policies]


def setting_offline(visit: Visit) -> Asked:
    """What telling all hosts with a tag does."""
    tag = visit.form.text("tag").strip()
    after, then = bodies.identifier(visit.form.text("after")), visit.form.text("then") or KEEP_ALL

    def told(instance: Instance) -> int:
        return len(modes.set_offline_policy(instance, visit.actor, after_seconds=after, then=then, tag=tag))

    done = rehearsed(visit, told)
    hosts = count(done.answer, "host") if done else "Every host"
    words = [
        f"{hosts} tagged {tag} without Keyrack: {offline_words(after, then)}.",
        "This replaces what each of them did until now, which then stands in the activity of the host alone.",
    ]
    return Asked("Tell all hosts with that tag?", words, "Tell the hosts", HERE, takes=then != KEEP_ALL)


def set_offline(visit: Visit) -> Response:
    """Say what all hosts with a tag do when they have not reached Keyrack for a while."""
    tag = visit.form.text("tag").strip()
    after, then = bodies.identifier(visit.form.text("after")), visit.form.text("then") or KEEP_ALL
    policies = modes.set_offline_policy(visit.instance, visit.actor, after_seconds=after, then=then, tag=tag)
    words = f"{count(len(policies), 'host')} tagged {tag}: {offline_words(after, then)}."
    return visit.go("/settings", words)


def add_token(visit: Visit) -> Response:
    """Make a token of the visitor's own, and show its secret this once."""
    made = api_tokens.make(
        visit.instance,
        visit.actor,
        name=visit.form.text("name").strip(),
        scopes=visit.form.text("scopes").replace(",", " ").split(),
        expires_at=validation.end(visit.instance.now(), None, duration=visit.form.text("ends") or None),
    )
    return visit.show(
        "secret.html", title=f"Token {made.bearer.token.name}", secret=made.secret, back="/settings", status=200
    )


def add_access_key(visit: Visit) -> Response:
    """Make an access key of the visitor's own, and show its secret this once."""
    made = access_keys.create(visit.instance, visit.actor, description=visit.form.text("description"))
    return visit.show(
        "secret.html", title=f"Secret of access key {made.id}", secret=made.secret, back="/settings", status=200
    )


def removing_access_key(visit: Visit) -> Asked:
    """What taking an access key away does."""
    access_key = access_keys.get(visit.instance, visit.actor, visit.path["key"])
    named = f"{access_key.id} ({access_key.description})" if access_key.description else access_key.id
    words = (
        f"Programs that sign with {named} are refused from then on. It cannot be brought back; a new one can be made."
    )
    return Asked(f"Remove access key {access_key.id}?", [words], "Remove this access key", HERE)


def remove_access_key(visit: Visit) -> Response:
    """Remove an access key."""
    access_keys.delete(visit.instance, visit.actor, visit.path["key"])
    return visit.go("/settings", "The access key no longer opens anything.")


def revoking_token(visit: Visit) -> Asked:
    """What revoking a token does."""
    number = visit.number("id")
    if visit.may("people:read"):
        token = tokens.get(visit.instance, visit.actor, number)
    else:
        own = [one for one in tokens.own(visit.instance, visit.actor) if one.token.id == number]
        if not own:
            raise missing("token")
        token = own[0]
    words = "Programs that sign in with it are refused from then on. It cannot be brought back; a new one can be made."
    used = token.token.last_used_at
    last = f"It was last used {templates.ago(used, visit.now)}." if used else "It was never used."
    title = f"Revoke the token {token.token.name} of {token.user.name}?"
    return Asked(title, [words, last], "Revoke this token", HERE)


def revoke_token(visit: Visit) -> Response:
    """Revoke a token."""
    gone = tokens.revoke_id(visit.instance, visit.actor, visit.number("id"))
    return visit.go("/settings", f"The token {gone.token.name} of {gone.user.name} no longer opens anything.")


_REVOKES, _REMOVES = "/settings/tokens/{id}/revoke", "/settings/access-keys/{key}/remove"
PAGES = (
    page("/settings", settings),
    change(POLICY, set_policy, "keys:rule", again=settings, dangerous=True, preview="/settings"),
    change("/settings/offline", set_offline, "servers:write", again=settings, dangerous=True, asks=setting_offline),
    change("/settings/tokens", add_token, "iam:self", again=settings, dangerous=True, undo=_REVOKES),
    change(
        "/settings/access-keys",
        add_access_key,
        "iam:self",
        again=settings,
        dangerous=True,
        judged=True,
        undo=_REMOVES,
    ),
    change(_REMOVES, remove_access_key, "iam:self", judged=True, asks=removing_access_key),
    change(_REVOKES, revoke_token, "iam:self", judged=True, asks=revoking_token),
)
