"""All tables together, for whoever goes through the whole database; names every file of tables, and must do no more."""

from __future__ import annotations

from keyrack.store import key_source_tables as key_source_tables
from keyrack.store import offboarding_tables as offboarding_tables
from keyrack.store import request_tables as request_tables
from keyrack.store import tables as tables
from keyrack.store.columns import metadata

__all__ = ["metadata"]
