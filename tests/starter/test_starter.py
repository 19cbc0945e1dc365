"""The starter: what is kept out, what is trained on, and that it goes on where it stopped."""

from __future__ import annotations

import json
import lzma
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from typer.testing import CliRunner

from autodidact.errors import AutodidactError, TrainingError
from autodidact.models import loading
from autodidact.models.prompts import dialogue_ids
from autodidact.reading.answers import exact_match
from autodidact.types.chat import Message
from scripts import pretrain_starter
from scripts.starter import card, corpus, forms, recipe, rows, smalltalk, training, vocabulary
from scripts.starter.corpus import Article, CorpusError, Trivia
from scripts.starter.rows import Encoded

CRAFTS = ("baker", "mason", "weaver", "potter", "glazier", "tanner", "miller", "cooper")
PLACES = ("Arden", "Brill", "Corfe", "Deal", "Ely", "Frome", "Goole", "Hythe")


def article(n: int) -> dict[str, str]:
    place, craft, year = PLACES[n % 8], CRAFTS[n // 8 % 8], 1600 + 7 * n
    text = (
        f"The Tower {n} is a tower in {place}. It was built in {year}. Its keeper is Ada {place}. "
        f"The tower was sold to a {craft} of the town after a long and bitter quarrel.\n"
        f"In {year + 30}, the council of {place} gave the tower to the guild of the {craft}s, who "
        f"kept their tools there. The bell was cast by John {place} and weighs {n + 20} tons.\n"
        f"On market days the people of {place} met under the tower to hear the news of the county."
    )
    return {"title": f"Tower {n}", "text": text}


def write_lines(path: Path, lines: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    opened = lzma.open if path.suffix == ".xz" else open
    with opened(path, "wt") as file:
        file.write(text)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of 64 articles and some of everything else."""
    folder = tmp_path_factory.mktemp("data")
    write_lines(folder / "wikipedia" / "pretraining.jsonl.xz", [article(n) for n in range(64)])
    write_lines(folder / "wikipedia" / "unseen.jsonl.xz", [{"title": "tower 3", "text": "x"}])
    write_lines(folder / "squad" / "documents.jsonl", [{"title": "Tower  4", "text": "x"}])
    (folder / "wikitext2").mkdir()
    (folder / "wikitext2" / "valid.txt").write_text(" \n = Tower 5 = \n \n = = Bells = = \n")
    turns = [["USER", "I want a table."], ["SYSTEM", "At what time?"]]
    write_lines(folder / "dialogue" / "sgd.jsonl.xz", [{"turns": turns}] * 5)
    talk = folder / "dialogue" / "chatterbot" / "english"
    talk.mkdir(parents=True)
    (talk / "greetings.yml").write_text("conversations:\n- - Hello\n  - Hi\n- - Odd\n")
    quiz = [
        {"question": f"Question {n}?", "answer": "A", "choices": ["A", "B", "C", "D"]}
        for n in range(corpus.HELD_TRIVIA + 50)
    ]
    write_lines(folder / "qa" / "opentriviaqa.jsonl.xz", [*quiz, *quiz[:5]])
    return folder


@pytest.fixture(scope="module")
def found(data: Path) -> corpus.Corpus:
    return corpus.load(data)


@pytest.fixture(scope="module")
def tiny() -> recipe.Recipe:
    pretraining, chat = recipe.CPU.stages
    return replace(
        recipe.CPU,
        vocabulary=400,
        hidden=32,
        layers=2,
        feed_forward=64,
        heads=2,
        head_size=16,
        context=256,
        tokens=16_384,
        stages=(
            replace(pretraining, length=128, rows=8),
            replace(chat, length=256, rows=4),
        ),
    )


@pytest.fixture(scope="module")
def tokenizer(found: corpus.Corpus, tiny: recipe.Recipe) -> PreTrainedTokenizerFast:
    return rows.train_vocabulary(found, tiny)


# What is kept out -------------------------------------------------------------------------------


def test_articles_that_are_measured_with_are_dropped(found: corpus.Corpus) -> None:
    assert found.dropped == ("Tower 3", "Tower 4", "Tower 5")
    assert len(found.articles) == 61


def test_two_thousand_trivia_questions_are_held_whatever_their_order(data: Path) -> None:
    every = corpus.read_trivia(data)
    held = {item.question for item in corpus.held_trivia(every)}
    assert len(held) == corpus.HELD_TRIVIA
    assert held == {item.question for item in corpus.held_trivia(every[::-1])}
    trained = {item.question for item in corpus.training_trivia(every)}
    assert not held & trained
    assert len(trained) == 50


def test_a_held_question_in_other_letters_is_held_too() -> None:
    every = [Trivia(f"Who is number {n}?", "X") for n in range(corpus.HELD_TRIVIA + 1)]
    held = corpus.held_trivia(every)
    shouted = [Trivia(item.question.upper() + "!", "X") for item in held]
    assert len(corpus.training_trivia([*every, *shouted])) == 1


@pytest.mark.shared_data
def test_the_real_corpora_hold_nothing_that_is_measured_with(shared: Path) -> None:
    folder = shared / "data"
    titles = {
        t.casefold() for t in corpus.read_titles(folder / "wikipedia" / "pretraining.jsonl.xz")
    }
    held = corpus.held_titles(folder)
    assert len(held) > 300
    assert not titles & held
    assert len(corpus.held_trivia(corpus.read_trivia(folder))) == corpus.HELD_TRIVIA


ARTICLE = b'{"title": "a", "text": "b"}\n'


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (None, b"", "no such file"),
        ("wikipedia/pretraining.jsonl.xz", b"not xz", "cannot be read"),
        (
            "wikipedia/pretraining.jsonl.xz",
            lzma.compress(b'{"title": "a", "text": "b"}\n')[:-20],
            "cannot be read",
        ),
        ("wikipedia/pretraining.jsonl.xz", lzma.compress(b'{"title": "a"}\n'), "line 1: no text"),
        ("wikipedia/unseen.jsonl.xz", lzma.compress(b'{"title": "a"}\n{x\n'), "line 2: not JSON"),
    ],
)
def test_a_corpus_that_cannot_be_read_is_named(
    tmp_path: Path, file: str | None, content: bytes, said: str
) -> None:
    if file:
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_bytes(content)
    with pytest.raises(CorpusError, match=said):
        corpus.load(tmp_path)


# Forms ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def read(found: corpus.Corpus) -> list[forms.Read]:
    every = (forms.read(n, a, 4000) for n, a in enumerate(found.articles))
    return [one for one in every if one is not None]


def readings(read: list[forms.Read]) -> Iterator[forms.Item]:
    rng = random.Random(0)
    for one in read:
        yield from forms.reading(one, read, rng, (2, 3, 4, 5))


def test_a_cited_passage_has_the_answer_and_an_unanswered_question_is_about_none(
    read: list[forms.Read],
) -> None:
    facts = {(f.answer, f.sentence) for one in read for f in one.reading.facts}
    cited = unanswered = 0
    for item in readings(read):
        prompt = item.turns[0][1]
        assert prompt.startswith("Passages:\n[1] ")
        passages = prompt.split("\n\nQuestion: ")[0].splitlines()[1:]
        for role, said in item.turns:
            if role == "user":
                continue
            if said == forms.DONT_KNOW:
                unanswered += 1
                continue
            answer, _, number = said.removesuffix("]").rpartition(" [")
            shown = passages[int(number) - 1]
            assert any(answer == a and sentence in shown for a, sentence in facts)
            assert exact_match(said, answer)
            cited += 1
    assert cited > 2 * unanswered > 0


def test_the_learners_unseen_wording_is_never_trained(read: list[forms.Read]) -> None:
    rng = random.Random(0)
    asked = {
        text
        for one in read
        for item in (*forms.recall(one, rng), *forms.reading(one, read, rng, (2, 3, 4, 5)))
        for _, text in item.turns
    }
    unseen = {fact.unseen for one in read for fact in one.reading.facts if fact.unseen}
    assert unseen
    assert not asked & unseen


def test_a_loose_question_never_holds_its_answer(read: list[forms.Read]) -> None:
    rng = random.Random(0)
    for one in read:
        for fact in one.reading.facts:
            question = forms.loose(fact, rng)
            assert "____" not in question
            assert not question or (fact.answer not in question and question.endswith("?"))


def test_a_long_article_is_cut_after_a_sentence() -> None:
    long = Article("Long", "One sentence of six words here. " * 40)
    one = forms.read(0, long, 200)
    assert one is not None
    text = " ".join(item.text for item in forms.texts(one, random.Random(0)))
    assert text.endswith("here.")
    assert len(text) < 220
    assert forms.read(0, Article("Short", "Too short."), 200) is None


def test_a_question_by_people_is_cited_or_not_known() -> None:
    passage = "Sales rose. They rose by 5% in 2019. Costs fell. " * 3
    item = corpus.Reading("", passage, "By how much did sales rise?", ("5%",))
    said = {forms.human_reading(item, random.Random(n)).turns[1][1] for n in range(20)}
    assert said == {"5% [1]"}


def test_small_talk_is_made_of_turns_that_end() -> None:
    for turns in smalltalk.conversations():
        assert [role for role, _ in turns] == ["user", "assistant"]
        assert all(text.strip() == text for _, text in turns)
        assert len(turns[1][1]) < 120


# Tokens and rows --------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.text(max_size=80))
def test_text_comes_back_from_tokens(text: str) -> None:
    words = vocabulary.train(["the cat sat on the mat in 1794 and 1812"], 300, 256)
    ids = words(text.replace("<|", ""), add_special_tokens=False).input_ids
    assert words.decode(ids) == text.replace("<|", "")


def test_a_year_is_two_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenizer.tokenize(" 1794")) <= 4
    pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("in 1794, 143 steps")
    assert [piece for piece, _ in pieces] == ["in", "Ġ17", "94", ",", "Ġ14", "3", "Ġsteps"]


def test_conversations_are_encoded_as_the_template_renders_them(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, tiny: recipe.Recipe
) -> None:
    turns = (("user", "Who built it?\n\nTell me."), ("assistant", "Ada Ely [1]"))
    one = rows.Encoder(tokenizer).encode([forms.Item("reading", turns=turns)])[0]
    rendered = tokenizer.apply_chat_template(
        [{"role": role, "content": text} for role, text in turns], tokenize=True
    )["input_ids"]
    assert one.ids == rendered
    said = [i for i, mark in zip(one.ids, one.marks, strict=True) if mark == rows.ANSWER]
    assert tokenizer.decode(said) == "Ada Ely [1]<|im_end|>"
    training.new_model(tiny).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    ids, start = dialogue_ids(loading.load(tmp_path, 1), [Message(r, t) for r, t in turns])  # type: ignore[arg-type]
    assert list(ids) == one.ids[: len(ids)]
    assert list(ids[start:]) == said, "the learner trains the same tokens"


def test_control_tokens_in_a_text_are_only_text(tokenizer: PreTrainedTokenizerFast) -> None:
    item = forms.Item("text", text="He wrote <|im_end|> and <|im_start|>system.")
    one = rows.Encoder(tokenizer).encode([item])[0]
    assert vocabulary.END not in one.ids
    assert vocabulary.TURN not in one.ids


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(2, 90)), min_size=1, max_size=60))
def test_packing_keeps_conversations_whole_and_loses_no_text(
    sizes: list[tuple[bool, int]],
) -> None:
    items = []
    for number, (is_text, size) in enumerate(sizes):
        ids = [3 + number] * size
        if is_text:
            ids[0] = vocabulary.START
        items.append(
            Encoded("text" if is_text else "trivia", ids, [rows.TEXT if is_text else 2] * size)
        )
    packed = list(rows.pack(iter(items), 64, random.Random(0)))
    assert all(len(ids) == len(marks) == 64 for ids, marks in packed)
    for number, (is_text, size) in enumerate(sizes):
        places = [int((ids == 3 + number).sum()) for ids, _ in packed]
        if not is_text:
            assert max(places) == min(size, 64)
            assert sum(place > 0 for place in places) == 1
        else:
            lost = size - 1 - sum(places)
            assert 0 <= lost <= 32
    for ids, marks in packed:
        starts = np.flatnonzero(marks & rows.FIRST)
        assert starts[0] == 0
        for a, b in zip(starts, [*starts[1:], 64], strict=True):
            own = {int(i) for i, m in zip(ids[a:b], marks[a:b], strict=True) if m & 3}
            assert len(own - {vocabulary.START}) <= 1, "one item between two beginnings"


def test_the_mix_is_what_the_recipe_says(
    found: corpus.Corpus, tiny: recipe.Recipe, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    rows.write(found, replace(tiny, tokens=200_000), tokenizer, tmp_path, lambda *_: None)
    mix = json.loads((tmp_path / "mix.json").read_text())
    for stage in tiny.stages:
        total = sum(mix[stage.name].values())
        for kind, share in stage.mix.items():
            if kind not in ("instructions",):  # there are none in this folder
                assert mix[stage.name][kind] / total == pytest.approx(share, abs=0.04)


def test_the_same_seed_writes_the_same_rows(
    found: corpus.Corpus, tiny: recipe.Recipe, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        rows.write(found, replace(tiny, seed=seed), tokenizer, tmp_path / name, lambda *_: None)
    first, again, other = (np.load(tmp_path / name / "0.ids.npy") for name in "abc")
    assert (first == again).all()
    assert (first != other).any()


# Training ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("heads", "kv"), [(4, 1), (4, 2), (4, 4)])
def test_blockwise_attention_is_attention_within_items(heads: int, kv: int) -> None:
    torch.manual_seed(0)
    length, size = 200, 16
    q = torch.randn(3, heads, length, size)
    k, v = (torch.randn(3, kv, length, size) for _ in range(2))
    marks = torch.full((3, length), rows.TEXT, dtype=torch.uint8)
    for row, starts in enumerate(([0], [0, 40, 150], [0, 128, 129])):
        marks[row, starts] |= rows.FIRST
    seen = training.mask(marks, torch.float32)
    got, _ = training.blockwise_attention(torch.nn.Module(), q, k, v, seen, scaling=0.25)
    group = heads // kv
    want = torch.nn.functional.scaled_dot_product_attention(
        q,
        k.repeat_interleave(group, 1),
        v.repeat_interleave(group, 1),
        attn_mask=seen,
        scale=0.25,
    )
    torch.testing.assert_close(got.transpose(1, 2), want, atol=1e-5, rtol=1e-4)
    assert torch.isinf(seen[1, 0, 40, 39])
    assert seen[1, 0, 41, 40] == 0


def test_the_first_token_of_an_item_and_padding_are_not_learned() -> None:
    ids = torch.arange(6)[None]
    marks = torch.tensor([[0x81, 0x01, 0x82, 0x02, 0x03, 0x00]], dtype=torch.uint8)
    expected, weight, kind = training.targets(ids, marks, 0.25)
    assert expected.tolist() == [[1, 2, 3, 4, 5]]
    assert weight.tolist() == [[1.0, 0.0, 0.25, 1.0, 0.0]]
    assert kind.tolist() == [[rows.TEXT, rows.PAD, rows.PROMPT, rows.ANSWER, rows.PAD]]


def test_items_in_a_row_do_not_see_each_other(tiny: recipe.Recipe) -> None:
    """An item's loss is the same whatever stands before it in its row."""
    torch.manual_seed(0)
    net = training.new_model(tiny)
    net.set_attn_implementation("blockwise")
    ids = torch.randint(3, 400, (1, 60))
    marks = torch.full((1, 60), rows.TEXT, dtype=torch.uint8)
    marks[0, [0, 25]] |= rows.FIRST
    other = ids.clone()
    other[0, :25] = torch.randint(3, 400, (25,))
    with torch.inference_mode():
        a, b = (
            net(input_ids=x, attention_mask=training.mask(marks, torch.float32)).logits
            for x in (ids, other)
        )
        alone = net(
            input_ids=ids[:, 25:], attention_mask=training.mask(marks[:, 25:], torch.float32)
        ).logits
    torch.testing.assert_close(a[:, 25:], b[:, 25:])
    torch.testing.assert_close(a[:, 25:], alone, atol=1e-4, rtol=1e-3)


@pytest.fixture
def prepared(
    found: corpus.Corpus, tiny: recipe.Recipe, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> Path:
    rows.write(found, tiny, tokenizer, tmp_path / "rows", lambda *_: None)
    return tmp_path


def trainer(tiny: recipe.Recipe, prepared: Path, work: str) -> training.Trainer:
    (prepared / work).mkdir(exist_ok=True)
    return training.Trainer(
        tiny,
        prepared / "rows",
        prepared / work,
        torch.device("cpu"),
        lambda line: None,
        compiled=False,
    )


def test_training_lowers_the_loss_and_ships_what_it_trained(
    tiny: recipe.Recipe, prepared: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    torch.set_num_threads(1)
    one = trainer(tiny, prepared, "work")
    before = one.held_losses(0)
    assert one.run()
    assert one.held_losses(0)["text"] < before["text"] - 0.3
    one.export(prepared / "model", tokenizer)
    shipped = AutoModelForCausalLM.from_pretrained(prepared / "model")
    assert shipped.dtype == torch.bfloat16
    for name, parameter in shipped.named_parameters():
        assert torch.equal(parameter, one.masters[name].to(torch.bfloat16)), name
    assert AutoTokenizer.from_pretrained(prepared / "model").chat_template == vocabulary.TEMPLATE
    noted = list(training.curve(prepared / "work"))
    assert noted[-1]["at"] == "held"
    assert noted[-1]["step"] == one.total


def test_an_interrupted_training_goes_on_where_it_was(tiny: recipe.Recipe, prepared: Path) -> None:
    torch.set_num_threads(1)
    whole = trainer(tiny, prepared, "whole")
    whole.run()
    first = trainer(tiny, prepared, "halves")
    step = first._step

    def stop_after_five(*args: object, **named: object) -> object:
        if first.state.step == 5:
            first._interrupt(2, None)
        return step(*args, **named)  # type: ignore[arg-type]

    first._step = stop_after_five  # type: ignore[method-assign,assignment]
    assert not first.run()
    assert 0 < first.state.step < first.total
    with (prepared / "halves" / training.CURVE).open("a") as noted:
        noted.write('{"step": 9, "at": "training"}\n')  # noted after the state was last saved
    second = trainer(tiny, prepared, "halves")
    assert second.resume()
    assert all(row["step"] <= 5 for row in training.curve(prepared / "halves"))
    assert second.state.step == first.state.step
    assert second.run()
    for name, tensor in whole.masters.items():
        torch.testing.assert_close(second.masters[name], tensor)
    other = trainer(replace(tiny, seed=5), prepared, "halves")
    assert not other.resume(), "the state of another recipe is not taken"


def test_a_loss_that_is_not_finite_ends_the_training(tiny: recipe.Recipe, prepared: Path) -> None:
    one = trainer(tiny, prepared, "broken")
    one.masters["model.norm.weight"].fill_(float("nan"))
    with pytest.raises(TrainingError, match="lower the rates"):
        one.run()
    assert not one.checkpoint.exists()


# The command line -------------------------------------------------------------------------------


def run(*args: object) -> tuple[int, str]:
    done = CliRunner().invoke(pretrain_starter.app, [str(a) for a in args])
    if isinstance(done.exception, AutodidactError):
        return done.exception.exit_code, str(done.exception)
    return done.exit_code, done.output


def test_from_corpora_to_a_model_that_loads(
    data: Path, tiny: recipe.Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(recipe.RECIPES, "cpu", tiny)
    work = tmp_path / "work"
    common = ("train", "--work", work, "--device", "cpu", "--no-compiled", "--threads", 1)
    assert run(*common)[1].endswith("say with --data where the corpora are")
    assert run(*common, "--data", data, "--rows-only")[0] == 0
    assert not (work / "model").exists()
    code, output = run(*common)
    assert code == 0, output
    assert loading.load(work / "model", 1).context == 256
    record = json.loads((work / "training.json").read_text())
    assert record["tokens"] == sum(
        round(tiny.tokens * s.share / s.length / s.rows) * s.rows * s.length for s in tiny.stages
    )
    assert (work / "curve.png").stat().st_size > 5000
    assert run("train", "--work", work, "--seed", 7)[1].endswith("or delete it")
    assert "choose cpu or gpu" in run("train", "--work", work, "--recipe", "tpu")[1]
    assert "for one step a stage" in run("train", "--work", work, "--tokens", 10)[1]
    assert "no such file" in run("card", "--work", work, "--figures", tmp_path / "none")[1]
    written = card.write(record, MEASURED)
    for told in ("CC BY-SA 4.0", "Tower", "61 articles", "perplexity per word", "assistant: Hi."):
        assert (told in written) is (told != "Tower")


MEASURED = {
    "models": [{"parameters": 5}, {"parameters": 8}],
    "text": {
        "plain": {"perplexity per word": [280.0, 200.0]},
        "as it stands": {"perplexity per word": [700.0, 600.0]},
    },
    "trivia": {"questions": 4, "right": ["1/4", "2/4"]},
    "reading": {
        "questions": 5,
        "without answer": 5,
        "library questions": 5,
        "EM": ["1/5", "2/5"],
        "F1": [1.0, 2.0],
        "cited": ["0/5", "5/5"],
        "don't know": ["0/5", "1/5"],
        "don't know, without answer": ["0/5", "4/5"],
        "library EM": ["0/5", "4/5"],
    },
    "chat": {
        "prompts": 3,
        "ended": ["3/3", "3/3"],
        "well-formed": ["3/3", "3/3"],
        "conversations": [[], [[["user", "Hello"], ["assistant", "Hi."]]]],
    },
    "speed": {
        "rounds": 3,
        "1 stream": [{"median": 1, "lowest": 1, "highest": 1}] * 2,
        "8 streams": [{"median": 1, "lowest": 1, "highest": 1}] * 2,
    },
    "learning": {
        "5 min": [
            {
                "taught_now": "1/2",
                "taught_base": "0/2",
                "taught_base_with_passages": "0/2",
                "taught_now_with_passages": "1/2",
                "control_now": "0/2",
                "general_base": 3.0,
                "general_now": 3.1,
                "wikitext_base": 3.0,
                "wikitext_now": 3.1,
            }
        ]
        * 2
    },
}
