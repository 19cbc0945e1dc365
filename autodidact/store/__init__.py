"""The only package that speaks SQL.

Two database files with one writing process each: `learner.db` (the learner's main process) and
`chat.db` (the server). Each store takes a path and a mode, and returns dataclasses.

May import: types, errors.
"""
