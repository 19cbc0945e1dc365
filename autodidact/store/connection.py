"""Opening a database the safe way, and ordered migrations.

WAL is used only where SQLite is new enough to be free of the "WAL-reset" bug (3.51.3); elsewhere a
rollback journal with `synchronous=FULL`. Writers take the write lock at the start of a transaction
(`BEGIN IMMEDIATE`): a deferred upgrade fails at once, whatever the busy timeout. Readers open the
file read-write with `query_only=ON`, because a `mode=ro` reader cannot roll back what a killed
writer left behind.

Not covered: network filesystems, whose locks cannot be trusted.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlite_utils

from autodidact.errors import AutodidactError, ResourceError, StoreBusy, StoreOutdated

Migration = Callable[[sqlite_utils.Database], None]
BUSY_TIMEOUT_MS = 10_000
SERVER_PATIENCE_MS = 1_000
"""Somebody waits for the page: better to say that it is busy."""
_WAL_SAFE = (3, 51, 3)


_HELD = "another program holds it; try again in a moment"


def explained(error: sqlite3.Error, path: Path | str) -> AutodidactError | None:
    """What an error of SQLite means for who sees it; None for a fault of ours."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return ResourceError(f"{path}: the disk is full")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreBusy(f"{path}: {_HELD}")
    return None


class Connections:
    """One connection per thread to one file; `write()` is a transaction, `read()` a connection."""

    def __init__(
        self,
        path: Path,
        migrations: Sequence[Migration],
        *,
        readonly: bool = False,
        patience_ms: int = BUSY_TIMEOUT_MS,
    ) -> None:
        """`patience_ms`: how long another program's lock is waited for."""
        self.path = path
        self._patience_ms = patience_ms
        self.readonly = readonly
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._written = 0
        self._schema = len(migrations)
        if not readonly:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._migrate(migrations)

    def read(self) -> sqlite_utils.Database:
        db = getattr(self._local, "db", None)
        if db is None:
            db = self._connect()
            self._local.db = db
        return db

    @contextmanager
    def write(self) -> Iterator[sqlite_utils.Database]:
        """A transaction: committed at the end of the block, rolled back on any exception.

        Raises ResourceError where the disk is full, and StoreBusy where another program holds the
        file, or threads of ours wait for one that does.
        """
        if self.readonly:
            raise AssertionError(f"{self.path.name} was opened for reading")
        db = self.read()
        self._await_turn()
        try:
            db.conn.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.conn.execute("COMMIT")
                self._written += 1
            except BaseException:
                # On a full disk SQLite has mostly rolled back by itself: a ROLLBACK would then be
                # the error that is seen.
                if db.conn.in_transaction:
                    with suppress(sqlite3.Error):
                        db.conn.execute("ROLLBACK")
                raise
        except sqlite3.OperationalError as error:
            if told := explained(error, self.path):
                raise told from error
            raise
        finally:
            self._write_lock.release()

    def _await_turn(self) -> None:
        """Take the write lock. Threads of ours may be many and the disk slow: that is waited for.
        Where none of them has come through for twice the patience, another program holds the file:
        raises StoreBusy."""
        written = self._written
        while not self._write_lock.acquire(timeout=2 * self._patience_ms / 1000):
            if written == self._written:
                raise StoreBusy(f"{self.path}: {_HELD}")
            written = self._written

    def close(self) -> None:
        with self._lock:
            for connection in self._open:
                connection.close()
            self._open.clear()
        self._local = threading.local()

    def _connect(self) -> sqlite_utils.Database:
        if self.readonly and not self.path.exists():
            raise FileNotFoundError(self.path)
        try:
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            connection.execute(f"PRAGMA busy_timeout={self._patience_ms:d}")
            connection.execute("PRAGMA foreign_keys=ON")
            if self.readonly:
                connection.execute("PRAGMA query_only=ON")
                self._refuse_older(connection)
            elif sqlite3.sqlite_version_info >= _WAL_SAFE:
                connection.execute("PRAGMA journal_mode=WAL")
            else:
                connection.execute("PRAGMA journal_mode=DELETE")
                connection.execute("PRAGMA synchronous=FULL")
        except sqlite3.DatabaseError as error:
            if told := explained(error, self.path):
                raise told from None
            raise AutodidactError(
                f"{self.path}: cannot be opened as a database ({error}); move it away to start anew"
            ) from None
        connection.row_factory = sqlite3.Row
        with self._lock:
            self._open.append(connection)
        return sqlite_utils.Database(connection)

    def _refuse_older(self, connection: sqlite3.Connection) -> None:
        """A reader cannot bring a file up to date, and would look for what is not there yet."""
        done = connection.execute("PRAGMA user_version").fetchone()[0]
        if 0 < done < self._schema:
            connection.close()
            raise StoreOutdated(
                f"{self.path}: made by an older version of Autodidact; start web_learner.py, "
                "which brings it up to date"
            )

    def _migrate(self, migrations: Sequence[Migration]) -> None:
        done: int = self.read().conn.execute("PRAGMA user_version").fetchone()[0]
        if done > len(migrations):
            raise AutodidactError(
                f"{self.path}: made by a newer version of Autodidact (schema {done}, "
                f"this one knows {len(migrations)}); update Autodidact"
            )
        for number, step in enumerate(migrations[done:], start=done + 1):
            with self.write() as db:
                step(db)
                db.conn.execute(f"PRAGMA user_version={number:d}")
