"""Tells a person what they pasted instead of a public key, and what to do next; it never quotes it back."""

from __future__ import annotations

import re
from base64 import b64encode
from functools import lru_cache
from typing import List, Pattern

from keyrack.ssh.blob import TYPES
from keyrack.ssh.key_problem import KeyProblem
from keyrack.ssh.wire import string

_PASTE = "Paste the one line of your .pub file: type, key, comment."
_SEVERAL = "There is more than one line or key here. Add the keys one at a time, each as one line."

_CERTIFICATE = re.compile(r"[a-z0-9@.-]+-cert-v0[01]@openssh\.com", re.IGNORECASE)
_DSA_TYPES = ("ssh-dss", "ssh-dss-cert-v01@openssh.com")
# How the first field of an authorized_keys line with options begins (sshd(8), AUTHORIZED_KEYS FILE FORMAT).
_OPTION_WORDS = (
    "agent-forwarding cert-authority command environment expiry-time from no-agent-forwarding "
    "no-port-forwarding no-pty no-touch-required no-user-rc no-X11-forwarding permitlisten permitopen "
    "port-forwarding principals pty restrict tunnel user-rc verify-required X11-forwarding"
)
_OPTION = re.compile(r"[\s,\"']*(?:" + "|".join(_OPTION_WORDS.split()) + r")(?=[=,\s\"']|$)", re.IGNORECASE)
_TYPE_LIKE = re.compile(r"(?:sk-)?(?:ssh|ecdsa|rsa|x509v3|spki|pgp|webauthn)[-_][!-~]{1,64}", re.IGNORECASE)
_CONTAINER = re.compile(r"-{4,5} ?BEGIN ([A-Z0-9 ]{1,60}?) ?-{4,5}")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,20}:|[~/@.]|-[A-Za-z]")
_FINGERPRINT = re.compile(r"(?:\d{3,5} )?(?:SHA256|MD5):\S+|(?:[0-9a-f]{2}:){15}[0-9a-f]{2}")
_PREFIXED = re.compile(r"(?:^|[\s\"'<;,-])(?:" + "|".join(re.escape(name) for name in TYPES) + r")[\s,]")


# A type with the beginning of any blob: its length is below 2**24, so its base64 begins with AAAA.
_TYPE_AND_BLOB = re.compile(r"(?:" + "|".join(re.escape(name) for name in TYPES) + r")[\"']?[\s,;:]+[\"']?AAAA")


def holds_key(text: str, *, after: int = 0) -> bool:
    """Whether a key begins anywhere in `text` (from character `after` on): a type with its base64, or base64 alone."""
    return bool(_blob_start().search(text, after) or _TYPE_AND_BLOB.search(text, after))


@lru_cache(maxsize=None)
def _blob_start() -> Pattern[str]:
    """How the base64 of each type's blob begins, certificates and DSA included."""
    names = [*TYPES, *(f"{name.split('@')[0]}-cert-v01@openssh.com" for name in TYPES), "ssh-dss"]
    starts = []
    for name in names:
        field = string(name.encode("ascii"))
        starts.append(b64encode(field[: len(field) // 3 * 3]).decode("ascii"))
    return re.compile("|".join(map(re.escape, starts)))


def _words(line: str) -> List[str]:
    """At least one word; str.split() would also take no-break blanks and control characters for blanks."""
    return re.split(r"[ \t]+", line.strip(" \t"))


def explain_lines(text: str) -> KeyProblem:
    """What a text of more than one line is instead of a key."""
    container = _explain_container(text)
    if container is not None:
        return container
    lines = [line for line in re.split(r"[\r\n]+", text) if line.strip(" \t")]
    keys = sum(1 for line in lines if holds_key(line))
    if keys == 1 and _words(lines[0])[0] in TYPES and len(_words(lines[0])) == 2 and len(_words(lines[-1])) == 1:
        return KeyProblem(
            "base64",
            "The key is broken over several lines. Paste it as one line, straight from the .pub file.",
        )
    if keys > 1:
        return KeyProblem("several-keys", _SEVERAL)
    if keys == 0:
        return KeyProblem("not-a-key", f"This is not a public key. {_PASTE}")
    return KeyProblem("several-keys", f"There is more than the one line of a public key here. {_PASTE}")


def explain(line: str) -> KeyProblem:
    """What one line, without control characters, is instead of a key whose type Keyrack takes."""
    container = _explain_container(line)
    if container is not None:
        return container
    first = _words(line)[0]
    if first in _DSA_TYPES:
        return KeyProblem(
            "dsa",
            "This is a DSA key, which OpenSSH no longer accepts. Make a new pair with: ssh-keygen -t ed25519",
        )
    if _CERTIFICATE.fullmatch(first):
        return KeyProblem(
            "certificate",
            "This is a certificate, not a public key. Paste the .pub file it was made from (without -cert).",
        )
    if first in TYPES:
        return KeyProblem("not-a-key", "The key itself is missing after the type. " + _PASTE)
    if _OPTION.match(line):
        return KeyProblem(
            "options",
            "This line starts with an option of authorized_keys. Options are set elsewhere, never with the "
            "key: paste the key alone, beginning with its type.",
        )
    return _explain_type(line, first) or _explain_prefix(line, first) or _explain_other(line)


def _explain_container(text: str) -> KeyProblem | None:
    match = _CONTAINER.search(text)
    if match is None:
        if text.startswith("untrusted comment:"):
            return KeyProblem("not-a-key", f"This is a key of minisign or signify, not of SSH. {_PASTE}")
        return None
    what = match.group(1)
    if what == "SSH2 PUBLIC KEY":
        words = "This is a public key in the SSH2 form (RFC 4716). Convert it (ssh-keygen -i -f FILE)."
    elif what == "PUBLIC KEY":
        words = "This is a public key in PEM form. Convert it (ssh-keygen -i -m PKCS8 -f FILE)."
    elif what == "RSA PUBLIC KEY":
        words = "This is a public key in PEM form. Convert it (ssh-keygen -i -m PEM -f FILE)."
    elif what.startswith("PGP"):
        words = "This is a PGP key, not an SSH key."
    elif "CERTIFICATE" in what:
        words = "This is an X.509 certificate or a request for one, not an SSH key."
    else:
        words = "This is not an SSH public key but another kind of file."
    return KeyProblem("certificate" if what == "CERTIFICATE" else "not-a-key", f"{words} {_PASTE}")


def _explain_prefix(line: str, first: str) -> KeyProblem | None:
    """A whole key with something in front of it: taking the key out would be guessing what was meant."""
    if not (_PREFIXED.search(line) and holds_key(line)):
        return None
    if first.startswith(("#", ";", "//")):
        words = "This key is commented out. Remove what stands before its type if you do mean to add it."
    elif first.startswith(("[", "|1|", "@")) or re.fullmatch(r"[A-Za-z0-9.*?!,:-]*[.,:][A-Za-z0-9.*?!,:-]*", first):
        words = "This is a line of a known_hosts file: the key of a host, not of a person."
    elif "namespaces=" in line or "@" in first:
        words = "This is a line of an allowed_signers file."
    elif '="' in first or first.endswith(","):
        words = "This line starts with an option. Options are set elsewhere, never with the key."
        return KeyProblem("options", f"{words} Paste the key alone, beginning with its type.")
    else:
        words = "Something stands before the type of the key."
    return KeyProblem("not-a-key", f"{words} {_PASTE}")


def _explain_type(line: str, first: str) -> KeyProblem | None:
    if first.lower() in TYPES:
        return KeyProblem("unknown-type", f"The type of a key is written exactly: {first.lower()}. {_PASTE}")
    if any(first.startswith(name) and first[len(name)] in "A,;:=" for name in TYPES if len(first) > len(name)):
        return KeyProblem("not-a-key", f"There must be a blank between the type and the key. {_PASTE}")
    if first.startswith(("rsa-sha2-", "webauthn-sk-")):
        return KeyProblem("unknown-type", f"This names a kind of signature, not a type of key. {_PASTE}")
    if _TYPE_LIKE.fullmatch(first) and "AAAA" in line:
        return KeyProblem("unknown-type", "Keys of this type are not accepted. Accepted are: " + ", ".join(TYPES))
    return None


def _explain_other(line: str) -> KeyProblem:
    if line.startswith("AAAA"):
        words = "The type before the key is missing (such as ssh-ed25519)."
    elif _FINGERPRINT.match(line):
        words = "This is the fingerprint of a key, not the key."
    elif line.startswith("#"):
        words = "This is a comment, not a key."
    elif " SSHFP " in line:
        words = "This is a DNS record with a fingerprint, not a key."
    elif _ADDRESS.match(line):
        words = "This is an address or the name of a file; nothing is fetched or opened."
    else:
        words = "This is not an SSH public key."
    return KeyProblem("not-a-key", f"{words} {_PASTE}")
