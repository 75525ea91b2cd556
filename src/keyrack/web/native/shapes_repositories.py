"""Repositories and their protection: what calls take and answer; must call no use case."""

from __future__ import annotations

from typing import Annotated, Literal

from keyrack.store.repositories import Repository as RepositoryRecord
from keyrack.web.native.shapes import Answer, Flag, Id, Listed, Request, about


class RepositoryChange(Request):
    """What changes of a repository; what is left out stays."""

    visibility: Annotated[
        Literal[0, 10, 20] | None, about("0 private, 10 for the workspace, 20 for everybody to read.", 10)
    ] = None
    protect_default: Annotated[bool | None, about("Whether its default branch is protected.", True)] = None


class Repository(Answer):
    """A repository and how it is protected."""

    id: Annotated[Id, about("Its id.")]
    path: Annotated[str, about("Its path.", "acme/site")]
    visibility: Annotated[int, about("0 private, 10 for the workspace, 20 for everybody to read.", 10)]
    default_branch: Annotated[str | None, about("Its default branch.", "main")]
    protect_default: Annotated[Flag, about("Whether that is protected.")]


class RepositoryPage(Listed[Repository]):
    """A page of repositories."""


def repository(found: RepositoryRecord) -> Repository:
    """A repository and how it is protected."""
    return Repository(
        id=found.id,
        path=found.path,
        visibility=found.visibility,
        default_branch=found.default_branch,
        protect_default=found.protect_default,
    )
