"""Published versions on disk."""

from autodidact.checkpoints import publication
from autodidact.checkpoints.publication import *  # noqa: F403

globals().update({k: v for k, v in vars(publication).items() if not k.startswith("__")})
