"""How long it will take: every kind of work is tried on a few items and timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from autodidact.proof import plan
from autodidact.proof.measure import ask, general
from autodidact.proof.protocol import Protocol

ASKED, IN_BOOK, BLOCKS = 32, 4, 4
HELD_OUT = 200
"""Blocks of the base's own text that a complete set of anchors holds out."""
STEPS = 4


def trial(protocol: Protocol, budget_s: float) -> dict[str, Any]:
    """Seconds of one of each (`plan.Costs`) as JSON; anchors get their share of `budget_s`.

    Nothing is learned or kept: the steps are tried at learning rate zero, on the first anchors
    there are.
    """
    from autodidact.engine.examinee import Examinee
    from autodidact.training import anchors as module
    from autodidact.training import sft

    school, engine = protocol.school, protocol.school.engine
    begun = time.monotonic()
    mix = school.recipe.anchors
    first = module.extend(engine, module.Anchors(), mix, 0.0, lambda done, of: None)
    a_batch_of_each = time.monotonic() - begun
    batches = (module.TEXTS + module.CHATS) / module.BATCH / 2
    if mix == "real":
        batches = first.real.due / module.AT_ONCE
    most = min(plan.ANCHOR_MOST_S, max(plan.ANCHOR_LEAST_S, plan.ANCHOR_SHARE * budget_s))
    school.use(first)

    lesson = protocol.trial_lesson()
    trainer = school.trainer(lesson)
    step = sft.seconds_per_step(trainer, school.stream(lesson, early=False), STEPS)
    naive = _naive_step(protocol)
    with TemporaryDirectory() as folder:
        begun = time.monotonic()
        trainer.export(Path(folder) / "adapter", "base")
        adapted = Examinee(engine, school.load(Path(folder), 1))
        export = time.monotonic() - begun
    del trainer

    base = Examinee(engine, engine.untouched)
    items = next(iter(protocol.material.items.values()))[:ASKED]
    arm = protocol.material.arms[0]
    book = [row for rows in protocol.open_book(arm)[0].values() for row in rows[:IN_BOOK]]
    wikitext = protocol.wikitext()

    def ask_base() -> object:
        return ask(base, items, _silent)

    def per_block(subject: Any) -> float:
        took = _timed(lambda: general(subject, school.blocks[:BLOCKS], wikitext[:BLOCKS]))
        sample = len(school.blocks[:BLOCKS]) + len(wikitext[:BLOCKS])
        return took / max(1, sample) * (HELD_OUT + len(wikitext))

    ask_base()  # warms up
    # Open-book rows are two a question: with BM25's passages and with the oracle's.
    return asdict(
        plan.Costs(
            anchors=min(most, a_batch_of_each * batches),
            ask=_timed(ask_base) / len(items),
            ask_lora=_timed(lambda: ask(adapted, items, _silent)) / len(items),
            book=2 * _timed(lambda: ask(base, book, _silent)) / len(book),
            book_lora=2 * _timed(lambda: ask(adapted, book, _silent)) / len(book),
            general=per_block(base),
            general_lora=per_block(adapted),
            step=step,
            naive_step=naive,
            export=export,
        )
    )


def _naive_step(protocol: Protocol) -> float:
    from autodidact.proof.arms import TrialLesson, naive_batches

    school, arm = protocol.school, protocol.material.arms[0]
    texts = [protocol.material.articles[title].document.text for title in arm.taught]
    rows = school.raw_text(texts)
    trainer = school.trainer(TrialLesson(rows, [], None, 0))
    batches = naive_batches(rows, 0)
    trainer.step(batches[0], 1.0)
    return _timed(lambda: trainer.step(batches[-1 if len(batches) < 2 else 1], 1.0))


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _silent(done: int, of: int) -> None:
    return None
