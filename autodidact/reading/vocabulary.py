"""English words, and patterns of them, that more than one module of this room goes by.

What tells what a name names is in `names`; what a single module needs stands in that module.
"""

from __future__ import annotations


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Figures ------------------------------------------------------------------------------------------

YEAR = r"(?:1[0-9]{3}|20[0-2][0-9])"
MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
WORD_NUMBERS = _listed(
    """
    one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety
    hundred thousand
    """
)
NUMBER = (
    r"(?:\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?|(?:"
    + "|".join(sorted(WORD_NUMBERS, key=len, reverse=True))
    + r")(?:[- ](?:"
    + "|".join(WORD_NUMBERS)
    + r"))*)"
)
UNIT = (
    r"(?:metres?|meters?|kilometres?|kilometers?|km|m|cm|feet|foot|ft|inches|yards|miles|leagues"
    r"|centimetres?|centimeters?|millimetres?|mm|fathoms|tonnes|tons|kilograms|kg|pounds|years|days"
    r"|hours|minutes|acres|hectares)"
)

# Verbs --------------------------------------------------------------------------------------------

IRREGULAR = {
    "built": "built", "made": "made", "wrote": "written", "cast": "cast", "founded": "founded",
    "found": "found", "won": "won", "taught": "taught", "led": "led", "bought": "bought",
    "sold": "sold", "sang": "sung", "drew": "drawn", "kept": "kept", "began": "begun",
    "brought": "brought", "held": "held", "lost": "lost", "gave": "given", "took": "taken",
    "grew": "grown", "wove": "woven", "carried": "carried", "met": "met", "laid": "laid",
    "sent": "sent", "cut": "cut", "spun": "spun", "bred": "bred", "dug": "dug", "hung": "hung",
    "rebuilt": "rebuilt", "stole": "stolen", "ran": "run", "chose": "chosen", "threw": "thrown",
}  # fmt: skip
"""The past of verbs, and their participles."""
PAST = rf"(?:[a-z]+ed|{'|'.join(IRREGULAR)})"
_PARTICIPLES = "|".join(
    sorted({*IRREGULAR.values(), "set", "sunk", "torn", "burnt", "shut", "hewn", "paid"})
)
PARTICIPLE = rf"(?:[a-z]+ed|{_PARTICIPLES})(?: (?:down|up|out|over|for))?"

# Names and what stands for them -------------------------------------------------------------------

PRONOUNS = {
    "It": "It", "Its": "It", "They": "It", "Their": "It",
    "He": "He", "His": "He", "She": "She", "Her": "She",
}  # fmt: skip
"""Those that begin a sentence, and what each stands for. "They" of one person is rare."""
CAPITAL = r"(?:[A-Z]\.(?:[A-Z]\.)*|[A-Z][\w’'-]*\w)"
"""A word with a capital, or initials."""
NAME = (
    rf"(?<![\w.’'-]){CAPITAL}"
    rf"(?: (?:of (?:the )?|de (?:la )?|von |van |der |del |al-)?{CAPITAL})*"
)
"""A capitalised name anywhere in a sentence."""

# Words that tell nothing by themselves ------------------------------------------------------------

FUNCTION = frozenset(
    _listed(
        """
        and or but in on at of to by with for from as into over under after before during through
        against every each once between among near since until when while where which who whose
        whom that than
        because although though if was were is are has had have did do does would could will can
        may might must should became become becomes began begins came went made took gave got left
        ran led won lost held kept met sent wrote said says found built fell grew rose saw knew
        not also then there only both either about around within without toward towards across
        along so still never later again he she it they
        """
    )
)
FUNCTION_WORD = "|".join(sorted(FUNCTION))
STOP = FUNCTION.union(
    _listed(
        """
        the a an be been being his her its their this these those more most many much some such
        other all one first used well very him them out up having per any no each
        """
    )
)


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
