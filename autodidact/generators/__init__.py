"""What answers: the local model through the engine.

May import: types, errors, settings, checkpoints, models, engine.
"""
