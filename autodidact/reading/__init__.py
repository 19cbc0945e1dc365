"""From a document to the facts in it: chunks, statements on the subject, gaps in other sentences.

    document     the way from one to the other
    chunks       sentences and pieces that fit a training sequence
    topic        whom a document is about
    predicates   what each sentence says of it
    statements   facts by the shapes of plain sentences
    gaps         clear-cut answers inside all other sentences
    vocabulary   words and patterns that both go by
    names        word lists that tell what a name names
    answers      how long an answer may be, and when two are the same

May import: types.
"""
