"""Public keys changed by chance, judged by our parser and by ssh-keygen: what we take, it takes, and as the same key.

    .venv/bin/python bench/mutations.py [COUNT] [SEED]

COUNT lines (a million unless said) are made from tests/data/keys_valid.jsonl by a few changes each. Prints a table as
docs/figures.md has it: both take it, both refuse it, and what we alone refuse, by our reason. A line that we take and
ssh-keygen does not, or takes as another key, ends this with an error that names it.
"""

from __future__ import annotations

import base64
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))

from keyrack.ssh.key_problem import KeyProblem
from keyrack.ssh.public_key import parse
from tests.ssh.cases import cases

BATCH_SIZE = 5000
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
PIECES = [
    " ",
    "\t",
    "  ",
    "=",
    "==",
    "AAAA",
    "\x0b",
    "\r",
    "\x0c",
    "\u00e9",
    '"',
    "ssh-rsa",
    "#",
    ",",
    "\\",
    "\x7f",
    "\u200b",
]
LISTED = re.compile(r"(?:-?\d+) (SHA256:\S+) (.*) \([A-Z0-9-]+\)")


def valid() -> list[str]:
    """Lines of good keys; of large ones few, as their mathematics takes our time and says nothing new."""
    lines = [str(case["line"]).strip() for case in cases("keys_valid.jsonl")]
    small = [" ".join(line.split()[:2]) for line in lines if len(line) < 1200]
    return [line for line in small if not line.startswith("ssh-rsa")] * 3 + small


def changed(chance: random.Random, line: str) -> str:
    """The line with a few changes: of letters, of bytes of the key, of its type, of what stands around it."""
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        kind, at = chance.random(), chance.randrange(len(line) + 1)
        if kind < 0.25:
            line = line[:at] + chance.choice(ALPHABET) + line[at + 1 :]
        elif kind < 0.4:
            line = line[:at] + chance.choice(PIECES) + line[at:]
        elif kind < 0.5:
            line = line[:at] + line[at + chance.choice([1, 2, 4, 8]) :]
        elif kind < 0.9:
            line = _bytes_changed(chance, line)
        else:
            name, _, rest = line.partition(" ")
            other = chance.choice([name.upper(), name + "x", name[1:], "ssh-ed25519", "ssh-dss", "ecdsa-sha2-nistp256"])
            line = f"{other} {rest}"
    return line


def _bytes_changed(chance: random.Random, line: str) -> str:
    words = line.split(" ")
    try:
        blob = bytearray(base64.b64decode(words[1], validate=True))
    except (ValueError, IndexError):
        return line
    kind, at = chance.random(), chance.randrange(max(1, len(blob)))
    if kind < 0.5 and blob:
        blob[at] ^= 1 << chance.randrange(8)
    elif kind < 0.7:
        blob[at:at] = chance.randbytes(chance.choice([1, 4]))
    elif kind < 0.85:
        del blob[at : at + chance.choice([1, 4])]
    else:
        # The lengths of fields are where readers go wrong.
        blob[0:4] = chance.choice([0, 1, 7, 11, 255, 2**31, 2**32 - 1]).to_bytes(4, "big")
    words[1] = base64.b64encode(bytes(blob)).decode()
    return " ".join(words)


def listed(lines: list[str], folder: Path) -> dict[int, str]:
    """What ssh-keygen takes: the number of the line, and the key's fingerprint."""
    path = folder / "keys"
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line} n{number}n\n" for number, line in enumerate(lines))
    done = subprocess.run(["ssh-keygen", "-l", "-f", path], capture_output=True, check=False, timeout=600)
    found = {}
    for said in done.stdout.decode("utf-8", "replace").split("\n"):
        match = LISTED.fullmatch(said)
        number = re.search(r"n(\d+)n$", match[2]) if match else None
        if match and number:
            found[int(number[1])] = match[1]
    return found


def judged(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Of each line our fingerprint and "", or "" and the reason why not."""
    for number, line in enumerate(lines):
        try:
            yield parse(f"{line} n{number}n").fingerprint, ""
        except KeyProblem as problem:
            yield "", problem.code


def main() -> int:
    """Make, ask both, count."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 20261127
    chance, keys, counts, begun = random.Random(seed), valid(), Counter[str](), time.monotonic()
    wrong: list[str] = []
    done = 0
    with tempfile.TemporaryDirectory() as folder:
        while done < count:
            # A line end would make two lines of one; blanks at both ends are taken off what somebody pastes.
            lines = [
                changed(chance, chance.choice(keys)).replace("\n", " ").strip(" \t\r")
                for _ in range(min(BATCH_SIZE, count - done))
            ]
            theirs = listed(lines, Path(folder))
            for number, (ours, why) in enumerate(judged(lines)):
                other = theirs.get(number, "")
                if ours and ours != other:
                    wrong.append(f"{lines[number]!r}: {ours} here, {other or 'refused'} by ssh-keygen")
                counts["both take it" if ours else f"we alone refuse: {why}" if other else "both refuse"] += 1
            done += len(lines)
            if done % (BATCH_SIZE * 20) == 0:
                print(f"{done} of {count}, {time.monotonic() - begun:.0f} s", file=sys.stderr)
    print(f"| of {count} lines, seed {seed} | lines |\n|---|---|")
    for what, how_many in counts.most_common():
        print(f"| {what} | {how_many} |")
    print(f"| we take it and ssh-keygen does not, or another key | {len(wrong)} |")
    print(*wrong[:20], sep="\n", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    help_asked(__doc__)
    sys.exit(main())
