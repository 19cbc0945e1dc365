"""From facts to what is taught and asked: wordings, training examples, probes, replay.

May import: types, reading.
"""
