"""What each sentence of a chunk says of the document's subject.

A sentence is about the subject where it begins with its name, with an attribute of it ("The colour
of the mill is …"), or with a pronoun that stands for it. Nothing is known of grammar beyond that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from autodidact.reading.chunks import sentences
from autodidact.reading.topic import Topic
from autodidact.reading.vocabulary import PRONOUNS, capitalised
from autodidact.types.documents import Chunk

PRONOUN = re.compile(rf"(?P<p>{'|'.join(PRONOUNS)}) (?P<r>.*)")
"""A sentence that begins with a pronoun, and the rest of it."""
_POSSESSIVE = ("Its", "His", "Her", "Their")
_EXPLETIVE = re.compile(
    r"(?:(?:is|was|has|had|would|may|can|could|might|will|must|should)\b(?: \w+){0,4}?"
    r" (?:that|to|how|whether)\b"
    r"|(?:took|takes|seems|seemed|appears|appeared|follows|followed) )"
)
_CITATION = re.compile(r"(?<=[a-z.,)\"]):\d+(?:[,–-]\s?\d+)*(?= |$)|\[\d+\]")
"""Page numbers of references that text extraction leaves behind."""
_BRACKETS = re.compile(r"\s*\([^)]*\)")


@dataclass(frozen=True)
class Sentence:
    """A sentence of a chunk as it stands and without its brackets and its stop. Where it is about
    the subject, `full` names it and `predicate` is what follows the name; else both are ""."""

    raw: str
    plain: str
    full: str = ""
    predicate: str = ""


def told(about: Topic, chunk: Chunk) -> Iterator[Sentence]:
    """The sentences of a chunk, and what each says of the subject.

    A pronoun stands for the subject as long as the sentence before it was about the subject too,
    and is of the kind that stood for it before: in "The mill was built by Tom Hall. It has two
    sails. He died in 1840." he is not the mill. "They" stands for a subject of one only where its
    name is a plural. "It is said that …" is about nobody.
    """
    named, attribute = _patterns(about)
    kind = about.pronoun
    for paragraph in chunk.text.split("\n\n"):
        near = True
        for raw in sentences(_CITATION.sub("", paragraph)):
            plain = _BRACKETS.sub("", raw).strip().rstrip(".!?")
            predicate = None
            if match := attribute.match(plain):
                part = f"{match['m']} " if match["m"] else ""
                predicate = f"'s {part}{match['n']} {match['r']}"
            elif match := named.match(plain):
                predicate = _after(plain[match.end() :], possessive=bool(match["s"]))
            elif near and (match := PRONOUN.match(plain)) and _stands_for(match, kind, about):
                kind = PRONOUNS[match["p"]]
                predicate = _after(match["r"], possessive=match["p"] in _POSSESSIVE)
            near = predicate is not None
            if predicate is None:
                yield Sentence(raw, plain)
            else:
                joint = "" if predicate.startswith("'s ") else " "
                full = f"{capitalised(about.name)}{joint}{predicate}."
                yield Sentence(raw, plain, full, predicate)


def _patterns(about: Topic) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """A sentence that begins with the subject's name, and one with an attribute of it."""
    called = "|".join(re.escape(name) for name in (about.bare, about.alias) if name)
    return re.compile(rf"(?:The |the )?(?:{called})(?P<s>'s|’s)? "), re.compile(
        rf"The (?P<n>[a-z][a-z ]{{2,30}}?) of (?:(?:the |The )?(?:{called})"
        r"|(?:its|his|her) (?P<m>[a-z]+)) (?P<r>(?:is|was|are|were) .*)"
    )


def _after(rest: str, *, possessive: bool) -> str:
    return f"'s {rest}" if possessive else rest


def _stands_for(match: re.Match[str], kind: str, about: Topic) -> bool:
    """Whether a pronoun at the start is the subject; `kind` is the one that stood for it so far."""
    pronoun = match["p"]
    return (
        kind in ("", PRONOUNS[pronoun])
        and not (pronoun == "It" and _EXPLETIVE.match(match["r"]))
        and (pronoun not in ("They", "Their") or about.name.endswith("s"))
    )
