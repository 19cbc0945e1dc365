"""The chat server: pages, APIs, events. It knows no model and loads none.

May import: types, errors, settings, home, inbox, store, checkpoints, reports, chat.
"""
