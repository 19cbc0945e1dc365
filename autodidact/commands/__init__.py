"""The command line, `python -m autodidact`, one file a group of commands; and how programs end.

May import: types, errors, settings, home, inbox, store, checkpoints, reports, proof; no torch
before it is needed.
"""
