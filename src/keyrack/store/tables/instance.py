"""The tables of the instance: facts about it, and the tree over rows of no server; must hold no question."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, LargeBinary, String, Table, Text

from keyrack.store.tables.columns import metadata

instance_facts = Table(
    "instance_facts",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

access_tree = Table(
    "access_tree",
    metadata,
    # Node 0 is the root; store/sealing/access_tree.py explains the content.
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("content", LargeBinary, nullable=False),
)
