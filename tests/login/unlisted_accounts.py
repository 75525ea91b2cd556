"""An account that a directory answers for and does not list, as SSSD has them by default; holds no assertion."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.login.contained_host import Machine

NAME, ALIAS, NUMBER, HOME = "kranna", "kranna_corp", 70_001, "/home/corp.example/kranna"

# A module of the name service switch without getpwent: one account, found by a second name too.
_MODULE = f"""
#define _GNU_SOURCE
#include <errno.h>
#include <nss.h>
#include <pwd.h>
#include <string.h>
static enum nss_status fill(struct passwd *found, char *buffer, size_t size, int *error) {{
    static const char all[] = "{NAME}\\0x\\0\\0{HOME}\\0/bin/sh";
    if (size < sizeof all) {{ *error = ERANGE; return NSS_STATUS_TRYAGAIN; }}
    memcpy(buffer, all, sizeof all);
    found->pw_name = buffer;
    found->pw_passwd = found->pw_name + strlen(found->pw_name) + 1;
    found->pw_gecos = found->pw_passwd + strlen(found->pw_passwd) + 1;
    found->pw_dir = found->pw_gecos + strlen(found->pw_gecos) + 1;
    found->pw_shell = found->pw_dir + strlen(found->pw_dir) + 1;
    found->pw_uid = found->pw_gid = {NUMBER};
    return NSS_STATUS_SUCCESS;
}}
enum nss_status _nss_krcorp_getpwnam_r(const char *n, struct passwd *p, char *b, size_t s, int *e) {{
    return strcmp(n, "{NAME}") && strcmp(n, "{ALIAS}") ? NSS_STATUS_NOTFOUND : fill(p, b, s, e);
}}
enum nss_status _nss_krcorp_getpwuid_r(uid_t u, struct passwd *p, char *b, size_t s, int *e) {{
    return u == {NUMBER} ? fill(p, b, s, e) : NSS_STATUS_NOTFOUND;
}}
"""


def install(host: Machine, folder: Path) -> None:
    """Have the host know the account, with an empty home; skips the test where no module can be compiled."""
    place = folder / "etc" / "krcorp"  # /etc of the host
    place.mkdir()
    (place / "krcorp.c").write_text(_MODULE, "ascii")
    given = ["cc", "-shared", "-fPIC", "-o", str(place / "libnss_krcorp.so.2"), str(place / "krcorp.c")]
    if subprocess.run(given, check=False).returncode:
        pytest.skip("this test compiles a small library: it needs cc")
    host.run("echo /etc/krcorp > /etc/ld.so.conf.d/00-krcorp.conf && ldconfig")
    host.run("sed -i 's/^passwd:.*/passwd: files krcorp/' /etc/nsswitch.conf")
    host.run(f"mkdir -p -m 755 {HOME}/.ssh && chown -R {NAME} {HOME} && chmod 700 {HOME}/.ssh")


def write_keys(host: Machine, text: str) -> None:
    """What is in the account's own file of keys."""
    host.run(f"echo '{text}' > {HOME}/.ssh/authorized_keys && chown {NAME} {HOME}/.ssh/authorized_keys")
