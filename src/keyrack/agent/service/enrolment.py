"""Enrols this machine as a host of a service, with a one-time token; must let nobody in."""

from __future__ import annotations

import os
import socket
from typing import Dict, Optional

from keyrack import __version__
from keyrack.agent.keys.key_files import KeyFiles
from keyrack.agent.service import signature
from keyrack.agent.service.client import ServiceAnswer, ServiceClient
from keyrack.agent.sshd.running import UNKNOWN
from keyrack.agent.sshd.settings import Sshd
from keyrack.agent.state import Enrolment, StateFolder, StateProblem
from keyrack.protocol import document_words
from keyrack.protocol.report import wire_word
from keyrack.ssh import public_key

_LONGEST_WORD = 256


class EnrolmentProblem(Exception):
    """This machine did not become a host; the words say why and what to do."""


def enrol(
    state: StateFolder,
    client: ServiceClient,
    *,
    url: str,
    token: str,
    keys_folder: str,
    revoked_keys: str,
    sshd_config: Optional[str] = None,
    mode: Optional[str] = None,
    ca_file: Optional[str] = None,
    proxy: Optional[str] = None,
) -> Enrolment:
    """Make the folders, exchange the token for this host's own secret, and remember the enrolment, which it answers.

    mode: "observe", "auto" or "enforce", for the service to note; None keeps the service's own. ca_file, proxy: see
    ServiceClient. Paths are absolute. All that can fail on this host is done before the token is used. Raises
    EnrolmentProblem, FolderProblem, NoAnswer or OSError.
    """
    files = KeyFiles.open(keys_folder, revoked_keys, create=True)
    try:
        files.prepare()
    finally:
        files.close()
    asked = {"token": token, **facts(sshd_config), **({"mode": wire_word(mode)} if mode else {}), **_left(state, url)}
    answer = client.post("/agent/v1/enroll", asked)
    enrolment = _read(answer, url, keys_folder, revoked_keys, sshd_config)._replace(ca_file=ca_file, proxy=proxy)
    signature.allow(state.folder, enrolment.signing_key)
    state.enrol(enrolment)
    return enrolment


def _left(state: StateFolder, url: str) -> Dict[str, str]:
    """The secret of the host that this machine was before, of the same service, which it leaves: {"leaves": secret}, or
    {}. So a copy of a host becomes a host of its own.
    """
    try:
        before = state.enrolment()
    except StateProblem:
        return {}
    return {"leaves": before.secret} if before is not None and before.url == url else {}


def facts(sshd_config: Optional[str] = None) -> Dict[str, str]:
    """The names and versions of this machine that the service gets; nothing about its people."""
    system = _os_release()
    return {
        "hostname": socket.gethostname(),
        "os": system.get("ID", os.uname().sysname.lower()),
        "os_version": system.get("VERSION_ID", os.uname().release),
        "agent_version": __version__,
        "openssh_version": openssh_version(sshd_config),
    }


def openssh_version(sshd_config: Optional[str] = None) -> str:
    """The version of the sshd that listens, or would, such as OpenSSH_9.2; empty where it is unknown."""
    version = Sshd(sshd_config).running.version()
    return "" if version == UNKNOWN else f"OpenSSH_{version[0]}.{version[1]}"


def _read(
    answer: ServiceAnswer, url: str, keys_folder: str, revoked_keys: str, sshd_config: Optional[str]
) -> Enrolment:
    if answer.status != 200:
        raise EnrolmentProblem(f"the service refuses this host: {answer.words}")
    words = {name: answer.fields.get(name) for name in ("host", "secret", "signing_key", "server_name", "principal")}
    for name, value in words.items():
        if not isinstance(value, str) or not value.isprintable() or len(value) > _LONGEST_WORD:
            raise EnrolmentProblem(f"the service's answer has no usable {name}; is {url} a Keyrack service?")
    if words["principal"] != document_words.PRINCIPAL:
        raise EnrolmentProblem("the service signs in a name that this agent does not know; get its own agent")
    try:
        signing_key = public_key.parse(words["signing_key"])
    except public_key.KeyProblem:
        raise EnrolmentProblem("the service's signing key is not a public key") from None
    if not signature.can_check(signing_key.canonical):
        raise EnrolmentProblem("the service signs with a kind of key that this agent does not know; get its own agent")
    return Enrolment(
        url=url,
        host=str(words["host"]),
        secret=str(words["secret"]),
        signing_key=signing_key.canonical,
        server_name=str(words["server_name"]),
        keys_folder=keys_folder,
        revoked_keys=revoked_keys,
        sshd_config=sshd_config,
    )


def _os_release() -> Dict[str, str]:
    """The fields of os-release(5); empty where there is none."""
    try:
        with open("/etc/os-release", encoding="utf-8") as file:
            pairs = [line.rstrip("\n").partition("=") for line in file]
    except (OSError, ValueError):
        return {}
    return {name: value.strip("\"'") for name, equals, value in pairs if equals}
