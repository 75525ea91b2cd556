"""`keyrack sync-keys`: looks at users' accounts at GitHub and GitLab now; must hold no rule."""

from __future__ import annotations

from typing import Any

import click

from keyrack.cli.connection.operator_context import operator_context, shared
from keyrack.cli.output.tables import NOTHING, as_json, table
from keyrack.core.keys import key_sync
from keyrack.web.outgoing import Outgoing


@click.command(name="sync-keys")
@as_json
@shared
def command(json_wanted: bool, **given: Any) -> None:
    """Bring users' keys in step with their accounts at GitHub and GitLab, now.

    Ends with status 3 if an account is not in step; the last column says why.
    """
    with operator_context(given) as at:
        sources = key_sync.sync_all(at.instance, at.actor, Outgoing(at.instance.settings))
        rows = [(one.kind, one.url, one.account, one.state, one.words or NOTHING) for one in sources]
        table(("KIND", "URL", "ACCOUNT", "STATE", "WHY"), rows, json_wanted)
    if any(one.state != "in step" for one in sources):
        raise click.exceptions.Exit(3)
