"""Starter models side by side: what they know, read and say, how fast, and how well they learn.

    python benchmarks/starter.py --models models/starter /tmp/starter/model --out DIR
    python benchmarks/starter.py --models A B --out DIR --only learning --cycle-minutes 2 5

Needs SHARED_DATA_DIR. The last of the models is the one that the card speaks of. Parts (--only):

text      WikiText-2 validation, article by article: perplexity per word of the original (split at
          white space), as it stands and with its spaces around punctuation and its marks for
          hyphens undone, which is how language models are commonly compared on it (word_perplexity
          of lm-evaluation-harness). At most 512 tokens of context, of which at least 256 are seen.
trivia    closed book: of the 2,000 held-out OpenTriviaQA questions those with four choices; the
          choice of the highest mean log-probability a token.
reading   SQuAD questions, evenly over the articles, with their paragraph in the prompt that the
          chat uses; greedy; EM and F1 as SQuAD scores them, the citation mark taken off. As many
          with a paragraph of the same article that does not hold the answer. And the learner's
          probes on library/ with the chunk they come from.
chat      300 held-out questions and openings at the page's sampling: replies that end by
          themselves within 256 tokens and are well-formed; and 20 conversations as they come.
speed     tokens a second of the server's generator (no HTTP), 1 and 8 streams, rounds in turn.
learning  one cycle of `web_learner.py --once` on library/ in an empty home for each of
          --cycle-minutes (benchmarks/library_recall.py does it).

DIR/starter.json has every figure; a part that is run again replaces its figures there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import fmean, median
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from autodidact import curation  # noqa: E402
from autodidact.chat import retrieval  # noqa: E402
from autodidact.engine import Engine  # noqa: E402
from autodidact.engine.examinee import Examinee  # noqa: E402
from autodidact.evaluation import well_formed as talk  # noqa: E402
from autodidact.generators import ServingContext  # noqa: E402
from autodidact.generators.local import LocalGenerator, LocalSettings  # noqa: E402
from autodidact.home import prepare_home  # noqa: E402
from autodidact.lessons.probes import probe_id, write_probes  # noqa: E402
from autodidact.models import loading  # noqa: E402
from autodidact.models.prompts import prompt_ids  # noqa: E402
from autodidact.proof.choices import f1, holds  # noqa: E402
from autodidact.reading.answers import exact_match  # noqa: E402
from autodidact.settings import ServerSettings  # noqa: E402
from autodidact.sources.files import Files  # noqa: E402
from autodidact.types.chat import Message, SamplingParams  # noqa: E402
from autodidact.types.documents import Document, Passage  # noqa: E402
from benchmarks import library_recall  # noqa: E402
from scripts.starter import corpus, forms  # noqa: E402

WINDOW = 512
SAMPLING: dict[str, Any] = {"temperature": 0.7, "top_p": 0.9, "top_k": 50}
CONVERSATIONS: tuple[tuple[str, ...], ...] = (
    ("Hello!", "How are you today?", "What can you do?"),
    ("Who are you?", "Who made you?"),
    ("hi there", "tell me a joke"),
    ("What is the capital of France?",),
    ("Who wrote Romeo and Juliet?", "When did he live?"),
    ("Tell me about the moon.",),
    ("What is photosynthesis?",),
    ("Explain gravity to a child.",),
    ("What do you think about music?", "Which instrument do you like?"),
    ("I would like to book a table for two in Berkeley tonight.", "At seven, please."),
    ("Is it going to rain tomorrow in Seattle?",),
    ("How many legs does a spider have?", "And an ant?"),
    ("Which planet is closest to the sun?",),
    ("I am bored.", "Tell me something interesting."),
    ("Can you help me with my homework?", "It is about the Roman Empire."),
    ("Write a short poem about the sea.",),
    ("What is 12 plus 30?",),
    (
        "Passages:\n[1] Thornwick Pier: Thornwick Pier was opened in 1868 by Lady Harcourt. It is "
        "412 metres long and was closed after a fire in 1957.\n\nQuestion: Who opened Thornwick "
        "Pier?",
    ),
    (
        "Passages:\n[1] Elda Marsh: Elda Marsh (1871–1940) was a Scottish botanist who collected "
        "mosses in Iceland.\n[2] Iceland: Iceland is an island in the North Atlantic.\n\n"
        "Question: Where did Elda Marsh collect mosses?",
    ),
    (
        "Passages:\n[1] Thornwick Pier: Thornwick Pier was opened in 1868 by Lady Harcourt. It is "
        "412 metres long and was closed after a fire in 1957.\n\nQuestion: What is the name of "
        "the mayor of Thornwick?",
    ),
)
"""Written down before the model was trained, and none taken out since."""


class Subject:
    """One starter, loaded as the server loads it for so small a model: float32."""

    def __init__(self, path: Path, threads: int) -> None:
        self.path = path
        self.engine = Engine(loading.load(path, threads))
        self.version = self.engine.untouched
        self.examinee = Examinee(self.engine, self.version)

    @property
    def base(self) -> Any:
        return self.engine.base


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=sorted(PARTS))
    parser.add_argument("--reading", type=int, default=500, help="SQuAD questions")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cycle-minutes", type=float, nargs="+", default=[2, 5])
    args = parser.parse_args()
    if not os.environ.get("SHARED_DATA_DIR"):
        raise SystemExit("SHARED_DATA_DIR: not set; it names the folder with data/")
    args.data = Path(os.environ["SHARED_DATA_DIR"]) / "data"
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "starter.json"
    found: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    subjects = [Subject(path, args.threads) for path in args.models]
    found["models"] = [
        {"path": str(s.path), "parameters": s.base.parameters, "vocabulary": len(s.base.tokenizer)}
        for s in subjects
    ]
    for name in args.only or PARTS:
        begun = time.monotonic()
        found[name] = PARTS[name](subjects, args)
        file.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
        shown = {k: v for k, v in found[name].items() if k != "conversations"}
        print(f"{name} ({time.monotonic() - begun:.0f} s)", json.dumps(shown, indent=1), flush=True)


def text(subjects: Sequence[Subject], args: argparse.Namespace) -> dict[str, Any]:
    whole = (args.data / "wikitext2" / "valid.txt").read_text("utf-8")
    articles = [part for part in re.split(r"(?m)^(?= = [^=\n]+ = $)", whole) if part.strip()]
    words = len(whole.split())
    row: dict[str, Any] = {"words": words, "articles": len(articles)}
    forms_: dict[str, Callable[[str], str]] = {"as it stands": str, "plain": plain}
    for name, form in forms_.items():
        row[name] = {"perplexity per word": [], "tokens a word": []}
        for subject in subjects:
            nll, tokens = 0.0, 0
            for article in articles:
                pairs = windows(subject, form(article))
                means = subject.engine.score(subject.version, pairs)
                nll -= sum(mean * len(pair[1]) for mean, pair in zip(means, pairs, strict=True))
                tokens += sum(len(pair[1]) for pair in pairs)
            row[name]["perplexity per word"].append(round(math.exp(nll / words), 1))
            row[name]["tokens a word"].append(round(tokens / words, 3))
    return row


def plain(article: str) -> str:
    """WikiText without its tokenisation: no spaces before stops and inside brackets, @-@ is a
    hyphen, headings are lines. Its marker <unk> stays."""
    article = re.sub(r" @([-,.])@ ", r"\1", article)
    article = re.sub(r"(?m)^ (?:= )+(.*?)(?: =)+ $", r"\1", article)
    article = re.sub(r" ([.,;:!?%)\]}])", r"\1", article)
    article = re.sub(r"([(\[{$£]) ", r"\1", article)
    article = re.sub(r" ('(?:s|t|re|ve|ll|d|m)?)\b", r"\1", article)
    article = re.sub(r'" ([^"\n]*?) "', r'"\1"', article)
    return "\n".join(line.strip() for line in article.split("\n"))


def windows(subject: Subject, article: str) -> list[tuple[Sequence[int], Sequence[int]]]:
    """(context, tokens to score): the first half window alone, then half windows after another."""
    tokenizer, half = subject.base.tokenizer, WINDOW // 2
    ids = tokenizer(article, add_special_tokens=False, verbose=False).input_ids
    ids = [subject.base.start_id, *ids]
    return [(ids[:1], ids[1:half])] + [
        (ids[at - half : at], ids[at : at + half]) for at in range(half, len(ids), half)
    ]


def trivia(subjects: Sequence[Subject], args: argparse.Namespace) -> dict[str, Any]:
    held = corpus.held_trivia(corpus.read_trivia(args.data))
    asked = [q for q in held if len(set(q.choices)) == 4 and q.answer in q.choices]
    row: dict[str, Any] = {"questions": len(asked), "right": []}
    for subject in subjects:
        dialogues = [
            [Message("user", q.question), Message("assistant", choice)]
            for q in asked
            for choice in q.choices
        ]
        scores = iter(subject.examinee.score(dialogues))
        right = 0
        for question in asked:
            marks = {choice: next(scores) for choice in question.choices}
            right += max(marks, key=lambda choice: marks[choice]) == question.answer
        row["right"].append(share(right, len(asked)))
    return row


def reading(subjects: Sequence[Subject], args: argparse.Namespace) -> dict[str, Any]:
    by_article: dict[str, list[dict[str, Any]]] = {}
    for line in (args.data / "squad" / "questions.jsonl").read_text("utf-8").splitlines():
        question = json.loads(line)
        by_article.setdefault(question["document"], []).append(question)
    rng = random.Random(0)
    each = math.ceil(args.reading / len(by_article))
    asked = [q for n in sorted(by_article) for q in rng.sample(by_article[n], each)]
    asked = rng.sample(asked, args.reading)
    silent = []
    for question in asked:
        others = sorted({q["context"] for q in by_article[question["document"]]})
        others = [c for c in others if not holds(c, question["answers"])]
        if others:
            silent.append({**question, "context": rng.choice(others)})
    row: dict[str, Any] = {"questions": len(asked), "without answer": len(silent)}
    probes = library_probes()
    row["library questions"] = len(probes)
    names = ("EM", "F1", "cited", "don't know", "don't know, without answer", "library EM")
    for name in names:
        row[name] = []
    for subject in subjects:
        replies = [r.strip() for r in subject.examinee.complete(shown(subject, asked), 32)]
        pairs = list(zip(replies, (q["answers"] for q in asked), strict=True))
        exact = sum(any(exact_match(r, answer) for answer in answers) for r, answers in pairs)
        row["EM"].append(share(exact, len(asked)))
        row["F1"].append(round(100 * fmean(f1(r, answers) for r, answers in pairs), 1))
        row["cited"].append(share(sum(r.endswith("[1]") for r in replies), len(asked)))
        row["don't know"].append(share(sum(map(says_no, replies)), len(asked)))
        quiet = subject.examinee.complete(shown(subject, silent), 32)
        row["don't know, without answer"].append(share(sum(map(says_no, quiet)), len(silent)))
        read = subject.examinee.complete([[Message("user", p)] for p, _ in probes], 32)
        right = sum(exact_match(r, answer) for r, (_, answer) in zip(read, probes, strict=True))
        row["library EM"].append(share(right, len(probes)))
    return row


def library_probes() -> list[tuple[str, str]]:
    """(prompt, answer) of the learner's own probes on library/, each with its chunk as passage."""
    documents = [curation.curate(raw) for raw in Files(PROJECT / "library").documents(None)]
    kept = [document for document in documents if isinstance(document, Document)]
    readings = [document.read_document(n, document) for n, document in enumerate(kept)]
    chunks = {c.id: (r.title, c.text) for r in readings for c in r.chunks}
    facts = {probe_id(r.document_id, f): f for r in readings for f in r.facts}
    asked = []
    for probe in write_probes(readings, [], "taught"):
        title, text = chunks[facts[probe.id].chunk_id]
        passage = Passage(1, 0, retrieval.quoted(title), "", "", retrieval.quoted(text))
        asked.append((retrieval.prompt(probe.question, [passage]), probe.answer))
    return asked


def shown(subject: Subject, asked: Sequence[dict[str, Any]]) -> list[list[Message]]:
    """Prompts of the chat's form; a paragraph too long for a prompt of 960 tokens is cut."""
    prompts = []
    for question in asked:
        words = retrieval.quoted(question["context"]).split()
        while True:
            passage = Passage(1, 0, retrieval.quoted(question["document"]), "", "", " ".join(words))
            message = Message("user", retrieval.prompt(question["question"].strip(), [passage]))
            if len(prompt_ids(subject.base, [message])) <= 960:
                break
            words = words[: len(words) * 9 // 10]
        prompts.append([message])
    return prompts


def says_no(reply: str) -> bool:
    return reply.strip().lower().startswith(forms.DONT_KNOW.split(".")[0].lower())


def chat(subjects: Sequence[Subject], args: argparse.Namespace) -> dict[str, Any]:
    rng = random.Random(0)
    held = corpus.held_trivia(corpus.read_trivia(args.data))
    lines = (args.data / "squad" / "questions.jsonl").read_text("utf-8").splitlines()
    prompts = [q.question for q in rng.sample(held, 100)]
    prompts += [json.loads(line)["question"].strip() for line in rng.sample(lines, 100)]
    unseen = corpus.read_titles(args.data / "wikipedia" / "unseen.jsonl.xz")
    frames = ("Tell me about {}.", "What is {}?", "{}", "I would like to talk about {}.")
    prompts += [frames[n % 4].format(t) for n, t in enumerate(rng.sample(unseen, 100))]
    row: dict[str, Any] = {"prompts": len(prompts), "ended": [], "well-formed": []}
    row["conversations"] = []
    for subject in subjects:
        with serving(subject) as generator, ThreadPoolExecutor(16) as pool:
            replies = list(
                pool.map(
                    lambda n: say(generator, [Message("user", prompts[n])], n, 256),
                    range(len(prompts)),
                )
            )
            talks = [converse(generator, said, n) for n, said in enumerate(CONVERSATIONS)]
        ended = [finish == "stop" for _, finish, _ in replies]
        well = sum(e and talk.well_formed(r[0]) for e, r in zip(ended, replies, strict=True))
        row["ended"].append(share(sum(ended), len(ended)))
        row["well-formed"].append(share(well, len(ended)))
        row["conversations"].append(talks)
    return row


@contextmanager
def serving(subject: Subject) -> Iterator[LocalGenerator]:
    """The generator of the server, with its defaults, in an empty home."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        prepare_home(home)
        name = str(subject.path.resolve())
        context = ServingContext(home, ServerSettings(), name, "")
        generator = LocalGenerator(LocalSettings(), context)
        generator.start()
        try:
            while generator.status().state == "loading":
                time.sleep(0.05)
            yield generator
        finally:
            generator.close()


def say(
    generator: LocalGenerator, messages: Sequence[Message], seed: int, longest: int, **more: Any
) -> tuple[str, str | None, int]:
    """(reply, why it ended, its tokens) at the page's sampling, unless `more` says otherwise."""
    params = SamplingParams(**{**SAMPLING, "max_new_tokens": longest, "seed": seed, **more})
    text, finish, tokens = "", None, 0
    for delta in generator.stream(generator.prepare(messages, params, "base")):
        text += delta.text
        tokens += delta.tokens
        finish = delta.finish or finish
    return text.strip(), finish, tokens


def converse(generator: LocalGenerator, said: Sequence[str], seed: int) -> list[list[str]]:
    messages: list[Message] = []
    for text in said:
        messages.append(Message("user", text))
        messages.append(Message("assistant", say(generator, messages, seed, 96)[0]))
    return [[message.role, message.content] for message in messages]


def speed(subjects: Sequence[Subject], args: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second of all streams together, from the asking to the end of the last reply."""
    row: dict[str, Any] = {"rounds": args.rounds}
    asked = [Message("user", "Tell me about the sea.")]
    with ExitStack() as stack:
        generators = [stack.enter_context(serving(subject)) for subject in subjects]
        for streams in (1, 8):
            rates: list[list[float]] = [[] for _ in subjects]
            with ThreadPoolExecutor(streams) as pool:
                for number in range(args.rounds + 1):
                    for rate, generator in zip(rates, generators, strict=True):
                        begun = time.perf_counter()
                        replies = pool.map(
                            lambda n: say(generator, asked, n, 256, temperature=1.3, top_k=0),  # noqa: B023
                            range(100 * number, 100 * number + max(4, streams)),
                        )
                        written = sum(tokens for _, _, tokens in replies)
                        if number:  # the first round warms up
                            rate.append(written / (time.perf_counter() - begun))
            row["1 stream" if streams == 1 else f"{streams} streams"] = [
                {"median": round(median(r)), "lowest": round(min(r)), "highest": round(max(r))}
                for r in rates
            ]
    return row


def learning(subjects: Sequence[Subject], args: argparse.Namespace) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for minutes in args.cycle_minutes:
        for subject in subjects:
            done = subprocess.run(
                [sys.executable, str(PROJECT / "benchmarks" / "library_recall.py"),
                 "--cycles", "1", "--no-chat", "--cycle-minutes", str(minutes),
                 "--model", str(subject.path.resolve())],
                check=True, stdout=subprocess.PIPE, text=True, encoding="utf-8", cwd=PROJECT,
            )  # fmt: skip
            print(done.stdout, flush=True)
            measured = json.loads(done.stdout.strip().splitlines()[-1])
            row.setdefault(f"{minutes:g} min", []).append(measured)
    return row


def share(k: int, n: int) -> str:
    return library_recall.share([1] * k + [0] * (n - k))


PARTS: dict[str, Callable[[Sequence[Subject], argparse.Namespace], dict[str, Any]]] = {
    "text": text,
    "trivia": trivia,
    "reading": reading,
    "chat": chat,
    "speed": speed,
    "learning": learning,
}

if __name__ == "__main__":
    main()
