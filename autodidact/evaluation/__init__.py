"""Measuring a model through the engine that serves it, and deciding on the measurements.

May import: types, reading.
"""
