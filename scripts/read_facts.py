"""Facts to judge by hand: a random sample of what the rules read in some documents, as TSV.

    python scripts/read_facts.py library 100
    python scripts/read_facts.py articles.jsonl 100 --documents 12 --seed 1

FROM is a folder of .txt and .md files or a JSONL file of {"title", "text"}. Columns: document, rule
(the first word of the relation, and for gaps the kind of answer), question, answer, sentence. The
question is one of the fact's seven wordings, drawn with the sample. The same seed gives the same
rows.

A fact is sound if its question can be understood by someone who knows the document's title, and if
its answer is right and the only right one as the document tells it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from autodidact import curation
from autodidact.reading.document import read_document
from autodidact.sources.files import Files
from autodidact.types.documents import Document, Fact


def documents(source: Path) -> list[Document]:
    """The curated documents of a folder or a JSONL file. Raises OSError and ValueError."""
    if source.is_dir():
        raw = list(Files(source).documents(None))
    else:
        rows = [json.loads(line) for line in source.read_text("utf-8").splitlines()]
        raw = [
            Document(f"file:{source.name}", str(n), row["title"], row["text"], "", "", "")
            for n, row in enumerate(rows)
        ]
    return [d for d in map(curation.curate, raw) if isinstance(d, Document)]


def sample(found: list[Document], number: int, most: int, seed: int) -> list[tuple[Fact, str, str]]:
    """(fact, title, question) of `number` facts of at most `most` documents."""
    rng = random.Random(seed)
    chosen = rng.sample(found, min(most, len(found))) if most else found
    pairs = [(f, d.title) for n, d in enumerate(chosen) for f in read_document(n, d).facts]
    drawn = rng.sample(pairs, min(number, len(pairs)))
    return [(fact, title, rng.choice([*fact.questions, fact.unseen])) for fact, title in drawn]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("source", metavar="FROM", type=Path)
    parser.add_argument("number", type=int)
    parser.add_argument("--documents", type=int, default=0, help="of how many documents (all)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        found = documents(given.source)
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"cannot read documents from {given.source}: {error!r}", file=sys.stderr)
        return 2
    print("document", "rule", "question", "answer", "sentence", sep="\t")
    for fact, title, question in sample(found, given.number, given.documents, given.seed):
        head = fact.relation.split()[0]
        rule = f"{head} {fact.kind}" if head == "span" else head
        print(title, rule, question, fact.answer, fact.sentence, sep="\t")
    return 0


if __name__ == "__main__":
    sys.exit(main())
