"""People and groups: who there is, what each has, and taking somebody out everywhere; must hold no rule of its own."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from urllib.parse import quote, urlencode

from starlette.responses import Response

from keyrack import policy
from keyrack.core import cursors
from keyrack.core.instance import Instance
from keyrack.core.keys import key_sources, key_sync, last_uses, rehearsal, user_keys, who_can
from keyrack.core.people import (
    groups,
    named_people,
    offboarding,
    offboarding_undo,
    passwords,
    second_factors,
    users,
    web_sessions,
)
from keyrack.errors import invalid
from keyrack.model import Role, User
from keyrack.protocol.words import count
from keyrack.web.console import account_ways, templates
from keyrack.web.console.pages_live import hosts_awaited
from keyrack.web.console.visits import (
    CONFIRMED,
    FIRST_PRESS,
    Asked,
    Visit,
    change,
    cursor_of,
    page,
    paged,
    rehearsed,
    unless_changed,
)

PER_PAGE = 100
MAX = 200
MAX_WAYS = 80
MAX_ACTIONS = 12
CONFIRM = "confirm"
GROUPS_AFTER = "groups"
"""The parameter with the place after which the list of groups begins."""
OWN_KEYS = (user_keys.ADD, user_keys.READ, user_keys.DELETE)
"""What somebody needs to register public keys of their own, and to take them away."""


def people(visit: Visit) -> Response:
    """Everybody; search: part of the name."""
    search = visit.query.get("q", "").strip()
    piece = named_people.find(visit.instance, visit.actor, search=search, cursor=cursor_of(visit), limit=PER_PAGE)
    place = visit.query.get(GROUPS_AFTER, "")
    some_groups = groups.find(visit.instance, visit.actor, cursor=place, limit=PER_PAGE)
    onward = urlencode({GROUPS_AFTER: cursors.write(some_groups.after)}) if some_groups.after is not None else ""
    return visit.show(
        "people.html",
        people=piece.items,
        groups=some_groups.items,
        first_groups="/people#groups" if place else "",
        more_groups=f"/people?{onward}#groups" if onward else "",
        search=search,
        adding="add" in visit.query or (visit.refusal is not None and visit.request.url.path == "/people"),
        roles=_roles(visit),
        **paged(visit, piece, but=(GROUPS_AFTER,)),
    )


def add(visit: Visit) -> Response:
    """Make a person."""
    name = visit.form.text("name").strip()
    role = next((one for one in Role if one.value == visit.form.text("role")), None)
    if not name:
        raise invalid("name", "Say what the person is called.")
    made = users.create_user(
        visit.instance,
        visit.actor,
        name=name,
        role=role or Role.MEMBER,
        policies=OWN_KEYS if visit.form.flag("own_keys") else (),
        password=visit.form.text("password") or None,
    )
    return visit.go(f"/people/{quote(made.name)}", f"{made.name} is added, and cannot log in anywhere yet.")


def person(visit: Visit) -> Response:
    """One person: keys, where they can log in, what they hold."""
    user = named_people.get(visit.instance, visit.actor, visit.path["name"])
    keys, _, used = last_uses.user_keys(visit.instance, visit.actor, user=user.name, offset=0, limit=MAX)
    ways: tuple[who_can.Way, ...] = ()
    more, nothing = False, None
    if visit.may("access:read"):
        page = who_can.find(visit.instance, visit.actor, user=user.name, limit=MAX_WAYS)
        ways, more, nothing = page.items, page.next is not None, page.note
    others = user.disabled_at is None and visit.actor.user_id != user.id
    return visit.show(
        "person.html",
        user=user,
        keys=keys.items,
        used=used,
        sources=key_sources.find(visit.instance, visit.actor, user.name),
        failing=key_sync.ALARMS,
        places=account_ways.of(ways),
        more=more,
        nothing=nothing,
        held=offboarding.holds(visit.instance, visit.actor, user.name),
        signed_in=web_sessions.of_user(visit.instance, visit.actor, user.name),
        has_second_factor=second_factors.has_any(visit.instance, visit.actor, user.id),
        others=others,
        above=policy.exceeds(visit.actor, user.role, user.policies) is not None,
        roles=_roles(visit),
        own_keys=_registers(user),
        seen_rights=_seen_rights(user),
    )


def _roles(visit: Visit) -> list[tuple[str, str]]:
    """The roles that somebody may give."""
    return [(role.value, role.value) for role in Role if policy.exceeds(visit.actor, role, ()) is None]


def _registers(user: User) -> bool:
    """Whether role and policies let a person register keys of their own, and take them away."""
    return policy.actions(user.role, user.policies).issuperset(OWN_KEYS)


def _seen_rights(user: User) -> str:
    return f"{user.role.value} {' '.join(user.policies)}"


def _wanted_rights(visit: Visit, person: User) -> tuple[Role, list[str]]:
    """The role and the policies that the form asks for."""
    role = next((one for one in Role if one.value == visit.form.text("role")), person.role)
    wanted = [one for one in person.policies if one not in OWN_KEYS]
    if visit.form.flag("own_keys"):
        wanted = list(person.policies) if _registers(person) else [*wanted, *OWN_KEYS]
    return role, wanted


def _set_rights(visit: Visit, instance: Instance) -> User:
    """Give a person another role, and let them register keys of their own or not; other policies stay."""
    visit = replace(visit, instance=instance)
    user = named_people.get(visit.instance, visit.actor, visit.path["name"])

    def seen(instance: Instance) -> str:
        return _seen_rights(named_people.get(instance, visit.actor, user.name))

    def run(instance: Instance) -> User:
        role, policies = _wanted_rights(visit, named_people.get(instance, visit.actor, user.name))
        return users.change_rights(instance, visit.actor, user.id, role=role, policies=policies)

    return unless_changed(visit, "people:write", seen, run)


def setting_rights(visit: Visit) -> Asked:
    """What other rights let a person do, and what they no longer let them do."""
    user = named_people.get(visit.instance, visit.actor, visit.path["name"])
    done = rehearsed(visit, partial(_set_rights, visit))
    role, policies = _wanted_rights(visit, user)
    before, after = policy.actions(user.role, user.policies), policy.actions(role, policies)
    stays = f"{user.name} stays {user.role.value}."
    words = [stays if role is user.role else f"{user.name} is {user.role.value} and becomes {role.value}."]
    for title, some in (("They may from then on", after - before), ("They may no longer", before - after)):
        if some:
            words.append(f"{title}: {templates.few(sorted(some), MAX_ACTIONS)}.")
    if before == after:
        words.append("What they may do stays the same.")
    back, takes = f"/people/{quote(user.name)}", bool(before - after)
    return Asked(f"Other rights for {user.name}?", words, "Set the rights", back, done, takes=takes)


def set_rights(visit: Visit) -> Response:
    """Give a person other rights."""
    made = _set_rights(visit, visit.instance)
    return visit.go(f"/people/{quote(made.name)}", f"{made.name} is {made.role.value} from now on.")


def set_password(visit: Visit) -> Response:
    """Give a person another password, which they are asked to change."""
    user = named_people.get(visit.instance, visit.actor, visit.path["name"])
    users.change_password(visit.instance, visit.actor, user.id, visit.form.text("password"))
    return visit.go(f"/people/{quote(user.name)}", f"{user.name} signs in with that password from now on.")


def end_session(visit: Visit) -> Response:
    """End a session of somebody in the console."""
    user = named_people.get(visit.instance, visit.actor, visit.path["name"])
    web_sessions.end(visit.instance, visit.actor, visit.form.number("id"), user_id=user.id)
    return visit.go(f"/people/{quote(user.name)}", f"That session of {user.name} has ended.")


def resetting_second_factors(visit: Visit) -> Asked:
    """What taking somebody's second factors away does."""
    user = named_people.get(visit.instance, visit.actor, visit.path["name"])
    words = [
        f"Then their password alone signs {user.name} in, until they add a second factor again: their apps, passkeys "
        "and recovery codes no longer work.",
        "Make sure that they asked for it themselves.",
    ]
    title, button = f"Take the second factors of {user.name} away?", "Take their second factors away"
    return Asked(title, words, button, f"/people/{quote(user.name)}")


def reset_second_factors(visit: Visit) -> Response:
    """Remove the second factors of somebody who lost them."""
    user = named_people.get(visit.instance, visit.actor, visit.path["name"])
    second_factors.reset(visit.instance, visit.actor, user.id)
    return visit.go(
        f"/people/{quote(user.name)}", f"{user.name} signs in with a password alone, until they add a second factor."
    )


def going(visit: Visit) -> Response:
    """What goes with a person, before anything does."""
    preview = offboarding.preview(visit.instance, visit.actor, visit.path["name"])
    return visit.show("offboard.html", preview=preview, counted=offboarding.counted(preview.gone))


def typed_name(visit: Visit) -> None:
    """Refuse to take a person out whose name was not typed."""
    name = visit.path["name"]
    if visit.form.text(CONFIRM).strip() != name:
        raise invalid(CONFIRM, f"Type {name} to confirm; nothing was changed.")


def typed(visit: Visit) -> None:
    """Refuse that, and a reason that is none."""
    typed_name(visit)
    offboarding.preview(visit.instance, visit.actor, visit.path["name"], reason=visit.form.text("reason"))


def offboard(visit: Visit) -> Response:
    """Take a person out everywhere, once their name was typed."""
    typed_name(visit)
    name = visit.path["name"]
    made = offboarding.offboard(visit.instance, visit.actor, name, reason=visit.form.text("reason"))
    return visit.go(f"/offboardings/{made.id}", f"{name} is offboarded; hosts confirm it one by one.")


def receipt(visit: Visit) -> Response:
    """Who has obeyed an offboarding by now."""
    progress = offboarding.get(visit.instance, visit.actor, visit.number("id"))
    counted = offboarding.taken_away(progress.offboarding)
    if visit.is_part:
        return visit.show("_offboarding.html", progress=progress)
    waiting = hosts_awaited(progress.hosts)
    return visit.show("offboarding.html", progress=progress, counted=counted, waiting=waiting)


def undo(visit: Visit) -> Response:
    """Bring a person's access back, not their sessions."""
    number = visit.number("id")
    offboarding_undo.undo(visit.instance, visit.actor, number)
    return visit.go(f"/offboardings/{number}", "Their access is back; sessions that ended are not.")


def group(visit: Visit) -> Response:
    """One group and who is in it."""
    shown = groups.get(visit.instance, visit.actor, visit.path["name"])
    known = named_people.find(visit.instance, visit.actor, limit=MAX).items if visit.may("people:write") else ()
    others = [user.name for user in known if user.name not in shown.members]
    return visit.show("group.html", group=shown, others=others, joins=visit.form.text("member"))


def add_group(visit: Visit) -> Response:
    """Make a group."""
    name = visit.form.text("group").strip()
    if not name:
        raise invalid("group", "Say what the group is called.")
    made = groups.put(visit.instance, visit.actor, name, None)
    return visit.go(f"/groups/{quote(made.name)}", f"The group {made.name} is added.")


def deleting_group(visit: Visit) -> Asked:
    """What deleting a group does."""
    gone = groups.get(visit.instance, visit.actor, visit.path["name"])
    done = rehearsed(visit, lambda instance: groups.delete(instance, visit.actor, gone.name))
    words = ["The grants to it go with it."]
    if gone.members:
        words.append(f"Its {count(len(gone.members), 'member')} will no longer be in it, and stay in the workspace.")
    return Asked(f"Delete the group {gone.name}?", words, "Delete this group", f"/groups/{quote(gone.name)}", done)


def delete_group(visit: Visit) -> Response:
    """Delete a group."""
    gone = groups.delete(visit.instance, visit.actor, visit.path["name"])
    return visit.go("/people", f"The group {gone.name} is deleted, with the grants to it.")


def _membership(visit: Visit, instance: Instance) -> groups.Group:
    name, member = visit.path["name"], visit.form.text("member").strip()
    if visit.form.flag("leaves"):
        return groups.remove_member(instance, visit.actor, name, member)
    return groups.add_member(instance, visit.actor, name, member)


def member(visit: Visit) -> Response:
    """Show what it does if somebody joins or leaves a group, and do it once confirmed."""
    name, who = visit.path["name"], visit.form.text("member").strip()
    if not visit.form.flag(CONFIRMED):
        done = rehearsal.rehearse(visit.instance, visit.actor, partial(_membership, visit))
        leaves = visit.form.flag("leaves")
        hidden = [("member", who), ("leaves", "yes" if leaves else ""), (CONFIRMED, "yes")]
        return visit.show("member.html", done=done, name=name, who=who, leaves=leaves, hidden=hidden)
    _membership(visit, visit.instance)
    return visit.go(
        f"/groups/{quote(name)}", f"{who} {'is no longer' if visit.form.flag('leaves') else 'is'} in {name}."
    )


_OFFBOARD, _DELETE_GROUP = "/offboard/{name:path}", "/delete-group/{name:path}"
PAGES = (
    page("/people", people, "people:read"),
    change("/people", add, "people:write", again=people, hashes=True, undo="/offboard/{name:path}"),
    page("/people/{name:path}", person, "people:read"),
    change("/end-session/{name:path}", end_session, "people:write", again=person, undo="/login"),
    change("/rights/{name:path}", set_rights, "people:write", again=person, dangerous=True, asks=setting_rights),
    change(
        "/password/{name:path}",
        set_password,
        "people:write",
        again=person,
        dangerous=True,
        preview="/people/{name:path}",
        typed=lambda visit: passwords.check(visit.form.text("password")),
    ),
    change(
        "/reset-proofs/{name:path}",
        reset_second_factors,
        "people:write",
        again=person,
        dangerous=True,
        asks=resetting_second_factors,
    ),
    page(_OFFBOARD, going, offboarding.OFFBOARD),
    change(_OFFBOARD, offboard, offboarding.OFFBOARD, again=going, dangerous=True, preview=_OFFBOARD, typed=typed),
    page("/offboardings/{id}", receipt, "people:read"),
    change("/offboardings/{id}/undo", undo, offboarding.OFFBOARD, again=receipt, dangerous=True, undo=_OFFBOARD),
    change("/groups", add_group, "people:write", again=people, undo=_DELETE_GROUP),
    page("/groups/{name:path}", group, "people:read"),
    change(_DELETE_GROUP, delete_group, "people:write", asks=deleting_group),
    change("/members/{name:path}", member, "people:write", again=group, preview=FIRST_PRESS),
)
