"""RSA numbers that give their private half away."""

from __future__ import annotations

import math
import random

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from keyrack.ssh import modular_power
from keyrack.ssh.public_key import KeyProblem, parse
from keyrack.ssh.weak import rsa_problem
from tests.ssh.cases import mpint, text_line

E = 65537

# Published examples of weak keys: ROCA (from a real smart card) and close primes, from badkeys' own tests.
ROCA = (
    "MIIBCgKCAQEAkTKtIR/MDftNrkgyashkwifks5Swm9HEkw4ZcCijyQdpTStInk9pdUrq4zjG6tk5xX9AaYXLu47fmiBVzClGvAXTZbpn6JbG1IER"
    "Us+i0pBRT5CzUu7vJ/63L72NzVvJFaT0SUE5zByhCjJE+pflMnX1e1UptOdnN5AHeY4RKkugVse3XO2xMs3yH3vTyZdtnaOIFRU0d6E7PrsgRtEA"
    "qFHcAGmPUw0ZOW8A++8sS/FlnrxMf9lVa1/8k/A8otPfrNIipfAoq0MKJ+oxE2wML1DDxIGTGmNaN3gPANJyeuca7ptA+NGq5oU1x3pWMXgSvrVS"
    "XUooNk8xIkrKxSz3LQIDAQAB"
)
CLOSE = (
    "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAkGbTtoSrOJmrwu9FV3A3xDfxNn3EnSO94M9+QIL3qJjjIMh30xrAdra5ZsXjhJrRApI0"
    "X+qArvTQVv6/n9YqEoAPmF7n46yJ1TtYETFzGCjqk1sDZ8rVEnq4bxPHk0EQcFiQIn6iwTPOjeidD2WKUNIVeJWI/2X8Ms3ITdt+P4jV0DVeA6rd"
    "R31ClG+HGos1OdTA+8nMwDId0jA/Kv8MOPFBLf24p9OB8fzXP2Uno0CSSrZLktJCouOcPzGgBB5sZZFHxpsrf76uJNULBrjC9Pbxx3ogpGVy1L5C"
    "C9v8qk3L44qQpi4g/PC9wWNsK+NPr/tiq4+S3uB369Ye1n+0ywIDAQAB"
)


def pem_modulus(kind: str, body: str) -> int:
    lines = "\n".join(body[at : at + 64] for at in range(0, len(body), 64))
    public = load_pem_public_key(f"-----BEGIN {kind}-----\n{lines}\n-----END {kind}-----\n".encode())
    assert isinstance(public, rsa.RSAPublicKey)
    return public.public_numbers().n


def is_prime(number: int) -> bool:
    return all(number % small for small in (3, 5, 7, 11, 13)) and modular_power.power(2, number - 1, number) == 1


def next_prime(number: int) -> int:
    number |= 1
    while not is_prime(number):
        number += 2
    return number


@pytest.fixture(scope="module")
def chance() -> random.Random:
    return random.Random(2048)


@pytest.fixture(scope="module")
def prime(chance: random.Random) -> int:
    return next_prime(chance.getrandbits(1024) | 3 << 1022)


@pytest.fixture(scope="module")
def modulus() -> int:
    """A sound one, of 2,048 bits."""
    return rsa.generate_private_key(E, 2048).public_key().public_numbers().n


def test_finds_the_published_examples() -> None:
    assert "ROCA" in str(rsa_problem(pem_modulus("RSA PUBLIC KEY", ROCA), E))
    assert "close" in str(rsa_problem(pem_modulus("PUBLIC KEY", CLOSE), E))


@pytest.mark.parametrize("bits", [2048, 2049, 2056, 3071, 3072])
def test_real_keys_pass(bits: int) -> None:
    for _ in range(3 if bits == 2048 else 1):
        numbers = rsa.generate_private_key(E, bits).public_key().public_numbers()
        assert rsa_problem(numbers.n, numbers.e) is None


def test_finds_prime_square_and_cube(prime: int, chance: random.Random) -> None:
    assert "prime" in str(rsa_problem(next_prime(chance.getrandbits(2048) | 1 << 2047), E))
    assert "power" in str(rsa_problem(prime**2, E))
    assert "power" in str(rsa_problem(next_prime(chance.getrandbits(700) | 1 << 699) ** 3, E))


@pytest.mark.parametrize("small", [3, 5, 257, 65521, 65537])
def test_finds_small_factors(small: int, prime: int, chance: random.Random) -> None:
    assert "small factor" in str(rsa_problem(small * prime * next_prime(chance.getrandbits(1010) | 1 << 1009), E))


@pytest.mark.parametrize("distance", [2, 1 << 64, 1 << 400, 1 << 500])
def test_finds_primes_that_are_close(distance: int, prime: int) -> None:
    assert "close" in str(rsa_problem(prime * next_prime(prime + distance), E))


@pytest.mark.parametrize(("u", "v"), [(1, 2), (1, 3), (2, 3), (3, 5)])
def test_finds_primes_whose_ratio_is_simple(u: int, v: int, prime: int) -> None:
    assert "close" in str(rsa_problem(prime * next_prime(prime * v // u + 2), E))


def test_finds_the_structure_of_infineon_primes(chance: random.Random) -> None:
    # CVE-2017-15361: p = k*M + (65537^a mod M), M the product of the first 126 primes for keys of 2,048 bits.
    primes = [
        number for number in range(2, 710) if all(number % smaller for smaller in range(2, math.isqrt(number) + 1))
    ]
    product = math.prod(primes[:126])

    def weak_prime() -> int:
        while True:
            k = chance.getrandbits(1023 - product.bit_length()) | 1 << (1022 - product.bit_length())
            number = k * product + pow(65537, chance.getrandbits(255), product)
            if is_prime(number):
                return number

    modulus = weak_prime() * weak_prime()
    assert "ROCA" in str(rsa_problem(modulus, E))


def test_finds_patterns(chance: random.Random) -> None:
    unit = chance.randbytes(24)
    for data in (
        b"\xab\xcd" * 128,
        unit * 11,
        b"\xff" * 256,
        b"\x80" + bytes(254) + b"\1",
        unit * 5 + chance.randbytes(140),
    ):
        assert "pattern" in str(rsa_problem(int.from_bytes(data, "big") | 1, E))


def test_a_weak_key_is_refused_with_what_is_wrong(prime: int) -> None:
    line = text_line("ssh-rsa", mpint(E), mpint(prime * next_prime(prime + 2)))
    with pytest.raises(
        KeyProblem, match=r"^This key is weak: its two primes are close .* ssh-keygen -t ed25519$"
    ) as caught:
        parse(line)
    assert caught.value.code == "weak"
    assert line.split()[1][20:60] not in str(caught.value)


@pytest.mark.parametrize(
    ("e", "code"),
    [(1, "rsa-exponent"), (3, "rsa-exponent"), (15, "rsa-exponent"), (17, None), (35, None), (65536, "rsa-exponent"),
     (2**64 - 1, None), (2**64 + 1, "rsa-exponent")],
)  # fmt: skip
def test_weak_rsa_exponents_are_refused(e: int, code: str | None, modulus: int) -> None:
    line = text_line("ssh-rsa", mpint(e), mpint(modulus))
    if code is None:
        assert parse(line).bits == 2048
    else:
        with pytest.raises(KeyProblem) as caught:
            parse(line)
        assert caught.value.code == code


def test_perfect_powers_are_recognised(chance: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    for bits in (2, 8, 64, 65, 1024, 2048):
        base, exponent, modulus = (chance.getrandbits(bits) + 1 for _ in range(3))
        assert modular_power.power(base, exponent, modulus) == pow(base, exponent, modulus)
    # A Python without OpenSSL gives the same answers.
    monkeypatch.setattr(modular_power, "_libcrypto", lambda: None)
    assert modular_power.power(3, 200, 1009) == pow(3, 200, 1009)
