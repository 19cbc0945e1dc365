"""From a document as fetched to one worth storing, or a verdict that says why not.

May import: types.
"""
