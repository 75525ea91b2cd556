"""Names other sources of keys on a host: programs that sshd asks, and agents of clouds that write key files; must stop
and change nothing.

It only sees what is installed: a name here says who may write keys, not who did.
"""

from __future__ import annotations

import os
import re
from typing import List, Tuple

# Programs of AuthorizedKeysCommand, by the name of their file.
COMMANDS = {
    "sss_ssh_authorizedkeys": "SSSD: keys of its directory",
    "google_authorized_keys": "Google OS Login",
    "google_authorized_keys_sk": "Google OS Login",
    "eic_run_authorized_keys": "EC2 Instance Connect",
    "eic_curl_authorized_keys": "EC2 Instance Connect",
    "opkssh": "opkssh: identities of OpenID providers",
    "aad_certhandler": "Microsoft Entra login",
    "userdbctl": "systemd-userdbd: keys of user records",
    "ssh-ldap-wrapper": "LDAP: keys of its directory",
    "ldap-authorized-keys": "LDAP: keys of its directory",
}
# Agents that write key files, by where their packages put them.
WRITERS: Tuple[Tuple[str, str], ...] = (
    ("Google guest agent", "usr/bin/google_guest_agent"),
    ("Google guest agent", "usr/bin/google_guest_agent_manager"),
    ("Azure agent", "usr/sbin/waagent"),
    ("DigitalOcean droplet agent", "opt/digitalocean/bin/droplet-agent"),
    ("Oracle Cloud agent", "usr/libexec/oracle-cloud-agent/agent"),
    ("QEMU guest agent", "usr/sbin/qemu-ga"),
    ("QEMU guest agent", "usr/bin/qemu-ga"),
    ("cloud-init", "usr/bin/cloud-init"),
    ("Afterburn", "usr/bin/afterburn"),
    ("Ignition", "usr/lib/dracut/modules.d/30ignition/ignition"),
)


def name_of(command: str) -> str:
    """Which product's keys an AuthorizedKeysCommand prints; empty where the program is not known."""
    words = re.split(r"\s+", command.strip())
    # Every word, as `env` or a shell may stand in front of the program, and quotes around it.
    names = (os.path.basename(word.strip("\"'")) for word in words)
    return next((COMMANDS[name] for name in names if name in COMMANDS), "")


def writers(root: str = "/") -> List[str]:
    """The installed agents of this host that may write keys into accounts' files again and again."""
    installed = (name for name, path in WRITERS if os.path.exists(os.path.join(root, path)))
    return list(dict.fromkeys(installed))
