"""Adapting the base: supervised fine-tuning of a LoRA adapter.

May import: types, errors, settings, models, engine.
"""
