"""The starter model from nothing: corpus → forms → rows → training → a folder to load.

`corpus` reads the data folder and keeps out what may not be trained on; `forms` turns it into texts
and conversations; `rows` mixes, tokenises and packs them; `training` trains; `card` writes down
what was done. `scripts/pretrain_starter.py` is the command line.
"""
