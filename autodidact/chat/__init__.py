"""Answering: the conversation, the passages that fit it, the way from a question to a reply.

May import: types, errors, settings, store.
"""
