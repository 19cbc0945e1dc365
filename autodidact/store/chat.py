"""`chat.db`: conversations and their messages. Only the server writes it.

A question and the row of its reply are stored together before the first token; the reply's row is
`open` until it is finished. A reply that cannot be stored as it ends, for want of room or because
another program holds the file, is kept in memory and stored with whatever is written next. A server
that is killed leaves open rows behind: the next one to open the file marks them `failed`. Deleting
hides a conversation at once; it is wiped a minute later, so that it can be brought back until then.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import sqlite_utils

from autodidact.errors import ResourceError, StoreBusy
from autodidact.store.connection import SERVER_PATIENCE_MS, Connections
from autodidact.types.documents import Passage

Finish = Literal["open", "stop", "length", "time", "stopped", "failed"]
"""How a reply ended, as `types.chat.Finish` says; or that its reader stopped it, that it failed,
that it has not ended."""
TITLE_CHARS = 60
WIPE_AFTER_S = 60.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Conversation:
    id: str
    title: str
    updated_at: float


@dataclass(frozen=True)
class StoredMessage:
    """A question (`role` user) or a reply (assistant), to which all after `created_at` belongs.

    `answers` is the name of who replied, "" in rows from before it was stored; `version` is that
    model's number, None for a question and where it has no versions.
    `reply_to` is the question's id; `dropped` counts the earlier turns that the model did not see;
    `passages` are those that stood before the question, which itself is stored as it was asked.
    """

    id: int
    role: str
    content: str
    created_at: float
    reply_to: int | None
    version: int | None
    sampling: dict[str, Any]
    finish: Finish
    tokens: int
    prompt_tokens: int
    dropped: int
    tok_s: float | None
    first_token_ms: int | None
    passages: tuple[Passage, ...] = ()
    answers: str = ""


@dataclass(frozen=True)
class Begun:
    """The rows of a reply that is about to be written."""

    conversation_id: str
    question_id: int
    reply_id: int


def _v1(db: sqlite_utils.Database) -> None:
    db.table("conversations").create(
        {"id": str, "title": str, "created_at": float, "updated_at": float, "deleted_at": float},
        pk="id",
        not_null={"title", "created_at", "updated_at"},
    )
    db.table("conversations").create_index(["updated_at", "id"])
    db.table("messages").create(
        {
            "id": int,
            "conversation_id": str,
            "role": str,
            "content": str,
            "created_at": float,
            "reply_to": int,
            "version": int,
            "sampling": str,
            "finish": str,
            "tokens": int,
            "prompt_tokens": int,
            "dropped": int,
            "tok_s": float,
            "first_token_ms": int,
        },
        pk="id",
        foreign_keys=[("conversation_id", "conversations", "id")],
        not_null={"conversation_id", "role", "content", "created_at"},
    )
    db.table("messages").create_index(["conversation_id"])


def _v2(db: sqlite_utils.Database) -> None:
    db.table("messages").add_column("passages", str)


def _v3(db: sqlite_utils.Database) -> None:
    db.table("messages").add_column("answers", str)


MIGRATIONS = (_v1, _v2, _v3)


class ChatStore:
    def __init__(self, path: Path) -> None:
        self._db = Connections(path, MIGRATIONS, patience_ms=SERVER_PATIENCE_MS)
        self._unstored: dict[int, _Ended] = {}
        with self._write() as db:
            db.conn.execute("UPDATE messages SET finish = 'failed' WHERE finish = 'open'")
            _wipe(db)

    def close(self) -> None:
        if self._unstored:
            with suppress(ResourceError, StoreBusy), self._write():
                pass
        self._db.close()

    @contextmanager
    def _write(self) -> Iterator[sqlite_utils.Database]:
        """A transaction that first stores the ends of replies that could not be stored before."""
        with self._db.write() as db:
            late = tuple(self._unstored.items())
            for reply_id, ended in late:
                _finish(db, reply_id, ended)
            yield db
        for reply_id, ended in late:
            if self._unstored.get(reply_id) is ended:
                del self._unstored[reply_id]

    # Reading -----------------------------------------------------------------------------

    def conversation(self, conversation_id: str) -> Conversation | None:
        rows = list(
            self._db.read()
            .table("conversations")
            .rows_where("id = ? AND deleted_at IS NULL", [conversation_id])
        )
        return _conversation(rows[0]) if rows else None

    def conversations(
        self, limit: int, before: tuple[float, str] | None = None
    ) -> list[Conversation]:
        """The latest first. `before` is (updated_at, id) of the last one that is known."""
        where, values = "deleted_at IS NULL", []
        if before is not None:
            where += " AND (updated_at, id) < (?, ?)"
            values = list(before)
        rows = (
            self._db.read()
            .table("conversations")
            .rows_where(where, values, order_by="updated_at desc, id desc", limit=limit)
        )
        return [_conversation(row) for row in rows]

    def messages(self, conversation_id: str) -> list[StoredMessage]:
        """All messages in the order they were written."""
        rows = (
            self._db.read()
            .table("messages")
            .rows_where("conversation_id = ?", [conversation_id], order_by="id")
        )
        read = (_message(row) for row in rows)
        return [
            message if (ended := self._unstored.get(message.id)) is None else _end(message, ended)
            for message in read
        ]

    # Writing -----------------------------------------------------------------------------

    def begin(
        self,
        conversation_id: str | None,
        question: str,
        *,
        question_id: int | None = None,
        version: int | None,
        sampling: dict[str, Any],
        prompt_tokens: int | None,
        dropped: int,
        passages: Sequence[Passage] = (),
        answers: str = "",
    ) -> Begun:
        """Store a question and the open row of its reply, in a new conversation if there is none.

        `prompt_tokens` None: `finish` may tell them.
        `passages` belong to the reply; `question_id` names a stored question that is asked again:
        no second one is stored then.
        """
        now = time.time()
        with self._write() as db:
            _wipe(db)
            # The latest comes first, also where the clock was put back.
            last = db.conn.execute("SELECT MAX(updated_at) FROM conversations").fetchone()[0]
            latest = max(now, (last or 0.0) + 1e-3)
            if conversation_id is None:
                conversation_id = secrets.token_urlsafe(9)
                db.table("conversations").insert(
                    {
                        "id": conversation_id,
                        "title": title_of(question),
                        "created_at": now,
                        "updated_at": latest,
                    }
                )
            else:
                db.table("conversations").update(conversation_id, {"updated_at": latest})
            row = {"conversation_id": conversation_id, "created_at": now}
            if question_id is None:
                question_id = _insert(db, {**row, "role": "user", "content": question})
            reply_id = _insert(
                db,
                {
                    **row,
                    "role": "assistant",
                    "content": "",
                    "reply_to": question_id,
                    "version": version,
                    "answers": answers,
                    "sampling": json.dumps(sampling),
                    "finish": "open",
                    "prompt_tokens": prompt_tokens,
                    "dropped": dropped,
                    "passages": json.dumps([asdict(passage) for passage in passages]),
                },
            )
        return Begun(conversation_id, question_id, reply_id)

    def finish(
        self,
        reply_id: int,
        content: str,
        finish: Finish,
        *,
        tokens: int,
        tok_s: float | None,
        first_token_ms: int | None,
        prompt_tokens: int | None = None,
    ) -> None:
        """Store how a reply ended, now or with the next write. `prompt_tokens` None leaves what
        `begin` stored."""
        ended = _Ended(content, finish, tokens, tok_s, first_token_ms, prompt_tokens)
        self._unstored[reply_id] = ended
        try:
            with self._write():
                pass
        except (ResourceError, StoreBusy) as error:
            log.warning("a reply will be stored with the next one: %s", error)

    def withdraw(self, begun: Begun) -> None:
        """Take back what `begin` stored: the reply, its question if no other reply answers it, and
        the conversation if nothing else is in it."""
        with self._write() as db:
            db.conn.execute("DELETE FROM messages WHERE id = ?", (begun.reply_id,))
            db.conn.execute(
                "DELETE FROM messages WHERE id = ? AND NOT EXISTS "
                "(SELECT 1 FROM messages WHERE reply_to = ?)",
                (begun.question_id, begun.question_id),
            )
            db.conn.execute(
                "DELETE FROM conversations WHERE id = ? AND NOT EXISTS "
                "(SELECT 1 FROM messages WHERE conversation_id = ?)",
                (begun.conversation_id, begun.conversation_id),
            )

    def delete(self, conversation_id: str) -> bool:
        """Hide a conversation; False if there is none. `restore` brings it back for a minute."""
        with self._write() as db:
            _wipe(db)
            cursor = db.conn.execute(
                "UPDATE conversations SET deleted_at = ? WHERE id = ? AND deleted_at IS NULL",
                (time.time(), conversation_id),
            )
            return bool(cursor.rowcount)

    def restore(self, conversation_id: str) -> bool:
        with self._write() as db:
            cursor = db.conn.execute(
                "UPDATE conversations SET deleted_at = NULL "
                "WHERE id = ? AND deleted_at IS NOT NULL",
                (conversation_id,),
            )
            return bool(cursor.rowcount)


def title_of(question: str) -> str:
    """A conversation's title: the beginning of its first question, cut at a word."""
    line = " ".join(question.split())
    if len(line) <= TITLE_CHARS:
        return line
    head = line[: TITLE_CHARS - 1]
    return (head.rsplit(" ", 1)[0] if " " in head else head) + "…"


def _insert(db: sqlite_utils.Database, row: dict[str, Any]) -> int:
    pk = db.table("messages").insert(row).last_pk
    return int(str(pk))


@dataclass(frozen=True)
class _Ended:
    content: str
    finish: Finish
    tokens: int
    tok_s: float | None
    first_token_ms: int | None
    prompt_tokens: int | None


def _finish(db: sqlite_utils.Database, reply_id: int, ended: _Ended) -> None:
    db.conn.execute(
        "UPDATE messages SET content = ?, finish = ?, tokens = ?, tok_s = ?, first_token_ms = ?, "
        "prompt_tokens = coalesce(?, prompt_tokens) WHERE id = ?",
        (*astuple(ended), reply_id),
    )


def _end(message: StoredMessage, ended: _Ended) -> StoredMessage:
    """The message as it will be stored."""
    known = {name: value for name, value in asdict(ended).items() if value is not None}
    return replace(message, **known)


def _wipe(db: sqlite_utils.Database) -> None:
    """What was deleted a minute ago, or by a clock that was put back since."""
    now = time.time()
    old = (now - WIPE_AFTER_S, now)
    db.conn.execute(
        "DELETE FROM messages WHERE conversation_id IN "
        "(SELECT id FROM conversations WHERE deleted_at < ? OR deleted_at > ?)",
        old,
    )
    db.conn.execute("DELETE FROM conversations WHERE deleted_at < ? OR deleted_at > ?", old)


def _conversation(row: dict[str, Any]) -> Conversation:
    return Conversation(row["id"], row["title"], row["updated_at"])


def _message(row: dict[str, Any]) -> StoredMessage:
    return StoredMessage(
        id=row["id"],
        role=row["role"],
        content=row["content"],
        created_at=row["created_at"],
        reply_to=row["reply_to"],
        version=row["version"],
        sampling=json.loads(row["sampling"] or "{}"),
        finish=row["finish"] or "stop",
        tokens=row["tokens"] or 0,
        prompt_tokens=row["prompt_tokens"] or 0,
        dropped=row["dropped"] or 0,
        tok_s=row["tok_s"],
        first_token_ms=row["first_token_ms"],
        passages=tuple(Passage(**passage) for passage in json.loads(row["passages"] or "[]")),
        answers=row["answers"] or "",
    )
