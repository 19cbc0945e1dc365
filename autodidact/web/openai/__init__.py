"""`/v1`: the API that OpenAI's clients speak."""
