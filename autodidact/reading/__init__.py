"""From a document to the facts in it: chunks, statements on the subject, gaps in other sentences.

    document     the way from one to the other
    chunks       sentences and pieces that fit a training sequence
    statements   facts by the shapes of plain sentences
    gaps         clear-cut answers inside all other sentences
    names        word lists that tell what a name names
    answers      when two answers are the same

May import: types.
"""
