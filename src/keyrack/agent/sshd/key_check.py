"""Judges one key of an account, check (3) of login_check.py: options, type, size, end, and lists of revoked keys; must
not judge the account itself (login_check.py does) nor ask sshd.
"""

from __future__ import annotations

import os
import time
from typing import Callable, Iterable, Tuple

from keyrack.agent.sshd import revoked_list
from keyrack.agent.sshd.running import TAKES_PATTERNS, UNKNOWN
from keyrack.agent.sshd.settings import Effective
from keyrack.agent.system import lookup
from keyrack.protocol.host_document import AuthorizedKey
from keyrack.ssh import line_options, public_key
from keyrack.ssh.options import split_option

_NO_WORK = ("git-shell", "rssh", "scponly", "sftp-server")  # shells that only transfer files
_RSA_SIGNATURES = ("ssh-rsa", "rsa-sha2-256", "rsa-sha2-512")
_TELLS_SIGNATURES = (9, 6)  # first OpenSSH that offers clients only the signature algorithms it accepts
_VERIFY = "verify-required"
Version = Callable[[], Tuple[int, int]]
"""Answers the version of the sshd that runs; called only where it matters, as it may have to ask a program."""


def problem(key: AuthorizedKey, effective: Effective, name: str, revoked: "set[str]", version: Version) -> str:
    """Why one key does not open an account, from whatever address; empty where it does.

    effective: sshd's settings for the account; name: the account; revoked: revoked keys, as type and base64.
    """
    return (
        _file_problem(name, version)
        or _key_problem(key, effective, name, revoked)
        or _options_problem(key, version)
        or _signature_problem(key, effective, version)
    )


def sources(key: AuthorizedKey) -> str:
    """The addresses that a key may be used from (its option `from`); empty for any."""
    return _value(key.options, "from")


def command(key: AuthorizedKey) -> str:
    """The command that runs instead of the client's (its option `command`); empty where the client may choose."""
    return _value(key.options, "command")


def is_bound(effective: Effective, name: str) -> bool:
    """Whether sshd or the account's shell restricts the account to one command (such as transferring files) or to a
    folder, so that nobody can repair the host through it.
    """
    if any(effective.one(keyword) not in ("", "none") for keyword in ("forcecommand", "chrootdirectory")):
        return True
    account = lookup.account(name)
    return account is not None and os.path.basename(account.pw_shell) in _NO_WORK


def must_verify(key: AuthorizedKey, effective: Effective) -> bool:
    """Whether sshd requires that the key's security key verified its user (PIN); the public key does not tell whether
    it can.
    """
    if not key.public_key.startswith("sk-"):
        return False
    return _VERIFY in key.options or _VERIFY in effective.one("pubkeyauthoptions").replace(",", " ").split()


def _value(options: Iterable[str], name: str) -> str:
    for option in options:
        if option.lower().startswith(f"{name}="):
            return split_option(option)[1] or ""
    return ""


def _options_problem(key: AuthorizedKey, version: Version) -> str:
    """Why sshd refuses the whole line because of an option, such as one that its version does not know yet."""
    if not key.options:
        return ""
    running = version()
    if running == UNKNOWN:
        return ""
    reason = line_options.parse(",".join(key.options), version=running).problem
    if reason is None:
        return ""
    options = ", ".join(option.partition("=")[0] for option in key.options)
    return f"OpenSSH {running[0]}.{running[1]} refuses its line, as {reason} ({options})"


def _file_problem(name: str, version: Version) -> str:
    """Why sshd does not read an account's file of Keyrack's: it takes the name put for %u as part of a glob pattern."""
    if "\\" in name and version() >= TAKES_PATTERNS:
        return (
            "sshd takes the \\ in its name for a part of a pattern since OpenSSH 10.0, and reads no file of this name"
        )
    return ""


def _key_problem(key: AuthorizedKey, effective: Effective, name: str, revoked: "set[str]") -> str:
    """Why one key does not open an account, by its type, size and end, and by lists of revoked keys."""
    parsed = public_key.read_canonical(key.public_key)
    if key.expires_at is not None and key.expires_at.timestamp() <= time.time():
        return "its end has come"
    if parsed.canonical in revoked:
        return "it is revoked on this host"
    listed = revoked_list.problem(effective.one("revokedkeys"), parsed.canonical)
    if listed:
        return listed
    taken = effective.one("pubkeyacceptedalgorithms") or effective.one("pubkeyacceptedkeytypes")
    signatures = _RSA_SIGNATURES if parsed.type == "ssh-rsa" else (parsed.type,)
    if taken and not set(signatures) & set(taken.split(",")):
        return f"sshd does not take its type (PubkeyAcceptedAlgorithms has no {parsed.type})"
    # Before 8.5 the list named key types, and ssh-rsa included the newer signatures.
    of_signatures = effective.one("pubkeyacceptedalgorithms").split(",")
    if "ssh-rsa" in of_signatures and not set(_RSA_SIGNATURES[1:]) & set(of_signatures) and parsed.type == "ssh-rsa":
        return "sshd takes it with SHA-1 alone, as no ssh since 8.8 signs (PubkeyAcceptedAlgorithms has no rsa-sha2)"
    least = effective.one("requiredrsasize")
    if parsed.type == "ssh-rsa" and least.isdecimal() and parsed.bits < int(least):
        return f"it has {parsed.bits} bits, and sshd wants {least} (RequiredRSASize)"
    forced = any(option.lower().startswith("command=") for option in key.options)
    if effective.one("permitrootlogin") == "forced-commands-only" and not forced and _is_root(name):
        return "sshd lets root in with a forced command only (PermitRootLogin forced-commands-only)"
    return ""


def _signature_problem(key: AuthorizedKey, effective: Effective, version: Version) -> str:
    """Why a client cannot use an RSA key although sshd accepts one of its signature algorithms.

    A client signs once for a key, with the first of rsa-sha2-512 and rsa-sha2-256 that sshd offers. Since 9.6 sshd
    offers only the algorithms that it accepts, and those of the certificates that it accepts.
    """
    taken = effective.one("pubkeyacceptedalgorithms").split(",")
    if "rsa-sha2-256" not in taken or "rsa-sha2-512" in taken or not key.public_key.startswith("ssh-rsa "):
        return ""
    if version() >= _TELLS_SIGNATURES and "rsa-sha2-512-cert-v01@openssh.com" not in taken:
        return ""
    return "ssh signs with rsa-sha2-512, which sshd does not take (PubkeyAcceptedAlgorithms has no rsa-sha2-512)"


def _is_root(name: str) -> bool:
    account = lookup.account(name)
    return account is not None and account.pw_uid == 0
