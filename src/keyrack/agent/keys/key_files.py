"""Turns a checked document into the files that sshd reads, and keeps them so; it asks neither sshd nor the service.

sshd is told `AuthorizedKeysFile <keys folder>/%u` and `RevokedKeys <file>`. It reads both at each login,
so a file in place is in force, and no login waits for anything but the disk (Invariants 4 and 5).
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

from keyrack.agent.keys.ends import IN_UTC, EndForm, Ends
from keyrack.agent.system import labels
from keyrack.agent.system.folder import PUBLIC_FILE, PUBLIC_FOLDER, Folder, why_not
from keyrack.protocol.host_document import AuthorizedKey, HostDocument
from keyrack.ssh import authorized_keys, revoked_keys
from keyrack.ssh.printable import printable

_LARGEST_SURPRISE = 2 * 1024 * 1024
# As key_line writes it: the last option. Within another one's value its quote would be escaped.
_END = re.compile(rb'^expiry-time="[0-9]+Z?" |,expiry-time="[0-9]+Z?"(?= )', re.MULTILINE)


class Rendered(NamedTuple):
    """The bytes of every file that a document asks for. users: the key files, by account name."""

    users: Dict[str, bytes]
    revoked: bytes


class KeyFilesOutcome(NamedTuple):
    """What writing the files did. changed: paths that were written or removed; problems: what could not be done, in
    words; put_back: what else somebody had changed on this host, in words.
    """

    changed: Tuple[str, ...]
    problems: Tuple[str, ...]
    put_back: Tuple[str, ...] = ()


def render(document: HostDocument, ends: Ends = IN_UTC) -> Rendered:
    """The files of a document. ends: how the running sshd reads the ends of keys."""
    local = dict(ends.local)
    users = {}
    for username, keys in document.users.items():
        lines = (_line(key, ends, local) for key in keys)
        users[username] = authorized_keys.render(line for line in lines if line is not None)
    return Rendered(users, revoked_keys.render(document.revoked))


def differ_by_ends(current: bytes, wanted: bytes, whole: bytes) -> bool:
    """Whether a key file differs from what is wanted only by how its ends are written, or by keys of the whole document
    that have ended.
    """
    lines, wanted_lines, all_lines = (set(_END.sub(b"", data).split(b"\n")) for data in (current, wanted, whole))
    return wanted_lines <= lines <= all_lines


def _line(key: AuthorizedKey, ends: Ends, local: Mapping[int, Optional[str]]) -> Optional[str]:
    """A key's line; None where the key must not be in force now, because its end has passed or cannot be written."""
    # Invariant 5: the end of a key stands in its line, where sshd itself enforces it.
    if key.expires_at is None or ends.form is EndForm.UTC:
        return authorized_keys.key_line(key.public_key, key.options, key.expires_at)
    moment = authorized_keys.end_of(key.expires_at)
    if moment in ends.ended:
        return None
    if ends.form is EndForm.ABSENT:
        return authorized_keys.key_line(key.public_key, key.options)
    text = local.get(moment)
    if text is None:
        return None
    return authorized_keys.key_line(key.public_key, (*key.options, authorized_keys.expiry_option(text)))


class KeyFiles:
    """The folder of key files, where every file is Keyrack's, and the folder that holds the file of revoked keys."""

    def __init__(self, keys: Folder, revoked: Folder, revoked_name: str) -> None:
        self._keys = keys
        self._revoked = revoked
        self._revoked_name = revoked_name

    @classmethod
    def open(cls, keys_folder: str, revoked_keys_file: str, *, create: bool = False) -> KeyFiles:
        """Open both places, absolute paths. Raises FolderProblem or OSError."""
        keys = Folder.open(keys_folder, PUBLIC_FOLDER, create=create)
        try:
            revoked = Folder.open(os.path.dirname(revoked_keys_file), PUBLIC_FOLDER, create=create)
        except BaseException:
            keys.close()
            raise
        return cls(keys, revoked, os.path.basename(revoked_keys_file))

    def close(self) -> None:
        """Let go of both folders."""
        self._keys.close()
        self._revoked.close()

    def prepare(self) -> None:
        """Make an empty file of revoked keys where there is none: without one, sshd lets nobody in."""
        if self._revoked_name not in self._revoked.names():
            self._revoked.write(self._revoked_name, revoked_keys.render(()), PUBLIC_FILE)
            self._revoked.sync()

    def put(self, rendered: Rendered) -> KeyFilesOutcome:
        """Write these files and remove all others. Goes on after an error: a problem with one file must not keep a
        revoked key in another. A file that could not be changed keeps its old bytes.
        """
        # Invariant 7: revoked keys are refused before new ones are let in.
        revoked = [self._put_one(self._revoked, self._revoked_name, rendered.revoked)]
        revoked.append(self._finish(self._revoked, revoked))
        users = [self._put_one(self._keys, username, data) for username, data in rendered.users.items()]
        users += self._clear_others(rendered)
        users.append(self._let_pass())
        users.append(self._finish(self._keys, users))
        # The next document may remove keys: on a full disk too there must be room to write it.
        self._revoked.keep_reserve(max(map(len, (rendered.revoked, *rendered.users.values()))))
        changed = tuple(path for one in (*revoked, *users) for path in one.changed)
        problems = tuple(words for one in (*revoked, *users) for words in one.problems)
        unlabelled = labels.restore([path for path in changed if os.path.exists(path)])
        return KeyFilesOutcome(changed, (*problems, unlabelled) if unlabelled else problems)

    def differences(self, rendered: Rendered) -> List[str]:
        """The paths of files that differ from these, are missing, or do not belong there. May raise OSError."""
        different = [
            os.path.join(self._keys.path, username)
            for username, data in rendered.users.items()
            if not self._keys.holds(username, data)
        ]
        if not self._revoked.holds(self._revoked_name, rendered.revoked):
            different.append(os.path.join(self._revoked.path, self._revoked_name))
        others = set(self._keys.names()).difference(rendered.users)
        return different + [os.path.join(self._keys.path, name) for name in sorted(others)]

    def changed_files(self, rendered: Rendered) -> Dict[str, bytes]:
        """The bytes of key files that differ from these or do not belong there, by name; without unreadable ones."""
        changed = {}
        try:
            names = self._keys.names()
        except OSError:
            return {}
        for name in names:
            wanted = rendered.users.get(name)
            if wanted is None or not self._keys.holds(name, wanted):
                with contextlib.suppress(OSError):
                    changed[name] = self._keys.read(name, _LARGEST_SURPRISE)
        return changed

    def clear(self) -> None:
        """Remove all files, when the agent is uninstalled: only once sshd no longer reads them. May raise OSError."""
        for name in self._keys.names():
            if not self._keys.is_folder(name):
                self._keys.remove(name)
        self._keys.sweep()
        if self._revoked_name in self._revoked.names():
            self._revoked.remove(self._revoked_name)
        self._revoked.sweep()
        self._revoked.drop_reserve()

    def _put_one(self, folder: Folder, name: str, data: bytes) -> KeyFilesOutcome:
        # A correct file is not written again.
        if folder.holds(name, data):
            return _AS_IT_WAS
        path = os.path.join(folder.path, name)
        try:
            folder.write(name, data, PUBLIC_FILE, reserve=self._revoked)
        except OSError as error:
            return _problem(path, "could not be written, and stays as it was", error)
        return KeyFilesOutcome((path,), ())

    def _let_pass(self) -> KeyFilesOutcome:
        """Let every account enter the folder: sshd reads key files as the account that logs in."""
        try:
            return KeyFilesOutcome((self._keys.path,), ()) if self._keys.let_pass() else _AS_IT_WAS
        except OSError as error:
            return _problem(self._keys.path, "lets nobody but root pass", error)

    def _clear_others(self, rendered: Rendered) -> List[KeyFilesOutcome]:
        """Remove every file that the document does not ask for: sshd would read it as an account's keys."""
        try:
            others = [name for name in self._keys.names() if name not in rendered.users]
        except OSError as error:
            return [_problem(self._keys.path, "could not be listed", error)]
        return [self._clear_one(name) for name in others]

    def _clear_one(self, name: str) -> KeyFilesOutcome:
        path = os.path.join(self._keys.path, name)
        try:
            if self._keys.is_folder(name):
                words = f"{printable(path)} is a folder, and does not belong here; take it away"
                return KeyFilesOutcome((), (words,))
            self._keys.remove(name)
        except FileNotFoundError:
            return _AS_IT_WAS
        except OSError as error:
            return _problem(path, "could not be removed", error)
        return KeyFilesOutcome((path,), ())

    @staticmethod
    def _finish(folder: Folder, outcomes: Iterable[KeyFilesOutcome]) -> KeyFilesOutcome:
        """Sync a folder if it was changed, so that the change survives a power cut."""
        try:
            folder.sweep()
            if any(one.changed for one in outcomes):
                folder.sync()
        except OSError as error:
            return _problem(folder.path, "could not be made safe against a power cut", error)
        return _AS_IT_WAS


_AS_IT_WAS = KeyFilesOutcome((), ())


def _problem(path: str, what: str, error: OSError) -> KeyFilesOutcome:
    return KeyFilesOutcome((), (f"{printable(path)} {what}: {why_not(path, error)}",))
