"""Repositories and their protection: what calls take and answer; must call no use case."""

from __future__ import annotations

from typing import Annotated, Literal

from keyrack.core.git.access import clone_address
from keyrack.core.instance import Instance
from keyrack.store.git.repositories import Repository as RepositoryRecord
from keyrack.web.native.shapes import Answer, Flag, Id, Listed, Request, about


class RepositoryChange(Request):
    """What changes of a repository; what is left out stays."""

    visibility: Annotated[
        Literal[0, 10, 20] | None, about("0 private, 10 for the workspace, 20 for everybody to read.", 10)
    ] = None
    protect_default: Annotated[bool | None, about("Whether its default branch is protected.", True)] = None


class NewRepository(Request):
    """A repository as wanted."""

    path: Annotated[str, about("Its path: GROUP/NAME.", "acme/site")]
    members: Annotated[
        dict[str, Literal["viewer", "developer", "admin"]] | None,
        about("Its members, these and no others: user to role; left out: as they are.", {"alice": "developer"}),
    ] = None


class Repository(Answer):
    """A repository and how it is protected."""

    id: Annotated[Id, about("Its id.")]
    path: Annotated[str, about("Its path.", "acme/site")]
    visibility: Annotated[int, about("0 private, 10 for the workspace, 20 for everybody to read.", 10)]
    default_branch: Annotated[str | None, about("Its default branch.", "main")]
    protect_default: Annotated[Flag, about("Whether that is protected.")]
    clone_url: Annotated[str, about("Where it is cloned from.", "ssh://git@git.example.org/acme/site.git")]


class RepositoryPage(Listed[Repository]):
    """A page of repositories."""


def repository(instance: Instance, record: RepositoryRecord) -> Repository:
    """A repository and how it is protected."""
    return Repository(
        id=record.id,
        path=record.path,
        visibility=record.visibility,
        default_branch=record.default_branch,
        protect_default=record.protect_default,
        clone_url=clone_address(instance, record.path),
    )
