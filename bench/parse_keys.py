"""Keys a second through the strict parser, by type, beside `cryptography`'s loader in the same run.

The ratio is what to watch: it compares work that is not the same. cryptography's loader takes forms and numbers that
must be refused; ours adds the group check of Ed25519 points and the weaknesses of RSA moduli, primality above all.
Run: .venv/bin/python bench/parse_keys.py [seconds for each measurement]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key
from usage import help_asked

from keyrack.ssh import known_private
from keyrack.ssh.public_key import parse, read_canonical


def sample_lines() -> dict[str, str]:
    """One fresh key of each type that cryptography can make."""
    publics: dict[str, ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey] = {
        "ssh-ed25519": ed25519.Ed25519PrivateKey.generate().public_key(),
        "ecdsa-sha2-nistp256": ec.generate_private_key(ec.SECP256R1()).public_key(),
        "ecdsa-sha2-nistp384": ec.generate_private_key(ec.SECP384R1()).public_key(),
        "ecdsa-sha2-nistp521": ec.generate_private_key(ec.SECP521R1()).public_key(),
        "ssh-rsa 2048": rsa.generate_private_key(65537, 2048).public_key(),
        "ssh-rsa 3072": rsa.generate_private_key(65537, 3072).public_key(),
        "ssh-rsa 4096": rsa.generate_private_key(65537, 4096).public_key(),
    }
    return {
        name: public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() + " alice@example.com"
        for name, public in publics.items()
    }


def rate(work: Callable[[], object], seconds: float) -> float:
    """Calls a second, the best of three rounds."""
    best = 0.0
    for _ in range(3):
        count, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds / 3:
            work()
            count += 1
        best = max(best, count / elapsed)
    return best


def main() -> None:
    """Prints the table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    print(f"{'':20} {'parse':>9} {'canonical':>10} {'is_known':>9} {'cryptography':>13} {'parse/cryptography':>19}")
    for name, line in sample_lines().items():
        key, encoded = parse(line), line.encode()
        known_private.is_known(key)
        strict = rate(lambda line=line: parse(line), seconds)  # type: ignore[misc]
        canonical = rate(lambda line=key.canonical: read_canonical(line), seconds)  # type: ignore[misc]
        known = rate(lambda key=key: known_private.is_known(key), seconds)  # type: ignore[misc]
        peer = rate(lambda data=encoded: load_ssh_public_key(data), seconds)  # type: ignore[misc]
        print(f"{name:20} {strict:9,.0f} {canonical:10,.0f} {known:9,.0f} {peer:13,.0f} {strict / peer:19.3f}")


if __name__ == "__main__":
    help_asked(__doc__)
    main()
