"""The exam on `library/`, written by hand: what the newest checkpoint answers, and what its base.

    python benchmarks/exam.py --home HOME                      the model that the home began with
    python benchmarks/exam.py --home HOME --list               every question, reply and mark too
    python benchmarks/exam.py --home HOME --url http://127.0.0.1:8000     over POST /chat

Closed book, one question at a time, greedy, through the engine that serves. A question counts as
taught if all its articles are learned in HOME; the others are reported apart, as what a model gets
without having read. Prints for each of the two, and for base and newest, how many replies are
exactly right and how many contain the answer (`autodidact/evaluation/exam.py` says what that is),
with 95 % Wilson intervals. Questions on one article share its luck, which these do not know of.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import requests

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from autodidact import checkpoints  # noqa: E402
from autodidact.engine import Engine  # noqa: E402
from autodidact.engine.examinee import Examinee  # noqa: E402
from autodidact.errors import AutodidactError  # noqa: E402
from autodidact.evaluation import exam  # noqa: E402
from autodidact.evaluation.exam import ExamQuestion, Mark, marked  # noqa: E402
from autodidact.evaluation.statistics import wilson  # noqa: E402
from autodidact.models import bases, loading  # noqa: E402
from autodidact.store.ledger import LearnerStore  # noqa: E402
from autodidact.types.chat import Message  # noqa: E402

MAX_TOKENS = 48
"""Room for a sentence; an exact answer needs less than half of it."""
Answering = Callable[[Sequence[str]], list[str]]
"""Questions to replies, in their order."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--model", default="auto", help="the base; a home keeps to its own")
    parser.add_argument("--url", help="ask this server, which serves HOME, over POST /chat")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--list", action="store_true", help="every question, reply and mark")
    args = parser.parse_args()
    try:
        questions = exam.read(exam.QUESTIONS)
        known = learned(args.home)
        asked = over_http(args.url) if args.url else in_memory(args.home, args.model, args.threads)
        for name, answering in asked.items():
            replies = answering([question.question for question in questions])
            report(name, questions, replies, known, args.list)
    except (AutodidactError, requests.RequestException) as error:
        raise SystemExit(f"exam: {error}") from None


def learned(home: Path) -> frozenset[str]:
    """The addresses of all documents that the home has learned."""
    path = home / "learner.db"
    if not path.is_file():
        raise SystemExit(f"exam: {home}: nothing was learned here; name a home with --home")
    store = LearnerStore(path, readonly=True)
    try:
        return frozenset(stored.document.uri for stored in store.documents.in_state("learned"))
    finally:
        store.close()


def in_memory(home: Path, model: str, threads: int) -> dict[str, Answering]:
    """The base and the newest checkpoint of a home, by name."""
    found = bases.resolve(model, "", home, lambda line: print(line, file=sys.stderr))
    engine = Engine(loading.load(found.path, threads))
    versions = {"base": engine.untouched}
    number = checkpoints.current(home)
    if number:
        files = checkpoints.verify(home, number, found.sha256)
        versions[checkpoints.name(number)] = engine.load(number, files.config, files.weights)

    def answering(examinee: Examinee) -> Answering:
        return lambda texts: examinee.complete([[Message("user", t)] for t in texts], MAX_TOKENS)

    return {name: answering(Examinee(engine, version)) for name, version in versions.items()}


def over_http(url: str) -> dict[str, Answering]:
    """The same two behind a server, each question in a conversation of its own, no passages."""

    def answering(model: str) -> Answering:
        def ask(text: str) -> str:
            body = {"message": text, "model": model, "temperature": 0, "retrieval": "off"}
            reply = requests.post(
                f"{url.rstrip('/')}/chat", json={**body, "max_length": MAX_TOKENS}, timeout=300
            )
            reply.raise_for_status()
            return str(reply.json()["reply"])

        return lambda texts: [ask(text) for text in texts]

    return {model: answering(model) for model in ("base", "autodidact")}


def report(
    name: str,
    questions: Sequence[ExamQuestion],
    replies: Sequence[str],
    known: frozenset[str],
    each: bool,
) -> None:
    marks: dict[str, list[Mark]] = {"taught": [], "not taught": []}
    for question, reply in zip(questions, replies, strict=True):
        mark = marked(question, reply)
        group = "taught" if known.issuperset(question.uris) else "not taught"
        marks[group].append(mark)
        if each:
            said = "exact" if mark.exact else "contained" if mark.contained else "wrong"
            print(f"{name}\t{group}\t{said}\t{question.id}\t{question.question}\t{reply.strip()!r}")
    for group, given in marks.items():
        exact = share([mark.exact for mark in given])
        print(f"{name}, {group}: exact {exact}, contained {share([m.contained for m in given])}")


def share(right: Sequence[bool]) -> str:
    """k/n with the 95 % interval of Wilson (1927)."""
    if not right:
        return "0/0"
    low, high = wilson(sum(right), len(right))
    return f"{sum(right)}/{len(right)} = {sum(right) / len(right):.1%} ({low:.1%}–{high:.1%})"


if __name__ == "__main__":
    main()
