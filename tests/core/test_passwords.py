"""What guessing a kept password costs, in a process of its own, as the tests' own hashes are made with less work."""

from __future__ import annotations

import subprocess
import sys

from argon2 import extract_parameters

ASK = """
from keyrack.core.people import passwords
kept = passwords.hash_password("a password of olga")
assert passwords.verify(kept, "a password of olga")
print(kept)
print(passwords.NOBODYS_HASH)
"""


def test_checking_a_password_costs_what_owasp_recommends_also_for_unknown_names() -> None:
    printed = subprocess.run([sys.executable, "-c", ASK], check=True, capture_output=True, text=True, timeout=60)
    kept, nobodys = (extract_parameters(line) for line in printed.stdout.split())
    assert kept == nobodys
    # https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html: 19 MiB, two passes, one lane.
    assert (kept.type.name, kept.memory_cost, kept.time_cost, kept.parallelism) == ("ID", 19 * 1024, 2, 1)
