"""A GGUF file as a base: turned once into the form that everything else reads.

GGUF (llama.cpp's format) holds weights, tokenizer and chat template in one file, the weights mostly
in four to eight bits. `converted` makes of it a folder as transformers writes it, in the home's
`base-model/`, named by the file's sha256: the very numbers that the quantised weights stand for, in
float32 up to a thousand million parameters and in bfloat16 above. Learner and server both read
that folder, so what is trained, measured and served is one and the same. The file itself is not
needed again.

Reading is transformers' (its GGUF support with the package `gguf`), in a child process: this one
never imports torch.
"""

from __future__ import annotations

from pathlib import Path

from autodidact.errors import ModelError
from autodidact.models.files import Log, convert, sha256_of

SUFFIX = ".gguf"
MAGIC = b"GGUF"

_CONVERT = """
import functools, os, sys
from pathlib import Path
import gguf
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.utils import logging

# transformers reads the file anew for the configuration, the tokenizer and the weights, and makes
# the table of names for every module: half of the time that all of this takes.
gguf.GGUFReader = functools.cache(gguf.GGUFReader)
gguf.get_tensor_name_map = functools.cache(gguf.get_tensor_name_map)
logging.disable_progress_bar()
logging.set_verbosity_error()
source, target = Path(sys.argv[1]), sys.argv[2]
try:
    fields = gguf.GGUFReader(str(source)).fields
except Exception:
    sys.exit("it is damaged or cut off")
if "general.architecture" not in fields:
    sys.exit("it does not name its architecture")
architecture = fields["general.architecture"].contents()
if "tokenizer.ggml.tokens" not in fields:
    sys.exit("it holds no tokenizer")
where = {"gguf_file": source.name, "local_files_only": True}
try:
    tokenizer = AutoTokenizer.from_pretrained(source.parent, **where)
    model, report = AutoModelForCausalLM.from_pretrained(
        source.parent, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True),
        output_loading_info=True, **where,
    )
except Exception as error:
    line = (str(error).strip().splitlines() or [""])[0]
    sys.exit(f"its architecture, {architecture}, is not one that transformers reads ({line})")
if report["missing_keys"]:
    sys.exit("it lacks the weights " + ", ".join(sorted(report["missing_keys"])[:3]))
if sum(p.numel() for p in model.parameters()) > 1e9:
    model.to(torch.bfloat16)
model.config._name_or_path = ""
model.save_pretrained(target)
tokenizer.save_pretrained(target)
"""


def find(path: Path) -> Path | None:
    """The GGUF file that a path means: itself, or the one in a folder that holds no other model.
    Raises ModelError where a folder holds several."""
    if path.is_file():
        return path if path.suffix == SUFFIX else None
    if not path.is_dir() or (path / "config.json").exists():
        return None
    found = sorted(path.glob(f"*{SUFFIX}"))
    if len(found) > 1:
        names = ", ".join(file.name for file in found[:4])
        raise ModelError(f"{path} holds {len(found)} GGUF files ({names}): name one of them")
    return found[0] if found else None


def folder_for(file: Path, home: Path) -> Path:
    """Where the conversion of this file lies, or will."""
    return home / "base-model" / f"{file.stem}-{sha256_of(file)[:12]}"


def converted(name: str, file: Path, home: Path, log: Log) -> Path:
    """The folder that transformers can load. Raises ModelError or ResourceError."""
    with file.open("rb") as opened:
        begins = opened.read(24)
    if begins.startswith(b"version https://git-lfs."):
        raise ModelError(f"{file} is a Git LFS pointer: run git lfs pull there")
    if not begins.startswith(MAGIC):
        raise ModelError(f"{file} is no GGUF file: it does not begin with {MAGIC.decode()}")
    log(f"reading {file.name} ({file.stat().st_size / 1e6:,.0f} MB), once; this takes a minute")
    return convert(name, folder_for(file, home), _CONVERT, str(file))
