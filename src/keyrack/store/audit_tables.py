"""The tables of the chain of events: leaves, parts of the tree and checkpoints; must hold no question."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, Table, Text

from keyrack.store.columns import Moment, metadata

audit_leaves = Table(
    "audit_leaves",
    metadata,
    # An event in its place; it stays when the event itself was kept long enough.
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", BigInteger, nullable=False, unique=True),
    Column("hash", LargeBinary(32), nullable=False),
    Column("seal", LargeBinary(32), nullable=False),
)

audit_nodes = Table(
    "audit_nodes",
    metadata,
    # Hashes of whole parts of the tree, on every eighth level.
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary(32), nullable=False),
)

audit_checkpoints = Table(
    "audit_checkpoints",
    metadata,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("text", Text, nullable=False),
    Column("signature", Text, nullable=False),
    Column("at", Moment, nullable=False),
)
