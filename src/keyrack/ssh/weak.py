"""Finds RSA numbers whose private half follows from the public one; each test is bounded, none needs a list.

What it does not find: keys that somebody published (known_private.py) and primes shared between two keys.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd, isqrt
from typing import FrozenSet, List, Optional, Tuple

from keyrack.ssh.modular_power import power

# Trial division in one step, by the product of the primes up to here. Real keys have primes of 1,024 bits
# and more.
_SMALL_FACTOR_BOUND = 65537

# Steps of Fermat's method. Honest primes of n bits differ by about 2**(n/2 - 1), for which it would take as
# many steps.
_FERMAT_STEPS = 100

# A prime modulus is found with one modular power, whose cost grows with the cube of the size: 2 ms at 2,048
# bits, 12 ms at 4,096 and 104 ms at 8,192; beyond that nobody has ever been seen to use RSA.
_PRIME_TEST_BITS = 8192

# The primes whose product Infineon's library built its primes around (CVE-2017-15361): every size of key
# uses at least these. Primes are k*M + (65537**a mod M), so the modulus is a power of 65537 modulo each of
# them.
_ROCA_PRIMES = (
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97,
    101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
)  # fmt: skip

# Bytes after which a modulus may repeat itself, and the share of equal bytes that no random one comes near
# (1 in 256).
_LONGEST_PATTERN = 64
_PATTERN_SHARE = 4


def rsa_problem(n: int, e: int) -> Optional[str]:
    """Why the modulus `n` gives its private key away, in words that follow "this key is weak:"; None when
    it does not.

    `e` is only used to tell a modulus from its exponent; size and exponent rules are the caller's.
    """
    if n % 2 == 0:
        return "its modulus is even"
    if n <= e:
        return "its modulus is not larger than its exponent"
    if _has_pattern(n):
        return "its modulus follows a pattern instead of being random"
    if gcd(n, _small_primes_product()) != 1:
        return "its modulus has a small factor"
    if _is_roca(n):
        return "hardware with the ROCA fault made it (CVE-2017-15361), so its private half can be computed"
    if _is_perfect_power(n):
        return "its modulus is a power of one number"
    if _has_close_factors(n):
        return "its two primes are close together, so its private half can be computed (CVE-2022-26320)"
    if n.bit_length() <= _PRIME_TEST_BITS and power(2, n - 1, n) == 1:
        return "its modulus is a prime number, so its private half can be computed"
    return None


@lru_cache(maxsize=None)
def _small_primes_product() -> int:
    sieve = bytearray([1]) * (_SMALL_FACTOR_BOUND + 1)
    sieve[0:2] = b"\0\0"
    for number in range(2, isqrt(_SMALL_FACTOR_BOUND) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, len(sieve), number)))
    factors = [number for number, is_prime in enumerate(sieve) if is_prime and number > 2]
    while len(factors) > 1:  # in pairs: multiplying one by one is quadratic
        if len(factors) % 2:
            factors.append(1)
        factors = [factors[at] * factors[at + 1] for at in range(0, len(factors), 2)]
    return factors[0]


@lru_cache(maxsize=None)
def _roca_residues() -> Tuple[Tuple[int, FrozenSet[int]], ...]:
    """For each prime with a telling subgroup: the powers of 65537 modulo it, smallest share of the residues first."""
    groups: List[Tuple[int, FrozenSet[int]]] = []
    for prime in _ROCA_PRIMES:
        powers, power = set(), 1
        while power not in powers:
            powers.add(power)
            power = power * 65537 % prime
        if len(powers) < prime - 1:
            groups.append((prime, frozenset(powers)))
    return tuple(sorted(groups, key=lambda group: len(group[1]) / group[0]))


def _is_roca(n: int) -> bool:
    """The fingerprint of Nemec and others (2017); a random modulus has it once in 2**27 or rarer."""
    return all(n % prime in powers for prime, powers in _roca_residues())


def _is_perfect_power(n: int) -> bool:
    """Whether n is a square or a cube; a fourth power is a square, and nobody has met a fifth."""
    if isqrt(n) ** 2 == n:
        return True
    root = _cube_root(n)
    return root**3 == n


def _cube_root(n: int) -> int:
    guess = 1 << -(-n.bit_length() // 3)
    while True:
        better = (2 * guess + n // (guess * guess)) // 3
        if better >= guess:
            return guess
        guess = better


def _has_close_factors(n: int) -> bool:
    """Fermat's method on n, then with one factor near a fraction of the other (Lehman's way)."""
    if _fermat(n, _FERMAT_STEPS):
        return True
    # 4uv*n = (2up)(2vq): close when p/q is near v/u.
    return any(_fermat(4 * u * v * n, 10) for u, v in ((1, 2), (1, 3), (1, 4), (2, 3), (1, 5), (3, 4), (3, 5)))


def _fermat(n: int, steps: int) -> bool:
    """Whether n = a*a - b*b with an `a` among the first `steps` above its root."""
    a = isqrt(n)
    if a * a < n:
        a += 1
    rest = a * a - n
    for _ in range(steps):
        # Squares are 0, 1, 4, 9, 16, 17, 25, 33, 36, 41, 49 or 57 modulo 64: most candidates end here.
        if 0x0202021202030213 >> (rest & 63) & 1 and isqrt(rest) ** 2 == rest:
            return True
        rest += 2 * a + 1
        a += 1
    return False


def _has_pattern(n: int) -> bool:
    """Whether bytes repeat after some period, or ones or zeros are far too many for chance (8 standard deviations)."""
    bits = n.bit_length()
    ones = bin(n).count("1")
    if (2 * ones - bits) ** 2 > 64 * bits:
        return True
    length = (bits + 7) // 8
    for period in range(1, min(_LONGEST_PATTERN, length // 2) + 1):
        # Equal bytes at this distance become zero bytes; the topmost `period` bytes have nothing to compare
        # with.
        difference = n ^ (n >> (8 * period))
        equal = (difference & ((1 << (8 * (length - period))) - 1)).to_bytes(length - period, "big").count(0)
        if equal * _PATTERN_SHARE > length - period:
            return True
    return False
