"""Says for which accounts sshd cannot read the key file, which it reads with the account's rights; it changes nothing.

A folder that only root may enter (as after `chmod 700 /etc/ssh`), or an access list (setfacl) that denies access, shuts
out every account but root, although the files are as the document says.
"""

from __future__ import annotations

import errno
import os
from typing import Callable, Dict, List

from keyrack.agent.keys import account_tasks
from keyrack.agent.system import lookup

_RIGHTS = "system.posix_acl_access"
_PASS, _READ = 0o011, 0o044  # of the group and of all others
_LANE = -4  # the queue of this module's tasks (account_tasks.py)


def hindrances(folder: str) -> Callable[[str], str]:
    """A function that says for an account why sshd cannot read its file in this folder, empty where it can. It
    remembers its answers: make a new one for each check.
    """
    real = os.path.realpath(folder)
    is_open = all(_lets_all(place, _PASS) for place in _above(os.path.join(real, "name")))
    known: Dict[str, str] = {}

    def hindrance(name: str) -> str:
        if name not in known:
            path = os.path.join(real, name)
            usual = os.geteuid() != 0 or (is_open and _lets_all(path, _READ))
            known[name] = "" if usual else _asked(path, name)
        return known[name]

    return hindrance


def _asked(path: str, name: str) -> str:
    """Try to read an account's file with its rights. Answers why that fails, empty where it does not."""
    account = lookup.account(name)
    if account is None or account.pw_uid == 0:
        return ""
    task = account_tasks.Task(account.pw_uid, account.pw_gid, name, lambda: _read(path), lane=_LANE)
    (answer,) = account_tasks.run([task])
    if not answer.ended or not answer.problem:
        return ""
    return (
        "sshd cannot read its file of keys, which it reads with the account's rights: "
        f"{answer.problem}; look at ls -ld and getfacl"
    )


def _read(path: str) -> None:
    """Open a file to read. Raises PermissionError that names the folder or file which denies it."""
    for place, inside in zip(_above(path), [*_above(path)[1:], path]):  # noqa: B905 - not in Python 3.9
        try:
            os.stat(inside)
        except PermissionError:
            raise PermissionError(errno.EACCES, f"{place} does not let it pass") from None
        except FileNotFoundError:
            return
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except PermissionError:
        raise PermissionError(errno.EACCES, f"{path} is not its to read") from None


def _above(path: str) -> List[str]:
    """Every folder above an absolute path, from the top."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[:count]) or "/" for count in range(1, len(parts) + 1)]


def _lets_all(path: str, rights: int) -> bool:
    """Whether the mode gives these rights to everybody and no access list takes them away. True for a missing file."""
    try:
        if os.stat(path).st_mode & rights != rights:
            return False
    except OSError:
        return True
    try:
        return not (hasattr(os, "getxattr") and os.getxattr(path, _RIGHTS))
    except OSError:  # it has none, or its file system knows none
        return True
