"""`keyrack audit verify` and `export`: whether the audit log is as it was, and a copy of it; must hold no rule."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from keyrack.cli import options
from keyrack.cli.connection.opened import opened
from keyrack.cli.files import LARGEST_KEY, standard_input, text_of
from keyrack.core.audit import chain, export, verify_export, verify_log
from keyrack.core.instance_key import InstanceKey
from keyrack.core.people.actors import system_actor
from keyrack.protocol import audit_tree
from keyrack.ssh import sshsig
from keyrack.ssh.key_problem import KeyProblem
from keyrack.ssh.public_key import parse
from keyrack.store.audit.audit_log import SignedCheckpoint

EVERY = 100_000
"""After how many records the progress is printed."""


def _progress(what: str) -> verify_export.OnProgress:
    """Prints the progress on standard error, every so many records."""
    said = 0

    def on_progress(count: int) -> None:
        nonlocal said
        if count - said >= EVERY:
            said = count
            click.echo(f"{count} records {what}", err=True)

    return on_progress


@click.command(name="verify")
@click.option(
    "--export",
    "exported",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True),
    help="Check this export instead of the database; - is standard input.",
)
@click.option(
    "--witness",
    "witnesses",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A checkpoint kept elsewhere that the log must go on from: of `audit_checkpoint_file`, of a host "
    "(checkpoint.json) or of a webhook's delivery. May be given several times.",
)
@click.option("--key", "trusted", metavar="LINE", help="The instance's public key that an export must be signed with.")
@options.data
@options.database
def verify_command(exported: Path | None, witnesses: tuple[Path, ...], trusted: str | None, **given: Any) -> None:
    """Check whether any event was altered, deleted, inserted or reordered, and name the first one.

    An export needs neither database nor service: only the instance's public key, which each host has noted as well.
    """
    kept = [_witness(path) for path in witnesses]
    if exported is None:
        with opened(given) as instance:
            outcome = verify_log.verify(instance, system_actor(channel="cli"), _progress("checked"), kept)
    else:
        signed, line = _by_key(trusted, given)
        try:
            with exported.open("rb") if str(exported) != "-" else nullcontext(standard_input()) as file:
                outcome = verify_export.verify(verify_export.lines_of(file), signed, _progress("checked"), kept, line)
        except verify_export.NotAnExport as error:
            raise click.ClickException(f"{exported} is no export of an audit log: {error}.") from None
        except OSError as error:
            raise click.ClickException(f"{exported} cannot be read: {error.strerror}.") from None
    if outcome.problem:
        raise click.ClickException(
            f"The audit log is not as it was: {outcome.problem}. The {outcome.records} records before that are."
        )
    pruned = f", {outcome.pruned} of them deleted after they were kept long enough" if outcome.pruned else ""
    new = f"; {outcome.new} more have no place yet" if outcome.new else ""
    click.echo(f"The audit log is as it was: {outcome.records} records{pruned}{new}.")


def _witness(path: Path) -> SignedCheckpoint:
    """A checkpoint as the service's file, a host or a receiver of webhooks keeps it."""
    try:
        fields = json.loads(text_of(path, most=LARGEST_KEY, otherwise="It takes one checkpoint."))
        fields = fields["checkpoint"] if isinstance(fields.get("checkpoint"), dict) else fields
        text = fields["checkpoint"] if "checkpoint" in fields else fields["text"]
        return SignedCheckpoint(str(text), str(fields["signature"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise click.UsageError(f"--witness: {path} holds no checkpoint.") from None


def _by_key(trusted: str | None, given: dict[str, Any]) -> tuple[verify_export.Verified, str]:
    """A function that checks signatures by the key given, or by this instance's own; and that key's line."""
    if trusted is None:
        path = options.settings(**given).data / "instance.key"
        if not path.exists():
            raise click.UsageError("Name the instance's public key with --key, or its folder with --data.")
        trusted = InstanceKey.load(path).public_line
    try:
        key = parse(trusted)
        if key.type != "ssh-ed25519":
            raise click.UsageError("--key: an instance signs with an ssh-ed25519 key.")
    except KeyProblem as problem:
        raise click.UsageError(f"--key: {problem}") from None
    public = Ed25519PublicKey.from_public_bytes(key.blob[-32:])

    def signed(text: str, signature: str) -> bool:
        try:
            parsed = sshsig.read(signature)
            public.verify(parsed.value, sshsig.message(audit_tree.NAMESPACE, text.encode(), parsed.hash))
        except (sshsig.SignatureProblem, InvalidSignature, ValueError):
            return False
        return bool(parsed.namespace == audit_tree.NAMESPACE and parsed.public_blob == key.blob)

    return signed, key.canonical


@click.command(name="export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@options.data
@options.database
def export_command(file: Path, **given: Any) -> None:
    """Write the whole audit log to FILE, as lines of JSON that `keyrack audit verify --export` takes.

    - is standard output.
    """
    with opened(given) as instance:
        while chain.extend(instance):
            pass
        lines = export.lines(instance, system_actor(channel="cli"), _progress("written"))
        if str(file) == "-":
            for line in lines:
                click.echo(line)
            return
        fresh = file.with_name(file.name + ".new")
        with fresh.open("w", encoding="utf-8") as out:
            for line in lines:
                out.write(line + "\n")
        fresh.replace(file)
    click.echo(f"Wrote {file}.", err=True)
