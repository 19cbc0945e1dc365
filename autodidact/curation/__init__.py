"""From a document as fetched to one worth storing, or a verdict that says why not.

Every document is normalised and hashed; then the filters judge it, one after the other, until one
refuses it. A filter may also change the text: what it gives is normalised and hashed anew.
To add a filter: one module here, which `registry` finds (CONTRIBUTING.md, step by step).

Exact duplicates are found by the hash, in the store. Near-duplicates, language, quality and safety
are not covered by the filters here.

May import: types, errors, settings, registry.
"""

from __future__ import annotations

from collections.abc import Sequence

from autodidact import registry
from autodidact.curation.length import Length, LengthSettings
from autodidact.curation.normalise import normalised
from autodidact.settings import CurationSettings
from autodidact.types.cycle import Reason, Verdict
from autodidact.types.documents import Document
from autodidact.types.protocols import Filter

DEFAULT: tuple[Filter, ...] = (Length(LengthSettings()),)
"""What documents are held to that no settings speak of, such as the control documents."""


def build(settings: CurationSettings) -> list[Filter]:
    """The enabled filters: ours by the names of their modules, then one's own."""
    return registry.build(registry.FILTERS, settings)


def curate(document: Document, filters: Sequence[Filter] = DEFAULT) -> Document | Verdict:
    """The document with normalised text and its digest, or a Verdict that says why not."""
    document = normalised(document)
    for one in filters:
        answer = one.check(document)
        if isinstance(answer, str):
            return Verdict(False, (Reason("", f"{document.uri}: {answer}"),))
        if answer is not document:
            document = normalised(answer)
    return document
