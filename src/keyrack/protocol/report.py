"""What an agent tells the service, as the one writes and the other reads it; it believes nothing and changes nothing.

A host that observes says "adopt" on the wire, where it enrols (`mode`) and in its facts (`enforcement`), as the host
document does (host_document.py): an older service knows no other word. A reader takes "observe" for the same.
"""

from __future__ import annotations

from keyrack.protocol.host_document import OBSERVE

_OBSERVE_ON_THE_WIRE = "adopt"


def wire_word(word: str) -> str:
    """A mode or an enforcement as it is told: "adopt" for "observe", the others as they are."""
    return _OBSERVE_ON_THE_WIRE if word == OBSERVE else word


def read_word(word: object) -> object:
    """A told mode or enforcement as it is called here: "observe" for "adopt", anything else as it was told."""
    return OBSERVE if word == _OBSERVE_ON_THE_WIRE else word
