"""Alarms and whether they stand: what calls take and answer; must call no use case."""

from __future__ import annotations

from typing import Annotated

from keyrack.core.audit.standing import Alarm as AlarmRecord
from keyrack.core.audit.standing import Alarms as AlarmsRecord
from keyrack.web.native.shapes import Answer, Count, Flag, Id, Time, about, time_or_null


class Alarm(Answer):
    """What was raised as an alarm, and whether it stands."""

    event: Annotated[Id | None, about("Its newest event; null where that is older than a week.")]
    code: Annotated[str, about("Of which kind it is, as its events say in `reason`.", "host-key-changed")]
    words: Annotated[str, about("What is wrong.", "host web-1 shows a host key that nobody confirmed: SHA256:…")]
    since: Annotated[Time | None, about("When it began; null where that was more than a week ago.")]
    times: Annotated[Count, about("How often it was raised.")]
    server_id: Annotated[Id | None, about("The server that it is about, where it is about one.")]
    user: Annotated[str | None, about("The user that it is about, where it is about one.", None)]
    settled: Annotated[Flag, about("Whether it is over.")]
    settled_at: Annotated[Time | None, about("When somebody settled it; null where it is over by itself.")]
    settled_by: Annotated[str | None, about("Who did.", None)]
    way_out: Annotated[str, about("What settles it.", "Confirm the host key, if its own screen shows the same one.")]
    commands: Annotated[list[str], about("What the words say to do, on the command line.", ["keyrack hosts resync 5"])]


class SayingServer(Answer):
    """A server whose host says that something there is not as asked."""

    server: Annotated[str, about("Its name.", "web-1")]
    server_id: Annotated[Id, about("Its id.")]
    words: Annotated[str, about("What it says first.", "the disk is full")]


class Alarms(Answer):
    """The alarms of a workspace."""

    items: Annotated[list[Alarm], about("Those that stand, the newest first, then those settled within a day.")]
    saying: Annotated[list[SayingServer], about("Servers whose hosts say that something there is not as asked.")]
    bounds: Annotated[list[str], about("What was not looked at, as there is so much, in words; empty for nothing.", [])]


def alarm(record: AlarmRecord) -> Alarm:
    """An alarm."""
    return Alarm(
        event=record.event_id,
        code=record.code,
        words=record.words,
        since=time_or_null(record.since),
        times=record.times,
        server_id=record.server_id,
        user=record.user or None,
        settled=record.settled,
        settled_at=time_or_null(record.settled_at),
        settled_by=record.settled_by or None,
        way_out=record.way_out,
        commands=list(record.commands),
    )


def alarms(record: AlarmsRecord) -> Alarms:
    """All of a workspace."""
    saying = [SayingServer(server=name, server_id=number, words=words) for number, name, words in record.saying]
    items = [alarm(one) for one in (*record.standing, *record.settled)]
    return Alarms(items=items, saying=saying, bounds=list(record.bounds))
