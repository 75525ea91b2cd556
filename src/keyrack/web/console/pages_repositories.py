"""Repositories: who may read and write each, its deploy keys, how to clone it; must hold no rule of its own."""

from __future__ import annotations

from starlette.responses import Response

from keyrack.core.audit import events
from keyrack.core.git import deploy_keys, named_repositories, repositories
from keyrack.core.git.access import clone_address
from keyrack.core.people import users
from keyrack.model import Event, EventFilter
from keyrack.store.git.repositories import Repository
from keyrack.web import bodies
from keyrack.web.console import templates
from keyrack.web.console.visits import Asked, Visit, change, cursor_of, page, paged

PER_PAGE = 50
ANYBODY = "iam:self"
"""Everybody may ask: a role in a repository counts beside rights over all of them. The core says who sees what."""


def listed(visit: Visit) -> Response:
    """The repositories that the person may see."""
    search = visit.query.get("q", "").strip()
    piece = repositories.find(visit.instance, visit.actor, search=search, cursor=cursor_of(visit), limit=PER_PAGE)
    return visit.show(
        "repositories.html",
        repositories=piece.items,
        search=search,
        creates=visit.may(repositories.CREATE),
        adding="add" in visit.query or visit.refusal is not None,
        projects=users.projects(visit.instance, visit.actor) if visit.may(repositories.CREATE) else (),
        **paged(visit, piece),
    )


def add(visit: Visit) -> Response:
    """Create a repository."""
    if "project" in visit.form:
        name, project = visit.form.text("name"), visit.form.text("project")
        made = repositories.create(visit.instance, visit.actor, name=name, project_uid=project)
    else:
        made = named_repositories.put(visit.instance, visit.actor, visit.form.text("path").strip(), None)
    return visit.go(f"/repositories/{made.id}", f"{made.path} is added, and empty.")


def _named(visit: Visit, name: str) -> Repository:
    """The repository with an id or at a path. Raises Refusal MISSING or FORBIDDEN."""
    number = bodies.identifier(name)
    if number:
        return repositories.get(visit.instance, visit.actor, number)
    return repositories.at(visit.instance, visit.actor, name)


def repository(visit: Visit) -> Response:
    """One repository."""
    own = _named(visit, visit.path.get("path") or visit.path["id"])
    happened: tuple[Event, ...] = ()
    if visit.may("events:read"):
        happened = events.find(visit.instance, visit.actor, EventFilter(search=own.path), limit=15, cursor="").items
    return visit.show(
        "repository.html",
        repository=own,
        address=clone_address(visit.instance, own.path),
        members=repositories.members(visit.instance, visit.actor, own.id, limit=200).items,
        keys=deploy_keys.find(visit.instance, visit.actor, own.id, limit=200).items,
        happened=happened,
    )


def add_key(visit: Visit) -> Response:
    """Register a deploy key."""
    number = visit.number("id")
    made = deploy_keys.add(
        visit.instance,
        visit.actor,
        number,
        title=visit.form.text("title"),
        public_key=visit.form.text("public_key"),
        can_push=visit.form.flag("can_push"),
    )
    return visit.go(f"/repositories/{number}", f"The deploy key {made.title} is registered.")


def removing_key(visit: Visit) -> Asked:
    """What taking a deploy key away does."""
    own = repositories.get(visit.instance, visit.actor, visit.number("id"))
    held = deploy_keys.get(visit.instance, visit.actor, own.id, visit.number("number"))
    may = "read and write" if held.can_push else "read"
    used = f"last used {templates.ago(held.last_used_at, visit.now)}" if held.last_used_at else "never used"
    words = f"Programs that {may} {own.path} with it are refused from then on."
    title = f"Remove the deploy key {held.title} from {own.path}?"
    return Asked(title, [words, f"It was {used}."], "Remove this deploy key", f"/repositories/{own.id}")


def remove_key(visit: Visit) -> Response:
    """Take a deploy key away."""
    number = visit.number("id")
    gone = deploy_keys.delete(visit.instance, visit.actor, number, visit.number("number"))
    return visit.go(f"/repositories/{number}", f"The deploy key {gone.title} no longer opens this repository.")


_TAKES_KEY = "/repositories/{id}/keys/{number}/remove"
PAGES = (
    page("/repositories", listed),
    change("/repositories", add, repositories.CREATE, again=listed, preview="/repositories"),
    page("/repositories/{path:path}", repository, judged=True),
    change("/repositories/{id}/keys", add_key, ANYBODY, again=repository, judged=True, undo=_TAKES_KEY),
    change(_TAKES_KEY, remove_key, ANYBODY, judged=True, asks=removing_key),
)
