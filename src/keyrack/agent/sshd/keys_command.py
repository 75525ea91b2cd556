"""Which AuthorizedKeysCommand lets nobody in, and which one Keyrack gives to sshd for that; it runs nothing.

sshd takes `none` for the path of a program: it says for each key that it refuses that it cannot ask it (seen with 9.2
and 10.0, `AuthorizedKeysCommandUser` beside it or not). Leaving the keyword out would let in whom a command names that
the host is given later. true(1) names no key, and sshd says nothing about it.
"""

from __future__ import annotations

import os
import pwd
from typing import Dict, Optional

NONE = "none"
_TRUE = ("/usr/bin/true", "/bin/true")


def silent() -> Dict[str, str]:
    """The settings by which sshd asks no program that could name a key, keyword to value."""
    program = next((path for path in _TRUE if os.path.isfile(path)), None)
    account = _account()
    if program is None or account is None:
        return {"AuthorizedKeysCommand": NONE}
    return {"AuthorizedKeysCommand": program, "AuthorizedKeysCommandUser": account}


def names_nobody(command: str) -> bool:
    """Whether this value of AuthorizedKeysCommand lets nobody in."""
    return command in ("", NONE, *_TRUE)


def _account() -> Optional[str]:
    """Who runs it: an sshd that is not root's can start it only as itself."""
    try:
        return pwd.getpwnam("nobody").pw_name if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return None
