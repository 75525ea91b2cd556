"""The table of the tree that counts rows which decide about access; must hold no question."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, LargeBinary, Table

from keyrack.store.columns import metadata

access_tree = Table(
    "access_tree",
    metadata,
    # Node 0 is the root. What the content of each is, store/access_tree.py says.
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("content", LargeBinary, nullable=False),
)
