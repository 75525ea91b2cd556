"""Checks this host and says in words what is wrong and what to do about it; it changes nothing."""

from __future__ import annotations

import os
import time
from typing import Callable, Generator, Iterator, List, NamedTuple, Sequence

from keyrack.agent.desired_state import ending_earlier
from keyrack.agent.keys.ends import EndForm, EndWriter, form_of, moments_of
from keyrack.agent.keys.key_files import KeyFiles, render
from keyrack.agent.service import signature
from keyrack.agent.service.client import AddressProblem, NoAnswer, ServiceClient, seconds_ahead
from keyrack.agent.sshd import enforcement, enforcement_record, keys_command, listening, read_settings
from keyrack.agent.sshd.login_check import LoginCheck
from keyrack.agent.sshd.running import UNKNOWN
from keyrack.agent.sshd.settings import Effective, Sshd, SshdProblem
from keyrack.agent.state import Enrolment, StateFolder, StateProblem
from keyrack.agent.system import alone, local, programs
from keyrack.agent.system.folder import FolderProblem
from keyrack.protocol import document_words, host_document
from keyrack.ssh.printable import printable

SILENT_SECONDS = 180.0  # the service answers at least every half minute
CLOCK_SECONDS = 5.0

_ENFORCEMENT = {
    enforcement_record.OFF: (
        "this host observes: it reports who gets in and changes nothing",
        "",
    ),
    enforcement_record.TRYING: ("enforcing is on trial, and is taken back unless all is well until its end", ""),
    enforcement_record.ON: ("this host enforces: Keyrack's key files alone let in ({path})", ""),
    enforcement_record.UNDONE: (
        "enforcing was undone: {why}",
        "sshd has its own settings again; when that is mended, ask the service for observing and then for enforcing",
    ),
}
_BESIDE = (
    ("TrustedUserCAKeys", "all whom an authority there certifies", "put into its settings: TrustedUserCAKeys none"),
    ("AuthorizedKeysCommand", "all whom it names", "take AuthorizedKeysCommand out of its settings"),
)
_OFFLINE = {
    document_words.KEEP_ALL: "keys stay as they are (keep)",
    document_words.DROP_TEMPORARY: "temporary keys are dropped, lasting ones stay (drop-temporary)",
    document_words.DROP_ALL: "ALL keys are dropped, and nobody gets in (drop-all)",
}


class Checked(NamedTuple):
    """One finding. fine: whether it is good; words: what was found; remedy: what to do, empty where nothing is wrong.
    The field names are those of --json.
    """

    fine: bool
    words: str
    remedy: str = ""

    def __str__(self) -> str:
        mark = "ok  " if self.fine else "BAD "
        return f"{mark} {printable(self.words)}" + (f"\n     -> {printable(self.remedy)}" if self.remedy else "")


def status(state: StateFolder, enrolment: Enrolment) -> List[Checked]:
    """The agent's status by its own notes."""
    noted = state.status()
    running = state.in_use()
    meanwhile = "" if running else _ends_meanwhile(state, enrolment)
    findings = [
        Checked(True, f"this is host {enrolment.host}, server {enrolment.server_name}, of {enrolment.url}"),
        Checked(
            running,
            "the agent is running" if running else "the agent is not running",
            "" if running else f"start it: keyrack-agent run. Until then changes do not arrive; {meanwhile}",
        ),
    ]
    if noted.revision:
        findings.append(Checked(True, f"revision {noted.revision} is in force since {_ago(noted.applied_at)}"))
    else:
        findings.append(Checked(False, "no revision is in force yet", "the agent puts the first in place when it runs"))
    if noted.service == "ok":
        fresh = time.time() - noted.contact_at < SILENT_SECONDS
        findings.append(Checked(fresh, f"the service answered {_ago(noted.contact_at)}"))
    elif noted.service:
        last = f"; it last answered {_ago(noted.contact_at)}" if noted.contact_at else ""
        findings.append(Checked(False, f"the service: {noted.service}{last}", "what is in force here stays in force"))
    findings.extend(Checked(False, words, "until that is mended, new documents may wait") for words in state.full())
    findings.extend(_how_held(state))
    findings.extend(Checked(False, problem) for problem in noted.problems)
    return findings


def _ends_meanwhile(state: StateFolder, enrolment: Enrolment) -> str:
    """What happens to ends of keys while the agent does not run, in words."""
    if _has_ends(state) and form_of(Sshd(enrolment.sshd_config)) is EndForm.ABSENT:
        return "and keys whose end comes go on opening, as this sshd knows no ends"
    return "ends of keys still hold"


def _how_held(state: StateFolder) -> Iterator[Checked]:
    """Whether this host observes or enforces, what silence of the service means, what its administrator allows."""
    try:
        decided, undecided = local.read_with_problem(state)
        record = enforcement_record.read(state)
        accepted = state.accepted()
        document = None if accepted is None else host_document.decode(accepted.document)
    except (StateProblem, host_document.DocumentError) as problem:
        yield Checked(False, str(problem))
        return
    if undecided:
        yield Checked(False, undecided, f"mend {local.FILE}, and start the agent again")
    if decided.drop_in is not None:
        words, remedy = _ENFORCEMENT[record.state]
        # Where sshd knows no Include, there is no file of ours.
        path = decided.drop_in if os.path.exists(decided.drop_in) else "settings in sshd_config"
        yield Checked(record.state != enforcement_record.UNDONE, words.format(why=record.why, path=path), remedy)
    if decided.only is not None:
        yield Checked(True, f"the service may speak for these accounts alone: {', '.join(decided.only)}")
    if decided.allow_accounts:
        yield Checked(True, "the service may create and remove accounts")
    if document is not None and document.offline_policy.after_seconds:
        after, then = document.offline_policy
        yield Checked(True, f"after {after} seconds without the service: {_OFFLINE[then]}")


def examine(state: StateFolder, enrolment: Enrolment) -> Iterator[Checked]:
    """Check everything that a login depends on, one finding after another."""
    yield from status(state, enrolment)
    for check in (_check_other_agents, _check_document, _check_ends, _check_sshd, _check_service):
        yield from check(state, enrolment)


def _check_other_agents(state: StateFolder, enrolment: Enrolment) -> Iterator[Checked]:
    """Whether an agent with another state folder manages the same files; the later one of the two does not run."""
    try:
        decided = local.read(state)
    except StateProblem:
        return  # said already
    for place in alone.places(enrolment, decided):
        keeper = alone.keeper(place)
        if keeper not in ("", state.folder.path):
            yield Checked(
                False,
                f"another agent, whose folder is {keeper}, minds {place}: this one does not run beside it",
                f"take one of them away: keyrack-agent uninstall --state-dir {keeper}",
            )


def _check_document(state: StateFolder, enrolment: Enrolment) -> Iterator[Checked]:
    try:
        accepted = state.accepted()
        if accepted is None:
            yield Checked(False, "no document was accepted yet", "start the agent: keyrack-agent run")
            return
        signature.check(enrolment.signing_key, accepted.document, accepted.signature)
        document = host_document.decode(accepted.document)
        yield Checked(True, f"the document of revision {document.revision} is the service's, and well-formed")
        document = ending_earlier(document, state.status().ends_earlier)
        files = KeyFiles.open(enrolment.keys_folder, enrolment.revoked_keys)
        try:
            different = files.differences(render(document, EndWriter(Sshd(enrolment.sshd_config)).ends_of(document)))
        finally:
            files.close()
    except (StateProblem, signature.DocumentSignatureProblem, host_document.DocumentError, FolderProblem) as problem:
        yield Checked(False, str(problem))
    except OSError as error:
        path = error.filename or state.folder.path
        yield Checked(False, f"{path}: {error.strerror}", "the running agent makes missing files again")
    else:
        if not different:
            yield Checked(True, f"the key files in {enrolment.keys_folder} are as the document says")
        for path in different:
            yield Checked(False, f"{path} is not as the document says", "the running agent puts it back")


def _check_ends(state: StateFolder, enrolment: Enrolment) -> Iterator[Checked]:
    """How the running sshd reads the ends of keys, and what that means while the agent does not run."""
    sshd = Sshd(enrolment.sshd_config)
    version = sshd.running.version()
    if version == UNKNOWN:
        yield Checked(False, "sshd does not say which OpenSSH it is", "install OpenSSH's server (openssh-server)")
        return
    name = f"OpenSSH {version[0]}.{version[1]}"
    form = form_of(sshd)
    if form is EndForm.UTC:
        yield Checked(True, f"{name} reads ends of keys in UTC")
    elif form is EndForm.LOCAL:
        yield Checked(
            True,
            f"{name} reads ends of keys in local time ({sshd.running.zone().name}): they are written so, and hold "
            "while nothing of Keyrack runs, as long as the time zone stays",
        )
    else:
        yield Checked(
            state.in_use() or not _has_ends(state),
            f"{name} cannot read ends of keys: the agent takes each key away at its end. While it does not run, a key "
            "that has ended still opens its account",
            "keep the agent running, or update OpenSSH to 7.7 or newer",
        )


def _has_ends(state: StateFolder) -> bool:
    """Whether a key of the document in force has an end."""
    try:
        accepted = state.accepted()
        return accepted is not None and bool(moments_of(host_document.decode(accepted.document)))
    except (StateProblem, host_document.DocumentError):
        return True


def _check_sshd(state: StateFolder, enrolment: Enrolment) -> Iterator[Checked]:
    if programs.find("sshd") is None:
        yield Checked(False, "sshd was not found", "install OpenSSH's server (openssh-server)")
        return
    sshd = Sshd(enrolment.sshd_config)
    try:
        effective = sshd.effective()
    except SshdProblem as problem:
        yield Checked(False, f"sshd's settings cannot be read: {problem}", "repair them, or run this as root")
        return
    yield from _check_listeners(sshd)
    observes = yield from _check_drop_in(state, enrolment)
    if observes:
        return
    yield from _check_logins(state, enrolment)
    yield from _check_settings(enrolment, effective, effective.patterns("authorizedkeysfile", sshd.lines()))
    yield from _check_other_ways(state, effective)


def _check_settings(enrolment: Enrolment, effective: Effective, patterns: Sequence[str]) -> Iterator[Checked]:
    """Whether sshd reads Keyrack's files. patterns: of AuthorizedKeysFile."""
    wanted = f"{enrolment.keys_folder}/%u"
    yield _setting("AuthorizedKeysFile", effective, wanted, lambda value: wanted in patterns)
    yield _setting("RevokedKeys", effective, enrolment.revoked_keys, lambda value: value == enrolment.revoked_keys)
    if effective.one("exposeauthinfo"):  # unknown before 7.6
        yield _setting("ExposeAuthInfo", effective, "yes", lambda value: value == "yes")


def _check_other_ways(state: StateFolder, effective: Effective) -> Iterator[Checked]:
    """Who can log in beside Keyrack's keys, where sshd's settings are made by hand. The agent's own settings let nobody
    else in, except by an AuthorizedKeysCommand that the administrator chained.
    """
    try:
        is_managed = local.read(state).drop_in is not None
    except (StateProblem, OSError):
        return  # said already
    for keyword, whom, remedy in () if is_managed else _BESIDE:
        value = effective.one(keyword)
        if not keys_command.names_nobody(value):
            words = f"sshd has {keyword} {value}: {whom} get in beside Keyrack's keys, and no document ends that"
            yield Checked(False, words, remedy)


def _check_listeners(sshd: Sshd) -> Iterator[Checked]:
    """Whether sshd runs, and only one. What it has read is not asked here: that needs writing to key files, which only
    the running agent does.
    """
    if not listening.can_be_seen():
        yield Checked(True, "whether sshd is running cannot be seen on this system")
        return
    listeners = sshd.listeners()
    if not listeners:
        yield Checked(False, "sshd is not running: nobody listens where it should", "start it: systemctl start ssh")
        return
    places = ", ".join(f"{one.address} port {one.port}" for one in listeners)
    given = sshd.running.arguments()
    said = f", and was started with {' '.join(given)}" if given else ""
    yield Checked(True, f"sshd listens at {places}{said}")
    if read_settings.changed_since_read(sshd, listeners):
        yield Checked(
            False,
            "sshd's settings changed after the sshd that runs had read them: it may do otherwise than is said here",
            "have it read them: systemctl reload ssh",
        )
    gone = sshd.restart_problem()
    if gone:
        yield Checked(False, gone, "put its program back, or start another one: systemctl restart ssh")
    others = sshd.others()
    if others:
        yield Checked(
            False, f"another sshd listens at {others}: Keyrack does not bind it", "stop it, or give it no keys"
        )


def _check_logins(state: StateFolder, enrolment: Enrolment) -> Iterator[Checked]:
    """Whether each key of the document opens its account, and if not, by which rule."""
    try:
        accepted = state.accepted()
        if accepted is None:
            return
        document = ending_earlier(host_document.decode(accepted.document), state.status().ends_earlier)
        speaks_for = local.read(state).speaks_for
        document = document._replace(users={name: keys for name, keys in document.users.items() if speaks_for(name)})
        verdicts = LoginCheck(Sshd(enrolment.sshd_config), enrolment.keys_folder).verdicts(document)
    except (StateProblem, SshdProblem, host_document.DocumentError, OSError) as problem:
        yield Checked(False, str(problem))
        return
    opening = 0
    for verdict in verdicts:
        if verdict.why:
            yield Checked(False, verdict.words)
            continue
        for one in verdict.judged():
            opening += not one.why
            if one.why:
                name = f" ({one.key.name})" if one.key.name else ""
                yield Checked(False, f"the key {one.fingerprint}{name} does not open {verdict.username}: {one.why}")
    if opening:
        yield Checked(True, f"{opening} keys open accounts of this host")


def _check_drop_in(state: StateFolder, enrolment: Enrolment) -> Generator[Checked, None, bool]:
    """Whether sshd has the settings of enforcing, for every account. Answers whether this host only observes."""
    try:
        decided, record, accepted = local.read(state), enforcement_record.read(state), state.accepted()
        if decided.drop_in is None or accepted is None:
            return False
        if record.state in (enforcement_record.OFF, enforcement_record.UNDONE):
            yield Checked(True, "sshd's settings are this host's own: nothing of Keyrack decides who logs in")
            return True
        held = enforcement.Enforcement(state, enrolment, decided.drop_in, lambda words: None)
        missing = held.missing(held.settings(host_document.decode(accepted.document)))
    except (StateProblem, SshdProblem, host_document.DocumentError, OSError) as problem:
        yield Checked(False, str(problem))
        return False
    for words in missing:
        yield Checked(
            False, words, "Keyrack's settings must be read before all others; the running agent puts them back"
        )
    if not missing:
        yield Checked(True, "sshd obeys the document for every account")
    return False


def _setting(keyword: str, effective: Effective, wanted: str, check: Callable[[str], bool]) -> Checked:
    value = effective.one(keyword)
    if value and check(value):
        return Checked(True, f"sshd has {keyword} {value}")
    return Checked(False, f"sshd has {keyword} {value or 'none'}", f"put into its settings: {keyword} {wanted}")


def _check_service(state: StateFolder, enrolment: Enrolment) -> Iterator[Checked]:
    try:
        client = ServiceClient(
            enrolment.url, enrolment.secret, plain_http=True, ca_file=enrolment.ca_file, proxy=enrolment.proxy
        )
        answer = client.get(f"/agent/v1/document?revision={state.status().revision}&wait=0")
    except (NoAnswer, AddressProblem) as problem:
        yield Checked(False, f"the service does not answer: {problem}", f"is {enrolment.url} right, and does it run?")
        return
    client.close()
    if answer.status in (200, 204):
        yield Checked(True, f"{enrolment.url} answers this host")
    else:
        yield Checked(False, f"the service refuses this host: {answer.words}", "enrol it again with --replace")
    seconds = seconds_ahead(answer.date)
    if seconds is not None and abs(seconds) > CLOCK_SECONDS:
        yield Checked(
            False,
            f"this host's clock is {abs(seconds):.0f} seconds {'ahead' if seconds > 0 else 'behind'}",
            "set it right (timedatectl set-ntp true): keys end by this clock where it is ahead",
        )


def _ago(moment: float) -> str:
    seconds = max(0, int(time.time() - moment))
    at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))
    for name, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length:
            return f"{at} ({seconds // length} {name}s ago)"
    return f"{at} ({seconds} seconds ago)"
