"""The authorizer of Git over SSH: answers the programs that sshd starts, over a Unix socket; must hold no rule.

A frame is four bytes of length, high byte first, then fields that each end with a NUL. They ask:
  line FINGERPRINT                                     -> line TEXT | none | away
  open FINGERPRINT ADDRESS GIT_PROTOCOL COMMAND        -> serve SECONDS WORDS CPU MEMORY FILE COUNT ENVIRONMENT…
                                                          ARGUMENTS… | refuse EXITCODE WORDS
  again (as open, for an operation that goes on)       -> go | refuse EXITCODE WORDS
  refs OPERATION wanted|changed COUNT LINES            -> noted
CPU is seconds, MEMORY and FILE are bytes: what each process of git may take, where 0 is no limit.
After serve and go the connection stays open as long as git runs, and "stop WORDS" may follow.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import struct
import threading
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from keyrack.core.git import access as git_access
from keyrack.core.git import bounds, repositories, storage
from keyrack.core.git.access import GitAccess, Holder
from keyrack.core.git.activity import GitLog, PushedRefs
from keyrack.core.git.endpoints import GitEndpoint
from keyrack.core.instance import Instance
from keyrack.errors import Kind, Refusal
from keyrack.git.stale_on_error import NoCachedAnswer, StaleOnErrorCache
from keyrack.git.upkeep import Upkeep
from keyrack.logs import logger
from keyrack.ssh import authorized_keys, options
from keyrack.store.database import DatabaseUnavailable

log = logger("keyrack.git")

LARGEST_FRAME = 65_536
ASK_SECONDS = 10.0
MAX_ENDED = 1_000
CHECK_EVERY_SECONDS = 0.3
HEARTBEAT_SECONDS = 5.0
MEASURE_EVERY_SECONDS = 1.0
LISTEN_ANEW_SECONDS = 1.0
WRITE_EVERY_SECONDS = 0.5
LOGIN_REFUSED, TEMPORARY_FAILURE = 1, 75
GIT_PROTOCOL = re.compile(r"version=[012]")
AWAY = "Git cannot confirm your rights at the moment; try again in a minute."


@dataclass(frozen=True, slots=True)
class Programs:
    """Where things are: git, its hooks, the bare repositories, the forced command's words.

    hooks: a folder for each kind of push, "every" one and one to a repository with a "protected" branch.
    """

    git: str
    hooks: Mapping[str, Path]
    repositories: Path
    session: str


@dataclass(eq=False, slots=True)
class _Running:
    """An operation under way, and the connection by which it can be stopped."""

    access: GitAccess
    writer: asyncio.StreamWriter
    began_at: float
    confirmed_at: float
    heartbeat_at: float
    operation: str = ""
    refs: PushedRefs = field(default_factory=PushedRefs)
    was_cut: bool = False
    only_deletes: bool = False
    """It began when its repository was full, so it may only delete, and is not measured."""

    @property
    def pushes(self) -> bool:
        """Whether it is a push."""
        return self.access.verb == git_access.PUSH


class Authorizer:
    """Answers on a Unix socket from a thread of its own. start() returns once it listens."""

    def __init__(self, instance: Instance, socket: Path, programs: Programs, *, name: str = "") -> None:
        """name: what receipts call this endpoint, such as git.example.org:2223."""
        self.log = GitLog(instance)
        self._instance = instance
        self._socket = socket
        self._programs = programs
        self._bound = instance.settings.git_stale_seconds
        self._cache = StaleOnErrorCache(self._bound)
        self._running: set[_Running] = set()
        # Pushes under way, and the last that have ended, by the name that their hooks give.
        self._pushes: dict[str, _Running] = {}
        self._ended: OrderedDict[str, tuple[GitAccess, PushedRefs]] = OrderedDict()
        # Permitted pushes that may only delete, as there is no room, until they run.
        self._deleting: set[str] = set()
        # Permitted, and their programs not yet answered.
        self._starting: list[GitAccess] = []
        self._upkeep: Upkeep | None = None
        self._endpoint = GitEndpoint(instance, name or instance.settings.git_listen)
        # How many transfers were stopped, by user, until that is recorded.
        self._stopped: Counter[int] = Counter()
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: asyncio.Server | None = None
        self._stopping: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="git authorizer", daemon=True)

    def start(self) -> None:
        """Listen. Raises OSError when the socket cannot be made."""
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Stop listening, close the connections of the operations under way, write the last events."""
        if self._loop is not None and self._stopping is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(timeout=15)
        self.log.write()
        with contextlib.suppress(DatabaseUnavailable):
            self._endpoint.close()

    @property
    def running(self) -> int:
        """How many operations are under way."""
        return len(self._running)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # nothing catches what a thread raises; start() raises it
            self._failure = error
            if self._started.is_set():
                log.exception("the Git authorizer ended")
        finally:
            self._started.set()
            self._cache.close()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        await self._listen()
        self._upkeep = Upkeep(
            self._instance.settings, self._instance.database, self._programs.repositories, self._programs.git
        )
        work = (self._check(), self._write(), self._measure(), self._keep_listening(), self._upkeep.run())
        chores = [asyncio.create_task(chore) for chore in work]
        self._started.set()
        try:
            await self._stopping.wait()
        finally:
            for chore in chores:
                chore.cancel()
            if self._server is not None:
                self._server.close()
            for running in self._running:
                running.writer.close()
            self._socket.unlink(missing_ok=True)

    async def _listen(self) -> None:
        self._socket.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._answer, str(self._socket), backlog=512)
        os.chmod(self._socket, 0o600)

    async def _keep_listening(self) -> None:
        """Listen anew where somebody removed the socket: nobody's key would open Git any more."""
        while True:
            await asyncio.sleep(LISTEN_ANEW_SECONDS)
            if self._socket.is_socket():
                continue
            log.warning("the socket of the Git authorizer is gone, and is made again", socket=str(self._socket))
            with contextlib.suppress(OSError):  # the next round tries again
                self._socket.parent.mkdir(mode=0o700, exist_ok=True)
                if self._server is not None:
                    self._server.close()  # who is connected stays so
                await self._listen()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running = None
        try:
            async with asyncio.timeout(ASK_SECONDS):
                kind, *fields = await _read(reader)
            if kind == b"line" and len(fields) == 1:
                await self._answer_line(writer, fields[0].decode("ascii"))
            elif kind == b"refs" and len(fields) == 4:
                await self._answer_refs(writer, *(each.decode("utf-8", "replace") for each in fields))
            elif kind in (b"open", b"again") and len(fields) == 4:
                running = await self._answer_operation(writer, *fields, again=kind == b"again")
            if running is not None:
                await reader.read(1)  # until the operation ends, or we do
        except (OSError, EOFError, TimeoutError, ValueError):
            pass  # the program ended, or sent something else
        finally:
            if running is not None:
                self._running.discard(running)
                self._have_ended(running)
            writer.close()

    def _have_ended(self, running: _Running) -> None:
        """Note that an operation has ended, by itself or because it was stopped."""
        if not running.pushes:
            return
        self._pushes.pop(running.operation, None)
        self._ended[running.operation] = running.access, running.refs
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)
        # Also of one that was stopped, the changes until then go into the log. When the authorizer stops, git goes on.
        goes_on = self._stopping is not None and self._stopping.is_set()
        if running.refs.changed or not (running.was_cut or goes_on):
            self.log.pushed(running.access, running.refs)
        if self._upkeep is not None:
            self._upkeep.pushed(self._folder(running.access))

    async def _answer_refs(
        self, writer: asyncio.StreamWriter, operation: str, state: str, count: str, lines: str
    ) -> None:
        self._note_refs(operation, state, count, lines)
        pushed = self._pushes.get(operation)
        if state == "changed" and pushed is not None:
            # Before the push ends, so that it is on the disk by then, and HEAD names a branch for the next clone.
            await asyncio.to_thread(self._keep, pushed.access, lines)
            await asyncio.to_thread(self._take_first_branch, pushed.access, lines)
        await _send(writer, b"noted")

    def _note_refs(self, operation: str, state: str, count: str, lines: str) -> None:
        """Note what a hook of git reports about a push under way."""
        running, ended = self._pushes.get(operation), self._ended.get(operation)
        push = (running.access, running.refs) if running is not None else ended
        if push is None or not count.isdecimal():
            return
        access, refs = push
        if state == "wanted":
            refs.wanted = int(count)
        elif state == "changed":
            refs.changed, refs.lines = int(count), lines
            if ended is not None:  # its session program was killed, and git went on
                self.log.pushed(access, refs)

    def _keep(self, access: GitAccess, lines: str) -> None:
        try:
            storage.sync_push(self._folder(access), lines)
        except (OSError, ValueError) as error:
            log.warning("a push was not written through", repository=access.repository.path, error=str(error))

    def _take_first_branch(self, access: GitAccess, lines: str) -> None:
        folder = self._folder(access)
        branch = storage.first_branch(folder, lines)
        if branch is None:
            return
        try:
            if repositories.take_first_branch(
                self._instance, access.repository, branch, may_push_protected=access.may_push_protected
            ):
                storage.point_head(folder, branch)
        except (OSError, Refusal, DatabaseUnavailable) as error:
            path = access.repository.path
            log.warning("first branch not taken as the default", repository=path, error=str(error))

    async def _answer_line(self, writer: asyncio.StreamWriter, fingerprint: str) -> None:
        try:
            public_key = await self._cache.ask(
                ("line", fingerprint), lambda: git_access.public_key_of(self._instance, fingerprint)
            )
        except NoCachedAnswer:
            await _send(writer, b"away")
            return
        if public_key is None:
            await _send(writer, b"none")
            return
        limits = options.Restrictions(restrict=True, command=f"{self._programs.session} {fingerprint}")
        line = authorized_keys.key_line(public_key, options.render(limits, public_key.partition(" ")[0]))
        await _send(writer, b"line", line.rstrip("\n").encode("ascii"))

    async def _answer_operation(
        self,
        writer: asyncio.StreamWriter,
        fingerprint_text: bytes,
        address_text: bytes,
        protocol: bytes,
        command: bytes,
        *,
        again: bool,
    ) -> _Running | None:
        """Permit an operation, which then is under way, or refuse it; again: it goes on from an earlier authorizer."""
        fingerprint, address = fingerprint_text.decode("ascii"), address_text.decode("ascii")
        try:
            access = await self._permitted(fingerprint, address, command, quiet=again)
            operation = uuid.uuid4().hex
            answer = [b"go"] if again else await self._admitted(access, protocol, operation)
        except Refusal as refusal:
            await _send(writer, b"refuse", b"%d" % _exit_code(refusal), refusal.message.encode())
            return None
        except NoCachedAnswer:
            await _send(writer, b"refuse", b"%d" % TEMPORARY_FAILURE, AWAY.encode())
            return None
        now = time.monotonic()
        # The hooks of one that goes on name the operation that an earlier authorizer gave them.
        running = _Running(
            access,
            writer,
            began_at=now,
            confirmed_at=now,
            heartbeat_at=now,
            operation=operation,
            refs=PushedRefs(known=not again),
            only_deletes=operation in self._deleting,
        )
        self._deleting.discard(operation)
        # Added before it starts, so that a revocation in between stops it.
        self._running.add(running)
        if running.pushes:
            self._pushes[operation] = running
        try:
            await _send(writer, *answer)
        except BaseException:
            self._running.discard(running)
            self._pushes.pop(operation, None)
            raise
        return running

    async def _permitted(self, fingerprint: str, address: str, command: bytes, *, quiet: bool) -> GitAccess:
        """The access that policy permits; raises Refusal, also for the greeting where no command was sent."""
        verb = path = None
        with contextlib.suppress(Refusal):  # refused below, once the holder is known for the log
            verb, path = git_access.read_command(command)
        holder = await self._cache.ask(
            ("holder", fingerprint, address, path),
            lambda: git_access.holder_of(self._instance, fingerprint, address=address, path=path),
        )
        # The answer may be an older one from the cache, and the key have expired since.
        if holder is None or git_access.has_expired(self._instance, holder):
            raise git_access.key_removed()
        frozen = holder.frozen and not quiet  # a freeze stops no operation that runs already
        if not command and not frozen:
            self.log.used(holder)
            raise _greeting(holder)
        try:
            if frozen:
                raise git_access.key_frozen(holder)
            if verb is None or path is None:
                raise git_access.not_offered()
            answer = await self._cache.ask(
                (fingerprint, verb, path), lambda: _decision(self._instance, holder, verb, path)
            )
            if isinstance(answer, Refusal):
                raise answer
        except Refusal as refusal:
            if not quiet:
                self.log.refused(holder, refusal, verb=verb, path=path)
            raise
        return answer

    async def _admitted(self, access: GitAccess, protocol: bytes, operation: str) -> list[bytes]:
        """The instructions for an operation; raises Refusal when too many are under way."""
        under_way = [*(running.access for running in self._running), *self._starting]
        refusal = bounds.too_many(self._instance.settings, access, under_way)
        if refusal is not None:
            self.log.refused(access.holder, refusal, verb=access.verb, path=access.repository.path)
            raise refusal
        self._starting.append(access)
        try:
            return await self._instructions(access, protocol, operation)
        finally:
            self._starting.remove(access)

    def _folder(self, access: GitAccess) -> Path:
        return storage.folder_of(self._programs.repositories, access.repository)

    async def _instructions(self, access: GitAccess, protocol: bytes, operation: str) -> list[bytes]:
        """The answer to the session program for a permitted operation, once its event is recorded."""
        programs, settings, push = self._programs, self._instance.settings, access.verb == git_access.PUSH
        folder = self._folder(access)
        if not (folder / "HEAD").exists():
            folder = await asyncio.to_thread(storage.ensure, programs.repositories, access.repository, programs.git)
        self.log.permitted(access)
        most_input, words = 0, ""
        if push:
            most_input, words = await asyncio.to_thread(bounds.most_input, settings, folder)
            # A push begins only after its event is on the disk; events of fetches are written every half second.
            await asyncio.to_thread(self.log.write)
        hooks = str(programs.hooks["protected" if access.protected else "every"]) if push else os.devnull
        given = bounds.settings_of_git(push=push, hooks=hooks, most_input=most_input)
        limits = bounds.limits_of(settings, push=push)
        entries = [f"{name}={value}" for name, value in self._environment(access, protocol, operation).items()]
        instructions = [
            "serve",
            str(int(self._bound)),
            " ".join(filter(None, (_hint(access), words))),
            *map(str, (limits.cpu_seconds, limits.memory_bytes, limits.file_bytes)),
            str(len(entries)),
            *entries,
            programs.git,
            *(part for name, value in given.items() for part in ("-c", f"{name}={value}")),
            *(["receive-pack"] if push else ["upload-pack", "--strict"]),
            str(folder),
        ]
        if words:
            self._deleting.add(operation)
        return [line.encode() for line in instructions]

    def _environment(self, access: GitAccess, protocol: bytes, operation: str) -> dict[str, str]:
        environment = {"PATH": os.environ.get("PATH", os.defpath), **storage.clean_environment()}
        if GIT_PROTOCOL.fullmatch(protocol.decode("ascii", "replace")):
            environment["GIT_PROTOCOL"] = protocol.decode("ascii")
        if access.verb == git_access.PUSH:
            # The largest object that git unpacks in memory; it refuses a larger one.
            environment["GIT_ALLOC_LIMIT"] = str(self._instance.settings.git_max_file_bytes)
            environment |= {"KEYRACK_SOCKET": str(self._socket), "KEYRACK_OPERATION": operation}
            environment["KEYRACK_MAX_REFS"] = str(bounds.MAX_REFS_PER_PUSH)
        if access.protected is not None:
            environment["KEYRACK_PROTECTED"] = access.protected
        return environment

    async def _check(self) -> None:
        """Stop operations that would not be permitted any more, within a second of the change."""
        while True:
            await asyncio.sleep(CHECK_EVERY_SECONDS)
            # Read before the rights, so that these include the changes for which transfers must end.
            asked = await self._asked()
            if asked is not None and not asked:
                # Before transfers are stopped in this round: they may be of users whom only the next round names.
                self._stopped.clear()
            running = list(self._running)
            if not running:
                await self._say_ended(asked)
                continue
            asked_at = time.monotonic()
            self._send_heartbeats(running, asked_at)
            longest = self._instance.settings.git_max_transfer_seconds
            reasons: dict[_Running, str] = {}
            late = f"it took {longest} seconds, the longest that a transfer may take here."
            try:
                await self._confirm(running, asked_at, reasons)
            except NoCachedAnswer:
                for each in running:
                    if git_access.has_expired(self._instance, each.access.holder):
                        reasons[each] = git_access.key_removed().message
                    elif asked_at - each.confirmed_at > self._bound:
                        reasons[each] = AWAY
            except Exception:  # the round must go on: each transfer has its longest time
                log.exception("checking operations failed")
            reasons |= {each: late for each in running if asked_at - each.began_at > longest}
            for each, words in reasons.items():
                await self._cut(each, words)
            await self._say_ended(asked)

    def _send_heartbeats(self, running: list[_Running], now: float) -> None:
        """Send a heartbeat: a session program stops git when it receives nothing for longer than its bound."""
        for each in running:
            if now - each.heartbeat_at >= HEARTBEAT_SECONDS and not each.writer.is_closing():
                each.heartbeat_at = now
                each.writer.write(_frame(b"go"))  # without drain(): the program itself may hang

    async def _asked(self) -> Mapping[int, int] | None:
        """Whose transfers must end here (see core/git/endpoints.py), None where the database does not answer."""
        try:
            return await self._cache.ask_now(self._endpoint.to_end)
        except NoCachedAnswer:
            return None
        except Exception:  # the next round asks again, and transfers go on
            log.exception("whose transfers must end could not be read")
            return None

    async def _say_ended(self, asked: Mapping[int, int] | None) -> None:
        """Record which of the users whose transfers had to end have none any more."""
        if not asked:
            return
        running = {each.access.holder.actor.user_id for each in self._running}
        stopped = {number: self._stopped[user_id] for number, user_id in asked.items() if user_id not in running}
        try:
            await self._cache.ask_now(lambda: self._endpoint.ended(stopped))
        except NoCachedAnswer:
            pass
        except Exception:  # the next round tries again
            log.exception("that transfers ended was not recorded")

    async def _measure(self) -> None:
        """Stop pushes that together would fill their repository, or the disk."""
        settings = self._instance.settings
        while True:
            await asyncio.sleep(MEASURE_EVERY_SECONDS)
            pushes: dict[Path, list[_Running]] = {}
            for each in self._running:
                if each.pushes and not each.only_deletes:
                    pushes.setdefault(self._folder(each.access), []).append(each)
            for folder, those in pushes.items():
                try:
                    words = await asyncio.to_thread(bounds.overflow, settings, folder)
                except Exception:  # the other repositories are measured all the same
                    log.exception("a repository was not measured")
                    continue
                for each in those if words else ():
                    await self._cut(each, words)

    async def _confirm(self, running: list[_Running], asked_at: float, reasons: dict[_Running, str]) -> None:
        lost = await self._cache.ask_now(lambda: git_access.ended(self._instance, [each.access for each in running]))
        words = {id(access): refusal.message for access, refusal in lost}
        for each in running:
            if id(each.access) in words:
                reasons[each] = words[id(each.access)]
            else:
                each.confirmed_at = asked_at

    async def _cut(self, running: _Running, words: str) -> None:
        if running not in self._running:
            return
        self._running.discard(running)
        running.was_cut = True
        if running.access.holder.actor.user_id is not None:
            self._stopped[running.access.holder.actor.user_id] += 1
        self.log.cut(running.access, Refusal(Kind.FORBIDDEN, "rights-ended", words))
        with contextlib.suppress(OSError):
            await _send(running.writer, b"stop", f"the transfer was stopped: {words}".encode())

    async def _write(self) -> None:
        while True:
            await asyncio.sleep(WRITE_EVERY_SECONDS)
            try:
                await asyncio.to_thread(self.log.write)
            except Exception:  # kept, and written by the next round
                log.exception("events of Git were not written")


def _decision(instance: Instance, holder: Holder, verb: str, path: str) -> GitAccess | Refusal:
    """A decision as a value, so that a "no" is remembered in place of an earlier "yes"."""
    try:
        return git_access.decide(instance, holder, verb, path)
    except Refusal as refusal:
        return refusal


def _hint(access: GitAccess) -> str:
    if access.moved_from is None:
        return ""
    return (
        f"{access.moved_from} has moved to {access.repository.path}. Change your address with: "
        f"git remote set-url origin, and {access.repository.path}.git at its end."
    )


def _greeting(holder: Holder) -> Refusal:
    key = f"the key {holder.title!r}" if holder.title else "a key without a title"
    words = f"Hello {holder.words}! You are here with {key} ({holder.fingerprint}). Git is served here, no shell."
    return Refusal(Kind.FORBIDDEN, "no-shell", words)


def _exit_code(refusal: Refusal) -> int:
    if refusal.code == "no-shell":
        return 0
    return TEMPORARY_FAILURE if refusal.kind is Kind.UNAVAILABLE else LOGIN_REFUSED


async def _read(reader: asyncio.StreamReader) -> list[bytes]:
    (length,) = struct.unpack(">I", await reader.readexactly(4))
    if not 0 < length <= LARGEST_FRAME:
        raise ValueError("a frame of that length is none of ours")
    payload = await reader.readexactly(length)
    if not payload.endswith(b"\0"):
        raise ValueError("a field without an end")
    return payload[:-1].split(b"\0")


async def _send(writer: asyncio.StreamWriter, *fields: bytes) -> None:
    writer.write(_frame(*fields))
    await writer.drain()


def _frame(*fields: bytes) -> bytes:
    payload = b"".join(field + b"\0" for field in fields)
    return struct.pack(">I", len(payload)) + payload
