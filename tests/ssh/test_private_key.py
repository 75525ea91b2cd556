"""Private keys pasted as public ones: recognised in every shape, and no piece of them comes back."""

from __future__ import annotations

import base64
import json
import shutil
import textwrap
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from keyrack.ssh.public_key import KeyProblem, parse
from tests.ssh.cases import cases, ssh_keygen

RSA = rsa.generate_private_key(65537, 2048)
PLAIN, LOCKED = NoEncryption(), BestAvailableEncryption(b"hunter2")


def made_by_ssh_keygen(folder: Path) -> dict[str, str]:
    """One pair of each kind, which ssh-keygen itself writes in each form: to find primes takes it a second."""
    made = {}
    for kind, passphrases in (("ed25519", ("", "hunter2")), ("ecdsa", ("",)), ("rsa", ("", "hunter2"))):
        ssh_keygen("-q", "-t", kind, "-N", "", "-f", folder / kind)
        for passphrase in passphrases:
            for form in ("RFC4716", "PEM", "PKCS8") if kind != "ed25519" else ("RFC4716",):
                path = folder / f"{kind}-{form}-{passphrase or 'plain'}"
                shutil.copy(folder / kind, path)
                ssh_keygen("-q", "-p", "-m", form, "-P", "", "-N", passphrase, "-f", path)
                made[path.name] = path.read_text()
    return made


def pem(private: object, form: PrivateFormat, lock: KeySerializationEncryption) -> str:
    text: bytes = private.private_bytes(Encoding.PEM, form, lock)  # type: ignore[attr-defined]
    return text.decode()


def putty(version: int, lock: str) -> str:
    body = textwrap.fill(base64.b64encode(bytes(range(7, 199))).decode(), 64)
    return (
        f"PuTTY-User-Key-File-{version}: ssh-ed25519\nEncryption: {lock}\nComment: alice\nPublic-Lines: 2\n"
        "AAAAC3NzaC1lZDI1NTE5AAAAIHIRbfEUwbS5A/6b6HLVEWWJmeUNEZ2mRfWWONae\nc+Id\n"
        f"Private-Lines: 4\n{body}\nPrivate-MAC: {'ab' * 32}\n"
    )


def composed() -> dict[str, str]:
    traditional = PrivateFormat.TraditionalOpenSSL
    return {
        "pkcs1": pem(RSA, traditional, PLAIN),
        "pkcs1 encrypted": pem(RSA, traditional, LOCKED),
        "pkcs8": pem(RSA, PrivateFormat.PKCS8, PLAIN),
        "pkcs8 encrypted": pem(RSA, PrivateFormat.PKCS8, LOCKED),
        "sec1": pem(ec.generate_private_key(ec.SECP384R1()), traditional, PLAIN),
        "pkcs8 ecdsa": pem(ec.generate_private_key(ec.SECP521R1()), PrivateFormat.PKCS8, PLAIN),
        "pkcs8 ed25519": pem(ed25519.Ed25519PrivateKey.generate(), PrivateFormat.PKCS8, PLAIN),
        "pkcs8 ed25519 encrypted": pem(ed25519.Ed25519PrivateKey.generate(), PrivateFormat.PKCS8, LOCKED),
        "putty 2": putty(2, "none"),
        "putty 3": putty(3, "none"),
        "putty 3 encrypted": putty(3, "aes256-cbc"),
        "ssh.com": "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nComment: x\n"
        f"{base64.b64encode(bytes(range(90))).decode()}\n---- END SSH2 ENCRYPTED PRIVATE KEY ----\n",
        "pgp": f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{base64.b64encode(bytes(range(90))).decode()}\n=AbCd\n"
        "-----END PGP PRIVATE KEY BLOCK-----\n",
        "age": "AGE-SECRET-KEY-1QQPQQPQQPQQPQQPQQPQQPQQPQQPQQPQQPQQPQQPQQPQQPQQPQQPQQPQQP",
        "jwk": json.dumps({"kty": "OKP", "crv": "Ed25519", "d": base64.urlsafe_b64encode(bytes(range(32))).decode()}),
    }


@pytest.fixture(scope="module")
def private_keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {**composed(), **made_by_ssh_keygen(tmp_path_factory.mktemp("private"))}


def assert_refused(text: str, what: str) -> None:
    with pytest.raises(KeyProblem) as caught:
        parse(text)
    assert caught.value.code == "private-key", what
    message = str(caught.value)
    assert message.startswith("This is a private key")
    assert "make a new pair" in message.lower()
    pieces = [word for word in text.replace("\\n", "\n").split() if len(word) >= 16]
    assert not [piece for piece in pieces if piece in message or piece[:16] in message]
    # Nor does the exception carry it along to a log.
    assert text not in repr(caught.value.__dict__) + repr(caught.value.args)
    assert caught.value.__cause__ is None


def body_of(text: str) -> str:
    return "\n".join(line for line in text.strip().splitlines() if "-----" not in line and ": " not in line).strip()


def test_recognises_every_format(private_keys: dict[str, str]) -> None:
    assert len(private_keys) > 20
    for name, text in private_keys.items():
        assert_refused(text, name)


def test_recognises_them_as_forms_and_terminals_mangle_them(private_keys: dict[str, str]) -> None:
    public = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHIRbfEUwbS5A/6b6HLVEWWJmeUNEZ2mRfWWONaec+Id me"
    for name, text in private_keys.items():
        mangled = {
            "blank lines first": "\n\n   \n" + text,
            "words first": "here is my key:\n" + text,
            "a public key first": f"{public}\n{text}",
            "a byte order mark": "\ufeff" + text,
            "windows": text.replace("\n", "\r\n"),
            "one line": text.replace("\n", " "),
            "escaped": text.replace("\n", "\\n"),
            "as a JSON string": json.dumps(text),
            "quoted in a mail": textwrap.indent(text, "> "),
            "indented": textwrap.indent(text, "    "),
            "cut off": text[: len(text) * 2 // 3],
            "base64 once more": base64.b64encode(text.encode()).decode(),
        }
        for how, variant in mangled.items():
            assert_refused(variant, f"{name}, {how}")


def test_recognises_a_body_without_its_armour(private_keys: dict[str, str]) -> None:
    for name, text in private_keys.items():
        encrypted_in_the_old_way = "Proc-Type" in text  # a body of random bytes: nothing tells it from noise
        if "-----BEGIN" not in text or "PGP" in text or encrypted_in_the_old_way:
            continue
        assert_refused(body_of(text), name)
        assert_refused(body_of(text).replace("\n", ""), name)
        assert_refused(f"ssh-rsa {body_of(text).replace(chr(10), '')} me@home", name)


def test_recognises_the_last_lines_of_one(private_keys: dict[str, str]) -> None:
    for name, text in private_keys.items():
        if "PRIVATE KEY" in text:
            assert_refused("\n".join(text.strip().splitlines()[-3:]), name)


@pytest.mark.parametrize("case", cases("keys_valid.jsonl"), ids=lambda case: str(case["name"]))
def test_a_public_key_may_speak_of_private_ones(case: dict[str, str]) -> None:
    line = " ".join(case["line"].split()[:2])
    for comment in ("weekend private key", "my PRIVATE KEY", "begin private", "private-key@host", "MIIE laptop"):
        assert parse(f"{line} {comment}").comment == comment
