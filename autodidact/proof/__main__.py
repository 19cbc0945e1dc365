"""`python -m autodidact.proof`: the proof by itself."""

from autodidact.commands.entry import entry_point
from autodidact.proof.command import prove

if __name__ == "__main__":
    entry_point(prove)
