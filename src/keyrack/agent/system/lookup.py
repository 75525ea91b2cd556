"""Looks an account up by its name, and tells "there is none" from "no answer"; it changes nothing.

Python's getpwnam does not tell them apart, and some directory services (SSSD without its server, or as Fedora builds
it) answer a plain no while they are away. So on a host with a directory service, a no only means "not now".
"""

from __future__ import annotations

import ctypes
import errno
import os
import pwd
from typing import Optional

from keyrack.agent.system.account_names import directories

_NONE = (0, errno.ENOENT, errno.ESRCH, errno.EBADF, errno.EPERM)  # getpwnam_r(3): the name was not found
_FILE = "/etc/passwd"
_LARGEST_FILE = 1 << 26


def account(name: str) -> Optional[pwd.struct_passwd]:
    """The account of this name that this host knows now, or None."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def exists(name: str) -> bool:
    """Whether this host knows such an account now."""
    return account(name) is not None


def absence(name: str) -> str:
    """Words for an account for which account() answered None."""
    sources = directories("passwd")
    if not sources:
        return "this host has no such account"
    asked = f"nsswitch.conf: {', '.join(sources)}"
    if is_unanswered(name):
        return f"nobody knows now whether this host has such an account: its directory does not answer ({asked})"
    return f"this host has no such account now, by its own files and its directory ({asked})"


def is_unanswered(name: str) -> bool:
    """Whether a directory service that may have this account did not answer. False may be wrong: see above."""
    if not directories("passwd"):
        return False
    try:
        getpwnam = ctypes.CDLL(None, use_errno=True).getpwnam_r
    except (OSError, AttributeError):
        return False
    # Only the status is used, so the record is just a buffer that is large enough for struct passwd.
    record, strings, result = ctypes.create_string_buffer(512), ctypes.create_string_buffer(1 << 16), ctypes.c_void_p()
    status = getpwnam(os.fsencode(name), record, strings, ctypes.c_size_t(len(strings)), ctypes.byref(result))
    return not result.value and status not in (*_NONE, errno.ERANGE)


def is_of_a_directory(name: str) -> bool:
    """Whether an existing account comes from a directory service: it is not in this host's own /etc/passwd."""
    if not directories("passwd"):
        return False
    try:
        with open(_FILE, "rb") as file:
            text = b"\n" + file.read(_LARGEST_FILE)
    except OSError:
        return False
    return b"\n" + os.fsencode(name) + b":" not in text
