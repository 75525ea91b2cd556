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
        self._is_kept = False
        self._last = self._noted()

    @property
    def size(self) -> int:
        """How many records the log had at the last checkpoint; 0 before the first one."""
        return self._last.size if self._last is not None else 0

    def take(self, sent: Any) -> bool:
        """Check a checkpoint that came with a document, None for none. Answers whether `problem` changed."""
        if sent is None:
            return False
        before = self.problem
        self.begin_anew()
        self.problem = ""
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

    def begin_anew(self) -> bool:
        """Forget what was refused where somebody deleted the note, as the words advise: that must work without a
        restart, and though no document comes. Answers whether it did.
        """
        if not self.problem or not self._is_kept:
            return False
        try:
            if self._state.load(FILE) is not None:
                return False
        except StateProblem:
            return False
        self._last, self._is_kept, self.problem = None, False, ""
        return True

    def _keep(self, sent: Dict[str, Any], new: Checkpoint) -> None:
        fields = {"text": sent["text"], "signature": sent["signature"]}
        self._state.save(FILE, fields, durable=self._last is None)
        self._last, self._is_kept = new, True

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
            self._is_kept = fields is not None
            return None if fields is None else self._read(fields)
        except (StateProblem, CheckpointProblem, signature.DocumentSignatureProblem) as problem:
            self._is_kept = True
            self.problem = f"what was kept of the audit log is damaged: {problem}"
            return None
