"""Inference: many versions over one base, many requests in one batch.

adapters    LoRA beside the base's linear layers, another one for each row of a batch
cache       keys and values of the requests that run, a slot each
prefixes    keys and values of earlier requests, for prompts that begin as they did
versions    `Version`: one immutable model over the base
core        `Engine`: load a version, complete and score texts
offline     replies and likelihoods of texts that are all known beforehand, by torch's modules
graph_offline  the same through a graph
tokens      tokens as text and bytes
sampling    the next token of each row, by its own parameters and its own random numbers
tickets     `Ticket`: what a request holds while it waits and runs
slots       `Slots`: the requests that the model is at, and its passes over them
graph       a base whose weights stay in four or eight bits, as an ONNX graph
graph_files   it in files, so that it is made once
graph_passes  the passes of the slots through it
runtime     whether they go through it, or through torch's modules
batcher     `Batcher`: requests join and leave a running batch at token boundaries

May import: types, errors, home, models.
"""

from autodidact.engine.core import Engine
from autodidact.engine.versions import Version

__all__ = ["Engine", "Version"]
