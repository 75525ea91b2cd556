"""The tables of the instance: what it knows of its key, and the tree over rows of no server; must hold no question."""

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
    # Node 0 is the root. What the content of each is, store/sealing/access_tree.py says.
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("content", LargeBinary, nullable=False),
)
