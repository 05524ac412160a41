"""The one reader of a link's replication slot: a thread that takes what the server sends and puts it into the log.

The server cuts the stream when it does not hear from us for ``wal_sender_timeout``, so a thread of its own keeps
telling it how far we are, also while the log is full and nothing more is read.

*Confirming* allows the server to forget: everything that committed before the confirmed LSN is not sent again.  It
moves by ``acknowledge``, and, with ``follow``, along with the server while nothing that we were sent is unacknowledged:
the server need not keep what others write while the link's tables are idle.

A log that is full takes nothing more, unless somebody needs it to go on: who has to know everything that was committed
before, to write anything, would wait for room that only comes behind his writes.

When the connection fails, the log tells its readers (Unavailable), and both are to be opened anew.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from contextlib import closing, suppress
from math import ceil
from select import POLLIN, poll
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from struct import Struct
from threading import Event, Thread
from time import monotonic, time
from typing import Final

import psycopg
from psycopg.pq import ExecStatus

from dualwrite.connectors._pg_allowance import Allowance
from dualwrite.connectors._pg_capture import REMEDY
from dualwrite.connectors._pg_entries import lsn_text
from dualwrite.connectors._pg_log import Log
from dualwrite.connectors._pg_session import Connection, Database
from dualwrite.connectors._pg_wire import KINDS
from dualwrite.connectors._sql import literal, quote
from dualwrite.errors import DualwriteError, PositionLost, Unavailable

STATUS: Final = 2.0
"""Seconds between two words to the server, at most."""
SILENCE: Final = 120.0
"""Seconds after which a server that does not answer counts as gone."""
PATIENCE: Final = 30.0
"""Seconds in which another session that holds the slot, a dead one for instance, may let it go."""

_PAUSE: Final = 0.05  # how often a slot that is held, or a full log, is looked at
_NEEDED: Final = 1.0  # for how long a full log is filled on when somebody has waited for what was not there
_NUDGE: Final = 0.2  # after how long a server that did not get somewhere by itself is asked
_OFTEN: Final = 500  # messages between two looks at the clock
_FEW: Final = 10  # messages that may be all that there is: a transaction of one row is four, and a word from the server
_INSISTENCE: Final = 10  # questions in a second, and nothing else: only a server that shuts down asks like that
_GOODBYE: Final = 1.0
_DATA: Final = 0x77
_KEEPALIVE: Final = 0x6B
_HEADER: Final = 25  # of a data message: its kind, two LSNs and a time
_keepalive: Final = Struct(">QqB").unpack_from
_status: Final = Struct(">cQQQqB").pack
_POSTGRES_EPOCH: Final = 946_684_800

_SLOT: Final = """
    SELECT confirmed_flush_lsn - '0/0'::pg_lsn, coalesce(wal_status, ''), database = current_database(), plugin,
        coalesce(to_jsonb(s) ->> 'invalidation_reason', ''), coalesce(active_pid::text, ''),
        EXISTS (SELECT FROM pg_publication WHERE pubname = {publication})
    FROM pg_replication_slots s WHERE slot_name = {slot}"""
_FLUSH: Final = """
    SELECT pg_logical_emit_message(true, 'dualwrite', '') - '0/0'::pg_lsn,
        set_config('synchronous_commit', 'local', true)"""


def flushed_end(connection: Connection) -> int:
    """An LSN behind everything that any session has written until now, with all of that flushed, so it is sent at once.

    The server sends what is on its disk only, and a commit with ``synchronous_commit = off`` may get there much later;
    a tiny transaction of ours takes it along.  The connection must be in autocommit mode and in no transaction.
    """
    row = connection.execute(_FLUSH).fetchone()
    assert row is not None
    return int(row[0])


class Stream:
    """An open stream from a slot into a log; ``close`` ends it."""

    def __init__(
        self,
        database: Database,
        slot: str,
        publication: str,
        log: Callable[[int], Log],
        *,
        start: int | None = None,
        follow: bool = True,
        patience: float = PATIENCE,
        allowance: Allowance | None = None,
    ) -> None:
        """Begin to read at ``start`` (None: at what was confirmed); ``log`` makes the log that begins there.

        Where there is an ``allowance``, it is asked before anything is confirmed.

        Raises PositionLost when what follows ``start`` will not be sent again, the slot or publication is gone or
        invalid; Unavailable when another session holds the slot for longer than ``patience`` seconds; Denied.
        """
        self._database, self._slot, self._publication = database, slot, publication
        self._follow = follow
        self._allowance = allowance
        self._connection = database.connect(replication=True)
        try:
            self.start = self._begin(start, patience)
            if allowance is not None:
                allowance.examine()
            self.log = log(self.start)
        except BaseException:
            self._connection.close()
            raise
        self._acknowledged = self._confirmed = self.start
        self._stopping = False
        self._is_asking = False
        self._due = 0.0
        self._needed = 0.0
        self._heard = monotonic()
        self._questions: deque[float] = deque(maxlen=_INSISTENCE)
        self._pgconn = self._connection.pgconn
        self._pgconn.nonblocking = 1
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._poll = poll()
        self._poll.register(self._woken, POLLIN)
        self._poll.register(self._pgconn.socket, POLLIN)
        self._thread = Thread(target=self._run, name=f"dualwrite stream {slot}", daemon=True)
        self._thread.start()

    # -- beginning ------------------------------------------------------------------------------------------------

    def _begin(self, start: int | None, patience: float) -> int:
        deadline = monotonic() + patience
        pause = Event()
        while True:
            confirmed, holder = self._examined()
            if start is not None and start < confirmed:
                raise PositionLost(
                    f"the changes behind {lsn_text(start)} are gone: slot {self._slot} of {self._database.shown} was "
                    f"confirmed up to {lsn_text(confirmed)}",
                    REMEDY,
                )
            at = confirmed if start is None else start
            try:
                self._connection.execute(self._command(at))
            except psycopg.errors.ObjectInUse as exc:
                if monotonic() > deadline:
                    raise Unavailable(
                        f"slot {self._slot} of {self._database.shown} is held by another session (process {holder})",
                        "another dualwrite may run this link; a dead session lets go after wal_sender_timeout",
                    ) from exc
                pause.wait(_PAUSE)
            except psycopg.Error as exc:
                raise self._classified(exc) from exc
            else:
                return at

    def _examined(self) -> tuple[int, str]:
        """What was confirmed, and which process holds the slot; raises PositionLost when it cannot be read."""
        query = _SLOT.format(slot=literal(self._slot), publication=literal(self._publication))
        with self._database.errors():
            row = self._connection.execute(query.encode()).fetchone()
        where = f"slot {self._slot} of {self._database.shown}"
        if row is None:
            raise PositionLost(f"{where} does not exist", REMEDY)
        confirmed, status, is_here, plugin, reason, holder, is_published = row
        if is_here != "t" or plugin != "pgoutput" or confirmed is None:
            raise PositionLost(f"{where} is not one that dualwrite has made for this database", REMEDY)
        if status == "lost" or reason:
            raise PositionLost(f"{where} has lost what follows ({reason or 'its log was removed'})", REMEDY)
        if is_published != "t":
            raise PositionLost(f"publication {self._publication} of {self._database.shown} does not exist", REMEDY)
        return int(confirmed), holder

    def _command(self, at: int) -> bytes:
        publication = literal(quote(self._publication))
        options = f"proto_version '1', publication_names {publication}, messages 'true'"
        return f"START_REPLICATION SLOT {quote(self._slot)} LOGICAL {lsn_text(at)} ({options})".encode()

    def _classified(self, exc: psycopg.Error) -> DualwriteError:
        """What an error of the stream means."""
        words = exc.diag.message_primary or str(exc)
        if exc.diag.message_detail:
            words = f"{words}: {exc.diag.message_detail}"
        if exc.sqlstate in ("42704", "55000"):  # gone, or not to be read any more
            return PositionLost(f"{self._database.shown} cannot send what follows ({words})", REMEDY)
        return self._database.translated(exc) or Unavailable(
            f"{self._database.shown} ended the stream ({words})", "look into the server's log"
        )

    # -- what others may ask of it --------------------------------------------------------------------------------

    @property
    def confirmed(self) -> int:
        """What committed before this LSN is not sent again."""
        return self._confirmed

    def acknowledge(self, lsn: int) -> None:
        """Nothing that committed before ``lsn`` is needed again; the server is told.  Going back is ignored."""
        if lsn > self._acknowledged:
            self._acknowledged = lsn
            self._rouse()

    def ping(self) -> None:
        """Ask the server to say at once how far it has sent."""
        self._is_asking = True
        self._rouse()

    def reach(self, lsn: int, timeout: float) -> None:
        """Wait until the log holds everything that committed before ``lsn`` (see ``flushed_end``).

        Raises Unavailable when nothing more of it comes for ``timeout`` seconds.
        """
        seen, deadline = self.log.seen, monotonic() + timeout
        if self.log.reached < lsn:
            self._needed = monotonic() + _NEEDED
            if self.log.is_full:
                self._rouse()
        while not self.log.wait(lsn, min(_NUDGE, max(0.0, deadline - monotonic()))):
            self._needed = monotonic() + _NEEDED
            if self.log.seen != seen:  # a very large transaction takes its time
                seen, deadline = self.log.seen, monotonic() + timeout
            elif monotonic() > deadline:
                raise Unavailable(
                    f"{self._database.shown} has sent its log up to {lsn_text(self.log.reached)} and not yet to "
                    f"{lsn_text(lsn)}",
                    "look at what the server's process for this link does; a very large transaction takes its time",
                )
            self.ping()

    def close(self) -> None:
        """End the stream; what was acknowledged is confirmed.  The log stays readable.  Idempotent."""
        self._stopping = True
        self._rouse()
        self._thread.join()

    def _rouse(self) -> None:
        with suppress(OSError):  # woken already, or ended
            self._wake.send(b"\0")

    # -- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        error: DualwriteError = Unavailable("the stream was closed", "open the connector again")
        try:
            self._read()
            self._end()
        except psycopg.Error as exc:
            error = self._classified(exc)
        except DualwriteError as exc:
            error = exc
        except OSError as exc:
            error = Unavailable(f"the log of {self._database.shown} cannot be kept ({exc})", "free some disk space")
        except BaseException as exc:
            error = Unavailable(f"the stream of {self._database.shown} broke ({exc!r})", "report this")
            raise
        finally:
            self._connection.close()
            self._wake.close()
            self._woken.close()
            self.log.fail(error)

    def _read(self) -> None:
        log, questions, next_message = self.log, self._questions, self._pgconn.get_copy_data
        taken = since = 0
        while not self._stopping:
            if log.is_full and not self._is_needed:
                self._sit_out()
                continue
            size, data = self._passed_over() if log.is_quiet else next_message(1)
            if size > 0:
                if data[0] == _DATA:
                    if questions:
                        questions.clear()
                    log.receive(bytes(data[_HEADER:]))
                elif data[0] == _KEEPALIVE:
                    self._hear(data)
                taken += 1
                if taken % _OFTEN == 0:
                    self._heard = monotonic()
                    self._talk()
            elif size == 0 and taken > since + _FEW:
                self._pgconn.consume_input()  # where so many came at once, more are there already
                since = taken
            elif size == 0:
                log.publish()
                self._talk()
                self._listen()
                since = taken
            else:
                self._hear_the_end()

    @property
    def _is_needed(self) -> bool:
        return monotonic() < self._needed

    def _passed_over(self) -> tuple[int, memoryview]:
        """The first message behind rows that are nothing to anybody: of these there may be millions."""
        next_message = self._pgconn.get_copy_data
        while True:
            for _ in range(_OFTEN):
                size, data = next_message(1)
                if size <= 0 or data[0] != _DATA or data[_HEADER] not in KINDS:
                    return size, data
            self._questions.clear()
            self._heard = monotonic()
            self._talk()
            if self._stopping:
                return size, data

    def _hear(self, data: memoryview) -> None:
        """How far the server is."""
        end, _, is_asked = _keepalive(data, 1)
        self.log.alive(end)
        if is_asked:
            self._mind_a_shutdown()
        if is_asked or self._confirmable() > self._confirmed:
            self._tell()

    def _mind_a_shutdown(self) -> None:
        """A server that shuts down waits, asking on and on, until all is confirmed: for ever if the other side is down.

        So we leave; the slot keeps what is not confirmed.
        """
        now = monotonic()
        self._questions.append(now)
        if len(self._questions) == _INSISTENCE and now - self._questions[0] < 1:
            raise self._shutting_down()

    def _listen(self) -> None:
        """Wait for the server, or for somebody of ours who wants something."""
        for file, _ in self._wait(self._due - monotonic()):
            if file == self._woken.fileno():
                self._woken.recv(4096)
            else:
                self._pgconn.consume_input()
                self._heard = monotonic()

    def _wait(self, seconds: float) -> list[tuple[int, int]]:
        return self._poll.poll(max(0, ceil(seconds * 1000)))

    def _sit_out(self) -> None:
        """Take nothing until the log has room, but keep talking.

        A server that shuts down would wait for us, and could not tell us so.  It ends other sessions first, so one of
        those keeps watch.
        """
        with closing(self._database.connect()) as watch, DefaultSelector() as others:
            others.register(self._woken, EVENT_READ)
            others.register(watch.fileno(), EVENT_READ)
            while not (self.log.has_room or self._is_needed or self._stopping):
                self._heard = monotonic()
                self._talk()
                for key, _ in others.select(_PAUSE):
                    if key.fileobj is not self._woken:
                        raise self._shutting_down()
                    self._woken.recv(4096)

    def _shutting_down(self) -> Unavailable:
        return Unavailable(f"{self._database.shown} is shutting down", "start the server again")

    def _talk(self) -> None:
        now = monotonic()
        if now - self._heard > SILENCE:
            raise Unavailable(f"{self._database.shown} is silent", "check the server and the network")
        is_asking = self._is_asking or now - self._heard > SILENCE / 2
        if now >= self._due or is_asking or self._confirmable() > self._confirmed:
            self._is_asking = False
            self._tell(is_asking)

    def _confirmable(self) -> int:
        if self._follow and self.log.is_settled(self._acknowledged):
            return self.log.reached
        return min(self._acknowledged, self.log.reached)

    def _tell(self, is_asking: bool = False) -> None:
        """Send our status."""
        confirmable = max(self._confirmed, self._confirmable())
        if self._allowance is not None:
            self._allowance.cover(confirmable)
        self._confirmed = confirmable
        at = int((time() - _POSTGRES_EPOCH) * 1_000_000)
        received = max(self.log.reached, self._confirmed)
        self._pgconn.put_copy_data(_status(b"r", received, self._confirmed, self._confirmed, at, is_asking))
        self._flush()
        self._due = monotonic() + STATUS

    def _flush(self) -> None:
        if self._pgconn.flush():
            with DefaultSelector() as writable:
                writable.register(self._pgconn.socket, EVENT_WRITE)
                while self._pgconn.flush():
                    if not writable.select(SILENCE):
                        raise Unavailable(f"{self._database.shown} does not listen", "check the server and the network")

    def _hear_the_end(self) -> None:
        result = self._pgconn.get_result()
        if result is not None and result.status == ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result)
        raise Unavailable(f"{self._database.shown} ended the stream", "it is shutting down: try again")

    def _end(self) -> None:
        """Part in order, so that the slot is free at once; not at any price."""
        self._tell()
        if self._allowance is not None:
            self._allowance.settle()  # while nobody else can have the slot
        self._pgconn.put_copy_end()
        self._flush()
        self._poll.unregister(self._woken)
        deadline, size = monotonic() + _GOODBYE, 0
        while monotonic() < deadline:
            if size >= 0:
                size, _ = self._pgconn.get_copy_data(1)
            if size < 0 and not self._pgconn.is_busy():
                return  # the server's last word comes after it has let the slot go
            if size <= 0 and self._wait(deadline - monotonic()):
                self._pgconn.consume_input()
