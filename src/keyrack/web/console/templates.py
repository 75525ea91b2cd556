"""Pages' templates and static files: loaded once, escaped always; must know no page and ask nothing of the core."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from keyrack.core import next_steps
from keyrack.core.hosts import ssh_lines, status
from keyrack.core.lifetimes import written
from keyrack.model import Event
from keyrack.protocol.words import count
from keyrack.web.console import account_ways

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2.runtime import Context

FOLDER = resources.files("keyrack.web.console")
FOR_EVER = "public, max-age=31536000, immutable"
STATIC = "/static"
_OF_ANY_VERSION = re.compile(rf"{STATIC}/[0-9a-f]{{16}}/[^/]+")
_CONTEXTS = "_contexts"
"""The name, among a page's values, of the list of contexts that its templates made."""


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file as it is sent. address: it holds the content's hash, so that browsers may keep the file for ever."""

    address: str
    media_type: str
    content: bytes
    packed: bytes


@cache
def static_files() -> Mapping[str, StaticFile]:
    """Every static file by its name."""
    files = {}
    for entry in FOLDER.joinpath("static").iterdir():
        content = entry.read_bytes()
        digest = hashlib.sha256(content).hexdigest()[:16]
        media = mimetypes.guess_type(entry.name)[0] or "application/octet-stream"
        if media.startswith("text/") or media.endswith("javascript"):
            media += "; charset=utf-8"
        packed = gzip.compress(content, 9, mtime=0)
        files[entry.name] = StaticFile(f"{STATIC}/{digest}/{entry.name}", media, content, packed)
    return files


def static(request: Request) -> Response | None:
    """The answer to a request for a static file, None where there is none.

    A page of another version of the service, as behind one address while services are upgraded, names another hash: it
    gets the file of this version, which nobody keeps (decision 374).
    """
    path = request.url.path
    file = static_files().get(path.rpartition("/")[2])
    if file is None or not _OF_ANY_VERSION.fullmatch(path):
        return None
    headers = {"Vary": "Accept-Encoding", **({"Cache-Control": FOR_EVER} if path == file.address else {})}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(file.packed, media_type=file.media_type, headers={**headers, "Content-Encoding": "gzip"})
    return Response(file.content, media_type=file.media_type, headers=headers)


@cache
def environment() -> Environment:
    """The templates: every value is escaped, and one that is not given is an error."""
    # With the first page: most instances serve programs more than people.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from jinja2.runtime import Context

    class PageContext(Context):
        """A context that enters itself into the list in its page's values."""

        def __init__(self, environment: Environment, parent: dict[str, Any], *others: Any, **named: Any) -> None:
            super().__init__(environment, parent, *others, **named)
            if _CONTEXTS in parent:
                parent[_CONTEXTS].append(self)

    made = Environment(
        loader=FileSystemLoader(str(FOLDER.joinpath("templates"))),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.context_class = PageContext
    made.globals["static"] = _static_address
    made.filters["ago"] = ago
    made.filters["exact"] = exact
    made.filters["shown"] = shown
    made.filters["iso"] = iso
    made.filters["few"] = few
    made.filters["short_fingerprint"] = short_fingerprint
    made.filters["count"] = count
    made.filters["span"] = written
    made.filters["ssh_line"] = ssh_lines.line
    made.filters["ssh_place"] = ssh_lines.place
    made.filters["browser"] = browser
    made.filters["places"] = account_ways.of
    made.filters["as_rows"] = as_rows
    made.tests["opened_by_keys"] = status.opens
    made.filters["in_console_words"] = in_console_words
    made.filters["sentence"] = next_steps.sentence
    made.filters["told"] = told
    return made


def render(name: str, values: Mapping[str, Any]) -> str:
    """A template's text."""
    contexts: list[Context] = []
    try:
        return environment().get_template(name).render({**values, _CONTEXTS: contexts})
    finally:
        # A context and its macros hold each other, and with them all that the page shows: tens of thousands of records
        # that would wait for the garbage collector, which then keeps everybody waiting.
        for context in contexts:
            context.vars.clear()
            context.parent.clear()


def _static_address(name: str) -> str:
    return static_files()[name].address


def as_rows(rows: str) -> str:
    """The rows of a table, with roles, so that screen readers find rows also where a phone folds each into lines.

    rows: markup of ours, in which no text of others holds a tag.
    """
    named = str(rows)
    for tag, role in (("tr", "row"), ("td", "cell"), ("th", "rowheader")):
        named = re.sub(rf"<{tag}(?=[ >])(?![^>]*\brole=)", f'<{tag} role="{role}"', named)
    return named


_QUOTED = re.compile(r"""((?<!\w)'[^']*'(?!\w)|"[^"]*")""")
# The name of an action, such as servers:read, is what an owner gives: it stays as it is.
_WORDS = ((re.compile(r"\b([Ss])ystem users?\b"), "account"), (re.compile(r"\b([Ss])ervers?\b(?!:\w)"), "host"))


def in_console_words(message: str) -> str:
    """A refusal of the core's in the console's words: what APIs call a server and a system user people know as a host
    and an account. What the person wrote stands there in quotes and stays as it is, and so do commands, shown as code.
    """
    commands = next_steps.commands(message)
    if commands:
        said = in_console_words(next_steps.sentence(message))
        shown_commands = Markup(" or ").join(Markup("<code>{}</code>").format(one) for one in commands)
        return Markup("{}. On the command line: {}").format(said, shown_commands)

    def ours(words: str) -> str:
        for pattern, word in _WORDS:
            words = pattern.sub(
                lambda match, word=word: (  # type: ignore[misc]
                    (word.capitalize() if match[1].isupper() else word) + ("s" if match[0].endswith("s") else "")
                ),
                words,
            )
        return re.sub(r"\b([Aa])(?= accounts?\b)", r"\1n", words)

    return "".join(part if at % 2 else ours(part) for at, part in enumerate(_QUOTED.split(message)))


_REASONS = {"invalid": "not accepted as it was asked for", "scope-lacking": "the token's scopes do not let it"}
"""Words for codes of refusals that do not say enough; those of the others are words with hyphens between."""


def told(event: Event) -> str:
    """What an event says, with words in place of the code that ends a refusal."""
    code = f"({event.reason})"
    if not event.is_refusal or not event.summary.endswith(code):
        return event.summary
    words = _REASONS.get(event.reason) or event.reason.replace("-", " ")
    return f"{event.summary.removesuffix(code)}({words})"


def iso(at: datetime) -> str:
    """An instant for programs: 2026-01-31T12:00:00Z."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def exact(at: datetime) -> str:
    """An instant for people, to the minute, in UTC; the browser puts it into the person's zone."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def shown(at: datetime) -> Markup:
    """The same as an element, in which the browser writes it in the zone of whoever looks."""
    return Markup('<time datetime="{}" data-exact>{}</time>').format(iso(at), exact(at))


_STEPS = ((60, "second"), (60, "minute"), (24, "hour"), (30, "day"), (12, "month"), (10_000, "year"))


def ago(at: datetime, now: datetime) -> str:
    """How far an instant is from now, in words: "3 hours ago", "in 2 days"."""
    left = (at - now) / timedelta(seconds=1)
    number, word = abs(left), "second"
    if number < 5:
        return "just now" if left <= 0 else "in a moment"
    for size, name in _STEPS:
        word = name
        if number < size:
            break
        number /= size
    whole = max(1, int(number))
    words = count(whole, word)
    return f"in {words}" if left > 0 else f"{words} ago"


def few(names: Sequence[str], most: int = 5) -> str:
    """The first of some names, and how many more there are: "web-1, web-2 and 3 more"."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def short_fingerprint(fingerprint: str) -> str:
    """A fingerprint shortened in the middle: SHA256:abcdefgh…wxyz."""
    kind, colon, digest = fingerprint.partition(":")
    return fingerprint if len(digest) <= 16 else f"{kind}{colon}{digest[:8]}…{digest[-6:]}"


_BROWSERS = (("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))
_SYSTEMS = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)


def browser(agent: str) -> str:
    """What a browser calls itself, in a few words: "Firefox on Linux"."""
    program = next((words for mark, words in _BROWSERS if mark in agent), "")
    system = next((words for mark, words in _SYSTEMS if mark in agent), "")
    return f"{program} on {system}" if program and system else program or agent[:40] or "unknown"
