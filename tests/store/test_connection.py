"""Opening a database: migrations, transactions, readers beside a writer or after its death."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sqlite_utils

from autodidact.errors import AutodidactError, ResourceError, StoreBusy
from autodidact.settings import PROJECT
from autodidact.store.connection import Connections
from tests.versions import one_line


def first(db: sqlite_utils.Database) -> None:
    db.table("notes").create({"id": int, "text": str}, pk="id")


def second(db: sqlite_utils.Database) -> None:
    db.table("notes").add_column("mark", str)


def broken(db: sqlite_utils.Database) -> None:
    db.table("notes").insert({"id": 99, "text": "half a migration"})
    raise ZeroDivisionError


def texts(store: Connections) -> list[str]:
    return [str(row["text"]) for row in store.read().table("notes").rows]


def add(store: Connections, text: str) -> None:
    with store.write() as db:
        db.table("notes").insert({"text": text})


def version(path: Path) -> int:
    return int(sqlite3.connect(path).execute("PRAGMA user_version").fetchone()[0])


# Migrations -------------------------------------------------------------------------------------


def test_migrations_run_once_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.db"
    store = Connections(path, (first,))
    add(store, "kept")
    store.close()
    store = Connections(path, (first, second))
    assert texts(store) == ["kept"]
    assert store.read().table("notes").columns_dict.keys() == {"id", "text", "mark"}
    assert version(path) == 2


def test_a_migration_that_fails_leaves_no_trace_and_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    Connections(path, (first,)).close()
    with pytest.raises(ZeroDivisionError):
        Connections(path, (first, broken))
    assert version(path) == 1
    store = Connections(path, (first, second))
    assert texts(store) == []
    assert version(path) == 2


def test_a_schema_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    Connections(path, (first, second)).close()
    with pytest.raises(AutodidactError) as caught:
        Connections(path, (first,))
    assert "made by a newer version" in one_line(caught.value)
    assert "schema 2" in str(caught.value)


@pytest.mark.parametrize("data", [b"not a database" * 100, b"SQLite format 3\x00" + b"\xff" * 4000])
def test_a_file_that_is_no_database_is_said_in_one_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(data)
    with pytest.raises(AutodidactError) as caught:
        Connections(path, (first,))
    assert "cannot be opened as a database" in one_line(caught.value)
    assert path.read_bytes() == data, "it is left to the user"


# Transactions -----------------------------------------------------------------------------------


def test_a_transaction_is_kept_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    store = Connections(tmp_path / "x.db", (first,))
    add(store, "before")

    def half() -> None:
        with store.write() as db:
            db.table("notes").insert({"text": "half"})
            raise KeyError

    with pytest.raises(KeyError):
        half()
    add(store, "after")
    assert texts(store) == ["before", "after"]


def test_a_reader_sees_nothing_of_an_open_transaction(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    store = Connections(path, (first,))
    add(store, "committed")
    reader = Connections(path, (), readonly=True)
    with store.write() as db:
        db.table("notes").insert({"text": "open"})
        assert texts(reader) == ["committed"]
    assert texts(reader) == ["committed", "open"]


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    Connections(path, (first,)).close()
    reader = Connections(path, (), readonly=True)
    with pytest.raises(AssertionError), reader.write():
        pass
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.read().conn.execute("INSERT INTO notes (text) VALUES ('x')")


def test_a_reader_makes_no_file(tmp_path: Path) -> None:
    reader = Connections(tmp_path / "x.db", (first,), readonly=True)
    with pytest.raises(FileNotFoundError):
        reader.read()
    assert list(tmp_path.iterdir()) == []
    Connections(tmp_path / "x.db", (first,)).close()
    assert texts(reader) == [], "it opens once there is something"


def test_threads_write_one_after_another(tmp_path: Path) -> None:
    store = Connections(tmp_path / "x.db", (first,))
    add(store, "0")

    def work() -> None:
        for _ in range(10):
            with store.write() as db:
                [row] = db.table("notes").rows_where("id = 1")
                db.table("notes").update(1, {"text": str(int(row["text"]) + 1)})

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert texts(store) == ["40"]


def test_two_processes_may_write(tmp_path: Path) -> None:
    """They should not, by our own rules; but then they wait for each other."""
    path = tmp_path / "x.db"
    mine, theirs = Connections(path, (first,)), Connections(path, (first,))
    done = threading.Event()

    def work() -> None:
        add(theirs, "theirs")
        done.set()

    with mine.write() as db:
        db.table("notes").insert({"text": "mine"})
        worker = threading.Thread(target=work)
        worker.start()
        assert not done.wait(0.05)
    worker.join()
    assert texts(mine) == ["mine", "theirs"]


# After a kill -----------------------------------------------------------------------------------

WRITER = """
import os, signal, sys
from pathlib import Path
from autodidact.store.connection import Connections
store = Connections(Path(sys.argv[1]), (lambda db: None,))
with store.write() as db:
    db.conn.execute("PRAGMA cache_size=1")
    for i in range(3000):
        db.conn.execute("INSERT INTO notes (text) VALUES (?)", ("lost" * 50,))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_writer(path: Path) -> None:
    """A writer that dies in the middle of a transaction, with pages already in the file."""
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(path)],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("readonly", [True, False])
def test_after_a_killed_writer_everybody_reads_what_was_committed(
    tmp_path: Path, readonly: bool
) -> None:
    path = tmp_path / "x.db"
    store = Connections(path, (first,))
    add(store, "kept")
    store.close()
    killed_writer(path)
    assert any(p.name.startswith("x.db-") for p in tmp_path.iterdir()), "it left its journal"
    opened = Connections(path, (first,), readonly=readonly)
    assert texts(opened) == ["kept"]


def test_a_reader_that_was_open_goes_on_after_a_killed_writer(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    store = Connections(path, (first,))
    add(store, "kept")
    store.close()
    reader = Connections(path, (), readonly=True)
    assert texts(reader) == ["kept"]
    killed_writer(path)
    assert texts(reader) == ["kept"]


def test_one_connection_a_thread(tmp_path: Path) -> None:
    store = Connections(tmp_path / "x.db", (first,))
    seen = [store.read(), store.read()]
    worker = threading.Thread(target=lambda: seen.append(store.read()))
    worker.start()
    worker.join()
    assert seen[0] is seen[1]
    assert seen[2] is not seen[0]
    store.close()
    with pytest.raises(sqlite3.ProgrammingError):
        seen[2].conn.execute("SELECT 1")


# A full disk, and somebody else's lock -----------------------------------------------------------


def fill(store: Connections, pages: int) -> None:
    """As on a full disk: the file may not grow beyond so many pages."""
    with store.write() as db:
        db.conn.execute(f"PRAGMA max_page_count={pages:d}")


@pytest.mark.parametrize("where", ["in the block", "at the commit"])
def test_a_full_disk_is_told_and_everything_goes_on_when_there_is_room(
    tmp_path: Path, where: str
) -> None:
    store = Connections(tmp_path / "x.db", (first,))
    add(store, "before")
    fill(store, 1)

    def much() -> None:
        with store.write() as db:
            for _ in range(50 if where == "in the block" else 1):
                db.table("notes").insert({"text": "x" * 5000})

    with pytest.raises(ResourceError, match="the disk is full") as told:
        much()
    assert one_line(told.value)
    assert not store.read().conn.in_transaction
    assert texts(store) == ["before"]
    fill(store, 10_000)
    add(store, "after")
    assert texts(store) == ["before", "after"]


def test_an_error_within_is_not_hidden_by_the_rollback(tmp_path: Path) -> None:
    store = Connections(tmp_path / "x.db", (first,))

    def fail() -> None:
        with store.write() as db:
            db.conn.execute("ROLLBACK")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    add(store, "after")
    assert texts(store) == ["after"]


def test_whoever_holds_the_file_for_long_is_told_of_and_waited_for_no_longer(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.db"
    store = Connections(path, (first,), patience_ms=100)
    add(store, "before")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    told: list[BaseException] = []

    def write() -> None:
        try:
            add(store, "beside")
        except AutodidactError as error:
            told.append(error)

    writers = [threading.Thread(target=write) for _ in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(20)
    assert [type(error) for error in told] == [StoreBusy] * 6
    assert "another program holds it" in one_line(told[0])
    with pytest.raises(StoreBusy):
        Connections(path, (first,), patience_ms=100)
    other.execute("ROLLBACK")
    add(store, "after")
    assert texts(store) == ["before", "after"]


def test_threads_of_ours_wait_for_each_other_however_slow_the_disk(tmp_path: Path) -> None:
    """Twenty transactions of 40 ms in a row, and a patience of 50 ms with other programs."""
    store = Connections(tmp_path / "x.db", (first,), patience_ms=50)
    told: list[BaseException] = []

    def write(number: int) -> None:
        try:
            with store.write() as db:
                db.table("notes").insert({"text": str(number)})
                time.sleep(0.04)
        except AutodidactError as error:
            told.append(error)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(20)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(20)
    assert told == []
    assert sorted(texts(store), key=int) == [str(number) for number in range(20)]
