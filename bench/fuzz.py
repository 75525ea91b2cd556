"""Everything that reads what strangers write, fed by a fuzzer that follows which lines of code it reaches.

    .venv/bin/pip install atheris && .venv/bin/python bench/fuzz.py [SECONDS] [TARGET …]

Each target below has SECONDS (60 unless said) in a process of its own. A target may answer or refuse with the one error
that it names; any other error, an answer that contradicts itself, or two seconds without an answer ends this with an
error and the input. Prints a table as docs/figures.md has it. atheris is no dependency: who fuzzes installs it.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import running
from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))

AT = "2026-01-01T00:00:00Z"
SECONDS = 60
SLOWEST = 2  # seconds for one input
_DONE = re.compile(rb"#(\d+)\s+(?:DONE|NEW|REDUCE|pulse|INITED)\s+cov: (\d+)")

Target = Callable[[bytes], None]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _printable(problem: Exception) -> None:
    if not str(problem).isprintable():
        raise AssertionError("words with what a terminal would obey") from problem


def public_key(data: bytes) -> None:
    """A pasted key: the same key again from what is kept of it, or a refusal in printable words."""
    from keyrack.ssh.key_problem import KeyProblem
    from keyrack.ssh.public_key import parse, read_canonical

    try:
        key = parse(_text(data))
    except KeyProblem as problem:
        _printable(problem)
        return
    assert read_canonical(key.canonical) == key._replace(comment="")
    assert parse(key.with_comment) == key


def authorized_keys(data: bytes) -> None:
    """A key file of an account: each line that is not blank or a comment is reported."""
    from keyrack.ssh.authorized_keys import read

    for line in read(data):
        assert line.line_number > 0


def restrictions(data: bytes) -> None:
    """Restrictions from JSON: those that can be written stand in a line that holds nothing more."""
    from keyrack.ssh.options import Restrictions, check_rendered, render

    try:
        made = Restrictions.from_json(json.loads(data))
        rendered = render(made, "ssh-ed25519")
    except (ValueError, RecursionError):
        return
    assert Restrictions.from_json(made.to_json()) == made
    check_rendered(rendered)


def line_options(data: bytes) -> None:
    """Options of a line somebody wrote: what we read of them is what sshd's reader takes."""
    from keyrack.ssh import foreign_options, line_options

    line_options.parse(data.decode("latin-1"))
    try:
        foreign_options.read(_text(data))
    except ValueError as problem:
        _printable(problem)


def host_document(data: bytes) -> None:
    """The document of a host: one that is read is written again as the same."""
    from keyrack.protocol.host_document import DocumentError, decode, encode

    try:
        found = decode(_text(data))
    except DocumentError as problem:
        _printable(problem)
        return
    assert decode(encode(found)) == found


def report(data: bytes) -> None:
    """What a host reports of keys, and of logins."""
    from keyrack.core.hosts import host_keys, login_reports
    from keyrack.errors import Refusal
    from keyrack.protocol.report import ReportedKey, ReportError
    from keyrack.ssh.printable import all_printable

    try:
        reported = all_printable(json.loads(data))
    except (ValueError, RecursionError):
        return
    if not isinstance(reported, dict):
        return
    try:
        login_reports.read(reported, datetime(2026, 1, 1, tzinfo=UTC))
        host_keys.read(reported)
        ReportedKey.from_json(reported)
    except (Refusal, ReportError):
        pass


def ssh_signature(data: bytes) -> None:
    """An armoured SSH signature, as those of documents and of proofs of possession."""
    from keyrack.ssh.sshsig import SignatureProblem, read

    try:
        read(_text(data))
    except SignatureProblem:
        pass


def signed_request(data: bytes) -> None:
    """A request signed as Huawei's SDKs do: header, path, query and body of anybody's choice."""
    from keyrack.core.people.request_signing import BadSignature, SignedRequest, check, read_claim

    authorization, path, query, date, body = (data.split(b"\n", 4) + [b""] * 5)[:5]
    headers = (("x-sdk-date", date), ("host", b"a"), ("authorization", authorization))
    try:
        claim = read_claim(authorization.decode("latin-1"))
        check(SignedRequest("GET", path, query, headers, body), claim, "secret", datetime(2026, 2, 3, 4, 5, tzinfo=UTC))
    except BadSignature as problem:
        if "secret" in str(problem):
            raise AssertionError("the secret is shown") from problem
        return
    raise AssertionError("a signature that nobody made counts")


def policy_pattern(data: bytes) -> None:
    """A pattern of a policy, against an action."""
    from keyrack import policy
    from keyrack.errors import Refusal

    text = _text(data)
    try:
        (pattern,) = policy.patterns([text], field="actions")
    except Refusal:
        return
    policy.matches(pattern, "codeartsrepo:repository:create" + "a" * 100)


def private_key(data: bytes) -> None:
    """Whether a text holds a private key, wherever it stands."""
    from keyrack.ssh.private_key import looks_private

    looks_private(_text(data))


def _seeds() -> dict[str, tuple[bytes, ...]]:
    from keyrack.protocol.document_words import DROP_ALL
    from keyrack.protocol.host_document import (
        AuthorizedKey,
        DesiredAccount,
        HostDocument,
        KeyRemoval,
        OfflinePolicy,
        encode,
    )
    from keyrack.ssh.public_key import fingerprint_of
    from tests.agent.signed_documents import HOST, ISSUED, Signer
    from tests.ssh.cases import case_input, cases

    valid = [str(case["line"]).encode() for case in cases("keys_valid.jsonl")]
    invalid = [str(case_input(case)).encode("utf-8", "surrogatepass") for case in cases("keys_invalid.jsonl")]
    keys = tuple(line for line in (*valid, *invalid) if len(line) < 4000)
    options = b'from="10.0.0.0/8,!10.0.0.1",command="a \\" b",expiry-time="20990101Z",permitopen="a:1" '
    key = valid[0].split()[1].decode()
    canonical = " ".join(valid[0].decode().split()[:2])
    ends = datetime(2027, 1, 1, tzinfo=UTC)
    opened = {"deploy": (AuthorizedKey(canonical, ends, ('from="10.0.0.0/8"', "restrict"), "laptop"),)}
    document = HostDocument(
        HOST, 1, ISSUED, opened, revoked=(canonical,), accounts={"deploy": DesiredAccount(True, None, True)},
        sshd={"PasswordAuthentication": "no"}, offline_policy=OfflinePolicy(60, DROP_ALL), frozen=opened,
        remove_keys=(KeyRemoval("/root/.ssh/authorized_keys", fingerprint_of(canonical)),), end_sessions=("1-2",),
        break_glass={"deploy": (canonical,)}, lineage="0" * 16,
    )  # fmt: skip
    reported = {
        "revision": 1, "state": "applied", "kind": "key", "username": "a", "path": "/x", "key": key,
        "sessions": [{"id": "1", "user": "a", "address": "::1", "fingerprint": "", "started_at": AT}],
        "last_used": [], "logins": {"batch": "a" * 16, "entries": [], "more": 0}, "host_keys": {"port": 22, "keys": {}},
    }  # fmt: skip
    return {
        "public_key": keys,
        "authorized_keys": tuple(options + line for line in keys[:50]),
        "restrictions": (b'{"sources": ["10.0.0.0/8"], "command": "x", "restrict": true, "permitopen": ["a:1"]}',),
        "line_options": (options.strip(),),
        "host_document": (encode(document).encode(),),
        "report": (json.dumps(reported).encode(),),
        "ssh_signature": (Signer().sign("x").encode(),),
        "signed_request": (
            b"SDK-HMAC-SHA256 Access=AK, SignedHeaders=host;x-sdk-date, Signature=" + b"0" * 64
            + b"\n/v4/user/keys\na=b&c\n20260203T040506Z\n{}",
        ),
        "policy_pattern": (b"codeartsrepo::*", b"*a*b*"),
        "private_key": (b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjE", b"PuTTY-User-Key-File-3: x"),
    }  # fmt: skip


def targets() -> dict[str, Target]:
    """All of them by name."""
    found = (
        public_key, authorized_keys, restrictions, line_options, host_document, report, ssh_signature, signed_request,
        policy_pattern, private_key,
    )  # fmt: skip
    return {target.__name__: target for target in found}


def fuzz(name: str, seconds: int, folder: str) -> None:
    """In a process of its own: libFuzzer ends it."""
    import atheris

    target = targets()[name]
    with atheris.instrument_imports(include=["keyrack", "json"]):
        target(b"")  # imports what it needs
    given = [f"-max_total_time={seconds}", f"-timeout={SLOWEST}", "-max_len=8192", f"-artifact_prefix={folder}/found-"]
    atheris.Setup([sys.argv[0], *given, f"{folder}/corpus"], target)
    atheris.Fuzz()


def main() -> int:
    """Run the targets one after the other."""
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: pip install atheris", file=sys.stderr)
        return running.CANNOT
    seeds, broken = _seeds(), 0
    print(f"| read | inputs in {seconds} s | branches reached | broke |\n|---|---|---|---|")
    for name in sys.argv[2:] or targets():
        with tempfile.TemporaryDirectory() as folder:
            corpus = Path(folder) / "corpus"
            corpus.mkdir()
            for number, seed in enumerate(seeds[name]):
                (corpus / str(number)).write_bytes(seed)
            asked = [sys.executable, __file__, "--one", name, str(seconds), folder]
            done = subprocess.run(asked, capture_output=True, check=False, timeout=seconds * 3 + 120)
            counts = _DONE.findall(done.stderr) or [(b"0", b"0")]
            found = list(Path(folder).glob("found-*"))
            count, reached = counts[-1]
            print(
                f"| {name} | {int(count):,} | {int(reached):,} | {'no' if done.returncode == 0 else 'yes'} |",
                flush=True,
            )
            if done.returncode:
                broken += 1
                print(done.stderr.decode("utf-8", "replace")[-3000:], file=sys.stderr)
                print(*[f"{path.name}: {path.read_bytes()[:500]!r}" for path in found], sep="\n", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    help_asked(__doc__)
    if sys.argv[1:2] == ["--one"]:
        fuzz(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        sys.exit(main())
