"""Remembers the audit log's last checkpoint, so that the log cannot be rewritten unnoticed; must change nothing about
who may log in.

Invariant 9: a checkpoint that does not continue the last one is refused, and the service is told.
"""

from __future__ import annotations

from typing import Any, Dict, Optional

from keyrack.agent.service import signature
from keyrack.agent.state import StateFolder, StateProblem
from keyrack.protocol import audit_tree
from keyrack.protocol.audit_tree import Checkpoint, CheckpointProblem

FILE = "checkpoint.json"
_REMEDY = "; if the service was restored from a backup, `rm {}` here begins anew"


class Witness:
    """The last checkpoint of the service's audit log that continued the one before."""

    def __init__(self, state: StateFolder, signing_key: str) -> None:
        self._state = state
        self._signing_key = signing_key
        self.problem = ""
        """Why the last checkpoint that came is refused, in words; empty where it is not."""
        self._last = self._noted()

    @property
    def size(self) -> int:
        """How many records the log had at the last checkpoint; 0 before the first one."""
        return self._last.size if self._last is not None else 0

    def take(self, sent: Any) -> bool:
        """Check a checkpoint that came with a document, None for none. Answers whether `problem` changed."""
        if sent is None:
            return False
        before, self.problem = self.problem, ""
        if before and self._is_taken_away():
            self._last = None
        try:
            new = self._read(sent)
            words = audit_tree.problem(self._last, new, audit_tree.read_path(sent.get("proof")))
            if words:
                self.problem = words + _REMEDY.format(f"{self._state.folder.path}/{FILE}")
            elif self._last is None or new.size > self._last.size:
                self._keep(sent, new)
        except (CheckpointProblem, signature.DocumentSignatureProblem) as problem:
            self.problem = f"a checkpoint of the audit log is refused: {problem}"
        except OSError as error:
            self.problem = f"the checkpoint of the audit log cannot be kept: {error.strerror}"
        return self.problem != before

    def _is_taken_away(self) -> bool:
        """Whether somebody deleted the note, as the words of a refusal advise: that must work without a restart."""
        try:
            return self._state.load(FILE) is None
        except StateProblem:
            return False

    def _keep(self, sent: Dict[str, Any], new: Checkpoint) -> None:
        fields = {"text": sent["text"], "signature": sent["signature"]}
        self._state.save(FILE, fields, durable=self._last is None)
        self._last = new

    def _read(self, sent: Any) -> Checkpoint:
        """A checkpoint that the service signed. Raises CheckpointProblem or DocumentSignatureProblem."""
        if not isinstance(sent, dict):
            raise CheckpointProblem("it is not a checkpoint")
        text, signed = sent.get("text"), sent.get("signature")
        if not isinstance(text, str) or not isinstance(signed, str):
            raise CheckpointProblem("it is not a checkpoint")
        signature.check(self._signing_key, text, signed, audit_tree.NAMESPACE)
        return audit_tree.read(text)

    def _noted(self) -> Optional[Checkpoint]:
        """The saved checkpoint; None where there is none, or for a damaged note, which sets `problem`."""
        try:
            fields = self._state.load(FILE)
            return None if fields is None else self._read(fields)
        except (StateProblem, CheckpointProblem, signature.DocumentSignatureProblem) as problem:
            self.problem = f"what was kept of the audit log is damaged: {problem}"
            return None
