"""All tables together, for whoever goes through the whole database; names every file of tables, and must do no more."""

from __future__ import annotations

from keyrack.store import audit_tables as audit_tables
from keyrack.store import ending_tables as ending_tables
from keyrack.store import host_key_tables as host_key_tables
from keyrack.store import key_source_tables as key_source_tables
from keyrack.store import lineage_tables as lineage_tables
from keyrack.store import login_tables as login_tables
from keyrack.store import offboarding_tables as offboarding_tables
from keyrack.store import request_tables as request_tables
from keyrack.store import sign_in_tables as sign_in_tables
from keyrack.store import tables as tables
from keyrack.store import tally_tables as tally_tables
from keyrack.store import tree_tables as tree_tables
from keyrack.store import webhook_tables as webhook_tables
from keyrack.store.columns import metadata

__all__ = ["metadata"]
