"""The proof from end to end: draw lots, measure the base, train the arms, measure them.

The protocol is fixed before anything is trained: articles are assigned to taught and control at
random (`plan.draw`), arms are swapped, questions are people's and closed book, training sees the
text only and no question that overlaps a human one. Every finished unit is kept (`work`), so that
the same command goes on where it was interrupted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodidact import curation
from autodidact.chat.retrieval import prompt
from autodidact.errors import SettingError
from autodidact.lessons import examples
from autodidact.proof import choices, data, plan
from autodidact.proof.measure import Item, ask, general
from autodidact.proof.overlap import HumanQuestions, without_overlap
from autodidact.proof.plan import Costs, TrialArm, Unit
from autodidact.proof.retrieval import CHUNK_WORDS, ChunkIndex, fitting
from autodidact.proof.work import Work
from autodidact.reading.chunks import chunks
from autodidact.reading.document import read_document
from autodidact.settings import PROJECT, TrainingSettings
from autodidact.types.chat import Message
from autodidact.types.cycle import Verdict
from autodidact.types.documents import Chunk, Document, Example

if TYPE_CHECKING:
    from autodidact.proof.arms import School, TrialLesson

WIKITEXT_BLOCKS, WIKITEXT_TOKENS = 100, 256
REPLY_ROOM = 32
Say = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class TrialMaterial:
    """Everything read from the two files that the drawn arms need."""

    articles: dict[str, data.Article]
    questions: dict[str, list[data.Question]]
    items: dict[str, list[Item]]
    arms: list[TrialArm]
    human: HumanQuestions
    others: list[Document]
    left_out: int


def window(context: int) -> int:
    """Tokens of a prompt that a model was trained for; passages fill at most half of them."""
    return min(context, 1024)


class Protocol:
    """One proof in one folder."""

    def __init__(
        self, school: School, material: TrialMaterial, work: Work, say: Say, wikitext: Path | None
    ) -> None:
        self.school = school
        self.material = material
        self.work = work
        self.say = say
        self._wikitext = wikitext
        self._examples: dict[str, tuple[list[Example], int]] = {}
        self._version: tuple[str, Any] = ("", None)
        self._numbers = {title: a.number for title, a in material.articles.items()}

    # The main path -------------------------------------------------------------------------

    def run(self, costs: Costs, minutes: float | None, budget_s: float | None) -> float:
        """Do every unit that is not done yet. Returns the training minutes of an arm."""
        measured = [u for u in self.units(costs, 0.0) if u.what in ("anchors", "base")]
        for unit in measured:
            self._do(unit, self.units(costs, minutes or plan.LEAST_MINUTES))
        if not self.work.has("minutes"):
            if minutes is None:
                minutes = self._minutes(costs, budget_s)
            self.work.put("minutes", {"minutes": minutes})
        minutes = float(self.work.get("minutes")["minutes"])
        self.say(f"training: {minutes:.1f} minutes an arm")
        todo = self.units(costs, minutes)
        for unit in todo:
            self._do(unit, todo)
        return minutes

    def units(self, costs: Costs, minutes: float) -> list[Unit]:
        asked = {title: len(items) for title, items in self.material.items.items()}
        steps = {arm.name: self._naive_steps(arm) for arm in self.material.arms}
        return plan.units(self.material.arms, asked, self._numbers, steps, costs, minutes)

    def _minutes(self, costs: Costs, budget_s: float | None) -> float:
        """What is left for training, by how long the base's questions really took."""
        assert budget_s is not None
        everything = self.units(costs, 0.0)
        base = [unit for unit in everything if unit.what == "base"]
        took = sum(self.work.get(unit.name)["seconds"] for unit in base)
        slower = min(3.0, max(0.3, took / max(1e-6, sum(unit.seconds for unit in base))))
        spent = sum(self.work.get(u.name)["seconds"] for u in everything if self.work.has(u.name))
        spent += self.work.get("trial")["seconds"]
        todo = [
            replace(unit, seconds=unit.seconds * slower)
            for unit in everything
            if not self.work.has(unit.name)
        ]
        return plan.minutes_left(todo, self.material.arms, budget_s - spent)

    def _do(self, unit: Unit, everything: Sequence[Unit]) -> None:
        if self.work.has(unit.name):
            return
        later = sum(u.seconds for u in everything if not self.work.has(u.name)) - unit.seconds
        begun, told = time.monotonic(), [time.monotonic()]

        def progress(done: int, of: int) -> None:
            if time.monotonic() - told[0] > 15:
                told[0] = time.monotonic()
                part = done / max(1, of)
                left = later + unit.seconds * (1 - part)
                self.say(f"{unit.name}: {part:.0%}, about {left / 60:.0f} minutes left")

        result = getattr(self, f"_do_{unit.what}")(unit, progress)
        seconds = time.monotonic() - begun
        self.work.put(unit.name, {**result, "seconds": seconds})
        self.say(f"{unit.name}: done in {seconds:.0f} s, about {later / 60:.0f} minutes left")

    # Units ---------------------------------------------------------------------------------

    def _do_anchors(self, unit: Unit, progress: Progress) -> dict[str, Any]:
        from autodidact.training import anchors

        school = self.school
        made = anchors.extend(
            school.engine, anchors.Anchors(), school.recipe.anchors, unit.seconds, progress
        )
        self.school.use(made)
        return {"anchors": made.plain()}

    def _do_base(self, unit: Unit, progress: Progress) -> dict[str, Any]:
        return {"rows": ask(self._subject(None), self.material.items[unit.title], progress)}

    def _do_train(self, unit: Unit, progress: Progress) -> dict[str, Any]:
        assert unit.arm is not None
        lesson, dropped = self._lesson(unit.arm, unit.cycle)
        folder = self.work.place(f"{unit.arm.name}-train-{unit.cycle:02d}")
        return {**self.school.train(lesson, folder, progress), "dropped": dropped}

    def _do_ask(self, unit: Unit, progress: Progress) -> dict[str, Any]:
        return {"rows": ask(self._subject(unit.arm), self.material.items[unit.title], progress)}

    def _do_retention(self, unit: Unit, progress: Progress) -> dict[str, Any]:
        assert unit.arm is not None
        subject = self._subject(unit.arm, unit.cycle)
        rows = {}
        for i, title in enumerate(unit.arm.taught):
            progress(i, len(unit.arm.taught))
            items = _evenly(self.material.items[title], plan.RETENTION_QUESTIONS)
            rows[title] = ask(subject, items, lambda done, of: None)
        return {"rows": rows, "general": self._general(subject)}

    def _do_general(self, unit: Unit, progress: Progress) -> dict[str, Any]:
        return self._general(self._subject(unit.arm))

    def _do_book(self, unit: Unit, progress: Progress) -> dict[str, Any]:
        assert unit.arm is not None
        subject = self._subject(unit.arm if unit.book == "learned" else None)
        found, told = self.open_book(unit.arm)
        rows = {}
        for i, (condition, items) in enumerate(found.items()):

            def shifted(done: int, of: int, i: int = i) -> None:
                progress(i * of + done, len(found) * of)

            rows[condition] = ask(subject, items, shifted)
        return {"rows": rows, **told}

    # Pieces --------------------------------------------------------------------------------

    def _subject(self, arm: TrialArm | None, cycle: int | None = None) -> Any:
        from autodidact.engine.examinee import Examinee

        engine = self.school.engine
        if arm is None:
            return Examinee(engine, engine.untouched)
        name = f"{arm.name}-train-{cycle or len(arm.cycles):02d}"
        if self._version[0] != name:
            self._version = (name, self.school.load(self.work.place(name), 1))
        return Examinee(engine, self._version[1])

    def _general(self, subject: Any) -> dict[str, Any]:
        return general(subject, self.school.blocks, self.wikitext())

    def wikitext(self) -> list[list[int]]:
        """Blocks of WikiText-2's validation text, evenly over it; none without the data."""
        if self._wikitext is None or not self._wikitext.is_file():
            return []
        base = self.school.engine.base
        ids = base.tokenizer(
            self._wikitext.read_text(encoding="utf-8"), add_special_tokens=False
        ).input_ids
        width = min(WIKITEXT_TOKENS, base.context) - 1
        blocks = [[base.start_id, *ids[i : i + width]] for i in range(0, len(ids) - width, width)]
        return _evenly(blocks, WIKITEXT_BLOCKS)

    def _lesson(self, arm: TrialArm, cycle: int) -> tuple[TrialLesson, int]:
        """What an arm trains on in a cycle, and how many examples were dropped for overlap."""
        from autodidact.proof.arms import TrialLesson

        if arm.kind == "naive":
            rows = self.school.raw_text([self._document(t).text for t in arm.taught])
            return TrialLesson(rows, [], None, arm.seed), 0
        minutes = float(self.work.get("minutes")["minutes"]) / len(arm.cycles)
        if arm.kind == "placebo":
            made, dropped = self._placebo(len(arm.taught))
            return TrialLesson(self.school.sequences(made), [], minutes, arm.seed), dropped
        made, dropped = self._taught(arm.cycles[cycle - 1])
        if arm.kind != "learned":
            from autodidact.proof.arms import shuffled_answers

            between = arm.kind == "shuffled-between"
            made = shuffled_answers(made, between=between, seed=arm.seed)
        earlier, _ = self._taught([t for group in arm.cycles[: cycle - 1] for t in group])
        parent = None
        if cycle > 1:
            parent = self.work.place(f"{arm.name}-train-{cycle - 1:02d}") / "adapter"
        seed = arm.seed * 100 + cycle - 1
        new, old = self.school.sequences(made), self.school.sequences(earlier)
        return TrialLesson(new, old, minutes, seed, parent), dropped

    def trial_lesson(self) -> TrialLesson:
        """An arm's examples, to time steps with."""
        from autodidact.proof.arms import TrialLesson

        made, _ = self._taught(self.material.arms[0].taught)
        return TrialLesson(self.school.sequences(made), [], 1.0, 0)

    def _taught(self, titles: Sequence[str]) -> tuple[list[Example], int]:
        made: list[Example] = []
        dropped = 0
        for title in titles:
            if title not in self._examples:
                article = self.material.articles[title]
                read = read_document(article.number, article.document)
                kept = without_overlap(examples.examples(read), self.material.human)
                self._examples[title] = kept
            made += self._examples[title][0]
            dropped += self._examples[title][1]
        return made, dropped

    def _placebo(self, count: int) -> tuple[list[Example], int]:
        documents = self.material.others[:count]
        made: list[Example] = []
        for number, document in enumerate(documents, 1_000_000):
            made += examples.examples(read_document(number, document))
        return without_overlap(made, self.material.human)

    def _document(self, title: str) -> Document:
        return self.material.articles[title].document

    def _naive_steps(self, arm: TrialArm) -> int:
        if arm.kind != "naive":
            return 0
        words = sum(len(self._document(title).text.split()) for title in arm.taught)
        return max(1, round(words * 1.6 / 384 / 8))

    def open_book(self, arm: TrialArm) -> tuple[dict[str, list[Item]], dict[str, int]]:
        """The arm's taught questions with BM25's passages and with the oracle's, and how often the
        retrieved ones hold no gold answer."""
        chunks = [chunk for title in arm.taught for chunk in self._chunks(title)]
        library = ChunkIndex(chunks)
        per_article = -(-plan.BOOK_QUESTIONS // len(arm.taught))
        asked = [i for t in arm.taught for i in _evenly(self.material.items[t], per_article)]
        asked = asked[: plan.BOOK_QUESTIONS]
        questions = {q.id: q for t in arm.taught for q in self.material.questions[t]}
        found: dict[str, list[Item]] = {"bm25": [], "oracle": []}
        missed = 0
        for item in asked:
            question = questions[item.id]
            best = [(c.heading, c.text) for c in library.search(f"{item.title} {question.text}")]
            placed = self._placed(item, best)
            missed += not any(choices.holds(p.text, item.answers) for p in placed)
            found["bm25"].append(_with_message(item, prompt(item.message, placed)))
            source = question.context
            if not source:
                holding = library.holding(self._numbers[item.title], item.answers)
                source = holding.text if holding else ""
            placed = self._placed(item, [(item.title, source)] if source else [])
            found["oracle"].append(_with_message(item, prompt(item.message, placed)))
        return found, {"missed": missed, "asked": len(asked)}

    def _chunks(self, title: str) -> list[Chunk]:
        article = self.material.articles[title]
        return list(chunks(article.number, article.document, max_words=CHUNK_WORDS))

    def _placed(self, item: Item, found: Sequence[tuple[str, str]]) -> Any:
        base = self.school.engine.base

        def tokens(text: str) -> int:
            return len(base.tokenizer(text, add_special_tokens=False).input_ids)

        return fitting(found, item.message, window(base.context) // 2, tokens)


# --- what is read before anything is measured -----------------------------------------------------


def material(
    documents: Path,
    questions: Path,
    arms: Callable[[Sequence[str]], list[TrialArm]],
    per_article: int,
    fits: Callable[[Sequence[Message]], bool],
    placebo: bool,
) -> TrialMaterial:
    """Read and check both files, draw the arms, choose questions and distractors.

    `fits` says whether a dialogue leaves room in the model's context; questions that do not fit, or
    have fewer than three distractors in their article, are left out and counted.
    """
    articles = {article.title: article for article in data.read_articles(documents)}
    asked = data.read_questions(questions, list(articles))
    usable = [title for title in articles if asked[title]]
    drawn = arms(usable)
    used = {title for arm in drawn for title in (*arm.taught, *arm.control)}
    items: dict[str, list[Item]] = {}
    left_out = 0
    for title in sorted(used):
        ready = []
        answers = choices.Answers(asked[title])
        for question in asked[title]:
            item = _item(question, answers.distractors(question))
            if len(item.distractors) == choices.DISTRACTORS and _all_fit(item, fits):
                ready.append((question, item))
        left_out += len(asked[title]) - len(ready)
        chosen = {q.id for q in data.spread([q for q, _ in ready], per_article)}
        items[title] = [item for question, item in ready if question.id in chosen]
        if not items[title]:
            raise SettingError(
                f"{questions}: no question on {title!r} can be asked (too long for the model, or "
                "fewer than four different answers); leave the document out"
            )
    human = HumanQuestions([q.text for title in articles for q in asked[title]])
    others: list[Document] = []
    if placebo:
        others = [a.document for title, a in articles.items() if title not in used]
        if len(others) < max(len(arm.taught) for arm in drawn):
            others += _bundled()
    return TrialMaterial(articles, asked, items, drawn, human, others, left_out)


def wikitext_path() -> Path | None:
    """WikiText-2's validation text, where SHARED_DATA_DIR has it."""
    shared = os.environ.get("SHARED_DATA_DIR")
    return Path(shared) / "data" / "wikitext2" / "valid.txt" if shared else None


def _item(question: data.Question, distractors: tuple[str, ...]) -> Item:
    return Item(
        question.id,
        question.title,
        question.asked,
        question.answers,
        question.answer,
        distractors,
    )


def _all_fit(item: Item, fits: Callable[[Sequence[Message]], bool]) -> bool:
    longest = max((item.answer, *item.distractors), key=len)
    return fits([Message("user", item.message), Message("assistant", longest)])


def _with_message(item: Item, message: str) -> Item:
    return Item(item.id, item.title, message, item.answers, item.answer, item.distractors)


def _bundled() -> list[Document]:
    """The project's own texts, for a placebo where every article is taught or control."""
    from autodidact.sources.files import Files

    found = []
    for document in Files(PROJECT / "library").documents(None):
        curated = curation.curate(document)
        if not isinstance(curated, Verdict):
            found.append(curated)
    return found


def _evenly(values: Sequence[Any], limit: int) -> list[Any]:
    count = len(values)
    if count <= limit:
        return list(values)
    return [values[int((i + 0.5) * count / limit)] for i in range(limit)]


def settings_of(training: TrainingSettings) -> dict[str, Any]:
    """The settings that change what training does."""
    return {key: value for key, value in training.model_dump().items() if key not in ("threads",)}
