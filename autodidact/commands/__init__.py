"""The command line, `python -m autodidact`, one file a group of commands; and how programs end.

May import: every room but web and chat; no torch before it is needed.
"""
