"""Keys whose private half anybody can have."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyrack.ssh import known_private
from keyrack.ssh.known_private import BlockList, is_known, key_hash, load, reason
from keyrack.ssh.public_key import PublicKey, parse
from tests.ssh.cases import cases, make_key, text_line

ROOT = Path(__file__).parent.parent.parent


def ed25519_key(seed: bytes) -> PublicKey:
    public = ed25519.Ed25519PrivateKey.from_private_bytes(seed).public_key()
    return parse(public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode())


def ecdsa_key(curve: ec.EllipticCurve, private: int) -> PublicKey:
    public = ec.derive_private_key(private, curve).public_key()
    return parse(public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode())


ORDERS = {
    ec.SECP256R1: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    ec.SECP384R1: 2**384 - 1388124618062372383947042015309946732620727252194336364173,
    ec.SECP521R1: 2**521
    - 657877501894328237357444332315020117536923257219387276263472201219398408051703,
}  # fmt: skip


@pytest.mark.parametrize(
    "seed",
    [
        bytes(32),
        b"\xff" * 32,
        b"a" * 32,
        bytes(31) + b"\1",
        b"\1" + bytes(31),
        (1000).to_bytes(32, "big"),
        bytes(range(32)),
    ],
)
def test_simple_seeds_are_known(seed: bytes) -> None:
    assert str(reason(ed25519_key(seed))).startswith("its private half is ")


@pytest.mark.parametrize("curve", ORDERS, ids=lambda curve: str(curve.name))
@pytest.mark.parametrize("private", [1, 2, 3, 7, 255, 1024, 1 << 200, -1, -2, -1024])
def test_small_numbers_and_their_negatives_are_known(curve: type[ec.EllipticCurve], private: int) -> None:
    assert is_known(ecdsa_key(curve(), private % ORDERS[curve]))


def test_a_point_is_known_whatever_type_it_comes_in() -> None:
    point = ed25519_key(bytes(32)).blob[-32:]
    assert is_known(parse(text_line("sk-ssh-ed25519@openssh.com", point, b"ssh:")))
    point = ecdsa_key(ec.SECP256R1(), 5).blob[-65:]
    assert is_known(parse(text_line("sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", point, b"ssh:")))


def test_vagrant_s_keys_are_known() -> None:
    key = parse("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN1YdxBpNlzxDqfJyw/QKow1F+wvG9hXGoqiysfJOn5Y vagrant")
    assert reason(key) == "its private half was shipped with a product"


@pytest.mark.parametrize("kind", [("ed25519",), ("ecdsa", "-b", "256"), ("ecdsa", "-b", "521"), ("rsa", "-b", "2048")])
def test_real_keys_are_not_known(kind: tuple[str, ...], tmp_path: Path) -> None:
    key = parse(make_key(tmp_path, "key", "-t", *kind)[1])
    assert not is_known(key)
    assert reason(key) is None


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_known_private", ROOT / "scripts" / "make_known_private.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_data_file_is_what_the_script_makes(script: ModuleType) -> None:
    file = Path(known_private.__file__).with_name("known_private.dat")
    assert file.read_bytes() == script.make(), "run scripts/make_known_private.py"
    assert {record[15] for record in zip(*[iter(file.read_bytes())] * 16, strict=True)} == set(known_private.REASONS)


def records_of(*keys: PublicKey) -> bytes:
    return b"".join(digest + b"\7" for digest in sorted(key_hash(key) for key in keys))


def test_an_instance_s_own_list_in_badkeys_format(tmp_path: Path) -> None:
    keys = [parse(case["line"]) for case in cases("keys_valid.jsonl")]
    (tmp_path / "blocklist.dat").write_bytes(records_of(*keys[1:]))
    block_list = load(str(tmp_path / "blocklist.dat"))
    assert len(block_list) == len({key.blob for key in keys[1:]})
    assert [block_list.find(key) for key in keys] == [None] + [7] * len(keys[1:])


def test_keys_are_numbered_as_badkeys_numbers_them() -> None:
    # Records of badkeys' list that are easy to check: the SHA-256 of the key's number without leading zeros.
    key = ecdsa_key(ec.SECP256R1(), 1)
    x = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    assert key_hash(key) == hashlib.sha256(bytes.fromhex(x)).digest()[:15]
    point = ed25519_key(bytes(32)).blob[-32:]
    assert key_hash(ed25519_key(bytes(32))) == hashlib.sha256(point).digest()[:15]


def test_an_instance_s_own_list_of_fingerprints(tmp_path: Path) -> None:
    keys = [parse(case["line"]) for case in cases("keys_valid.jsonl")]
    file = tmp_path / "list.txt"
    file.write_text(f"# lost laptops\n\n{keys[0].fingerprint}\r\n  {keys[2].fingerprint}  # bob\n")
    block_list = load(str(file))
    assert [block_list.find(key) for key in keys[:4]] == [0, None, 0, None]


def test_a_damaged_list_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "list"
    for data in (bytes(17), b"SHA256:short\n", b"# x\nssh-rsa AAAA\n"):
        file.write_bytes(data)
        with pytest.raises(ValueError, match="block list"):
            load(str(file))
    file.write_bytes(b"")
    assert len(load(str(file))) == 0
    with pytest.raises(FileNotFoundError):
        load(str(tmp_path / "missing"))
    assert BlockList(b"").find(ed25519_key(bytes(32))) is None
