"""Turns text into a public key or says why not; the only place where one is made (Invariant 1).

In all of the code `public_key` is text: what somebody gave, until it is parsed, and from then on the canonical line.
A parsed PublicKey is called `key`.

What it checks, in this order: (1) it is text, and short; (2) it is one line without control, direction or invisible
characters; (3) the first field is a known type, exactly; (4) the second is canonical base64; (5) the blob has that same
type inside, exact lengths, shortest numbers and nothing after its end; (6) the numbers are sound: points in the right
group, RSA without a known weakness; (7) the comment is short and hides no second key (looked for before (4)). A text
that fails, and every comment, is also checked for a private key; that error then replaces all others. The caller must
check for keys whose private half is known (known_private.py), and its own policy.
"""

from __future__ import annotations

import binascii
import re
from typing import NamedTuple

from keyrack.ssh.blob import PRIVATE_KEY, TYPES, read_blob
from keyrack.ssh.fingerprint import of_blob
from keyrack.ssh.key_problem import KeyProblem
from keyrack.ssh.names import hidden_character
from keyrack.ssh.not_a_key import explain, explain_lines, holds_key
from keyrack.ssh.private_key import looks_private

__all__ = ["TYPES", "KeyProblem", "PublicKey", "fingerprint_of", "parse", "read_canonical"]

_FIELDS = re.compile(r"([^ \t]+)[ \t]+([^ \t]+)(?:[ \t]+(.+))?", re.DOTALL)
_LONGEST_COMMENT = 1024  # bytes of UTF-8
_ODD_BLANK = re.compile(r"[^\S\t]")
_COPY_AGAIN = "Copy the whole line from your .pub file again."
_BLANKS_FOR_PLUS = (
    "The key has blanks where its + were, as a form reads a + that is not encoded. "
    "Send each + as %2B (with curl: --data-urlencode), or send JSON."
)
_MAX_PARTS = 200  # the longest key has some 45 of them, and a comment takes few


class PublicKey(NamedTuple):
    """A sound public key. Two are equal when type and blob are: the comment is only for people."""

    type: str
    blob: bytes
    bits: int
    comment: str = ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and (self.type, self.blob) == (other.type, other.blob)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((self.type, self.blob))

    @property
    def canonical(self) -> str:
        """The canonical line, type and base64 with one blank between: the only form stored, compared and delivered."""
        return f"{self.type} {_encode(self.blob)}"

    @property
    def with_comment(self) -> str:
        """The canonical line and the comment, as in a .pub file; for showing, never for a host."""
        return f"{self.canonical} {self.comment}" if self.comment else self.canonical

    @property
    def fingerprint(self) -> str:
        """The fingerprint as `ssh-keygen -l` prints it: SHA256: and base64 without padding."""
        return of_blob(self.blob)

    @property
    def md5(self) -> str:
        """The old fingerprint as `ssh-keygen -l -E md5` prints it: MD5: and pairs of hex digits with colons."""
        import hashlib  # loads OpenSSL, 4 MB and 5 ms, which a host's agent does without

        return "MD5:" + hashlib.md5(self.blob, usedforsecurity=False).digest().hex(":")


def parse(public_key: object, *, max_bytes: int = 16384) -> PublicKey:
    """The public key in a line as in a .pub file, of at most `max_bytes` bytes; else raises KeyProblem.

    Reads no file and no network, and changes nothing, so the agent may call it from inside its archive.
    """
    # (1) It is text, and short.
    if not isinstance(public_key, str):
        raise KeyProblem("not-text", "The public key must be text: the one line of your .pub file.")
    if len(public_key) > max_bytes or len(public_key.encode("utf-8", "surrogatepass")) > max_bytes:
        raise KeyProblem(
            "too-long",
            f"This is longer than {max_bytes} bytes, more than a key. Paste only the line of your .pub file.",
        )
    try:
        key = _read(public_key)
    except KeyProblem:
        # Whatever else is wrong with it, the owner of a private key must learn that it is one.
        if looks_private(public_key):
            raise KeyProblem("private-key", PRIVATE_KEY) from None
        raise
    if key.comment and looks_private(key.comment):
        raise KeyProblem("private-key", PRIVATE_KEY)
    return key


def _read(line: str) -> PublicKey:
    # (2) It is one line without control, direction or invisible characters.
    line = line.strip(" \t\r\n")
    if not line:
        raise KeyProblem("empty", "There is no public key here. Paste the one line of your .pub file.")
    if "\n" in line or "\r" in line:
        raise explain_lines(line)
    hidden = hidden_character(line.replace("\t", " "))
    if hidden is not None:
        raise KeyProblem(
            "control-characters",
            f"This contains {hidden}, which a public key never does. {_COPY_AGAIN}",
        )
    odd = _ODD_BLANK.search("".join(line.split(" ")[:2]))
    if odd is not None:
        where = "Behind the type" if line.partition(odd[0])[0] in TYPES else "In the key, or behind it,"
        raise KeyProblem(
            "control-characters",
            f"{where} stands U+{ord(odd[0]):04X}, which looks like a blank and is none. {_COPY_AGAIN}",
        )
    # (3) The first field is a known type, exactly.
    fields = _FIELDS.fullmatch(line)
    if fields is None or fields.group(1) not in TYPES:
        raise explain(line)
    key_type, encoded, comment = fields.group(1), fields.group(2), fields.group(3) or ""
    # (7) Of the comment: it hides no second key. Before (4), so that two pasted keys are reported as two.
    if holds_key(f"{encoded} {comment}", after=4):  # after the beginning of the first one
        raise KeyProblem("several-keys", "There is more than one key on this line. Add them one at a time.")
    try:
        # (4) The second is canonical base64.
        blob = _decode(encoded)
        # (5) The blob has that type inside, exact lengths, nothing after its end; (6) the numbers are sound.
        bits = read_blob(key_type, blob)
    except KeyProblem as problem:
        if problem.code in ("base64", "malformed") and _came_by_a_form(key_type, line):
            raise KeyProblem("base64", _BLANKS_FOR_PLUS) from None
        raise
    # (7) The comment is short.
    _check_comment(comment)
    return PublicKey(key_type, blob, bits, comment)


def read_canonical(public_key: str) -> PublicKey:
    """The key in what `PublicKey.canonical` made earlier; raises KeyProblem when it is not in that very form.

    Checks everything but the mathematics, which `parse` did before the line was stored or signed: so that a
    thousand RSA keys are read in milliseconds.
    """
    key_type, _, encoded = public_key.partition(" ")
    if key_type not in TYPES:
        raise KeyProblem("unknown-type", "The text does not start with a known key type.")
    blob = _decode(encoded)
    return PublicKey(key_type, blob, read_blob(key_type, blob, mathematics=False))


def fingerprint_of(public_key: str) -> str:
    """The SHA-256 fingerprint of a canonical line that was checked before, without checking it again."""
    return of_blob(binascii.a2b_base64(public_key.split(" ")[1]))


def _encode(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def _decode(encoded: str) -> bytes:
    """Base64 in its one canonical form: decoding and encoding again must give the very same text."""
    try:
        blob = binascii.a2b_base64(encoded)
    except ValueError:  # binascii.Error too; plain ValueError for characters outside ASCII
        blob = b""
    if not blob or _encode(blob) != encoded:
        raise KeyProblem(
            "base64",
            "The key part is not valid base64: it was cut off or changed when it was copied. " + _COPY_AGAIN,
        )
    return blob


def _came_by_a_form(key_type: str, line: str) -> bool:
    """Whether the key is whole once blanks in it are + again, as which a form reads a + that nobody encoded."""
    parts = line.split(" ")[1:_MAX_PARTS]
    for count in range(2, len(parts) + 1):
        try:
            read_blob(key_type, _decode("+".join(parts[:count])), mathematics=False)
        except KeyProblem:
            continue
        return True
    return False


def _check_comment(comment: str) -> None:
    if "\t" in comment:
        raise KeyProblem("control-characters", "The comment after the key contains a tab. Replace it with a blank.")
    if len(comment.encode("utf-8")) > _LONGEST_COMMENT:
        raise KeyProblem(
            "comment",
            f"The comment after the key is longer than {_LONGEST_COMMENT} bytes. Shorten or remove it.",
        )
