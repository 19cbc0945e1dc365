"""What a rule is: the shape of a predicate, and the wordings of what it says, as templates.

A shape names its groups, and the templates use them by name. One of the groups is `answer`, or else
`a`: the answer with an article that does not belong to it. Besides its groups a template knows

    {s}         the subject as the text names it
    {answer}    the answer, without the article where the group is `a`
    {kind}      what kind of answer it is

{S}, {A} and {Answer}, which begin a sentence, and what the rule's `words` make of all these:
whether to ask with "who" or "what", the plain form of a verb.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from autodidact.reading.vocabulary import NUMBER, UNIT, YEAR, capitalised
from autodidact.types.documents import Chunk, Fact

Words = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Six wordings of the question, what is told anew, and a seventh wording that is never trained.

    `kind` is that of the answer, "" where the answer has to show. A rule that is for the `opening`
    reads only the first sentence that a document has on its subject.
    """

    shape: re.Pattern[str]
    relation: str
    questions: tuple[str, str, str, str, str, str]
    restatements: tuple[str, ...]
    unseen: str
    kind: str = ""
    words: Callable[[Words], Words] = lambda words: {}
    opening: bool = False

    def fact(self, chunk: Chunk, subject: str, sentence: str, groups: Words) -> Fact:
        """What a sentence says whose predicate has this shape, with these groups."""
        words = {name: group.strip() for name, group in groups.items()}
        words |= {"s": subject, "S": capitalised(subject)}
        if "a" in words:
            words |= {"A": capitalised(words["a"]), "answer": without_article(words["a"])}
        words |= {"Answer": capitalised(words["answer"])}
        words |= {"kind": self.kind or kind_of(words["answer"])}
        words |= self.words(words)
        return Fact(
            chunk.id,
            subject,
            self.relation.format_map(words),
            words["kind"],
            words["answer"],
            sentence,
            tuple(question.format_map(words) for question in self.questions),
            tuple(restatement.format_map(words) for restatement in self.restatements),
            self.unseen.format_map(words),
        )


# What shapes are made of --------------------------------------------------------------------------

BE = r"(?P<be>is|was|are|were)"
PHRASE = r"(?:[\w’'-]+)(?: [\w’'-]+){0,5}"
NAMED = r"(?:the )?[A-Z][\w’'-]+(?: (?:of |the )?[A-Z][\w’'-]+)*"

# What templates are filled with -------------------------------------------------------------------

DO = {"is": "does", "are": "do", "was": "did", "were": "did"}


def without_article(phrase: str) -> str:
    return re.sub(r"^(?:a|an|the|some|about|nearly|almost|exactly) ", "", phrase)


def kind_of(answer: str) -> str:
    """year, number, measure, name or phrase."""
    if re.fullmatch(YEAR, answer):
        return "year"
    if re.fullmatch(NUMBER, answer.lower()):
        return "number"
    if re.fullmatch(rf"{NUMBER} {UNIT}", answer.lower()):
        return "measure"
    words = [word for word in answer.split() if word not in ("of", "the", "and", "de", "von")]
    return "name" if words and all(word[0].isupper() for word in words) else "phrase"


def asking(*, person: bool) -> Words:
    """The words that ask for somebody, or for something."""
    if person:
        return {"wh": "who", "Wh": "Who", "whom": "whom", "it": "this person"}
    return {"wh": "what", "Wh": "What", "whom": "what", "it": "it"}
