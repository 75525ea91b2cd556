"""A real sshd that says of many keys at once whether it would let them in; makes lines for it to judge."""

from __future__ import annotations

import base64
import contextlib
import getpass
import os
import random
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyrack.ssh.wire import mpint, string
from tests.ports import free_port
from tests.quick_ssh import KEX
from tests.ssh.cases import make_key, text_line
from tests.waiting import wait_until

BATCH_SIZE = 100  # identities that ssh takes (SSH_MAX_IDENTITY_FILES)
SETTINGS = """
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized
Port {port}
ListenAddress 127.0.0.1
PidFile none
StrictModes no
UsePAM no
UseDNS no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxAuthTries 1000
LoginGraceTime 600
"""
# OpenSSH 10.0 knows it no more.
KNOWS_DSA = (
    "ssh-dss" in subprocess.run(["ssh", "-Q", "key"], capture_output=True, text=True, check=False).stdout.split()
)
_WITH_DSA = ["-o", "PubkeyAcceptedAlgorithms=+ssh-dss"] * KNOWS_DSA


def version_of(*command: str) -> tuple[int, int]:
    """OpenSSH's, as this `ssh` tells it."""
    said = subprocess.run([*command, "-V"], capture_output=True, check=True).stderr.decode()
    version = re.match(r"OpenSSH_(\d+)\.(\d+)", said)
    assert version
    return int(version[1]), int(version[2])


_ACCEPTED = re.compile(r"Server accepts key: \S*/(\d+)\.pub ")


class Judge:
    """One sshd on loopback. It is asked with the public half alone, as a client asks before it signs."""

    def __init__(self, folder: Path, port: int, inside: Path) -> None:
        self._folder = folder
        self._port = port
        self._inside = inside

    def accepted(self, lines: Sequence[bytes], keys: Sequence[str]) -> set[int]:
        """Which of these keys, each canonical, it would let in by the file that these lines make."""
        (self._inside / "authorized").write_bytes(b"\n".join(lines) + b"\n")
        found: set[int] = set()
        for begin in range(0, len(keys), BATCH_SIZE):
            found |= self._ask(keys[begin : begin + BATCH_SIZE], begin)
        return found

    def _ask(self, keys: Sequence[str], begin: int) -> set[int]:
        identities: list[str] = []
        for number, key in enumerate(keys, start=begin):
            path = self._folder / f"{number}.pub"
            path.write_text(f"{key}\n", "ascii")
            identities += ["-i", str(path)]
        done = subprocess.run(
            [
                "ssh", "-v", "-F", "none", "-T", *identities, "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
                "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
                "-o", "PreferredAuthentications=publickey", "-o", KEX, *_WITH_DSA,
                "-p", str(self._port), f"{getpass.getuser()}@127.0.0.1", "true",
            ],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=300, check=False,
        )  # fmt: skip
        said = done.stderr.decode("utf-8", "replace")
        assert said.count("Offering public key: ") == len(keys), said[-2000:]
        return {int(number) for number in _ACCEPTED.findall(said)}


@contextlib.contextmanager
def judge(folder: Path, *, root: Path | None = None, settings: str = "") -> Iterator[Judge]:
    """An sshd for as long as the block lasts; root: another system's files, whose own sshd it is then."""
    before = ["chroot", str(root)] if root else []
    inside = Path("/", *folder.relative_to(root).parts) if root else folder
    port = free_port()
    make_key(folder, "host", "-t", "ecdsa")
    for at in ("", str(root) if root else ""):
        if os.geteuid() == 0:
            Path(f"{at}/run/sshd").mkdir(mode=0o755, parents=True, exist_ok=True)
    (folder / "config").write_text(SETTINGS.format(folder=inside, port=port) + settings, "ascii")
    command = [*before, "/usr/sbin/sshd", "-D", "-e", "-f", f"{inside}/config"]
    # From 9.8 on an sshd shuts out who fails too often.
    patient = ["-o", "PerSourcePenalties=no"]
    if subprocess.run([*command[:-2], "-t", *command[-2:], *patient], capture_output=True, check=False).returncode == 0:
        command += patient
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        log_path = folder / "log"
        wait_until(lambda: b"Server listening" in log_path.read_bytes(), "an sshd")
        yield Judge(folder, port, folder)
    finally:
        process.terminate()
        process.wait()


class Lines:
    """Lines of every kind, each with a key of its own: some let in, some do not, and some seem what they are not."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def make(self) -> tuple[bytes, str]:
        """One line, and the canonical key that it is about."""
        choose = self._random.choice
        kind = choose(
            ["ed25519"] * 4 + ["rsa"] * 3 + ["ecdsa", "ecdsa", "sk-ed25519", "sk-ecdsa"] + ["dsa"] * KNOWS_DSA
        )
        key, names, encoded = getattr(self, f"_{kind.replace('-', '_')}")()
        name = choose(names)
        encoded = self._encoded(encoded)
        before = choose(["", "", "", "  ", "\t", "\ufeff", "x\t", "\r"]) if self._rarely() else ""
        after = choose(["", " a comment", "\tx", " \u00e9\u4e2d", "\r", " # no", "\0 y", ' "', " ssh-rsa AAAA", "\v"])
        options = self._options()
        between = choose([" ", " ", " ", "\t", "  ", " \t "])
        line = before + (options + between if options else "") + name + choose([" ", " ", "\t", "  "]) + encoded + after
        return line.encode(), key

    def _rarely(self) -> bool:
        return self._random.random() < 0.1

    def _options(self) -> str:
        if self._random.random() < 0.3:
            return ""
        chosen = [self._option() for _ in range(self._random.choice([1, 1, 1, 2, 2, 3]))]
        text = ",".join(chosen)
        if self._rarely():
            text = self._random.choice(
                [text + ",", "," + text, text.replace(",", ",,"), text + '"', text + "x", text.upper(), "#" + text]
            )
        return text

    def _option(self) -> str:
        pool = GOOD_OPTIONS if self._random.random() < 0.75 else BAD_OPTIONS
        option = self._random.choice(pool)
        if self._rarely():
            option = "".join(self._random.choice([letter.upper(), letter.lower()]) for letter in option)
        return option

    def _encoded(self, blob: bytes) -> str:
        text = base64.b64encode(blob).decode()
        if self._random.random() < 0.85:
            return text
        at = self._random.randrange(len(text))
        return self._random.choice(
            [text[:at] + "\r" + text[at:], text[:at] + "\v" + text[at:], text.rstrip("="), text + "=", text[:at],
             text[:at] + "*" + text[at:], text + "\f", text[:-1] + "!", text + "A", text + "AAAA"]
        )  # fmt: skip

    def _bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def _spelled(self, name: str, short: str) -> bytes:
        """The name inside a key, mostly as it is."""
        if self._random.random() < 0.85:
            return name.encode()
        return self._random.choice(
            [name, short, short.lower(), f"{name}\0", f"{name}\0\0", name.upper(), "rsa-sha2-256"]
        ).encode()

    def _long(self, number: int) -> bytes:
        """A number, mostly in its one shortest form."""
        if self._random.random() < 0.9:
            return mpint(number)
        raw = number.to_bytes(number.bit_length() // 8 + 1, "big")
        return self._random.choice([string(b"\0" + raw), string(b"\0" * 9 + raw), string(raw.lstrip(b"\0") or b"\0")])

    def _tail(self) -> bytes:
        return b"x" if self._random.random() < 0.03 else b""

    def _ed25519(self) -> tuple[str, list[str], bytes]:
        name, point = "ssh-ed25519", self._bytes(32)
        blob = string(self._spelled(name, "ED25519")) + string(point) + self._tail()
        return (
            text_line(name, point),
            [*[name] * 12, "ed25519", "SSH-ED25519", "ssh-rsa", f"{name}-cert-v01@openssh.com"],
            blob,
        )

    def _rsa(self) -> tuple[str, list[str], bytes]:
        name, bits = "ssh-rsa", self._random.choice([2048, 2048, 1024, 1023, 3072])
        n = self._random.getrandbits(bits) | (1 << (bits - 1)) | 1
        e = self._random.choice([65537, 3, 17])
        blob = string(self._spelled(name, "RSA")) + self._long(e) + self._long(n) + self._tail()
        key = text_line(name, mpint(e)[4:], mpint(n if bits >= 1024 else n << 1)[4:])
        return (
            key,
            [
                *[name] * 4,
                *["rsa-sha2-256", "rsa-sha2-512"] * 3,
                "rsa-sha2-384",
                "rsa",
                "rsa-sha2-512-cert-v01@openssh.com",
            ],
            blob,
        )

    def _dsa(self) -> tuple[str, list[str], bytes]:
        numbers = [self._random.getrandbits(bits) | 1 << (bits - 1) for bits in (1024, 160, 1020, 1020)]
        blob = string(b"ssh-dss") + b"".join(map(mpint, numbers))
        return text_line("ssh-dss", *(mpint(number)[4:] for number in numbers)), ["ssh-dss"], blob

    def _ecdsa(self) -> tuple[str, list[str], bytes]:
        bits, curve = self._random.choice([(256, ec.SECP256R1()), (384, ec.SECP384R1()), (521, ec.SECP521R1())])
        name, point = f"ecdsa-sha2-nistp{bits}", _point(curve)
        named = self._random.choice([*[f"nistp{bits}"] * 12, "nistp384", f"p{bits}", f"nistp{bits}\0"])
        blob = string(self._spelled(name, "ECDSA")) + string(named.encode()) + string(self._bent(point)) + self._tail()
        return text_line(name, f"nistp{bits}".encode(), point), [*[name] * 12, "ecdsa-sha2-nistp384", "ecdsa"], blob

    def _sk_ed25519(self) -> tuple[str, list[str], bytes]:
        name, point = "sk-ssh-ed25519@openssh.com", self._bytes(32)
        application = self._random.choice([b"ssh:", b"ssh:\0", b"s\0h", b""])
        blob = string(self._spelled(name, "ED25519-SK")) + string(point) + string(application) + self._tail()
        return text_line(name, point, application.split(b"\0")[0]), [*[name] * 12, "sk-ssh-ed25519"], blob

    def _sk_ecdsa(self) -> tuple[str, list[str], bytes]:
        name, webauthn = "sk-ecdsa-sha2-nistp256@openssh.com", "webauthn-sk-ecdsa-sha2-nistp256@openssh.com"
        point = _point(ec.SECP256R1())
        inside = webauthn.encode() if self._rarely() else self._spelled(name, "ECDSA-SK")
        blob = string(inside) + string(b"nistp256") + string(point) + string(b"ssh:") + self._tail()
        return text_line(name, b"nistp256", point, b"ssh:"), [*[name] * 6, *[webauthn] * 6, "ecdsa-sha2-nistp256"], blob

    def _bent(self, point: bytes) -> bytes:
        if self._random.random() < 0.9:
            return point
        return self._random.choice([b"\x02" + point[1:33], point[:-1], point[:-1] + bytes([point[-1] ^ 1]), b"\0"])


def _point(curve: ec.EllipticCurve) -> bytes:
    return ec.generate_private_key(curve).public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


GOOD_OPTIONS = [
    "restrict", "pty", "no-pty", "agent-forwarding", "no-agent-forwarding", "port-forwarding", "X11-forwarding",
    "no-X11-forwarding", "user-rc", "no-user-rc", "touch-required", "no-touch-required", "verify-required",
    "no-verify-required", 'command="echo \\"a, b\\""', 'command="a # b"', 'command=""', 'from="*"', 'from="127.0.0.1"',
    'from="127.0.0.0/8"', 'from="10.0.0.0/8,127.*"', 'from="!10.0.0.1,*"', 'from="*,::1/128"', 'from="*, 10.0.0.0/8"',
    'environment="A=b"', 'environment="A="', 'environment="A_1=\\"x\\""', 'permitopen="a:1"', 'permitopen="[::1]:22"',
    'permitopen="*:*"', 'permitopen="a/1"', 'permitopen=":1"', 'permitopen="a: 22"',
    'permitlisten="8080"', 'permitlisten="localhost:1"', 'permitlisten="*"', 'tunnel="0"', 'tunnel="any"', 'tunnel="7"',
    'expiry-time="20990101"', 'expiry-time="209901011200"', 'expiry-time="20990101120000"',
    'expiry-time="20990101Z"', 'expiry-time="20990101z"', 'expiry-time="20990101120000UTC"',
    'expiry-time="209901011200utc"', 'expiry-time="20990101Utc"', 'expiry-time="20990231Z"', 'expiry-time="2099 1 1Z"',
    'expiry-time="20990101000061Z"',
]  # fmt: skip
BAD_OPTIONS = [
    'principals="x"', "cert-authority", "unknown", "no-restrict", "no-cert-authority", "no-no-pty", "restrict=yes",
    'restrict="yes"', 'from="*,10.0.0.0/129"', 'from="*,10.0.0.0/99999999999999999999"',
    "command=echo", "command", 'command="x', 'command="x"y', 'command = "x"', "from=127.0.0.1", 'from=""', 'from="*,"',
    'from="127.0.0.1/8"', 'from="*,10.0.0.1/8"', 'from="127.0.0.0/33"', 'from="!10.0.0.1"', 'from="*,!"',
    'from="*,::/129"', 'from="10.1/33,*"', 'environment="A"', 'environment="=b"', 'environment="A-B=c"',
    'permitopen="a"', 'permitopen="a:"', 'permitopen="a:0"', 'permitopen="a:65536"', 'permitopen="a:b c"',
    'permitopen="[::1]22"', 'permitopen="[::1"', 'permitopen=""', 'permitlisten="x"', 'permitlisten=""',
    'permitlisten="0"', 'tunnel=""', 'tunnel="x"', 'tunnel="-1"', 'tunnel="2147483646"', 'expiry-time="soon"',
    'expiry-time=""', 'expiry-time="Z"', 'expiry-time="UTC"', 'expiry-time="2099"', 'expiry-time="20991301"',
    'expiry-time="20990132Z"', 'expiry-time="19700101Z"', 'expiry-time="20990101T"', 'expiry-time="20990101+1"',
    'expiry-time="20200101Z"', 'expiry-time="20990101 Z"', 'expiry-time="209901012400Z"', 'expiry-time="0x7fffffff"',
    'expiry-time="20990101GMT"', 'expiry-time="2099-1-1"', 'expiry-time=" 99 1 1Z"', "zos-key-ring-label",
    'unknown="a b"', "ssh-ed25519", "pty pty", '"', "\\", 'principals="x",principals="y"',
    'tunnel="1",from="*",from="*"',
]  # fmt: skip
