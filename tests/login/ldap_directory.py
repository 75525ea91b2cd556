"""An LDAP server and SSSD on a booted Debian, with accounts that nobody lists, and their keys; holds no assertion."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from tests.login.debian_host import DebianHost
from tests.ports import free_port
from tests.waiting import wait_until

GROUP, HOMES = "krstaff", "/home/corp.example"
COMMAND = "/usr/bin/sss_ssh_authorizedkeys"
SETTINGS = f"AuthorizedKeysCommand {COMMAND}\nAuthorizedKeysCommandUser nobody\nAllowGroups root deploy {GROUP}\n"
_ADMINISTRATOR = "cn=admin,dc=corp,dc=example"

# slapd brings no schema for public keys; this is the one that everybody has (openssh-lpk).
_SLAPD = f"""\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
attributetype ( 1.3.6.1.4.1.24552.500.1.1.1.13 NAME 'sshPublicKey' EQUALITY octetStringMatch
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.40 )
objectclass ( 1.3.6.1.4.1.24552.500.1.1.2.0 NAME 'ldapPublicKey' SUP top AUXILIARY MAY ( sshPublicKey $ uid ) )
modulepath /usr/lib/ldap
moduleload back_mdb
database mdb
suffix dc=corp,dc=example
rootdn {_ADMINISTRATOR}
rootpw secret
directory /var/lib/directory
"""
_SSSD = """\
[sssd]
services = nss, pam, ssh
domains = corp.example
[nss]
entry_negative_timeout = 1
memcache_timeout = 0
[domain/corp.example]
id_provider = ldap
auth_provider = none
access_provider = permit
ldap_uri = URL
ldap_search_base = dc=corp,dc=example
entry_cache_timeout = 2
offline_timeout = 2
cache_credentials = true
"""


class LdapDirectory:
    """The directory of one host."""

    def __init__(self, host: DebianHost) -> None:
        self._host = host
        self._url = f"ldap://127.0.0.1:{free_port()}"  # loopback is the machine's own

    def begin(self, keys: Mapping[str, str]) -> None:
        """Start it with an account for each name, its key, and a group that they are in; each has a home, but for names
        that end in "homeless".
        """
        run = self._host.run
        self._write("/etc/ldap/directory.conf", _SLAPD)
        self._write("/etc/sssd/sssd.conf", _SSSD.replace("URL", self._url), "600")
        run("mkdir -p /var/lib/directory")
        run("sed -i -E 's/^(passwd|group|shadow):.*/\\1: files sss/' /etc/nsswitch.conf")
        self.start()
        self._change("ldapadd", _top(keys) + "".join(_entry(at, name, keys[name]) for at, name in enumerate(keys)))
        run("systemctl enable --now sssd")
        for at, name in enumerate(keys):
            if not name.endswith("homeless"):
                run(f"install -d -o {70_000 + at} -g 70000 -m 700 {HOMES}/{name}")

    def start(self) -> None:
        """The LDAP server listens."""
        self._host.run(f"systemd-run -q -u directory slapd -d 0 -h {self._url} -f /etc/ldap/directory.conf")
        asked = f"ldapsearch -x -H {self._url} -b '' -s base"
        wait_until(lambda: "numEntries: 1" in self._host.run(asked, check=False), "the LDAP server")

    def stop(self) -> None:
        """The LDAP server is away; SSSD is there."""
        self._host.run("systemctl stop directory")

    def put_key(self, name: str, public: str) -> None:
        """Give an account another key in the directory; SSSD asks anew after two seconds."""
        entry = f"dn: uid={name},ou=people,dc=corp,dc=example\nchangetype: modify\n"
        self._change("ldapmodify", f"{entry}replace: sshPublicKey\nsshPublicKey: {public}\n")

    def _change(self, program: str, text: str) -> None:
        self._write("/root/change.ldif", text)
        self._host.run(f"{program} -x -H {self._url} -D {_ADMINISTRATOR} -w secret -f /root/change.ldif")

    def _write(self, path: str, text: str, mode: str = "644") -> None:
        self._host.run(f"install -m {mode} /dev/null {path} && cat >{path} <<'END'\n{text}END")


def _top(names: Mapping[str, str]) -> str:
    members = "".join(f"memberUid: {name}\n" for name in names)
    return (
        textwrap.dedent(
            f"""\
            dn: dc=corp,dc=example
            objectClass: dcObject
            objectClass: organization
            o: corp

            dn: ou=people,dc=corp,dc=example
            objectClass: organizationalUnit

            dn: cn={GROUP},dc=corp,dc=example
            objectClass: posixGroup
            gidNumber: 70000
            """
        )
        + members
        + "\n"
    )


def _entry(at: int, name: str, public: str) -> str:
    return textwrap.dedent(
        f"""\
        dn: uid={name},ou=people,dc=corp,dc=example
        objectClass: account
        objectClass: posixAccount
        objectClass: ldapPublicKey
        cn: {name}
        uidNumber: {70_000 + at}
        gidNumber: 70000
        homeDirectory: {HOMES}/{name}
        loginShell: /bin/sh
        sshPublicKey: {public}

        """
    )
