"""The chat page: its routes, Markdown, settings, citations and words."""
