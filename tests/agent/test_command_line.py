"""What an sshd was started with is read from its arguments, and from the title that it writes over them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from keyrack.agent.sshd import command_line
from keyrack.agent.sshd.settings import Sshd
from tests.login.private_sshd import sshd_path, strict_folder
from tests.ports import free_port
from tests.waiting import wait_until

# As the unit of EC2 Instance Connect starts it on Ubuntu, and RHEL 8 with its policy of ciphers.
INSTANCE_CONNECT = [
    "-D",
    "-o",
    "AuthorizedKeysCommand /usr/share/ec2-instance-connect/eic_run_authorized_keys %u %f",
    "-o",
    "AuthorizedKeysCommandUser ec2-instance-connect",
]
POLICY = ["-D", "-oCiphers=aes256-ctr", "-oPubkeyAcceptedKeyTypes=rsa-sha2-256,ssh-ed25519", "-p2222", "-4"]


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        (INSTANCE_CONNECT, INSTANCE_CONNECT[1:]),
        (POLICY, ["-o", POLICY[1][2:], "-o", POLICY[2][2:], "-p", "2222", "-4"]),
        (["-De", "-p", "22", "-f", "/etc/other"], ["-p", "22"]),
        (["-o", "AuthorizedKeysFile=.ssh/a .ssh/b", "-D"], ["-o", "AuthorizedKeysFile=.ssh/a .ssh/b"]),
        (["-o", "Ciphers -aes128-cbc", "-D"], ["-o", "Ciphers -aes128-cbc"]),
        (["-i"], []),
        ([], []),
        (["-o"], ["-o"]),
    ],
)
def test_arguments_and_the_title_over_them_are_read_alike(given: list[str], settings: list[str]) -> None:
    assert list(command_line.read(given).settings) == settings
    assert list(command_line.read(" ".join(given).split(" "), bounded=False).settings) == settings


def test_a_word_of_the_title_that_may_be_a_file_or_an_option_is_known_as_such() -> None:
    given = ["-o", "AuthorizedKeysFile=z", "-4", "-h", "/etc/ssh/key"]
    assert command_line.read(given).perhaps_files == ()
    assert command_line.read(given, bounded=False).perhaps_files == ("-4", "-h", "/etc/ssh/key")


def test_sshd_is_asked_with_the_arguments_of_the_running_one(tmp_path: Path) -> None:
    port = free_port()
    with strict_folder() as folder:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True)
        config = folder / "sshd_config"
        config.write_text(f"HostKey {folder / 'key'}\nPort 1\nListenAddress 127.0.0.1\nPidFile none\n", "ascii")
        given = [str(sshd_path()), *INSTANCE_CONNECT, "-oAllowUsers=a b", "-e", "-f", str(config), "-p", str(port)]
        running = subprocess.Popen(given, stderr=subprocess.DEVNULL)
        try:
            sshd = Sshd(str(config))
            wait_until(sshd.greets, "an sshd on a port of its command line")
            assert sshd.effective().one("authorizedkeyscommand").startswith("/usr/share/ec2-instance-connect/")
            assert sshd.effective("root").all("allowusers") == ("a", "b")
            assert sshd.keys_commands() == ["/usr/share/ec2-instance-connect/eic_run_authorized_keys %u %f"]
        finally:
            running.terminate()
            running.wait(30)
