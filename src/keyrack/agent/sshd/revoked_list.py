"""Says which keys a RevokedKeys file of the host's own refuses, as sshd would; it changes no file.

sshd takes two kinds of file (sshd_config(5), RevokedKeys): one key a line, which is read here, and a KRL, about which
ssh-keygen is asked, as it judges with sshd's own code.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
import stat
from typing import Callable, FrozenSet, Iterable, Set, Tuple

from keyrack.agent.sshd.settings import Effective
from keyrack.agent.sshd.settings_text import SettingLine
from keyrack.agent.system import file_stamp, programs
from keyrack.ssh.line_key import USUAL_RULES, certified, is_certificate, read_key

_KRL = b"SSHKRL\n\0"  # how such a file begins (PROTOCOL.krl)
_REVOKED = " REVOKED"
_KEYS_ASKED = 4096  # answers about KRLs that are remembered, as each takes a process
_NO_LIST, _FILE_OF_THAT_NAME = ("-o", "RevokedKeys=/nonexistent"), "/none"


def none_may_mean_a_file(lines: Iterable[SettingLine]) -> bool:
    """Whether these settings say `RevokedKeys none` below a Match, where sshd takes it for a file of this name."""
    return any(
        line.keyword == "revokedkeys" and [value.lower() for value in line.values] == ["none"]
        for line in itertools.dropwhile(lambda line: line.keyword != "match", lines)
    )


def with_its_file(effective: Effective, asked: Callable[[Tuple[str, ...]], Effective]) -> Effective:
    """An account's settings with the file of revoked keys that sshd really reads, where none_may_mean_a_file(): its
    answer is "none" both for no file and for a file of this name. asked: asks it again with more arguments.
    """
    if effective.one("revokedkeys") != "none" or asked(_NO_LIST).one("revokedkeys") != "none":
        return effective
    return effective.having("revokedkeys", _FILE_OF_THAT_NAME)


def unreadable(path: str) -> str:
    """Why sshd takes no key at all because of this file; empty where it can read it, or no file is set."""
    return _read(path, file_stamp.stamp(path))[2] if _is_set(path) else ""


def problem(path: str, public_key: str) -> str:
    """Why this file refuses a key (type and base64), or why that is unknown; empty where it does not refuse it."""
    if not _is_set(path):
        return ""
    keys, is_krl, _ = _read(path, file_stamp.stamp(path))
    if is_krl:
        return _asked(path, file_stamp.stamp(path), public_key)
    return _words(path) if public_key in keys else ""


def refuses(path: str, public_key: str) -> bool:
    """Whether a key is known to be refused by this file."""
    return problem(path, public_key) == _words(path)


def is_readable(path: str) -> bool:
    """Whether there is such a file that this process may read."""
    return os.path.isfile(path) and os.access(path, os.R_OK)


def _is_set(path: str) -> bool:
    return path not in ("", "none")


def _words(path: str) -> str:
    """Words for a key that this file refuses."""
    return f"it is revoked on this host (RevokedKeys {path})"


@functools.lru_cache(maxsize=4)
def _read(path: str, stamp: object) -> Tuple[FrozenSet[str], bool, str]:
    """A file's keys (each as type and base64), whether it is a KRL, and why it cannot be read (empty if it can).

    stamp: changes whenever the file does, and is only for the cache.
    """
    try:
        data = _bytes(path)
    except OSError as error:
        if os.geteuid() != 0 and isinstance(error, PermissionError):
            return frozenset(), False, ""  # sshd may see more than this process
        return frozenset(), False, f"sshd takes no key while it cannot read its RevokedKeys {path}: {error.strerror}"
    if data.startswith(_KRL):
        return frozenset(), True, ""
    keys: Set[str] = set()
    for number, raw in enumerate(data.split(b"\n"), start=1):
        # As sshkey_in_file (authfile.c): C text ends at NUL, and the first line that is no key ends the search.
        line = raw.split(b"\0", 1)[0].lstrip(b" \t").decode("latin-1")
        if not line or line.startswith("#"):
            continue
        key = read_key(line, USUAL_RULES)
        if key is not None and is_certificate(key):
            key = certified(key)  # revokes the key inside: sshd compares only keys (sshkey_equal_public)
        if key is None or key.fingerprint is None:
            where = f"RevokedKeys {path} line {number}"
            return frozenset(keys), False, f"sshd takes no key because of {where}, which is neither a key nor a comment"
        keys.add(f"{key.type} {key.encoded}")
    return frozenset(keys), False, ""


def _bytes(path: str) -> bytes:
    """A file's bytes. Raises OSError, also where it is no regular file: at a pipe sshd itself would wait for ever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) and path != os.devnull:
            raise OSError(errno.EINVAL, "it is no regular file")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def _asked(path: str, stamp: object, public_key: str) -> str:
    """What ssh-keygen says about a key and a KRL, as problem() answers it."""
    program = programs.find("ssh-keygen")
    if program is None:
        # Not cached: the program may be installed at any time.
        return f"whether it is revoked cannot be known: RevokedKeys {path} is a KRL, and ssh-keygen was not found"
    try:
        return _answer(program, path, stamp, public_key)
    except _NoAnswer as problem:
        return f"whether it is revoked cannot be known: {problem}"


class _NoAnswer(Exception):
    """ssh-keygen gave no answer that may be cached; the words say why."""


@functools.lru_cache(maxsize=_KEYS_ASKED)
def _answer(program: str, path: str, stamp: object, public_key: str) -> str:
    """Ask ssh-keygen. Raises _NoAnswer."""
    # Its status is the same for a revoked key and for errors, so its output counts.
    ended = programs.run([program, "-Q", "-f", path, "/dev/stdin"], stdin=public_key.encode("ascii") + b"\n")
    if ended.status is None or ended.status < 0:
        raise _NoAnswer(ended.errors if ended.status is None else f"{program} was ended from outside")
    said = ended.output.strip()
    if ended.status == 0:
        return ""
    if said.endswith(_REVOKED):
        return _words(path)
    why = " ".join(ended.errors.split())[:200]
    return f"sshd takes no key while it cannot read its RevokedKeys {path}: {why}"
