"""Autodidact: a small language model that reads, learns, proves that it learned, and chats.

Data flows one way: source → document → examples → adapter → gate → checkpoint → reply.
The learner (`web_learner.py`) and the server (`server.py`) are two processes that meet only
in a folder (`continuous_learner/`) and two small databases inside it.
"""

import logging

__version__ = "0.1.0"

# PEFT imports bitsandbytes wherever that is installed, which then tells every program, on its
# standard error, of kernels that it could have fetched.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
