"""Ed25519 and NIST points, against slow textbook arithmetic and against `cryptography`."""

from __future__ import annotations

import random
import ssl
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyrack.ssh import curves
from keyrack.ssh.curves import NIST_CURVES, ed25519_problem, nist_problem
from keyrack.ssh.x25519 import Multiplier

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493  # the order of the group that keys live in
D = -121665 * pow(121666, -1, P) % P

Point = tuple[int, int]
NEUTRAL: Point = (0, 1)


def add(a: Point, b: Point) -> Point:
    """The addition law of RFC 8032 section 5.1.4 in its plainest form."""
    k = D * a[0] * b[0] * a[1] * b[1]
    x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + k, -1, P)
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - k, -1, P)
    return x % P, y % P


def times(scalar: int, point: Point) -> Point:
    result = NEUTRAL
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def square_root(value: int) -> int | None:
    root = pow(value, (P + 3) // 8, P)
    for candidate in (root, root * pow(2, (P - 1) // 4, P) % P):
        if candidate * candidate % P == value % P:
            return candidate
    return None


def some_point(chance: random.Random) -> Point:
    """Any point of the curve, of any order."""
    while True:
        y = chance.randrange(P)
        x = square_root((y * y - 1) * pow(D * y * y + 1, -1, P))
        if x is not None:
            return (x if chance.random() < 0.5 else P - x), y


def encode(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


@pytest.fixture(scope="module")
def of_order_eight() -> Point:
    chance = random.Random(8032)
    while True:
        point = times(L, some_point(chance))
        if times(4, point) != NEUTRAL:
            return point


@pytest.fixture(params=["with OpenSSL", "without it"])
def reckoned(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """By one multiplication, or by halvings where OpenSSL cannot be had."""
    if request.param == "without it":
        monkeypatch.setattr(curves, "_times_5l_minus_1", SimpleNamespace(times=lambda u: None))


@pytest.mark.usefixtures("reckoned")
def test_only_the_group_of_prime_order_is_accepted(of_order_eight: Point) -> None:
    chance = random.Random(25519)
    for _ in range(25):
        good = times(8, some_point(chance))
        assert times(L, good) == NEUTRAL
        for torsion in range(8):
            problem = ed25519_problem(encode(add(good, times(torsion, of_order_eight))))
            assert (problem is None) == (torsion == 0), torsion


def test_no_point_of_low_order_is_accepted(of_order_eight: Point) -> None:
    for multiple in range(8):
        assert "low order" in str(ed25519_problem(encode(times(multiple, of_order_eight))))


def test_agrees_with_textbook_arithmetic_about_any_32_bytes() -> None:
    chance = random.Random(7748)
    verdicts = set()
    for _ in range(60):
        point = chance.randbytes(32)
        encoded = int.from_bytes(point, "little")
        y = encoded & (2**255 - 1)
        x = square_root((y * y - 1) * pow(D * y * y + 1, -1, P))
        sound = y < P and x is not None and times(L, (x, y)) == NEUTRAL
        assert (ed25519_problem(point) is None) == sound
        verdicts.add(sound)
    assert verdicts == {True, False}


@pytest.mark.usefixtures("reckoned")
def test_every_real_ed25519_key_is_accepted() -> None:
    for _ in range(50):
        public = ed25519.Ed25519PrivateKey.generate().public_key()
        assert ed25519_problem(public.public_bytes(Encoding.Raw, PublicFormat.Raw)) is None


def test_numbers_of_the_twist_are_no_points_with_openssl_either() -> None:
    chance = random.Random(7748)
    for _ in range(200):
        y = chance.randrange(P)
        if square_root((y * y - 1) * pow(D * y * y + 1, -1, P)) is None:
            assert not curves._is_in_prime_order_group(y)


def test_a_multiplication_is_that_of_rfc_7748() -> None:
    number = int.from_bytes(random.Random(4).randbytes(32), "little") % 2**254 // 8 * 8 + 2**254
    key = x25519.X25519PrivateKey.from_private_bytes(number.to_bytes(32, "little"))
    for _ in range(10):
        point = x25519.X25519PrivateKey.generate().public_key()
        assert Multiplier(number).times(point.public_bytes_raw()) == key.exchange(point)
    assert Multiplier(number).times(bytes(32)) is None, "the neutral element"
    assert ssl.create_default_context().cert_store_stats(), "an error is left where nobody looks for it"
    with pytest.raises(ValueError, match="multiples of eight"):
        Multiplier(number + 1)


@pytest.mark.parametrize("y", range(2**255 - 19, 2**255))
@pytest.mark.parametrize("sign", [0, 1])
def test_no_second_encoding_of_a_point_is_accepted(y: int, sign: int) -> None:
    assert ed25519_problem((y | sign << 255).to_bytes(32, "little")) is not None


CURVES = {"nistp256": ec.SECP256R1(), "nistp384": ec.SECP384R1(), "nistp521": ec.SECP521R1()}


@pytest.mark.parametrize("name", CURVES)
def test_agrees_with_cryptography_about_nist_points(name: str) -> None:
    chance = random.Random(name)
    size = NIST_CURVES[name].size
    for _ in range(20):
        public = ec.generate_private_key(CURVES[name]).public_key()
        point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        assert nist_problem(name, point) is None
        broken = bytearray(point)
        broken[chance.randrange(1, len(point))] ^= 1 << chance.randrange(8)
        assert nist_problem(name, bytes(broken)) is not None
        compressed = public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        assert nist_problem(name, compressed) is not None
        assert nist_problem(name, b"\x06" + point[1:]) is not None, "the hybrid form"
    for bad in (b"", b"\0", b"\4" + bytes(2 * size), b"\4" + b"\xff" * (2 * size), b"\0" * (2 * size + 1)):
        assert nist_problem(name, bad) is not None


@pytest.mark.parametrize("name", CURVES)
def test_coordinates_beyond_the_field_are_refused(name: str) -> None:
    curve = NIST_CURVES[name]
    numbers = ec.derive_private_key(1, CURVES[name]).public_key().public_numbers()
    for x, y in ((numbers.x + curve.p, numbers.y), (numbers.x, numbers.y + curve.p)):
        if max(x, y) < 1 << 8 * curve.size:
            point = b"\4" + x.to_bytes(curve.size, "big") + y.to_bytes(curve.size, "big")
            assert "range" in str(nist_problem(name, point))
