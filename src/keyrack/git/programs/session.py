"""The forced command where no C compiler is: asks the authorizer, runs git, stops it when told; decides nothing.

session.py SOCKET FINGERPRINT; started as `python3 -I -S`. The same as session.c, which explains every step.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import struct
import sys
import time

ANSWER_SECONDS = 15
LARGEST = 65_536
LONGEST_COMMAND = 4096
RETRY_SECONDS = 0.5
SILENCE_SECONDS = 15.0
GRACE_SECONDS = 2.0
TEMPORARY_FAILURE = 75
STOPPED = 77
LIMITS = (resource.RLIMIT_CPU, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE)
AWAY = "Git is not available at the moment; try again."


class GitRefused(Exception):
    """The service says no; the words are for the user."""


def connect(path: str) -> socket.socket:
    """A connection to the service; OSError when it is not there."""
    service = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    service.settimeout(ANSWER_SECONDS)
    try:
        service.connect(path)
    except OSError:
        service.close()
        raise
    return service


def ask(service: socket.socket, kind: bytes, fingerprint: str) -> list[bytes]:
    """Ask the service to permit the client's command; its answer. kind: b"open" or b"again"."""
    given = os.environb
    fields = [
        kind,
        fingerprint.encode(),
        given.get(b"SSH_CONNECTION", b"").split(b" ")[0][:127],
        given.get(b"GIT_PROTOCOL", b"")[:256],
        given.get(b"SSH_ORIGINAL_COMMAND", b"")[: LONGEST_COMMAND + 1],
    ]
    payload = b"".join(field + b"\0" for field in fields)
    service.sendall(struct.pack(">I", len(payload)) + payload)
    return receive(service)


def receive(service: socket.socket) -> list[bytes]:
    """One answer's fields, at least one; OSError when the connection broke, or it is malformed."""
    (length,) = struct.unpack(">I", read_exactly(service, 4))
    answer = read_exactly(service, length) if 0 < length <= LARGEST else b""
    if not answer.endswith(b"\0"):
        raise ConnectionError("the service's answer is malformed")
    return answer.split(b"\0")[:-1]


def read_exactly(service: socket.socket, length: int) -> bytes:
    """That many bytes; OSError when there are fewer."""
    data = b""
    while len(data) < length:
        piece = service.recv(length - len(data))
        if not piece:
            raise ConnectionError("the service went away")
        data += piece
    return data


def say(words: str) -> None:
    """Words for the user."""
    if words:
        os.write(2, f"Keyrack: {words}\n".encode())


def set_limit(kind: int, wanted: int) -> None:
    """Limit each process of git; 0 is no limit, and none exceeds our own hard limit."""
    _, highest = resource.getrlimit(kind)
    if wanted and (highest == resource.RLIM_INFINITY or wanted < highest):
        highest = wanted
    if wanted:
        resource.setrlimit(kind, (highest, highest))


def start_git(answer: list[bytes]) -> int:
    """Run git in a process group of its own; its process id."""
    entries = int(answer[6])
    environment = dict(entry.split(b"=", 1) for entry in answer[7 : 7 + entries])
    arguments = answer[7 + entries :]
    child = os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            for kind, most in zip(LIMITS, answer[3:6], strict=True):
                set_limit(kind, int(most))
            os.execve(arguments[0], arguments, environment)  # noqa: S606 (no shell is the point)
        finally:
            os._exit(127)
    try:
        os.setpgid(child, child)
    except OSError:
        pass
    return child


def ended(child: int) -> int | None:
    """The exit code of a child that has ended, or None."""
    done, status = os.waitpid(child, os.WNOHANG)
    if done != child:
        return None
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def stop_git(child: int, words: str, receives: bool) -> int:
    """End git and its children. receives: it takes in a push, so the children end first and git removes the rest."""
    if not receives or not stop_children(child) or not ends(child):
        kill(child, signal.SIGTERM)
        ends(child)
    kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    say(words)
    return STOPPED


def ends(child: int) -> bool:
    """Whether a child ends within the grace period. It stays a zombie, so that its group's id is not used again."""
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return True
        time.sleep(0.01)
    return False


def stop_children(child: int) -> bool:
    """Send SIGTERM to git's children (/proc, Linux only); whether there were any."""
    stopped = False
    try:
        with open(f"/proc/{child}/task/{child}/children", encoding="ascii") as children:
            for pid in children.read().split():
                os.kill(int(pid), signal.SIGTERM)
                stopped = True
    except OSError:
        pass
    return stopped


def kill(child: int, number: signal.Signals) -> None:
    """Signal a process group that may be gone."""
    try:
        os.killpg(child, number)
    except ProcessLookupError:
        pass


def reconnect(path: str, fingerprint: str) -> socket.socket | None:
    """A new connection to a service that still permits this; None when it is not there; raises GitRefused."""
    try:
        service = connect(path)
    except OSError:
        return None
    try:
        answer = ask(service, b"again", fingerprint)
    except OSError:
        service.close()
        return None
    if answer[0] == b"go":
        return service
    service.close()
    if answer[0] == b"refuse" and len(answer) >= 3:
        raise GitRefused(answer[2].decode(errors="replace"))
    return None


def watch(
    child: int, path: str, fingerprint: str, first: socket.socket, most_absence: float, wake: int, receives: bool
) -> int:
    """Wait until git ends or the service stops it; the exit code."""
    service: socket.socket | None = first
    lost_at, last_message_at, most_silence = 0.0, time.monotonic(), most_absence + SILENCE_SECONDS
    while True:
        code = ended(child)
        if code is not None:
            return code
        watched: list[int | socket.socket] = [wake] if service is None else [wake, service]
        left = max(0.0, last_message_at + most_silence - time.monotonic())
        ready, _, _ = select.select(watched, [], [], RETRY_SECONDS if service is None else left)
        if wake in ready:
            os.read(wake, 64)
            continue
        if service is not None:
            readable = service in ready
            if not readable and time.monotonic() - last_message_at < most_silence:
                continue
            try:
                answer = receive(service) if readable else [b""]
                if answer[0] == b"stop" and len(answer) >= 2:
                    return stop_git(child, answer[1].decode(errors="replace"), receives)
                if answer[0] == b"go":
                    last_message_at = time.monotonic()
                    continue
            except OSError:
                pass
            service.close()
            lost_at = time.monotonic() if readable else last_message_at
        try:
            service = reconnect(path, fingerprint)
        except GitRefused as refused:
            return stop_git(child, str(refused), receives)
        if service is not None:
            last_message_at = time.monotonic()
        elif time.monotonic() - lost_at > most_absence:
            return stop_git(child, "your rights cannot be confirmed at the moment; try again.", receives)


def main(path: str, fingerprint: str) -> int:
    """Serve one operation; the exit code."""
    try:
        service = connect(path)
        answer = ask(service, b"open", fingerprint)
    except (OSError, ValueError, struct.error):
        say(AWAY)
        return TEMPORARY_FAILURE
    if answer[0] == b"refuse" and len(answer) >= 3:
        say(answer[2].decode(errors="replace"))
        return int(answer[1])
    if answer[0] != b"serve" or len(answer) < 8:
        say(AWAY)
        return TEMPORARY_FAILURE
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    say(answer[2].decode())
    child = start_git(answer)
    # Only git holds the client's ends now, so that each side sees when the other has finished.
    os.close(0)
    os.close(1)
    return watch(child, path, fingerprint, service, float(answer[1]), wake, answer[-2] == b"receive-pack")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
