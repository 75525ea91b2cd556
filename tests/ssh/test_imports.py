"""keyrack.ssh and keyrack.protocol run on hosts that have only Python 3.9 and its standard library."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from keyrack import protocol, ssh

PACKAGE = Path(ssh.__file__).parent
MODULES = sorted(PACKAGE.glob("*.py"))
PURE = [*MODULES, *sorted(Path(protocol.__file__).parent.glob("*.py"))]
GOOD = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHIRbfEUwbS5A/6b6HLVEWWJmeUNEZ2mRfWWONaec+Id"

TRY_IT = f"""
import sys
sys.path.insert(0, sys.argv[1])
from keyrack.ssh import authorized_keys, options, public_key, revoked_keys, sshsig, weak
key = public_key.parse({GOOD!r} + " comment")
rendered = options.render(options.Restrictions(restrict=True, command='a "b"'), key.type)
options.check_rendered(rendered)
(found,) = authorized_keys.read(authorized_keys.render([authorized_keys.key_line(key.canonical, rendered)]))
assert found.problem is None
assert weak.rsa_problem(2**2047 + 1, 65537)
print(key.fingerprint)
"""


@pytest.mark.parametrize("path", PURE, ids=lambda path: path.name)
def test_imports_only_the_standard_library_and_its_own_package(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
            assert node.level == 0
            newer = node.module == "datetime" and "UTC" in {alias.name for alias in node.names}
            assert not newer, "datetime.UTC came with Python 3.11"
        for name in names:
            top = name.split(".")[0]
            assert top in sys.stdlib_module_names | {"_sha2", "_sha256"} or name.startswith(
                ("keyrack.ssh", "keyrack.protocol")
            ), f"{path.name} imports {name}"


def test_reading_a_key_needs_no_file_beside_the_code(tmp_path: Path) -> None:
    # From inside an archive, without the data files: as the agent ships it.
    archive = tmp_path / "agent.pyz"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("keyrack/__init__.py", "")
        for path in MODULES:
            packed.write(path, f"keyrack/ssh/{path.name}")
    python = shutil.which("python3.9") or sys.executable
    if subprocess.run([python, "-c", ""], capture_output=True, check=False, timeout=60).returncode != 0:
        python = sys.executable
    done = subprocess.run(
        [python, "-I", "-W", "error", "-c", TRY_IT, archive], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "SHA256:NFpvhH65QXSLApxNjKez0zq8T5jA1qQRM7+szyxCtF0\n", done.stderr
