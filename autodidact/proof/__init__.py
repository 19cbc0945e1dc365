"""The proof of learning: articles taught or not by lot, human questions, intervals, a page.

What the protocol demands and why is in `protocol`; `command` is its command line. Nothing here is
used by the learner or by the server.

May import: types, errors, settings, home, store, sources, curation, reading, lessons, models,
engine, training, evaluation, chat.
"""
