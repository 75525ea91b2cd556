"""Says exactly what enforcing would change on this host, before it is done; it changes nothing."""

from __future__ import annotations

import difflib
import itertools
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Set

from keyrack.agent.keys.seen_files import SeenFiles
from keyrack.agent.keys.unmanaged_keys import Scanner
from keyrack.agent.sessions import recent_logins
from keyrack.agent.sshd import config_block, drop_in, keys_command, login_verdict, originals
from keyrack.agent.sshd.enforcement import LASTING_SECONDS
from keyrack.agent.sshd.login_check import LoginCheck
from keyrack.agent.sshd.settings import Effective, Sshd, SshdProblem
from keyrack.agent.sshd.settings_text import SettingLine
from keyrack.agent.sshd.tried_settings import tried
from keyrack.agent.state import Enrolment, StateFolder, StateProblem
from keyrack.agent.system import local, lookup
from keyrack.agent.system.folder import FolderProblem
from keyrack.protocol import host_document
from keyrack.protocol.host_document import HostDocument
from keyrack.protocol.report import AUTHORITY, COMMAND, EVERYBODY, ReportedKey
from keyrack.ssh import public_key
from keyrack.ssh.authorized_keys import key_line

MAX_LINES = 60  # of a section, in a report
_LONGEST = 300
_WAYS_WITHOUT_KEY = {
    "PasswordAuthentication": "whoever knows a password",
    "KbdInteractiveAuthentication": "whoever knows a password",
    "HostbasedAuthentication": "whoever comes from a machine that this host trusts (shosts.equiv, .shosts)",
    "GSSAPIAuthentication": "whoever has a Kerberos ticket for this host",
}


def plan(state: StateFolder, enrolment: Enrolment) -> Iterator[str]:
    """The plan, line by line: which keys stop or start opening accounts, and what changes in sshd's files and settings.

    Raises StateProblem, SshdProblem, FolderProblem or OSError.
    """
    accepted = state.accepted()
    if accepted is None:
        raise StateProblem("no document was accepted yet, so there is nothing to enforce: keyrack-agent run --once")
    document = host_document.decode(accepted.document)
    sshd = Sshd(enrolment.sshd_config)
    decided = local.read(state)
    path = decided.drop_in or drop_in.default_path(sshd.config)
    scanner = Scanner(sshd, enrolment.keys_folder, SeenFiles(state, keeps=False))
    reported_keys = scanner.scan(names=[*document.users, *document.accounts])
    yield f"What enforcing revision {document.revision} would change on this host:"
    yield from _keys(document, reported_keys, decided.chain_keys_command)
    yield from _unseen(scanner)
    settings = drop_in.wanted(
        enrolment.keys_folder, enrolment.revoked_keys, document.sshd, chain=decided.chain_keys_command
    )
    yield from _beyond_keys(state, sshd, path, settings, document, LoginCheck(sshd, enrolment.keys_folder))


def as_reported(
    state: StateFolder, path: str, settings: Mapping[str, str], document: HostDocument, check: LoginCheck, sshd: Sshd
) -> Dict[str, Any]:
    """The plan for a report, without the keys, which a report has already: {"revision": …, "sections": …}, the latter
    as as_object() has them, bounded. path, settings: of the file that enforcing writes. Errors become a section.
    """
    title = f"What enforcing revision {document.revision} would change on this host:"
    try:
        sections = as_object([title, *_beyond_keys(state, sshd, path, settings, document, check)])["sections"]
    except (SshdProblem, FolderProblem, OSError, ValueError) as problem:
        sections = {"This host cannot say": [str(problem)]}
    return {
        "revision": document.revision,
        "sections": {heading: _bounded(lines) for heading, lines in sections.items()},
    }


def _bounded(lines: List[str]) -> List[str]:
    """Up to MAX_LINES lines of up to _LONGEST characters, in ASCII; the last one says how many were left out."""
    plain = [line.expandtabs(4)[:_LONGEST].encode("ascii", "backslashreplace") for line in lines[:MAX_LINES]]
    kept = [line.decode("ascii") for line in plain]
    if len(lines) > MAX_LINES:
        kept[-1] = f"and {len(lines) - MAX_LINES + 1} more lines: keyrack-agent plan"
    return kept


def _beyond_keys(
    state: StateFolder,
    sshd: Sshd,
    path: str,
    settings: Mapping[str, str],
    document: HostDocument,
    check: LoginCheck,
) -> Iterator[str]:
    yield from _unbound(sshd)
    yield from _files(sshd, path, settings)
    yield from _settings(state, sshd, settings, document, check)


def as_object(lines: Iterable[str]) -> Dict[str, Any]:
    """The lines of plan() for programs: {"title": …, "sections": {heading: its lines}}."""
    title, *others = lines
    sections: Dict[str, List[str]] = {}
    for line in others:
        if line.startswith("  "):
            list(sections.values())[-1].append(line[2:])
        elif line:
            sections[line.rstrip(":")] = []
    return {"title": title.rstrip(":"), "sections": sections}


def _keys(document: HostDocument, read: List[ReportedKey], chain: bool) -> Iterator[str]:
    wanted: Dict[str, Set[str]] = {
        name: {public_key.read_canonical(key.public_key).fingerprint for key in keys}
        for name, keys in document.users.items()
    }
    today: Dict[str, Set[str]] = {}
    yield ""
    yield "Keys:"
    count = 0
    for one in read:
        if not one.in_force:
            continue
        today.setdefault(one.username, set()).add(one.fingerprint)
        who = f" ({one.comment})" if one.comment else ""
        if one.kind == COMMAND and chain:
            yield f"  = whoever {one.path} names{who}: AuthorizedKeysCommand goes on being asked, as decided here"
            continue
        if one.kind == COMMAND:
            yield f"  - whoever {one.path} names{who}: AuthorizedKeysCommand would not be asked any more"
        elif one.kind == AUTHORITY:
            whom = "every account" if one.username == EVERYBODY else one.username
            yield f"  - {whom}: whoever {one.fingerprint} certifies ({one.path} line {one.line})"
        elif one.username == EVERYBODY:
            keeps = sorted(name for name, keys in wanted.items() if one.fingerprint in keys)
            left = f", but for {', '.join(keeps)}" if keeps else ""
            yield f"  - every account: {_shown(one)}{left}"
        elif one.fingerprint in wanted.get(one.username, ()):
            continue
        else:
            yield f"  - {one.username}: {_shown(one)}"
        count += 1
    everybody = today.get(EVERYBODY, set())
    for name in sorted(document.users):
        missing = "" if lookup.exists(name) else f" ({lookup.absence(name)})"
        for key in document.users[name]:
            fingerprint = public_key.read_canonical(key.public_key).fingerprint
            if fingerprint not in today.get(name, set()) | everybody:
                line = key_line("", key.options, key.expires_at).strip()
                yield f"  + {name}: {fingerprint} {key.name} {line}".rstrip() + missing
                count += 1
    if not count:
        yield "  no change: the same keys open the same accounts"


def _unseen(scanner: Scanner) -> Iterator[str]:
    """The lines about keys that could not be seen, and that may stop opening accounts too."""
    if scanner.problem or scanner.cut:
        yield ""
        yield "Not seen, so keys there may lose their way in unsaid:"
    if scanner.problem:
        yield f"  {scanner.problem}; seen are those who own a home or are named in sshd's settings or the document"
    for cut in scanner.cut:
        yield f"  {cut.username or 'every account'}: {cut.path or 'all files'}: {cut.why}"


def _unbound(sshd: Sshd) -> Iterator[str]:
    """The lines about other sshds, which enforcing does not change."""
    others = sshd.others()
    if others:
        yield ""
        yield "Not bound by it:"
        yield f"  another sshd, which listens at {others} with settings of its own: keys that it takes go on opening"


def _files(sshd: Sshd, path: str, settings: Mapping[str, str]) -> Iterator[str]:
    yield ""
    yield "Files:"
    before = wanted = originals.read(path).data or b""
    config = originals.read(sshd.config).data or b""
    after = config
    if config_block.is_used(sshd, config):
        after = config_block.put(config, settings, sshd.running.version())
    else:
        wanted = drop_in.render(settings)
        if not drop_in.is_read_first(config, path) and not drop_in.has_include(config):
            after = drop_in.include_line(path) + config
    changed = False
    for name, old, new in ((path, before, wanted), (sshd.config, config, after)):
        for line in difflib.unified_diff(_lines(old), _lines(new), name, name, lineterm="", n=1):
            yield f"  {line}"
            changed = True
    if not changed:
        yield "  no change"


def _settings(
    state: StateFolder, sshd: Sshd, wanted: Mapping[str, str], document: HostDocument, check: LoginCheck
) -> Iterator[str]:
    """The lines about sshd's settings and who could log in: sshd is asked about a copy of its files with Keyrack's."""
    with tried(sshd, wanted, state.folder.path) as copy:
        yield ""
        yield "What sshd would do otherwise:"
        before, after = sshd.effective(), sshd.effective(config=copy)
        changed = False
        named = not keys_command.names_nobody(before.one("AuthorizedKeysCommand"))
        for keyword in wanted:
            if keyword.startswith("AuthorizedKeysCommand") and not named:
                continue  # no program named anybody, and none will
            if before.one(keyword) != after.one(keyword):
                yield f"  {keyword}: {before.one(keyword) or 'none'} -> {after.one(keyword) or 'none'}"
                changed = True
        if not changed:
            yield "  no change"
        recent = recent_logins.read(state, sshd)
        verdicts = check.verdicts(document, copy, recent)
    yield from _other_ways(sshd, wanted, after)
    yield ""
    yield "Who could not log in with a key of Keyrack all the same:"
    count = 0
    for account in verdicts:
        for one in account.judged():
            if account.why or one.why:
                yield f"  {account.username}: {one.fingerprint} {one.key.name}".rstrip() + f": {account.why or one.why}"
                count += 1
    if not login_verdict.opens_for_long(verdicts, LASTING_SECONDS, recent):
        yield "  everybody: no key lets somebody work here for long, so enforcing does not begin"
        yield from (f"  {why}" for why in login_verdict.nobody_words(verdicts, LASTING_SECONDS, recent))
    elif not count:
        yield "  nobody: each key opens its account"


def _other_ways(sshd: Sshd, wanted: Mapping[str, str], after: Effective) -> Iterator[str]:
    """The lines about ways in that need no key, for everybody or below a rule. wanted: what Keyrack sets, which no rule
    changes; after: sshd's settings with it.
    """
    rules = list(itertools.dropwhile(lambda line: line.keyword != "match", sshd.lines()))
    for keyword, who in _WAYS_WITHOUT_KEY.items():
        if after.one(keyword) == "yes":
            yield f"  {keyword} stays on: {who} still logs in without a key"
        elif keyword not in wanted and any(_allows(line, keyword) for line in rules):
            yield f"  {keyword} stays on for those whom a rule (Match) names: {who} still logs in without a key"


def _allows(line: SettingLine, keyword: str) -> bool:
    return line.keyword == keyword.lower() and [value.lower() for value in line.values] == ["yes"]


def _shown(one: ReportedKey) -> str:
    options = f" {one.options}" if one.options else ""
    return f"{one.fingerprint} {one.comment or '(no comment)'}{options} ({one.path} line {one.line})"


def _lines(data: bytes) -> List[str]:
    return data.decode("utf-8", "replace").split("\n")
