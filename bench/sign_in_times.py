"""Whether a wrong name can be told by its time from a wrong password, and a wrong access key from a wrong secret.

Prints Welch's t of both, for passwords and for access keys sent by HTTP Basic.

    .venv/bin/python bench/sign_in_times.py [SAMPLES] [--whole]

Names are taken in turn, each guess from another address, so that none is refused untried. Below 4.5 they are alike.
That both are checked against a hash of the same cost is looked up; then hashes of the least cost are put in the place
of both, so that they hide nothing else: what differs stands out of less noise, and 10,000 of each take a minute. With
--whole they keep their cost: 10,000 of each take some ten minutes.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from argon2 import PasswordHasher, extract_parameters
from usage import help_asked

from keyrack import app
from keyrack.core.instance import Instance
from keyrack.core.people import basic_access, passwords, tokens
from keyrack.core.people.throttle import Throttle
from keyrack.core.people.tokens import Scope, SignIn
from keyrack.core.workspace import apply as workspace_apply
from keyrack.errors import Refusal
from keyrack.settings import Settings
from keyrack.store.people import users

KEY = "ABCDEFGHIJKLMNOPQRST"
TEAM = f"""
[workspace]
name = "acme"
[[users]]
name = "olga"
role = "owner"
password = "the right password"
access_keys = [{{ id = "{KEY}", secret = "{"s" * 40}" }}]
"""


def cheapen(instance: Instance) -> None:
    """Hashes of the least cost, for the user there is and for nobody alike, after a check whether the real ones
    cost the same."""
    stored = instance.database.read(lambda connection: users.password_hash(connection, 1))
    assert stored is not None
    if extract_parameters(stored) != extract_parameters(passwords.NOBODYS_HASH):
        raise SystemExit("A user's hash and nobody's cost different times.")
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    hashed = cheap.hash("the right password")
    instance.database.write(lambda connection: users.change_user(connection, 1, {"password_hash": hashed}))
    passwords._hasher = cheap
    passwords.NOBODYS_HASH = cheap.hash("of nobody")


def main() -> None:
    """Measure and print."""
    whole = "--whole" in sys.argv
    given = [argument for argument in sys.argv[1:] if argument.isdigit()]
    samples = int(given[0]) if given else 10_000
    with tempfile.TemporaryDirectory() as folder:
        instance = app.open_instance(Settings(data=Path(folder)))
        workspace_apply.apply(instance, TEAM, {})
        object.__setattr__(instance, "throttle", Throttle(10**9, 10**9))
        instance.throttle._few = instance.throttle._account = instance.throttle._passwords
        if not whole:
            cheapen(instance)
        try:
            compare(samples, "olga", "nobody", partial(guess_password, instance))
            compare(samples, KEY, "A" * 20, partial(guess_secret, instance))
        finally:
            instance.database.close()


def guess_password(instance: Instance, name: str, number: int, address: str) -> None:
    """A sign-in with a wrong password."""
    who = SignIn(password=f"guess {number}", user_name=name, workspace_name="acme")
    tokens.sign_in(instance, who, Scope(), address=address)


def guess_secret(instance: Instance, key_id: str, number: int, address: str) -> None:
    """A request with an access key's wrong secret."""
    basic_access.authenticate(instance, key_id, f"guess {number:034}", address=address, channel="runcloud")


def compare(samples: int, known: str, unknown: str, guess: Callable[[str, int, str], None]) -> None:
    """Guess under both names in turn, each time from another address, and print how the times differ."""
    times: dict[str, list[float]] = {known: [], unknown: []}
    for number in range(2 * samples):
        name = (known, unknown)[(number + number // 2) % 2]
        address = f"10.{number // 62500}.{number // 250 % 250}.{number % 250}"
        begun = time.perf_counter()
        try:
            guess(name, number, address)
        except Refusal:
            pass
        times[name].append(time.perf_counter() - begun)
    first, second = times.values()
    spread = (statistics.variance(first) / len(first) + statistics.variance(second) / len(second)) ** 0.5
    t = (statistics.fmean(first) - statistics.fmean(second)) / spread
    for name, taken in times.items():
        print(f"{name}: mean {statistics.fmean(taken) * 1e3:.3f} ms, median {statistics.median(taken) * 1e3:.3f} ms")
    print(f"Welch's t {t:.2f} of {samples} each")


if __name__ == "__main__":
    help_asked(__doc__)
    main()
