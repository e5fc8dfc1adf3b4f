"""The files of a model. They are loaded only from safetensors. A user's files are inspected before a model is built.

A configuration can ask for a million layers, an index can name a pickle, and a folder can hold only an adapter. The header of
a safetensors file has the names and shapes of its tensors. The configuration is compared with these.
"""

import json
import math
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import AutoConfig, AutoTokenizer, GenerationConfig
from transformers.utils import cached_file

from ..engine.errors import StageError, first_line
from ..engine.hub import LOCAL, UnreachableError, ask, silent
from ..engine.inputs import require
from ..engine.messages import is_made, mend_of, shown

_LAYERS = re.compile(r"(n|num)_(\w+_)?layers?")  # names for the number of layers in configurations
_FOREIGN = {  # part of a weight's name -> the kind of file
    "lora_": "they belong to an adapter; merge the adapter first (peft: merge_and_unload)",
    "tok_embeddings.": "they have the original names of Llama; convert them to transformers' form",
    "v_head.": "they are of a trl model with a value head; save its pretrained_model",
    ".qweight": "they are quantised; save them in float32, float16 or bfloat16",
    ".absmax": "they are quantised; save them in float32, float16 or bfloat16",
}
_USUAL = {"output_attentions": False, "output_hidden_states": False, "return_dict": True}  # each call sets these itself
_MOST_LABELS = 10_000
_MASKS = 10**8  # numbers that a model may have besides its weights, such as masks and position tables
_WRAPPERS = {
    r"(_orig_mod|_fsdp_wrapped_module)\.": "",
    r"^module\.": "",
}  # prefixes of weights that were saved inside a wrapper


def from_pretrained(auto: Any, folder: str | Path, **options: Any) -> Any:
    """Return the result of `auto.from_pretrained` on a folder or hub id. No pickle is read, and no code from a model is run.

    Raises:
        UnreachableError: the hub does not answer, and the cache does not have the model.
        StageError: it cannot be loaded. The message names the folder or the damaged file.
    """
    made = is_made(folder)
    if made:
        require(Path(folder))  # otherwise transformers asks the hub for it
    revision = options.get("revision")
    on_hub = not made and not str(folder).startswith("models/") and not Path(folder).exists()
    if on_hub:
        ask("model", str(folder), revision, str(folder))
    try:
        if auto is not AutoTokenizer and not made:
            options |= _USUAL
            shapes = look_at(str(folder), revision)
            if auto is not AutoConfig:
                options |= options_of(auto, str(folder), revision, shapes)
        if auto not in (AutoConfig, AutoTokenizer):
            options["use_safetensors"] = True
            if not made:
                options["generation_config"] = GenerationConfig()  # otherwise the model's own is read
        return auto.from_pretrained(str(folder), trust_remote_code=False, **options)
    except Exception as error:  # tokenizers raises plain Exception
        if on_hub and (why := silent()):
            raise UnreachableError(
                f"{folder} cannot be loaded: it is not in the cache, and {why}; data.source auto replaces texts and no model; "
                f"base.model scratch, as in the default params.yaml, needs no hub, and {LOCAL}"
            ) from None
        if isinstance(error, StageError):
            raise
        why = first_line(error)
        if (file := _damaged(Path(folder))) is not None:
            raise StageError(f"{file} cannot be read: {why}; {mend_of(folder)}") from None
        raise StageError(f"{folder} cannot be loaded: {why}; {mend_of(folder)}") from error


def look_at(folder: str, revision: str | None) -> dict[str, list[int]]:
    """Inspect the files of a user's model, and return the name and shape of each tensor.

    Raises:
        StageError: the folder holds an adapter; an index names a file that is not safetensors; there are more layers than
            tensors, or too many labels; a weight has two names, or is not of real numbers.
    """
    if any(_find(folder, name, revision) for name in ("adapter_config.json", "adapter_model.safetensors")):
        raise StageError(
            f"{folder} holds an adapter; merge the adapter first (peft: merge_and_unload), save the result, and name its folder"
        )
    file = _find(folder, "config.json", revision)
    if file is None:
        raise StageError(f"{folder} has no config.json; name the folder of a model, or a hub model that can be reached")
    tree = json.loads(Path(file).read_text(encoding="utf-8"))
    if "transformers_weights" in tree:
        raise StageError(
            f"{folder}/config.json names other weights in transformers_weights; save the model with save_pretrained"
        )
    shapes = _shapes(folder, revision)
    numbers = list(_whole_numbers(tree))
    for key, value in (*numbers, ("num_labels", len(tree.get("id2label") or ""))):
        if key == "num_labels" and value > _MOST_LABELS:  # transformers makes a name for each
            raise StageError(f"{folder}/config.json has {shown(value)} labels; at most {_MOST_LABELS:,} are possible")
    for key, value in numbers:
        if _LAYERS.fullmatch(key) and value > len(shapes):
            weights = f"{len(shapes)} tensors{such_as(shapes)}"
            raise StageError(f"{folder}/config.json: {key} is {shown(value)}, but the weights are only {weights}")
    return shapes


def options_of(auto: Any, folder: str, revision: str | None, shapes: dict[str, list[int]]) -> dict[str, Any]:
    """Return the options of `auto.from_pretrained` that a user's model needs.

    Raises:
        StageError: the configuration asks for far more numbers than the weights hold.
    """
    found: dict[str, Any] = {}
    config = AutoConfig.from_pretrained(folder, revision=revision, trust_remote_code=False, **_USUAL)
    pad_token, known = getattr(config, "pad_token_id", None), config.get_text_config().vocab_size
    if pad_token is not None and not 0 <= pad_token < known:  # the stage `base` sets the tokenizer's id
        found["pad_token_id"] = config.pad_token_id = None
    with torch.device("meta"), _at_most(20 * len(shapes) + 1000, f"{folder}/config.json"):
        skeleton = getattr(auto, "from_config", auto)(config)  # `auto` is one class, or an Auto class
    asked = sum(tensor.numel() for tensor in (*skeleton.parameters(), *skeleton.buffers()))
    held = sum(map(math.prod, shapes.values()))
    if asked > 4 * held + _MASKS:
        many = f"asks for {asked:,} numbers, but the weights hold {held:,}"
        raise StageError(f"{folder}/config.json {many}; they belong to different models")
    if any(re.search(wrapper, name) for wrapper in _WRAPPERS for name in shapes):
        found["key_mapping"] = _WRAPPERS
    return found


def such_as(names: Collection[str]) -> str:
    """Return one name of a weight for a message, and the kind of file where the names show it."""
    what = next((f" ({kind})" for mark, kind in _FOREIGN.items() if any(mark in name for name in names)), "")
    return f", such as {min(names)}{what}" if names else ""


def _find(folder: str, name: str, revision: str | None) -> str | None:
    """Return the path of a model's file, in its folder or fetched from the hub. None where the model has no such file."""
    return cached_file(folder, name, revision=revision, _raise_exceptions_for_missing_entries=False)


def _shapes(folder: str, revision: str | None) -> dict[str, list[int]]:
    """Return the name and shape of every tensor, from the headers of one safetensors file or of those in an index."""
    names = ["model.safetensors"]
    if _find(folder, names[0], revision) is None and (index := _find(folder, "model.safetensors.index.json", revision)):
        tree = json.loads(Path(index).read_text(encoding="utf-8"))
        shards = tree.get("weight_map") if isinstance(tree, dict) else None
        if not isinstance(shards, dict):
            raise StageError(f"{folder}/model.safetensors.index.json: should have weight_map, the file of each tensor")
        names = sorted({str(shard) for shard in shards.values()})
    shapes: dict[str, list[int]] = {}
    kinds: dict[str, str] = {}
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise StageError(
                f"{folder}/model.safetensors.index.json names {shown(name)}, which is not a safetensors file in this "
                "folder; no other format is loaded, because a pickle can run code"
            )
        file = _find(folder, name, revision)
        if file is None:
            raise StageError(f"{folder} has no {name}; weights are loaded only from safetensors, which save_pretrained writes")
        with safe_open(file, "pt") as tensors:
            parts = {key: tensors.get_slice(key) for key in tensors.keys()}  # noqa: SIM118 (no dictionary)
            shapes |= {key: part.get_shape() for key, part in parts.items()}
            kinds |= {key: part.get_dtype() for key, part in parts.items()}
    _refuse_twice(folder, shapes)
    for name, kind in kinds.items():  # masks and position tables may be integers, but have other names
        if name.endswith(".weight") and not kind.startswith(("F", "BF")):
            raise StageError(f"{folder}: the weight {name} is of {kind}; save the model in float32, float16 or bfloat16")
    return shapes


def _refuse_twice(folder: str, names: Collection[str]) -> None:
    """Refuse a weight that exists both with and without a wrapper's prefix, because the right one is unknown."""
    plain: dict[str, str] = {}
    for name in sorted(names):
        bare = name
        for wrapper, without in _WRAPPERS.items():
            bare = re.sub(wrapper, without, bare)
        if (other := plain.setdefault(bare, name)) != name:
            raise StageError(f"{folder} has the weight {bare} twice, as {other} and as {name}; save the model again")


def _whole_numbers(tree: Any) -> Iterator[tuple[str, int]]:
    """Yield key and value of each whole number in a JSON tree."""
    waiting = [tree]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield from ((key, value) for key, value in one.items() if isinstance(value, int))
        if isinstance(one, dict | list):
            waiting += one.values() if isinstance(one, dict) else one


@contextmanager
def _at_most(parameters: int, file: str) -> Iterator[None]:
    """Refuse a model with too many parameters while it is built. Otherwise some models take minutes."""
    count = 0

    def registered(*_: Any) -> None:
        nonlocal count
        count += 1
        if count > parameters:
            raise StageError(f"{file} asks for a model of more than {parameters:,} tensors; the weights have far fewer")

    hook = register_module_parameter_registration_hook(registered)
    try:
        yield
    finally:
        hook.remove()


def _damaged(folder: Path) -> Path | None:
    """Return the first file in a local folder that cannot be read as its name says."""
    for file in sorted(folder.glob("*")):
        try:
            if file.suffix == ".json":
                json.loads(file.read_text(encoding="utf-8"))
            elif file.suffix == ".safetensors":
                safe_open(file, "pt").__enter__()
        except (OSError, SafetensorError, ValueError, RecursionError):
            return file
    return None
