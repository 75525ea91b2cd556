"""Keyrack's own API: repositories, and how each is protected; must hold no rule of its own."""

from __future__ import annotations

from keyrack.core.git import named_repositories, repositories
from keyrack.web.api import Call
from keyrack.web.native import shapes_repositories as shapes
from keyrack.web.native.calls import endpoint
from keyrack.web.native.shapes import Search


def list_repositories(call: Call, asked: Search) -> shapes.RepositoryPage:
    """List the repositories that you may see, newest first"""
    page = repositories.find(call.instance, call.actor, search=asked.search, **asked.window())
    return shapes.RepositoryPage.of(page, lambda one: shapes.repository(call.instance, one))


def put_repository(call: Call, new: shapes.NewRepository) -> shapes.Repository:
    """Create a repository at a path, or change it, with these members"""
    return shapes.repository(call.instance, named_repositories.put(call.instance, call.actor, new.path, new.members))


def show_repository(call: Call) -> shapes.Repository:
    """Show a repository and how it is protected"""
    return shapes.repository(call.instance, repositories.get(call.instance, call.actor, call.ids["repository"]))


def change_repository(call: Call, change: shapes.RepositoryChange) -> shapes.Repository:
    """Protect a repository's default branch, or change who may read it"""
    changed = repositories.change(
        call.instance,
        call.actor,
        call.ids["repository"],
        visibility=change.visibility,
        protect_default=change.protect_default,
    )
    return shapes.repository(call.instance, changed)


def delete_repository(call: Call) -> None:
    """Delete a repository with its members and deploy keys"""
    repositories.delete(call.instance, call.actor, call.ids["repository"])


ENDPOINTS = (
    endpoint(
        "GET",
        "/repositories",
        list_repositories,
        repositories.READ,
        asks=Search,
        answers=shapes.RepositoryPage,
    ),
    endpoint(
        "PUT",
        "/repositories",
        put_repository,
        repositories.CREATE,
        takes=shapes.NewRepository,
        answers=shapes.Repository,
    ),
    endpoint(
        "GET",
        "/repositories/{repository}",
        show_repository,
        repositories.READ,
        answers=shapes.Repository,
    ),
    endpoint(
        "PATCH",
        "/repositories/{repository}",
        change_repository,
        repositories.CHANGE,
        takes=shapes.RepositoryChange,
        answers=shapes.Repository,
        # A role in the repository itself lets in, too.
        first=lambda call: repositories.may_change(call.instance, call.actor, call.ids["repository"]),
    ),
    endpoint(
        "DELETE",
        "/repositories/{repository}",
        delete_repository,
        repositories.DELETE,
        first=lambda call: repositories.may_delete(call.instance, call.actor, call.ids["repository"]),
    ),
)
