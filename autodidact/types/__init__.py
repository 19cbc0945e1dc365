"""The dataclasses that travel between rooms, and the protocols that rooms meet behind.

Everything here is frozen and free of behaviour: no I/O, no torch, no SQL.

    documents   what is read, and what is made of it to learn and to ask
    cycle       what a cycle does, measures and decides
    events      what a study says, and what came of it
    report      what is kept of a cycle
    status      what the learner says of itself
    chat        messages, sampling, replies
    protocols   sources, filters, generators
    wire        dataclasses as JSON and back

May import: nothing of ours but errors.
"""
