"""Takes one key out of a file that was found on this host, and leaves every other byte of it as it is."""

from __future__ import annotations

import os
import pwd
import stat
from typing import Iterable, List, Sequence

from keyrack.agent import as_account, originals
from keyrack.agent.folder import FolderProblem, unsafe_because
from keyrack.agent.found import AUTHORITY, EVERYBODY, KEY, Found
from keyrack.ssh import authorized_keys
from keyrack.ssh.host_document import TakeAway


def take_away(orders: Iterable[TakeAway], found: Sequence[Found]) -> List[str]:
    """Take away what a document names, as far as it was found by this agent itself; answers what went wrong.

    No other path is touched, whatever the document says.
    """
    problems = []
    for order in orders:
        for one in found:
            if (one.path, one.fingerprint) == (order.path, order.fingerprint) and one.kind in (KEY, AUTHORITY):
                try:
                    _rewrite(one)
                except (OSError, FolderProblem, as_account.AccountProblem) as problem:
                    words = problem.strerror if isinstance(problem, OSError) else str(problem)
                    problems.append(f"the key {one.fingerprint} could not be taken out of {one.path}: {words}")
                break
    return problems


def without(data: bytes, fingerprint: str) -> bytes:
    """The file without the lines of one key."""
    gone = {line.line_number for line in authorized_keys.read(data) if line.fingerprint == fingerprint}
    lines = data.split(b"\n")
    return b"\n".join(line for number, line in enumerate(lines, start=1) if number not in gone)


def _rewrite(one: Found) -> None:
    if unsafe_because(os.path.dirname(one.path)) is None:
        now = originals.look(one.path)
        if now.data is not None:
            originals.put(now.path, without(now.data, one.fingerprint), now.mode)
            if now.owner != os.geteuid():
                os.chown(now.path, now.owner, now.group, follow_symlinks=False)
        return
    if one.username == EVERYBODY:
        raise as_account.AccountProblem("others than root can write there; take it away by hand")
    # Invariant 6: not as root in a folder that a user owns.
    as_account.run(pwd.getpwnam(one.username), lambda: _rewrite_as_owner(one.path, one.fingerprint))


def _rewrite_as_owner(path: str, fingerprint: str) -> bytes:
    real = os.path.realpath(path)
    with open(real, "rb") as file:
        data = file.read()
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    temporary = f"{real}.keyrack-{os.urandom(8).hex()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(without(data, fingerprint))
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        os.rename(temporary, real)
    except BaseException:
        os.unlink(temporary)
        raise
    return b""
