"""Asks a running sshd which public keys it would take for an account; it logs nobody in and writes no file.

A client may ask for a key before it signs with it (RFC 4252 section 7): sshd answers from what it has really read,
not from what a file says. No private half is needed for that, and none is here: ssh is given public keys alone.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import secrets
import tempfile
from typing import FrozenSet, List, NamedTuple, Sequence, Tuple

from keyrack.agent.sshd import places
from keyrack.agent.system import programs
from keyrack.ssh import wire
from keyrack.ssh.fingerprint import PATTERN as FINGERPRINT
from keyrack.ssh.printable import printable

NO_SSH = "the program ssh was not found; install OpenSSH's client (openssh-client)"
ASK_SECONDS = 30.0
_CONNECT_SECONDS = 10
# An old ssh (seen with 7.6) names the key in a line of its own, at the next debug level.
_ACCEPTED = re.compile(rf"(?:debug1: Server accepts key: .*|debug2: input_userauth_pk_ok: fp )({FINGERPRINT})")
_WAS_ASKED = "debug1: Authentications that can continue"
_RSA_BITS = 4096
_MEMORY = ("/dev/shm", "/run")  # noqa: S108 - file systems in memory; mkstemp makes new files alone
# No IdentityAgent, which ssh before 7.3 does not know: without SSH_AUTH_SOCK and a settings file there is none anyway.
_OPTIONS = (
    "BatchMode=yes",
    "IdentitiesOnly=yes",
    "PreferredAuthentications=publickey",
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
    "GlobalKnownHostsFile=/dev/null",
    "UpdateHostKeys=no",
    "ControlPath=none",
    "LogLevel=DEBUG2",
    f"ConnectTimeout={_CONNECT_SECONDS}",
)


class ProbeResult(NamedTuple):
    """An sshd's answer. reached: whether it could be asked; accepted: the fingerprints of keys that it accepts; words:
    why it could not be asked.
    """

    reached: bool
    accepted: FrozenSet[str] = frozenset()
    words: str = ""


def ask(address: Tuple[str, int], username: str, keys: Sequence[str], source: str = "") -> ProbeResult:
    """Offer sshd these public keys (type and base64), in this order, for a login as an account.

    source: an address of this machine to connect from, where sshd's rules need it; empty for any.
    """
    program = programs.find("ssh")
    if program is None:
        return ProbeResult(reached=False, words=NO_SSH)
    host, port = address
    given = [program, "-vv", "-T", "-F", "/dev/null", "-p", str(port), "-l", username]
    for option in _OPTIONS:
        given += ["-o", option]
    if source:
        given += ["-b", source]
    elif host.startswith("127."):
        given += ["-b", places.asking_address()]
    descriptors: List[int] = []
    try:
        for key in keys:
            # In memory, so that it works with a full disk.
            descriptor = _file_in_memory()
            descriptors.append(descriptor)
            os.write(descriptor, f"{key}\n".encode("ascii"))
            given += ["-i", f"/proc/{os.getpid()}/fd/{descriptor}"]
        ended = programs.run([*given, "--", host, "exit"], seconds=ASK_SECONDS)
    except OSError as error:
        return ProbeResult(reached=False, words=error.strerror or "it could not be asked")
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    if ended.status is None or ended.status < 0:
        return ProbeResult(
            reached=False, words=printable(ended.errors)[:200] if ended.status is None else "ssh was ended"
        )
    accepted = frozenset(_ACCEPTED.findall(ended.errors))
    if not accepted and _WAS_ASKED not in ended.errors:
        said = [
            line for line in ended.errors.split("\n") if line.strip() and not line.startswith(("debug1:", "debug2:"))
        ]
        return ProbeResult(reached=False, words=printable(said[-1] if said else "it did not answer")[:200])
    return ProbeResult(reached=True, accepted=accepted)


def _file_in_memory() -> int:
    """A descriptor of a new file in memory, without a name. Raises OSError."""
    with contextlib.suppress(AttributeError, OSError):
        return os.memfd_create("keyrack")
    # Linux before 3.17, as of RHEL 7.
    folder = next((path for path in _MEMORY if os.access(path, os.W_OK | os.X_OK)), _MEMORY[0])
    descriptor, path = tempfile.mkstemp(prefix="keyrack-", dir=folder)
    os.unlink(path)
    return descriptor


def key_without_owner(accepts_ed25519: bool) -> str:
    """A public key without a private key: random bytes in the form of one.

    sshd only compares it with the keys in its files, and does not compute with it until a client signs.
    """
    if accepts_ed25519:
        kind, parts = b"ssh-ed25519", [secrets.token_bytes(32)]
    else:
        number = secrets.randbits(_RSA_BITS) | 1 | 1 << (_RSA_BITS - 1)
        kind, parts = b"ssh-rsa", [b"\x01\x00\x01", b"\0" + number.to_bytes(_RSA_BITS // 8, "big")]
    blob = b"".join(wire.string(part) for part in (kind, *parts))
    return f"{kind.decode('ascii')} {base64.b64encode(blob).decode('ascii')}"
