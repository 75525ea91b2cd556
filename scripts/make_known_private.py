"""Makes src/keyrack/ssh/known_private.dat: the keys whose private half anybody can have.

Run it from the repository's root; it writes the same bytes every time. A test compares them with the file.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyrack.ssh.known_private import number_hash

PATTERN, WORD, STANDARD, PRODUCT = 1, 2, 3, 4

TARGET = Path("src/keyrack/ssh/known_private.dat")
SMALL = 1024  # private numbers and seeds from 1 to here

CURVES: tuple[ec.EllipticCurve, ...] = (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())

WORDS = (
    "0000 1234 12345 123456 1234567 12345678 123456789 1234567890 a abc abc123 abcd abcdef admin alice bob "
    "changeme correct-horse-battery-staple correcthorsebatterystaple default demo dev dragon ed25519 example "
    "foo foobar guest hello hello-world helloworld hunter2 iloveyou insecure key keyrack letmein login master "
    "monkey mypassword nothing openssh passw0rd passwd password password1 password123 private privatekey "
    "qwerty root secret secretkey seed server ssh ssh-ed25519 sshkey superman test test1 test123 testing "
    "testkey testseed trustno1 user vagrant welcome world"
)

# RFC 8032 sections 7.1 and 7.2 (seed and start of the public key) and RFC 8410 section 10.3.
ED25519_VECTORS = {
    "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60": "d75a980182b10ab7",
    "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb": "3d4017c3e843895a",
    "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7": "fc51cd8e6218a1a3",
    "f5e5767cf153319517630f226876b86c8160cc583bc013744c6bf255f5cc0ee5": "278117fc144c7234",
    "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42": "ec172b93ad5e563b",
    "d4ee72dbf913584ad5b6d8f1f769f8ad3afe7c28cbf1d4fbe097a88f44755842": "19bf44096984cdfe",
    "0305334e381af78f141cb666f6199f57bc3495335a256a95bd2a55bf546663f6": "dfc9425e4f968f7f",
    "ab9c2853ce297ddab85c993b3ae14bcad39b2c682beabc27d6d4eb20711d6560": "0f1d1274943b9141",
}

# RFC 6979 appendix A.2.5 to A.2.7: the private number and the beginning of the x-coordinate.
ECDSA_VECTORS = (
    (CURVES[0], "C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721", "60FED4BA255A9D31"),
    (
        CURVES[1],
        "6B9D3DAD2E1B8C1C05B19875B6659F4DE23C3B667BF297BA9AA47740787137D896D5724E4C70A825F872C9EA60D2EDF5",
        "EC3A4E415B4E19A4",
    ),
    (
        CURVES[2],
        "00FAD06DAA62BA3B25D2FB40133DA757205DE67F5BB0018FEE8C86E1B68C7E75"
        "CAA896EB32F1F47C70855836A6D16FCC1466F6D8FBEC67DB89EC0C08B0E996B83538",
        "01894550D0785932",
    ),
)

# Public halves of private keys that are printed elsewhere, as x-coordinates and moduli (hexadecimal or base64url).
PRINTED = (
    # RFC 9500, section 2: test keys for everybody.
    "422548f88fb782ffb5eca3744452c72a1e558fbd6f73be5e48e93232cc45c5b1",
    "5b0901b88523296eb919d50ffa1a9cb374bc4d409586282bfeca11b1d95adbb54734af570bf82b7228cf226bcf4c25dd",
    "01d0fd7257a84c747f562575c07385dbebf2f52bea58083db82fdd1531d8aae3"
    "cc875ff02ff7fa2da260d8eb62d6d2f5d649278e321736a0628cbbb30308b6e618db",
    "sPnoGUOnrpiSqt4XynxA-HRP7S-BSObI6qJ7fQAVSPtRkqsotWxQYLEYzNEx5ZSHTGypibVsJylvCfuToDTfMul8b_CZjP2Ob0LdpYrNH6l5"
    "hvFE89FU1nZQF15oVLOpUgA7wGiHuEVawrGfey92UE68mOyUVXGweJIVDdxqdMoPvNNUl86BU02vlBiESxOuox-dWmuVV7vfYZ79Toh_LUK4"
    "3YvJh-rhv4nKuF7iHjVjBd9sB6iDjj70HFldzOQ9r8SRI-9NirupPTkF5AKNe6kUhKJ1luB7S27ZkvB3tSTT3P593VVJvnzOjaA1z6Cz-4-e"
    "RvcysqhrRgFlwI9TEw",
    "s4tJYOY75qjbqJqCl47x9jJE5Vd9jPWGFtXKV1nUnMjZNsM4qjy5sRHBSX5bUa9pLyYR5on3Z1SAwLD0w2VPQ6-F_oyK1zTgQqitoF_XZQjg"
    "C6D3VsNEO76DPqfRANT7Nn7r1gvbZIZ3_H3rlCRNrRr47tHGWBLAPnxz9_NY6UG8ZkWP97uXpJqYoRgH4CwaO5rTOlc64YDh_0Mq5VgMycq_"
    "q2AvMlvNoJfoe8em1040qH1gikP-suT_8fS452hqmEddtRpuvQgXKldBd0kkiyFVyLkG4NVA6Mso9MAK3J_kdYoaw2SrOeThVSiYVEQVP-7G"
    "rUxTSLLjj_VQ9fpYM5eTNzDICIG_Ee7o_jhtW1EoSamDmUOr89lyIHaXuOwkEaJhnVXKBCM8WiztxvKG2CnQ6Dcge3ZSmqJEhyEmjcAVC7ew"
    "fnMxOnE-WJW6rzrf-mA5WMVn-FzyWx2AondWow0aUKHkaY7amhIrsKp6YPfNImyxFlz8-cqDCmBswPsUh_JJ5eDHHIhibFcSgIHedsEjhLbU"
    "SLZ_DnEjru90qIWWA3R1VIPykKfeZkZeInsrFzGPikkFKwFF-6KDdyvCmltYEqzO46tigXAZ5UgH8oiXEre48wO6X-FH-cLzQ0q3A8HZRnND"
    "gqCjU_Tgy76iaku_Ic6eteedR1fX3gJ_IOU",
    # RFC 7517 appendix A.2 and RFC 7515 appendix A.3.
    "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3"
    "oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdA"
    "ZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-"
    "kEgU8awapJzKnqDKgw",
    "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
)

# Keys whose private half came with a product, as lines of .pub files.
SHIPPED = (
    # Vagrant's "insecure" keys, in every fresh box.
    "ssh-rsa AAAAB3NzaC1yc2EAAAABIwAAAQEA6NF8iallvQVp22WDkTkyrtvp9eWW6A8YVr+kz4TjGYe7gHzIw+niNltGEFHzD8+v1I2YJ6oX"
    "evct1YeS0o9HZyN1Q9qgCgzUFtdOKLv6IedplqoPkcmF0aYet2PkEDo3MlTBckFXPITAMzF8dJSIFo9D8HfdOV0IAdx4O7PtixWKn5y2hMNG"
    "0zQPyUecp4pzC6kivAIhyfHilFR61RGL+GPXQ2MWZWFYbAGjyiYJnAmCP3NOTd0jMZEnDkbUvxhMmBYSdETk1rRgm+R4LOzFUGaHqHDLKLX+"
    "FIPKcF96hrucXzcWyLbIbEgE98OHlnVYCzRdK8jlqm8tehUc9c9WhQ==",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN1YdxBpNlzxDqfJyw/QKow1F+wvG9hXGoqiysfJOn5Y",
    # The image of Piunora's first boards.
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINkvt5FDLWCDLr7DfhdM5aE6WUcuF1EjcnkZ3gaUQUBi",
)


def seeds() -> Iterator[bytes]:
    """32 bytes that people type instead of random ones."""
    for byte in range(256):
        yield bytes([byte]) * 32
    for number in range(1, SMALL + 1):
        yield number.to_bytes(32, "big")
        yield number.to_bytes(32, "little")
    for bit in range(256):
        yield (1 << bit).to_bytes(32, "big")
    yield bytes(range(32))
    yield bytes(range(1, 33))
    yield bytes(range(31, -1, -1))
    yield bytes(range(32, 0, -1))
    yield from (
        bytes.fromhex(text) * (64 // len(text)) for text in ("deadbeef", "cafebabe", "0123456789abcdef", "00ff")
    )
    yield b"0123456789abcdef0123456789abcdef"
    yield b"0123456789abcdefghijklmnopqrstuv"
    yield b"abcdefghijklmnopqrstuvwxyz012345"
    yield b"abcdefghijklmnopqrstuvwxyzabcdef"
    yield b"12345678901234567890123456789012"
    yield b"0" * 31 + b"1"


def word_seeds() -> Iterator[bytes]:
    for word in itertools.chain([""], WORDS.split()):
        data = word.encode()
        yield hashlib.sha256(data).digest()
        yield hashlib.sha512(data).digest()[:32]
        yield hashlib.md5(data).hexdigest().encode()  # noqa: S324 - what people did, not what we do
        if data:
            yield data[:32].ljust(32, b"\0")
            yield data[:32].rjust(32, b"\0")
            yield (data * 32)[:32]


def ed25519_number(seed: bytes) -> int:
    public = ed25519.Ed25519PrivateKey.from_private_bytes(seed).public_key()
    return int.from_bytes(public.public_bytes(Encoding.Raw, PublicFormat.Raw), "big")


def ecdsa_number(curve: ec.EllipticCurve, private: int) -> int:
    return ec.derive_private_key(private, curve).public_key().public_numbers().x


def ecdsa_patterns(curve: ec.EllipticCurve) -> Iterable[int]:
    """Private numbers; a number and the order minus it share the x-coordinate, so those are covered as well."""
    size = (curve.key_size + 7) // 8
    yield from range(1, SMALL + 1)
    yield from (1 << bit for bit in range(curve.key_size - 1))
    for seed in itertools.chain((bytes([byte]) * size for byte in range(1, 256)), seeds(), word_seeds()):
        # Above the order a library would refuse it, so nobody has such a key; P-521 has one bit in its first byte.
        number = int.from_bytes(seed, "big")
        if len(seed) == size or curve.key_size == 256:
            yield number & ((1 << curve.key_size) - 1)


def records() -> Iterator[tuple[bytes, int]]:
    for vector, expected in ED25519_VECTORS.items():
        number = ed25519_number(bytes.fromhex(vector))
        assert f"{number:064x}".startswith(expected), vector
        yield number_hash(number), STANDARD
    for curve, vector, expected in ECDSA_VECTORS:
        number = ecdsa_number(curve, int(vector, 16))
        assert f"{number:0{(curve.key_size + 7) // 8 * 2}X}".startswith(expected), curve.name
        yield number_hash(number), STANDARD
    for printed in PRINTED:
        yield number_hash(read_number(printed)), STANDARD
    for line in SHIPPED:
        yield number_hash(last_field(base64.b64decode(line.split()[1]))), PRODUCT
    for kind, made in ((WORD, word_seeds()), (PATTERN, seeds())):
        for seed in made:
            yield number_hash(ed25519_number(seed)), kind
    for curve in CURVES:
        for private in ecdsa_patterns(curve):
            try:
                yield number_hash(ecdsa_number(curve, private)), PATTERN
            except ValueError:
                continue  # zero, or not below the order of the curve


def read_number(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")


def last_field(blob: bytes) -> int:
    """The modulus or the point: the last field of the types above."""
    at = 0
    while at < len(blob):
        length = int.from_bytes(blob[at : at + 4], "big")
        field, at = blob[at + 4 : at + 4 + length], at + 4 + length
    return int.from_bytes(field, "big")


def make() -> bytes:
    """The whole file."""
    lists: dict[bytes, int] = {}
    for digest, kind in records():
        lists[digest] = max(kind, lists.get(digest, 0))
    return b"".join(digest + bytes([kind]) for digest, kind in sorted(lists.items()))


if __name__ == "__main__":
    TARGET.write_bytes(make())
    sys.stdout.write(f"{TARGET}: {TARGET.stat().st_size // 16} keys\n")
