"""The one file of settings that the agent gives to sshd, and the line that has sshd read it first; it writes nothing.

The first value of a keyword counts, and one below a matching Match counts more than any above it
(sshd_config(5)), so the settings stand twice: for everybody, and below a `Match all` that comes before all
other rules. What an included file opens with Match ends with that file.
"""

from __future__ import annotations

import os
from typing import Dict, List, Mapping, Tuple

from keyrack.agent.sshd import keys_command
from keyrack.agent.sshd.settings import Effective
from keyrack.agent.sshd.settings_text import read_lines
from keyrack.ssh.quotes import quote_setting

HEADER = "# Written by Keyrack; changes here are lost. Ask Keyrack for a change, or: keyrack-agent uninstall\n"
_REMARK = "# true(1) names no key: sshd asks no other program, and its log says nothing of it, as it would of none.\n"
INCLUDE_REMARK = "# Keyrack; `keyrack-agent uninstall` takes this line away"

# The only settings that a document may change; sshd itself judges the values.
SETTINGS = ("PasswordAuthentication", "PermitRootLogin", "UseDNS")
_FOR_EVERYBODY_ONLY = ("UseDNS",)
# Other ways by which sshd would take a certificate that is not in the document.
OTHER_WAYS = (
    "AuthorizedPrincipalsCommand",
    "AuthorizedPrincipalsFile",
    "TrustedUserCAKeys",
)


def wanted(keys_folder: str, revoked_keys: str, asked: Mapping[str, str], *, chain: bool = False) -> Dict[str, str]:
    """The settings that enforcing needs, keyword to value. asked: the document's own settings; chain:
    AuthorizedKeysCommand stays as this host has it.
    """
    settings = {
        # Invariant 4: at a login sshd reads only files that are on this host already and that root owns.
        "AuthorizedKeysFile": f"{keys_folder}/%u",
        "RevokedKeys": revoked_keys,
        "ExposeAuthInfo": "yes",
        **({} if chain else keys_command.silent()),
        **dict.fromkeys(OTHER_WAYS, "none"),
    }
    settings.update((keyword, value) for keyword, value in asked.items() if keyword in SETTINGS)
    return settings


def chained_words(command: str) -> str:
    """Words for a host whose administrator keeps its AuthorizedKeysCommand: others than the document let people in."""
    return f"AuthorizedKeysCommand {command} lets in whom it names, as this host's administrator decided"


def render(settings: Mapping[str, str]) -> bytes:
    """The bytes of the file with these settings."""
    remark = _REMARK if "AuthorizedKeysCommandUser" in settings else ""
    return f"{HEADER}{remark}".encode("ascii") + b"".join(lines(settings))


def lines(settings: Mapping[str, str]) -> Tuple[bytes, bytes]:
    """These settings as lines for everybody, and the same below a `Match all`."""
    for_all = "".join(f"{keyword} {quote_setting(value)}\n" for keyword, value in settings.items())
    below_match = "".join(
        f"    {keyword} {quote_setting(value)}\n"
        for keyword, value in settings.items()
        if keyword not in _FOR_EVERYBODY_ONLY
    )
    return for_all.encode("utf-8"), b"Match all\n" + below_match.encode("utf-8")


def include_line(path: str) -> bytes:
    """The lines for the top of sshd_config that include the file."""
    return f"{INCLUDE_REMARK}\nInclude {quote_setting(path)}\n".encode()


def without_include(text: bytes, path: str) -> bytes:
    """The bytes of sshd_config without those lines."""
    return text.replace(include_line(path), b"", 1)


def has_include(text: bytes) -> bool:
    """Whether these settings begin with Keyrack's include lines, whatever their path."""
    return text.startswith(INCLUDE_REMARK.encode())


def is_read_first(config: bytes, path: str) -> bool:
    """Whether the first setting of a file already includes `path` before everything else."""
    for line in read_lines(config.decode("utf-8", "replace")):
        if line.keyword != "include" or not line.values:
            return False
        pattern = line.values[0]
        if pattern == path:
            return True
        folder, name = os.path.split(pattern)
        if folder != os.path.dirname(path) or name != "*.conf":
            return False
        others = [other for other in _names(folder) if other.endswith(".conf") and not other.startswith(".")]
        return all(other >= os.path.basename(path) for other in others)
    return False


def missing(effective: Effective, settings: Mapping[str, str]) -> List[Tuple[str, str, str]]:
    """The settings in which sshd differs from these: keyword, wanted value, sshd's value."""
    differing = []
    named = not keys_command.names_nobody(effective.one("AuthorizedKeysCommand"))
    for keyword, value in settings.items():
        if keyword.startswith("AuthorizedKeysCommand") and not named:
            continue  # whichever of these values it has, no program names a key
        now = effective.one(keyword)
        # Before 7.6 sshd knows no ExposeAuthInfo, and config_block.put leaves it out.
        unknown = now == "" and (value == "none" or keyword == "ExposeAuthInfo")
        if now != value and not unknown:
            differing.append((keyword, value, now or "nothing"))
    return differing


def default_path(config: str) -> str:
    """The usual path of the file for sshd settings at `config`."""
    return os.path.join(os.path.dirname(config), "sshd_config.d", "00-keyrack.conf")


def _names(folder: str) -> List[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
