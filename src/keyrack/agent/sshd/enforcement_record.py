"""The note on enforcing that the agent keeps over a restart: the state, and what there was before; decides nothing."""

from __future__ import annotations

from typing import Dict, NamedTuple, Optional, Tuple

from keyrack.agent.sshd.originals import Original
from keyrack.agent.state import StateFolder, StateProblem

NOTE = "enforcement.json"

OFF, TRYING, ON, UNDONE = "off", "trying", "on", "undone"


class Record(NamedTuple):
    """What is kept over a restart. state: OFF, TRYING, ON or UNDONE; why: the reason for UNDONE, in words; files: as
    they were before the first change; step: as they were before a change that is still on trial, None where none is;
    folders: those that the agent made; before: the AuthorizedKeysFile patterns that counted for any account before
    enforcing; begun: for UNDONE, whether enforcing had begun at all.
    """

    state: str = OFF
    why: str = ""
    files: Tuple[Original, ...] = ()
    step: Optional[Tuple[Original, ...]] = None
    folders: Tuple[str, ...] = ()
    before: Tuple[str, ...] = ()
    begun: bool = True

    def to_json(self) -> Dict[str, object]:
        """As JSON, for a note in the state folder."""
        step = None if self.step is None else [original.to_json() for original in self.step]
        files = [original.to_json() for original in self.files]
        return {**self._asdict(), "files": files, "step": step}


def read(state: StateFolder) -> Record:
    """The saved record; a new one where there is none. Raises StateProblem for a damaged note."""
    fields = state.load(NOTE)
    if fields is None:
        return Record()
    try:
        state_now, step = fields.get("state", OFF), fields.get("step")
        if state_now not in (OFF, TRYING, ON, UNDONE):
            raise ValueError("a state that this agent does not know")
        return Record(
            state=state_now,
            why=str(fields.get("why", "")),
            files=tuple(Original.from_json(one) for one in fields.get("files", ())),
            step=None if step is None else tuple(Original.from_json(one) for one in step),
            folders=tuple(str(path) for path in fields.get("folders", ())),
            before=tuple(str(pattern) for pattern in fields.get("before", ())),
            begun=fields.get("begun", True) is True,
        )
    except (TypeError, ValueError):
        raise StateProblem(
            f"{state.folder.path}/{NOTE} is damaged; take it away, and see keyrack-agent doctor"
        ) from None


def observe_first(state: StateFolder) -> None:
    """Let enforcing not begin before the service has said that this host observes; one without modes never says it."""
    if not read(state).files:
        why = "this host was enrolled for observing, and the service has not agreed yet"
        state.save(NOTE, Record(state=UNDONE, why=why, begun=False).to_json())
