"""Says whether an Ed25519 signature holds (RFC 8032, section 5.1.7); it signs nothing and holds no secrets.

Strict: only the canonical encoding of a key, S below the order of the group, and R compared byte for byte, without the
cofactor, as OpenSSH does it. Everything it computes with is public, so its timing gives nothing away.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import List, Optional, Tuple

from keyrack.ssh.curves import ED25519_D as _D
from keyrack.ssh.curves import ED25519_P as _P

_ORDER = 2**252 + 27742317777372353535851937790883648493
_ROOT_OF_MINUS_ONE = pow(2, (_P - 1) // 4, _P)
_TWICE_D = 2 * _D % _P
_BASE_POINT = (4 * pow(5, -1, _P) % _P).to_bytes(32, "little")
_WIDTH = 5  # bits of one step

# x = X/Z, y = Y/Z, xy = T/Z (section 5.1.4)
_Point = Tuple[int, int, int, int]
# What adding a point takes of it: Y-X, Y+X, 2d*T, 2Z
_Addend = Tuple[int, int, int, int]
_NEUTRAL = (0, 1, 1, 0)


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the holder of a public key (32 bytes) made this signature (64 bytes) of the message.

    Keys of low order are not refused here, and anybody can sign for those: check with curves.ed25519_problem first.
    """
    point = _decoded(public)
    if point is None or len(signature) != 64:
        return False
    s = int.from_bytes(signature[32:], "little")
    if s >= _ORDER:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % _ORDER
    # R = sB - hA
    x, y, z, t = point
    return _encoded(_sum(s, _multiples_of_base(), h, _odd_multiples((_P - x, y, z, _P - t)))) == signature[:32]


def _decoded(data: bytes) -> Optional[_Point]:
    """The point that 32 bytes encode (section 5.1.3); None where they encode none, or not canonically."""
    if len(data) != 32:
        return None
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & ((1 << 255) - 1)
    if y >= _P:
        return None
    # x^2 = u / v; v is never zero because -1/d is no square.
    u, v = (y * y - 1) % _P, (_D * y * y + 1) % _P
    x = u * v**3 * pow(u * v**7 % _P, (_P - 5) // 8, _P) % _P
    square = v * x * x % _P
    if square == _P - u:
        x = x * _ROOT_OF_MINUS_ONE % _P
    elif square != u:
        return None
    if x == 0 and sign:
        return None
    if x & 1 != sign:
        x = _P - x
    return (x, y, 1, x * y % _P)


def _encoded(point: _Point) -> bytes:
    inverse = pow(point[2], -1, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _sum(a: int, multiples_of_a: List[_Addend], b: int, multiples_of_b: List[_Addend]) -> _Point:
    """a times one point and b times another, doubled together."""
    steps_of_a, steps_of_b = _steps(a), _steps(b)
    point: _Point = _NEUTRAL
    for at in reversed(range(max(len(steps_of_a), len(steps_of_b)))):
        point = _doubled(point)
        for steps, multiples in ((steps_of_a, multiples_of_a), (steps_of_b, multiples_of_b)):
            step = steps[at] if at < len(steps) else 0
            if step > 0:
                point = _added(point, multiples[step >> 1])
            elif step < 0:
                less, more, t, z = multiples[-step >> 1]
                point = _added(point, (more, less, -t, z))
    return point


def _steps(number: int) -> List[int]:
    """A number as a sum of powers of two with odd factors, few of them not zero (width-w NAF)."""
    digits = []
    while number:
        step = 0
        if number & 1:
            step = number & ((1 << _WIDTH) - 1)
            if step >= 1 << (_WIDTH - 1):
                step -= 1 << _WIDTH
            number -= step
        digits.append(step)
        number >>= 1
    return digits


def _odd_multiples(point: _Point) -> List[_Addend]:
    """1, 3, 5, … times a point, ready to be added."""
    twice = _addend(_doubled(point))
    multiples = [_addend(point)]
    for _ in range((1 << (_WIDTH - 2)) - 1):
        point = _added(point, twice)
        multiples.append(_addend(point))
    return multiples


@lru_cache(maxsize=None)
def _multiples_of_base() -> List[_Addend]:
    base = _decoded(_BASE_POINT)
    if base is None:
        raise ArithmeticError("the base point is not on the curve")
    return _odd_multiples(base)


def _addend(point: _Point) -> _Addend:
    x, y, z, t = point
    return ((y - x) % _P, (y + x) % _P, _TWICE_D * t % _P, 2 * z % _P)


def _added(point: _Point, addend: _Addend) -> _Point:
    x, y, z, t = point
    less, more, twice_dt, twice_z = addend
    a, b, c, d = (y - x) * less % _P, (y + x) * more % _P, t * twice_dt % _P, z * twice_z % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % _P, g * h % _P, f * g % _P, e * h % _P)


def _doubled(point: _Point) -> _Point:
    x, y, z, _ = point
    a, b = x * x % _P, y * y % _P
    h = a + b
    e, g = h - (x + y) * (x + y) % _P, a - b
    f = 2 * z * z + g
    return (e * f % _P, g * h % _P, f * g % _P, e * h % _P)
