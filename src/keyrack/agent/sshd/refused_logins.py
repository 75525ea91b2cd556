"""Says for a report, for each account, whether a key of Keyrack's would open it, and which rule prevents it; it changes
nothing.

The judgement is login_check's, as for enforcing, `plan` and `doctor`. This module adds only whether sshd reads
Keyrack's file for the account, and can read it.
"""

from __future__ import annotations

import itertools
import os
import re
from typing import Any, Dict, Iterable, Optional, Tuple

from keyrack.agent.keys.unmanaged_keys import expand
from keyrack.agent.sshd import file_access
from keyrack.agent.sshd.login_check import LoginCheck
from keyrack.agent.sshd.settings import Effective, Sshd
from keyrack.agent.sshd.settings_text import SettingLine
from keyrack.agent.system import lookup
from keyrack.agent.system.account_names import LocalAccount
from keyrack.agent.system.mounts import Mounts
from keyrack.protocol.host_document import HostDocument

_UNKNOWN_TOKEN = re.compile(r"^(?:[^%]|%[%hUu])*%(?![%hUu])")
MAX_ACCOUNTS, MAX_KEYS = 200, 50  # reported at most; keys of each account


def as_reported(
    check: LoginCheck, sshd: Sshd, document: HostDocument, reads: Optional[str] = None
) -> Dict[str, Dict[str, Any]]:
    """An entry for each account of the document, and for root: {"why": why no key opens it} or {"keys": {fingerprint:
    why this key does not open it}}, or {} where all keys open it.

    reads: the folder whose files sshd must read; None where that is not to be checked. Raises SshdProblem.
    """
    users = {name: tuple(document.users.get(name, ())) for name in _names(document)}
    lines = sshd.lines() if reads is not None else ()
    unreadable = file_access.hindrances(reads) if reads is not None else None

    def beside(username: str, answer: Effective) -> str:
        if reads is None or unreadable is None:
            return ""
        return unread(username, answer, lines, reads) or unreadable(username)

    entries: Dict[str, Dict[str, Any]] = {}
    for verdict in check.judge(users, document.revoked, everywhere=True, beside=beside):
        if verdict.why:
            entries[verdict.username] = {"why": verdict.why}
            continue
        refused = {one.fingerprint: one.why for one in itertools.islice(verdict.judged(), MAX_KEYS) if one.why}
        entries[verdict.username] = {"keys": refused} if refused else {}
    return entries


def unread(username: str, effective: Effective, lines: Iterable[SettingLine], folder: str) -> str:
    """Words for an account whose file of Keyrack's sshd does not read; empty where it reads it."""
    account = lookup.account(username)
    if account is None:
        return lookup.absence(username)  # removed since it was judged
    local = LocalAccount(username, account.pw_uid, account.pw_gid, account.pw_dir, account.pw_shell)
    patterns = effective.patterns("authorizedkeysfile", lines)
    # Compared with links resolved: a folder may have several names.
    named = f"{folder}/{username}"
    ours = os.path.realpath(named)
    mounts = Mounts()
    for pattern in patterns:
        if _UNKNOWN_TOKEN.match(pattern):
            return f"sshd breaks off every login: AuthorizedKeysFile {pattern} has a token that it does not know"
        path = expand(pattern, local)
        # A link whose target may hang is not resolved; it does not lead to Keyrack's folder.
        if path is not None and (path == named or (not mounts.may_hang(path) and os.path.realpath(path) == ours)):
            return ""
    return f"sshd does not read Keyrack's file (AuthorizedKeysFile {' '.join(patterns) or 'none'})"


def _names(document: HostDocument) -> Tuple[str, ...]:
    present = (name for name, account in sorted(document.accounts.items()) if account.present)
    return tuple(itertools.islice(dict.fromkeys(("root", *sorted(document.users), *present)), MAX_ACCOUNTS))
