"""The training data as rows of tokens on disk, in the order in which they are trained.

Articles come in shards of `SHARD`. A shard holds its articles' texts, questions and readings and
its part of the other corpora, in the proportions of the stage's mix; within a shard the order is
random. Items are packed whole into rows of `length` + 1 tokens (texts may be cut where a row ends);
attention does not cross from one to the next, so each begins as it does in a prompt.

A row is two arrays: token ids (uint16) and marks (uint8), the latter `PAD`, `TEXT`, `PROMPT` or
`ANSWER`, plus `FIRST` on the first token of an item.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerFast

from scripts.starter import forms, smalltalk, vocabulary
from scripts.starter.corpus import Article, Corpus
from scripts.starter.forms import Item, Kind
from scripts.starter.recipe import Recipe, Stage

PAD, TEXT, PROMPT, ANSWER, FIRST = 0, 1, 2, 3, 0x80
SHARD = 256
HELD_ARTICLES = 200
"""Articles whose rows are never trained: the loss on them is the curve."""
HELD_ROWS = 64
POOL = 256
VOCABULARY_TEXTS = 12_000
ARTICLE_KINDS: tuple[Kind, ...] = ("text", "recall", "reading", "about")
OTHER_KINDS: tuple[Kind, ...] = ("services", "small talk", "trivia", "instructions")
T = TypeVar("T")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Encoded:
    """An item as token ids and marks of the same length."""

    kind: Kind
    ids: list[int]
    marks: list[int]


def train_vocabulary(corpus: Corpus, recipe: Recipe) -> PreTrainedTokenizerFast:
    """A tokenizer of a seeded sample of everything that is trained on."""
    rng = random.Random(f"{recipe.seed} vocabulary")
    parts: list[str] = []
    shards = _Shards(corpus, recipe, recipe.stages[-1], rng)
    for shard in shards.raw():
        for item in shard:
            parts += [item.text] if item.text else [text for _, text in item.turns]
        if len(parts) > VOCABULARY_TEXTS * 4:
            break
    return vocabulary.train(parts, recipe.vocabulary, recipe.context)


def write(
    corpus: Corpus,
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    progress: Progress,
) -> None:
    """Write `<stage>.ids.npy`, `<stage>.marks.npy` and `held.*` for each stage, and `mix.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    mix: dict[str, dict[str, int]] = {}
    for number, stage in enumerate(recipe.stages):
        rng = random.Random(f"{recipe.seed} {stage.name}")
        wanted = round(recipe.tokens * stage.share / stage.length / stage.rows) * stage.rows
        shards = _Shards(corpus, recipe, stage, rng)
        counted: dict[str, int] = {}
        items = shards.encoded(tokenizer, counted)
        packed = pack(items, stage.length + 1, rng)
        _write_rows(folder / str(number), packed, wanted, stage, progress)
        mix[stage.name] = counted
        held = _Shards(corpus, recipe, stage, random.Random(f"{recipe.seed} held"), held=True)
        _write_rows(
            folder / f"held{number}",
            pack(held.encoded(tokenizer, {}), stage.length + 1, rng),
            HELD_ROWS,
            stage,
            lambda *_: None,
        )
    (folder / "mix.json").write_text(json.dumps(mix, indent=1), "utf-8")


def _write_rows(
    path: Path,
    packed: Iterator[tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]],
    wanted: int,
    stage: Stage,
    progress: Progress,
) -> None:
    shape = (wanted, stage.length + 1)
    ids = np.lib.format.open_memmap(f"{path}.ids.npy", "w+", np.uint16, shape)
    marks = np.lib.format.open_memmap(f"{path}.marks.npy", "w+", np.uint8, shape)
    for n, (row, mark) in enumerate(islice(packed, wanted)):
        ids[n], marks[n] = row, mark
        if n % 512 == 0:
            progress(stage.name, n, wanted)
    ids.flush()
    marks.flush()


class _Shards:
    """An endless sequence of shards of items, in the stage's mix."""

    def __init__(
        self,
        corpus: Corpus,
        recipe: Recipe,
        stage: Stage,
        rng: random.Random,
        *,
        held: bool = False,
    ) -> None:
        self._recipe, self._stage, self._rng = recipe, stage, rng
        order = list(corpus.articles)
        random.Random(f"{recipe.seed} articles").shuffle(order)
        kept = min(HELD_ARTICLES, len(order) // 10)
        self._articles = order[:kept] if held else order[kept:]
        self._others = {
            "services": _endless([Item("services", turns=c) for c in corpus.services], rng),
            "small talk": _endless(
                [
                    *(Item("small talk", turns=c) for c in corpus.small_talk),
                    *(Item("small talk", turns=c) for c in smalltalk.conversations()),
                ],
                rng,
            ),
            "trivia": _endless([forms.trivia(t) for t in corpus.trivia], rng),
            "instructions": _endless(
                [Item("instructions", turns=c) for c in corpus.instructions], rng
            ),
        }
        self._human = _endless(list(corpus.readings), rng)

    def raw(self) -> Iterator[list[Item]]:
        """All that a shard's articles give, and as many items of the other kinds."""
        for reads in self._reads():
            items = self._article_items(reads)
            items += [item for kind in OTHER_KINDS for item in islice(self._others[kind], SHARD)]
            yield items

    def encoded(
        self, tokenizer: PreTrainedTokenizerFast, counted: dict[str, int]
    ) -> Iterator[Encoded]:
        encoder = Encoder(tokenizer)
        mix = self._stage.mix
        for reads in self._reads():
            by_kind: dict[Kind, list[Encoded]] = {kind: [] for kind in mix}
            for one in encoder.encode(self._article_items(reads)):
                by_kind[one.kind].append(one)
            size = {k: sum(len(e.ids) for e in by_kind[k]) for k in ARTICLE_KINDS}
            # As many tokens as the scarcest kind allows in these proportions.
            unit = min(size[k] / mix[k] for k in ARTICLE_KINDS if size[k] and mix.get(k))
            shard: list[Encoded] = []
            for kind in ARTICLE_KINDS:
                self._rng.shuffle(by_kind[kind])
                shard += _take(iter(by_kind[kind]), unit * mix.get(kind, 0))
            for kind in OTHER_KINDS:
                if mix.get(kind):
                    source = self._others[kind]
                    shard += _take(_batchwise(source, encoder), unit * mix[kind])
            for one in shard:
                counted[one.kind] = counted.get(one.kind, 0) + len(one.ids)
            self._rng.shuffle(shard)
            yield from shard

    def _reads(self) -> Iterator[list[forms.Read]]:
        """Shards of articles as the rules read them, over and over, each time in another order."""
        numbered = list(enumerate(self._articles))
        while True:
            self._rng.shuffle(numbered)
            for at in range(0, len(numbered), SHARD):
                found = [self._read(n, article) for n, article in numbered[at : at + SHARD]]
                yield [one for one in found if one is not None]

    def _read(self, number: int, article: Article) -> forms.Read | None:
        return forms.read(number, article, self._recipe.article_characters)

    def _article_items(self, reads: Sequence[forms.Read]) -> list[Item]:
        rng = self._rng
        items: list[Item] = []
        for one in reads:
            items += forms.texts(one, rng)
            items += forms.recall(one, rng)
            items += forms.reading(one, reads, rng, self._stage.questions)
            items += forms.about(one, rng)
        people = len(items) // 200
        items += [forms.human_reading(r, rng) for r in islice(self._human, people)]
        return items


def _endless(items: Sequence[T], rng: random.Random) -> Iterator[T]:
    """The items over and over, each time in another order; nothing where there are none."""
    order = list(items)
    while order:
        rng.shuffle(order)
        yield from order


def _batchwise(items: Iterator[Item], encoder: Encoder) -> Iterator[Encoded]:
    while batch := list(islice(items, 64)):
        yield from encoder.encode(batch)


def _take(items: Iterator[Encoded], tokens: float) -> list[Encoded]:
    taken: list[Encoded] = []
    size = 0
    while size < tokens and (one := next(items, None)) is not None:
        taken.append(one)
        size += len(one.ids)
    return taken


class Encoder:
    """Items to tokens, exactly as the chat template renders and tokenises them."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._roles = {
            role: self._plain([f"{role}\n"])[0] for role in ("user", "assistant", "system")
        }
        self._line = self._plain(["\n"])[0]

    def encode(self, items: Sequence[Item]) -> list[Encoded]:
        parts = [text for item in items for text in ([item.text] if item.text else _contents(item))]
        encoded = iter(self._plain(parts))
        return [self._item(item, encoded) for item in items]

    def _item(self, item: Item, encoded: Iterator[list[int]]) -> Encoded:
        if item.text:
            ids = [vocabulary.START, *next(encoded)]
            return Encoded(item.kind, ids, [TEXT] * len(ids))
        ids, marks = [], []
        for role, _ in item.turns:
            opening = [vocabulary.TURN, *self._roles[role]]
            said = [*next(encoded), vocabulary.END]
            ids += [*opening, *said, *self._line]
            kind = ANSWER if role == "assistant" else PROMPT
            marks += [PROMPT] * len(opening) + [kind] * len(said) + [PROMPT] * len(self._line)
        return Encoded(item.kind, ids, marks)

    def _plain(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of texts in which control tokens are only text."""
        clean = [text.replace("<|", "< |") for text in texts]
        backend = self._tokenizer.backend_tokenizer
        return [e.ids for e in backend.encode_batch(clean, add_special_tokens=False)]


def _contents(item: Item) -> list[str]:
    return [text.strip() for _, text in item.turns]


def pack(
    items: Iterator[Encoded], length: int, rng: random.Random
) -> Iterator[tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]]:
    """Rows of `length` tokens. Conversations stay whole unless longer than a row (then they are cut
    off); what is left of a row is filled with the beginning of a text, whose rest waits."""
    pool: list[Encoded] = []
    while True:
        pool += islice(items, POOL - len(pool))
        if not pool:
            return
        ids: list[int] = []
        marks: list[int] = []
        at = rng.randrange(len(pool))
        while pool and (room := length - len(ids)) > 0:
            if at < 0:
                break
            one = pool.pop(at)
            ids += one.ids[:room]
            marks += [one.marks[0] | FIRST, *one.marks[1:room]]
            if one.kind == "text" and len(one.ids) > room + 32:
                rest = [vocabulary.START, *one.ids[room:]]
                pool.append(Encoded("text", rest, [TEXT] * len(rest)))
            at = _next(pool, length - len(ids), rng)
        missing = length - len(ids)
        yield (
            np.array(ids + [vocabulary.START] * missing, np.uint16),
            np.array(marks + [PAD] * missing, np.uint8),
        )


def _next(pool: Sequence[Encoded], room: int, rng: random.Random) -> int:
    """An item that fits the room, at random; else a text to cut; -1 if there is neither."""
    if room <= 8:
        return -1
    for _ in range(8):
        at = rng.randrange(len(pool)) if pool else -1
        if at >= 0 and len(pool[at].ids) <= room:
            return at
    cut = next((i for i, one in enumerate(pool) if one.kind == "text"), -1)
    fits = [i for i, one in enumerate(pool) if len(one.ids) <= room]
    return cut if cut >= 0 else (fits[0] if fits else -1)
