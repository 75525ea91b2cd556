"""Says whether a point is one that an honest key pair can have; it signs nothing and holds no secrets.

OpenSSH stores whatever bytes it is given. For an Ed25519 point of low order anybody can make signatures that
verify, so such a key opens an account to everyone.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

from keyrack.ssh.modular_power import power_to
from keyrack.ssh.x25519 import SIZE, Multiplier


class _Curve(NamedTuple):
    """y^2 = x^3 - 3x + b over the integers modulo p, of prime order (FIPS 186-4, appendix D.1.2)."""

    size: int  # bytes of one coordinate
    p: int
    b: int


NIST_CURVES = {
    "nistp256": _Curve(
        32,
        2**256 - 2**224 + 2**192 + 2**96 - 1,
        0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
    ),
    "nistp384": _Curve(
        48,
        2**384 - 2**128 - 2**96 + 2**32 - 1,
        0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
    ),
    "nistp521": _Curve(
        66,
        2**521 - 1,
        0x0051953EB9618E1C9A1F929A21A0B68540EEA2DA725B99B315F3B8B489918EF109E156193951EC7E937B1652C0BD3BB1BF073573DF883D2C34F1EF451FD46B503F00,
    ),
}


def nist_problem(name: str, point: bytes) -> Optional[str]:
    """Why `point` (SEC 1 bytes) is no public key on the curve `name`; None when it is one.

    The curves have prime order, so a point on them that is not infinity is in the right group.
    """
    curve = NIST_CURVES[name]
    if len(point) != 1 + 2 * curve.size:
        return f"its point must have {1 + 2 * curve.size} bytes"
    if point[0] != 4:
        return "its point is not in uncompressed form"
    x = int.from_bytes(point[1 : 1 + curve.size], "big")
    y = int.from_bytes(point[1 + curve.size :], "big")
    if x >= curve.p or y >= curve.p:
        return "its point is out of range"
    if (y * y - (x * x - 3) * x - curve.b) % curve.p:
        return "its point is not on the curve"
    return None


# Ed25519 (RFC 8032 section 5.1) and curve25519 (RFC 7748 section 4.1), which is the same curve in other
# coordinates.
_P = ED25519_P = 2**255 - 19
_D = ED25519_D = 0x52036CEE2B6FFE738CC740797779E89800700A4D4141D8AB75EB4DCA135978A3
_ROOT_OF_MINUS_ONE = 0x2B8324804FC1DF0B2B4D00993DFBD7A72F431806AD2FE478C4EE1B274A0EA0B0
_A = 486662
# A square root of -486664: maps the Edwards x to the Montgomery v (RFC 7748 section 4.1).
_to_root = power_to((_P + 3) // 8, _P)
_to_character = power_to((_P - 1) // 2, _P)
_SCALE = 0xF26EDF460A006BBD27B08DC03FC4F7EC5A1D3D14B7D1A82CC6E04AAFF457E06
_L = 2**252 + 27742317777372353535851937790883648493  # the prime order of the group that keys live in
_times_5l_minus_1 = Multiplier(5 * _L - 1)


def _sqrt(value: int) -> Optional[int]:
    """A square root modulo _P, or None; _P is 5 modulo 8."""
    root = _to_root(value)
    square = root * root % _P
    if square == value:
        return root
    if square == _P - value:
        return root * _ROOT_OF_MINUS_ONE % _P
    return None


def ed25519_problem(point: bytes) -> Optional[str]:
    """Why these bytes are no Ed25519 public key; None when they are one.

    Beyond what signing libraries check: the encoding is the canonical one and the point lies in the group
    of prime order, so each key has one fingerprint only, and nobody can forge signatures for a part of
    it.
    """
    if len(point) != 32:
        return "its point must have 32 bytes"
    encoded = int.from_bytes(point, "little")
    sign, y = encoded >> 255, encoded & ((1 << 255) - 1)
    if y >= _P:
        return "its point is not in canonical form"
    if _is_in_prime_order_group(y):
        return None
    # Either the point is wrong, and it is found out why, or OpenSSL is not available.
    # x^2 = (y^2 - 1) / (d y^2 + 1); the divisor is never zero because -1/d is no square.
    yy = y * y % _P
    x = _sqrt((yy - 1) * pow(_D * yy + 1, -1, _P) % _P)
    if x is None:
        return "its point is not on the curve"
    if x == 0 and sign:
        return "its point is not in canonical form"
    if _has_low_order(x, y):
        return "its point has low order: anybody could sign for it"
    if not _is_multiple_of_eight(x, y):
        return "its point is outside the group of prime order"
    return None


def _is_in_prime_order_group(y: int) -> bool:
    """Whether the point with this y is in the group of prime order; always False without OpenSSL.

    It computes whether 5*L - 1 times the point has the same u-coordinate as the point, which only holds in that group.
    This one multiplication by OpenSSL takes a fifth of the time of _has_low_order and _is_multiple_of_eight.

    5*L - 1 is a multiple of eight, and -1 modulo L. Every point of the curve is P + T with P in the prime-order group
    and T of an order that divides eight; so the product is -P, whose u-coordinate only P and -P have. P + T is P
    where T is the neutral element, and never -P otherwise, as T would be -2*P, of odd order. Where P is the neutral
    element so is the product, and there is no answer. A number that belongs to no point of the curve belongs to one of
    its twist, whose order is four times a prime that divides neither 5*L nor 5*L - 2.
    """
    if y == 1:
        return False
    u = ((1 + y) * pow(1 - y, -1, _P) % _P).to_bytes(SIZE, "little")
    return _times_5l_minus_1.times(u) == u


def _has_low_order(x: int, y: int) -> bool:
    """Whether eight times the point is the neutral element."""
    z = 1
    for _ in range(3):
        # RFC 8032 section 5.1.4, projective: three doublings without a division.
        xx, yy, zz = x * x % _P, y * y % _P, 2 * z * z % _P
        h = xx + yy
        e = h - (x + y) * (x + y)
        g = xx - yy
        f = zz + g
        x, y, z = e * f % _P, g * h % _P, f * g % _P
    return x == 0 and (y - z) % _P == 0


def _is_multiple_of_eight(x: int, y: int) -> bool:
    """Whether the point, not of low order, is eight times another one: the same as lying in the prime-order group.

    The whole group is cyclic of order 8*L with L an odd prime, so the points of order L are exactly the
    multiples of eight. Three halvings cost half of one multiplication by L. On v^2 = u (u^2 + A u + 1),
    whose one point of order two is (0, 0), a point is twice another one exactly when u is a square
    (2-descent). With w = sqrt(u), its halves have q + 1/q = s = 2 (u + v/w) for one of the two signs of v,
    the one for which s + A is a square, because (q^2 - 1)^2 = 4 u q (q^2 + A q + 1). Then q = s/2 + w r
    with r = sqrt(s + A), and sqrt(q^2 + A q + 1) = sqrt(q) r up to sign. The signs that stay open choose
    between halves of P and of -P, and between halves that differ by the point of order two: none changes
    the answer.
    """
    u = (1 + y) * pow(1 - y, -1, _P) % _P
    w = _sqrt(u)
    if w is None:
        return False
    v_over_w = _SCALE * w * pow(x, -1, _P) % _P
    q, r = _half(u, w, v_over_w)
    w = _sqrt(q)
    if w is None:
        return False
    q, _ = _half(q, w, w * r % _P)
    return _to_character(q) == 1


def _half(u: int, w: int, v_over_w: int) -> tuple[int, int]:
    """The u-coordinate of a half of a point with square u = w^2, and the root r that it was made with."""
    for half_s in (u + v_over_w, u - v_over_w):
        r = _sqrt((2 * half_s + _A) % _P)
        if r is not None:
            return (half_s + w * r) % _P, r
    # (s + A)(s' + A) = A^2 - 4 is no square, so one of the two has a root for every point of the curve.
    raise ArithmeticError("not a point of the curve")
