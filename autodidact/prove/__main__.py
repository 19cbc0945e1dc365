"""`python -m autodidact.prove`: the proof by itself."""

from autodidact.entry import entry_point
from autodidact.prove.command import prove

if __name__ == "__main__":
    entry_point(prove)
