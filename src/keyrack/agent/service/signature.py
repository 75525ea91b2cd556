"""Asks the host's own ssh-keygen whether the service signed a document; it holds no cryptography of its own."""

from __future__ import annotations

import contextlib
import os
from typing import Iterator

from keyrack.agent.system import programs
from keyrack.agent.system.folder import PRIVATE_FILE, Folder
from keyrack.protocol import host_document

ALLOWED_SIGNERS = "allowed_signers"
_SIGNATURE = "signature"
_LONGEST_SIGNATURE = 8192

NO_SSH_KEYGEN = (
    "ssh-keygen is missing, and without it no document can be trusted; install OpenSSH's client programs "
    "(openssh-client on Debian and Ubuntu, openssh-clients on Fedora and Red Hat)"
)


class DocumentSignatureProblem(Exception):
    """A document that cannot be shown to come from the service. `final`: another try would end the same way."""

    def __init__(self, words: str, *, final: bool) -> None:
        super().__init__(words)
        self.final = final


def allow(state: Folder, signing_key: str) -> None:
    """Note the one key whose documents this host obeys, as ssh-keygen wants it (ALLOWED SIGNERS, ssh-keygen(1))."""
    line = f'{host_document.PRINCIPAL} namespaces="{host_document.NAMESPACE}" {signing_key}\n'
    state.write(ALLOWED_SIGNERS, line.encode("ascii"), PRIVATE_FILE)


def check(state: Folder, document: str, signature: str) -> None:
    """Raise DocumentSignatureProblem unless the service signed exactly this text. May raise OSError."""
    if len(signature) > _LONGEST_SIGNATURE or not signature.isascii():
        raise DocumentSignatureProblem("the signature of the document is no SSH signature", final=True)
    ssh_keygen = programs.find("ssh-keygen")
    if ssh_keygen is None:
        raise DocumentSignatureProblem(NO_SSH_KEYGEN, final=False)
    with _as_file(state, signature.encode("ascii")) as path:
        ended = programs.run(
            [
                ssh_keygen,
                "-Y",
                "verify",
                "-f",
                os.path.join(state.path, ALLOWED_SIGNERS),
                "-I",
                host_document.PRINCIPAL,
                "-n",
                host_document.NAMESPACE,
                "-s",
                path,
            ],
            stdin=document.encode("utf-8", "surrogatepass"),
        )
    if ended.status is None:
        raise DocumentSignatureProblem(f"the signature of the document was not checked: {ended.errors}", final=False)
    if ended.status != 0:
        said = " ".join((ended.output + ended.errors).split())[:200]
        raise DocumentSignatureProblem(f"the signature of the document is not the service's ({said})", final=True)


@contextlib.contextmanager
def _as_file(state: Folder, signature: bytes) -> Iterator[str]:
    """The path of a file with the signature: ssh-keygen closes every descriptor above 2 as it starts.

    It lies in memory where that can be: who only looks writes nothing beside the agent that runs.
    """
    descriptor = os.memfd_create("signature", os.MFD_CLOEXEC) if hasattr(os, "memfd_create") else -1
    path = f"/proc/{os.getpid()}/fd/{descriptor}"
    try:
        if descriptor >= 0 and os.path.exists(path):
            os.write(descriptor, signature)
            yield path
        else:
            state.write(_SIGNATURE, signature, PRIVATE_FILE, durable=False)
            yield os.path.join(state.path, _SIGNATURE)
    finally:
        if descriptor >= 0:
            os.close(descriptor)
