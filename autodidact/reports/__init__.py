"""What a cycle measured, for people: built, read back, as cards, as text, as the retention matrix.

May import: types, errors, store, checkpoints, lessons, reading, evaluation.
"""
