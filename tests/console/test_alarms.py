"""Every kind of what needs somebody: its sentence says who and what, its action leads to where it is settled, there it
is settled, and then it is gone, and said as settled.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect
from sqlalchemy import insert, text, update

from keyrack.core.audit import chain, webhooks
from keyrack.core.hosts import (
    copies,
    database_rollback,
    documents,
    enrolment,
    reports,
    server_list,
    servers,
    system_users,
)
from keyrack.core.instance import Instance
from keyrack.core.keys import credentials, damaged_rows, key_sources, key_sync, requests, revocation, user_keys
from keyrack.core.people import actors, users
from keyrack.core.schema_check import SchemaCheck
from keyrack.model import Actor, Server
from keyrack.ssh.public_key import parse
from keyrack.store import tables
from keyrack.store.keys import key_sources as source_rows
from tests.console.conftest import SignedIn
from tests.console.keyboard import Keyboard
from tests.core.keys_for_tests import fresh_line
from tests.core.test_unmanaged_keys import entry
from tests.services import Service, running, settings_for

KEYRACK = actors.system_actor(1)
RUNS = {one: f"run={one * 16}; boot=; machine=; keys=; starts=1; lane=follow; number=1; name={one}" for one in "ab"}


class Team:
    """The service as the tests bring things about in it. numbers: by the name of a kind what it made."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.instance: Instance = service.instance
        self.lines: dict[str, str] = {}

    def host(self, name: str) -> Server:
        """The host of a kind, enrolled, once."""
        for one in server_list.find(self.instance, KEYRACK, search=name, limit=1).items:
            return servers.get(self.instance, KEYRACK, one.id)
        made = servers.create(self.instance, KEYRACK, name=name, address="192.0.2.77", mode="enforce")
        system_users.create(self.instance, KEYRACK, made.id, username="deploy")
        enrolment.enrol(self.instance, servers.invite(self.instance, KEYRACK, made.id), {}, address="192.0.2.77")
        self.report(name)
        return servers.get(self.instance, KEYRACK, made.id)

    def report(self, name: str, **more: Any) -> None:
        """What the host's agent says, and that it obeys."""
        (host,) = server_list.find(self.instance, KEYRACK, search=name, limit=1).items
        server = servers.get(self.instance, KEYRACK, host.id)
        report = {"revision": server.revision, "state": "applied", "keys_found": [], "problems": [], **more}
        reports.ingest(self.instance, server, report)

    def line(self, name: str) -> str:
        """The key of a kind."""
        return self.lines.setdefault(name, fresh_line(name))

    def actor(self, name: str) -> Actor:
        """Somebody of the team."""
        user = next(one for one in users.find(self.instance, KEYRACK) if one.name == name)
        return actors.of_user(user, address="127.0.0.1", channel="console")

    def alter(self, statement: Any) -> None:
        """Write past Keyrack."""
        self.instance.database.write(lambda connection: connection.execute(statement) and None)


Step = Callable[[Team, Page], object]


def press(name: str, role: Any = "button") -> Step:
    """Press what has this name."""
    return lambda team, page: page.get_by_role("main").get_by_role(role, name=name, exact=True).first.click()


def tell(name: str, **more: Any) -> Step:
    """The host says so."""
    return lambda team, page: team.report(name, **more)


@dataclass(frozen=True)
class Kind:
    """begins: brings it about; says: what its sentence holds; names: what the page holds that its action leads to; way:
    the role and the name of what leads out there, or words that say what to do; settles: the steps from that page on;
    is_told: whether it is said as settled afterwards; told: in which other words.
    """

    begins: Callable[[Team], object]
    says: str
    names: str
    way: tuple[str, str]
    settles: tuple[Step, ...]
    is_shown_settled: bool = True
    settled_as: str = ""


def says(name: str, **more: Any) -> Callable[[Team], None]:
    """The host is there and says so."""

    def begins(team: Team) -> None:
        team.host(name)
        team.report(name, **more)

    return begins


def two_host_keys(team: Team) -> None:
    team.host("strange-1")
    for _ in range(2):
        team.report("strange-1", host_keys={"port": 22, "keys": [fresh_line()]})


def two_machines(team: Team) -> None:
    number = team.host("copied-1").id
    for run in "aba":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(copies, "LATE", timedelta(0))
            try:
                copies.contact(
                    team.instance, number, copies.read(RUNS[run]), address="192.0.2.1", arrived=team.instance.now()
                )
            except Exception:  # the third contact is refused: that is the alarm
                assert run == "a"


def enforcing_undone(team: Team) -> None:
    team.host("undone-1")
    for facts in ({"enforcement": "enforce"}, {"enforcement": "undone", "undone": "nobody could log in"}):
        team.report("undone-1", facts=facts)


def damaged_credential(team: Team) -> None:
    number = team.host("damaged-1").id
    made = credentials.add(team.instance, KEYRACK, number, label="ci", username="deploy", public_key=team.line("ci"))
    table = tables.credentials
    team.alter(update(table).where(table.c.id == made.id).values(public_key=parse(fresh_line()).canonical))
    documents.signed(team.instance, number)


def row_sealed_again(team: Team) -> None:
    number = team.host("resealed-1").id
    made = credentials.add(team.instance, KEYRACK, number, label="job", username="deploy", public_key=fresh_line())
    table = tables.credentials
    team.alter(update(table).where(table.c.id == made.id).values(label="other"))
    damaged_rows.reseal(team.instance, KEYRACK, [f"credential:{made.id}"])


def glass_broken(team: Team) -> None:
    number = team.host("glass-1").id
    line = team.line("vault")
    if not credentials.find(team.instance, KEYRACK, number, search="vault").items:
        terms: dict[str, Any] = {"username": "deploy", "public_key": line, "break_glass": True}
        credentials.add(team.instance, KEYRACK, number, label="vault", **terms)
    at = team.instance.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    used = {"fingerprint": parse(line).fingerprint, "at": at, "address": "203.0.113.7", "user": "deploy"}
    team.report("glass-1", last_used=[used])


def event_entered(team: Team) -> None:
    chain.extend(team.instance)
    team.alter(
        text(
            "INSERT INTO events (workspace_id, at, actor_name, token_name, address, channel, action, outcome, reason, "
            "target_kind, summary, level, details) SELECT workspace_id, at, actor_name, token_name, address, channel, "
            "action, outcome, reason, target_kind, 'made up', 'info', details FROM events ORDER BY id LIMIT 1"
        )
    )
    chain.extend(team.instance)


def trigger_there(team: Team) -> None:
    team.alter(text("CREATE TRIGGER evil BEFORE DELETE ON tokens BEGIN SELECT RAISE(IGNORE); END"))
    SchemaCheck().go_on(team.instance)


def account_gone(team: Team) -> None:
    source = key_sources.put(team.instance, KEYRACK, "bob", "github", account="bob-elsewhere")
    gone = key_sync._gone(source)
    words = {"state": gone.state, "words": gone.words, "checked_at": team.instance.now()}
    team.instance.database.write(lambda connection: source_rows.change(connection, source.id, words))


def webhook_failing(team: Team) -> None:
    made = webhooks.create(team.instance, KEYRACK, url="https://alerts.example.org/keyrack", level="alarm")
    at = team.instance.now()
    values = {"webhook_id": made.webhook.id, "state": "failed", "attempts": 9, "words": "nobody answered"}
    team.alter(insert(tables.webhook_deliveries).values(**values, created_at=at, next_at=at))


def request_waits(team: Team) -> None:
    team.host("asked-1")
    requests.ask(
        team.instance, team.actor("alice"), server="asked-1", system_user="deploy", reason="the disk", duration="1h"
    )


def key_that_ends(team: Team) -> None:
    user_keys.add(
        team.instance,
        team.actor("alice"),
        title="ends-soon",
        public_key=team.line("ends"),
        expires_at=team.instance.now() + timedelta(days=2),
    )


def credential_that_ends(team: Team) -> None:
    number = team.host("ending-1").id
    credentials.add(
        team.instance,
        KEYRACK,
        number,
        label="short",
        username="deploy",
        public_key=fresh_line(),
        expires_at=team.instance.now() + timedelta(days=2),
    )
    team.report("ending-1")


def revoked(team: Team) -> None:
    number = team.host("revoked-1").id
    line = team.line("revoked")
    credentials.add(team.instance, KEYRACK, number, label="lost", username="deploy", public_key=line)
    team.report("revoked-1")
    revocation.revoke_everywhere(team.instance, KEYRACK, parse(line).fingerprint)


def unmanaged(team: Team) -> None:
    team.host("found-1")
    team.report("found-1", keys_found=[entry(team.line("found"), comment="old-laptop")])


def silent(team: Team) -> None:
    number = team.host("silent-1").id
    table = tables.servers
    team.alter(update(table).where(table.c.id == number).values(seen_at=team.instance.now() - timedelta(hours=3)))


def behind(team: Team) -> None:
    number = team.host("behind-1").id
    credentials.add(team.instance, KEYRACK, number, label="new", username="deploy", public_key=fresh_line())


COMMAND = re.compile("`keyrack |On the command line|keyrack (hosts|audit)")
CONFIRM, SETTLE = press("Confirm the host key"), press("It is settled…")
ANOTHER_END = (
    lambda team, page: page.get_by_label("Ends").first.select_option("90 days"),
    press("Set the end…"),
    press("Set the end"),
)
KINDS = {
    "host key": Kind(
        two_host_keys,
        "host strange-1 shows a host key",
        "Its host key is not the one",
        ("button", "Confirm the host key…"),
        (press("Confirm the host key…"), CONFIRM),
    ),
    "document refused": Kind(
        says("refusing-1", state="refused", problems=["bad signature"]),
        "host refusing-1 refuses its document",
        "bad signature",
        ("button", "Show the installation line"),
        (tell("refusing-1"),),
    ),
    "document failed": Kind(
        says("full-1", state="failed", problems=["no space left"]),
        "host full-1 cannot apply its document",
        "no space left",
        ("", "make room there"),
        (tell("full-1"),),
    ),
    "audit log": Kind(
        says("log-1", problems=["the audit log had 9 records, has 3"]),
        "host log-1 does not find the audit log as it was",
        "the audit log had 9 records",
        ("", "rm /var/lib/keyrack-agent/checkpoint.json"),
        (tell("log-1"),),
    ),
    "enforcing undone": Kind(
        enforcing_undone,
        "enforcing was undone on undone-1",
        "nobody could log in",
        ("link", "Enforce again"),
        (press("Leave it observing", "link"), press("Stop enforcing")),
    ),
    "two machines": Kind(
        two_machines,
        "two machines use the identity of copied-1",
        "two machines use the identity",
        ("button", "Its copy is gone…"),
        (press("Its copy is gone…"), press("The copy is gone")),
    ),
    "database went back": Kind(
        lambda team: database_rollback.note_diverged(team.instance, team.host("astray-1").id, 4711),
        "astray-1: the host obeyed what this database does not know",
        "What astray-1 refused",
        ("", "The database is right, and the host is not"),
        (
            lambda team, page: page.get_by_text("The database is right, and the host is not").click(),
            press("Hold nothing back…"),
            press("Hold nothing back"),
        ),
        settled_as="host astray-1 obeys revision 4711",
    ),
    "damaged row": Kind(
        damaged_credential,
        "The credential",
        "was changed in the database",
        ("link", "To the damaged rows"),
        (
            press("To the damaged rows", "link"),
            lambda team, page: page.get_by_role("button", name=re.compile("^Remove credential:")).click(),
            lambda team, page: page.get_by_role("button", name=re.compile("^Remove credential:")).click(),
            lambda team, page: expect(page.get_by_text("is removed.")).to_be_visible(),
            tell("damaged-1"),
        ),
    ),
    "row sealed again": Kind(
        row_sealed_again,
        "Sealed the damaged row",
        "as it stands",
        ("button", "It is settled…"),
        (SETTLE, press("It is settled")),
    ),
    "broken glass": Kind(
        glass_broken,
        "glass broken:",
        "glass-1 from 203.0.113.7",
        ("button", "It is settled…"),
        (SETTLE, press("It is settled")),
    ),
    "an event that others entered": Kind(
        event_entered,
        "was entered in the database, not by Keyrack",
        "gets no place",
        ("button", "It is settled…"),
        (SETTLE, press("It is settled")),
    ),
    "a trigger": Kind(
        trigger_there,
        "trigger evil on tokens",
        "trigger evil on tokens",
        ("", "known_triggers"),
        (lambda team, page: team.alter(text("DROP TRIGGER evil")),),
    ),
    "an account elsewhere": Kind(
        account_gone,
        "keys of bob are no longer kept in step",
        "There is no account bob-elsewhere",
        ("button", "Take no more keys from bob-elsewhere"),
        (press("Take no more keys from bob-elsewhere"), press("Take no more keys")),
        is_shown_settled=False,
    ),
    "what a host says": Kind(
        says("clock-1", problems=["the clock is 400 seconds ahead"]),
        "clock-1 (the clock is 400 seconds ahead)",
        "the clock is 400 seconds ahead",
        ("", "the clock is 400 seconds"),
        (tell("clock-1"),),
        is_shown_settled=False,
    ),
    "webhook": Kind(
        webhook_failing,
        "did not reach https://alerts.example.org/keyrack",
        "nobody answered",
        ("button", "Send nothing there any more…"),
        (press("Send nothing there any more…"), press("Send nothing there any more")),
        is_shown_settled=False,
    ),
    "request": Kind(
        request_waits,
        "request for access waits",
        "asked-1",
        ("button", "Refuse"),
        (press("Refuse"),),
        is_shown_settled=False,
    ),
    "a person's key ends": Kind(
        key_that_ends,
        "ends-soon of alice",
        "ends-soon",
        ("", "Give it another end"),
        (lambda team, page: page.get_by_text("Give it another end").click(), *ANOTHER_END),
        is_shown_settled=False,
    ),
    "a key on an account ends": Kind(
        credential_that_ends,
        "short, deploy on ending-1",
        "short",
        ("button", "Set the end…"),
        ANOTHER_END,
        is_shown_settled=False,
    ),
    "revocation": Kind(
        revoked,
        "not refused everywhere yet",
        "revoked-1",
        ("", "revoked-1"),
        (tell("revoked-1"),),
        is_shown_settled=False,
    ),
    "unmanaged key": Kind(
        unmanaged,
        "unmanaged key on found-1",
        "old-laptop",
        ("button", "Ignore"),
        (press("Ignore"),),
        is_shown_settled=False,
    ),
    "silent": Kind(
        silent,
        "silent-1",
        "silent-1",
        ("link", "silent-1"),
        (
            press("silent-1", "link"),
            lambda team, page: expect(page.get_by_text("keyrack-agent doctor")).to_be_visible(),
            tell("silent-1"),
        ),
        is_shown_settled=False,
    ),
    "behind": Kind(behind, "behind-1", "behind-1", ("link", "behind-1"), (tell("behind-1"),), is_shown_settled=False),
}


@pytest.fixture(scope="module")
def console(team_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that looks at no account elsewhere by itself: it would find another state than a test brings about."""
    folder = tmp_path_factory.mktemp("console") / "data"
    shutil.copytree(team_folder, folder)
    with running(settings_for(folder, "", key_source_minutes=0)) as service:
        yield service


@pytest.fixture(scope="module")
def team(console: Service) -> Team:
    """The service, in which each kind is brought about once."""
    return Team(console)


def sentence(page: Page, words: str, region: str) -> Locator:
    """What the overview says in a region."""
    return page.get_by_role("region", name=region).get_by_role("listitem").filter(has_text=words)


@pytest.mark.parametrize("name", KINDS)
def test_each_thing_that_needs_somebody_links_to_its_page_and_disappears_once_settled(
    team: Team, page: Page, signed_in: SignedIn, name: str
) -> None:
    kind = KINDS[name]
    kind.begins(team)
    signed_in(page, "olga").goto("/")
    said = sentence(page, kind.says, "Needs somebody")
    expect(said).to_have_count(1)
    expect(said).not_to_contain_text(COMMAND)
    assert said.locator("a.button").get_attribute("aria-label") not in (None, "", "Look", "Decide", "Renew")
    said.locator("a.button").click()
    main = page.get_by_role("main")
    expect(main).to_contain_text(kind.names)
    # What the page says to type stands in an element of its own, not in the sentence.
    assert not COMMAND.search(" ".join(main.locator(".notice > p:first-child, dl.facts").all_inner_texts()))
    role, way = kind.way
    if role:
        expect(main.get_by_role(role, name=way).first).to_be_visible()  # type: ignore[arg-type]
    else:
        expect(main).to_contain_text(way)
    for step in kind.settles:
        step(team, page)
    if not kind.settles:
        return
    page.wait_for_load_state()
    page.goto("/")
    expect(sentence(page, kind.says, "Needs somebody")).to_have_count(0)
    if kind.is_shown_settled:
        settled = sentence(page, kind.settled_as or kind.says, "Settled within a day").first
        expect(settled).to_contain_text("Settled")
        expect(settled).not_to_contain_text(COMMAND)


BY_KEYBOARD = {"host key": two_host_keys, "broken glass": glass_broken, "two machines": two_machines}


@pytest.mark.parametrize("name", BY_KEYBOARD)
def test_an_alarm_is_settled_by_keyboard_alone(team: Team, page: Page, signed_in: SignedIn, name: str) -> None:
    kind = KINDS[name]
    BY_KEYBOARD[name](team)
    keys = Keyboard(signed_in(page, "olga"))
    page.goto("/")
    action = sentence(page, kind.says, "Needs somebody").get_by_role("link", name=re.compile("^Decide: "))
    keys.press(action)
    main = page.get_by_role("main")
    keys.press(main.get_by_role("button", name=kind.way[1]))
    keys.press(main.locator("form[method=post] button").first)
    expect(page.get_by_text(re.compile("settled|trust the host key|goes on with")).first).to_be_visible()
    page.goto("/")
    expect(sentence(page, kind.says, "Needs somebody")).to_have_count(0)


def test_receipts_of_a_host_that_two_machines_use_count_for_nothing(
    team: Team, page: Page, signed_in: SignedIn
) -> None:
    number = team.host("copied-1").id
    credentials.add(team.instance, KEYRACK, number, label="told", username="deploy", public_key=fresh_line())
    team.report("copied-1")
    two_machines(team)
    signed_in(page, "olga").goto("/activity?host=copied-1&q=told")
    page.get_by_role("link", name="receipts").first.click()
    row = page.get_by_role("table", name="Receipts").get_by_role("row").filter(has_text="copied-1")
    expect(row.get_by_role("cell")).to_have_text(
        [re.compile("copied-1"), re.compile("two machines use its identity"), ""]
    )


def test_programs_print_the_same_sentences_as_the_console(team: Team) -> None:
    team.host("told-1")
    team.report("told-1", state="refused", problems=["bad signature"])
    answer = team.service.call("GET", "/api/keyrack/v1/alarms", token="token-of-olga").json()
    (one,) = [item for item in answer["items"] if item["words"].startswith("host told-1 refuses its document")]
    assert (one["code"], one["settled"], one["way_out"]) == (
        "document-refused",
        False,
        "Paste the installation line there again.",
    )
    (host,) = server_list.find(team.instance, KEYRACK, search="told-1", limit=1).items
    assert one["commands"] == [f"keyrack hosts enrol {host.id}"]
    assert one["words"].endswith(f"On the command line: `{one['commands'][0]}`")
    refused = team.service.call("POST", f"/api/keyrack/v1/alarms/{one['event']}/settle", token="token-of-olga")
    assert refused.status_code == 409
    assert team.service.call("GET", "/api/keyrack/v1/alarms", token="token-of-mallory").status_code == 403
    team.report("told-1")
    answer = team.service.call("GET", "/api/keyrack/v1/alarms", token="token-of-olga").json()
    (one,) = [item for item in answer["items"] if item["words"].startswith("host told-1 refuses its document")]
    assert one["settled"]
