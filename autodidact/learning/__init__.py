"""The learner: fetch, plan, study, decide, publish, forget. `cycle` is the main path.

May import: every room that the data passes before it (not generators, chat, web, commands, proof).
"""
