"""The base model: which one, from where, and how it is held in memory.

    bases          which base, fixed at the first start
    download       from the Hub
    files          what a folder must hold
    package        weights installed from the package index
    loading        device, number format, tokenizer
    prompts        dialogues as token ids
    quantisation   weights in 8 or 4 bits

May import: types, errors, settings, home.
"""
