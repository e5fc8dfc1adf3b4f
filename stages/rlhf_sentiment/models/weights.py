"""The files of a model: loaded from safetensors alone, and, where somebody brings them, looked at before anything is built.

A configuration can ask for a million layers, an index can name a pickle, and a folder can hold an adapter alone. The names
and shapes of all tensors stand in the first bytes of the safetensors files: what the configuration asks for is held to them.
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

from ..engine.artifacts import require
from ..engine.errors import StageError, first_line
from ..engine.messages import is_made, mend_of, shown

_LAYERS = re.compile(r"(n|num)_(\w+_)?layers?")  # what configurations call the number of layers
_FOREIGN = {  # what stands in the names of weights -> what such a file is
    "lora_": "they are an adapter's: merge the adapter first (peft: merge_and_unload)",
    "tok_embeddings.": "they are as Llama's authors wrote them: convert them to transformers' form",
    "v_head.": "they are of a trl model with a value head: save its pretrained_model",
    ".qweight": "they are quantised: save them as plain numbers",
    ".absmax": "they are quantised: save them as plain numbers",
}
_USUAL = {"output_attentions": False, "output_hidden_states": False, "return_dict": True}  # what a call itself says
_MOST_LABELS = 10_000
_MASKS = 10**8  # numbers that a model may have beside its weights, such as masks and tables of positions
_WRAPPERS = {r"(_orig_mod|_fsdp_wrapped_module)\.": "", r"^module\.": ""}  # in the names of weights that were saved inside


def from_pretrained(auto: Any, folder: str | Path, **options: Any) -> Any:
    """What `auto.from_pretrained` makes of a folder or hub id, without a pickle and without code of a model's authors.

    Raises:
        StageError: it cannot be loaded, naming the folder or the damaged file.
    """
    made = is_made(folder)
    if made:
        require(Path(folder))  # or transformers would ask the hub for it
    revision = options.get("revision")
    try:
        if auto is not AutoTokenizer and not made:
            options |= _USUAL
            shapes = look_at(str(folder), revision)
            if auto is not AutoConfig:
                options |= told_by(auto, str(folder), revision, shapes)
        if auto not in (AutoConfig, AutoTokenizer):
            options["use_safetensors"] = True
            if not made:
                options["generation_config"] = GenerationConfig()  # or the model's own would be read
        return auto.from_pretrained(str(folder), trust_remote_code=False, **options)
    except StageError:
        raise
    except Exception as error:  # tokenizers raises nothing else
        why = first_line(error)
        if (file := _damaged(Path(folder))) is not None:
            raise StageError(f"{file} cannot be read: {why}; {mend_of(folder)}") from None
        raise StageError(f"{folder} cannot be loaded: {why}; {mend_of(folder)}") from error


def look_at(folder: str, revision: str | None) -> dict[str, list[int]]:
    """Name -> shape of the tensors of a model that somebody brings, after a look at its files.

    Raises:
        StageError: an adapter; an index that names something else than safetensors; more layers than tensors, or labels
            without end; a weight that is there twice, or not of real numbers.
    """
    if any(_find(folder, name, revision) for name in ("adapter_config.json", "adapter_model.safetensors")):
        raise StageError(
            f"{folder} holds an adapter; merge the adapter first (peft: merge_and_unload), save what that gives, and name its "
            "folder"
        )
    file = _find(folder, "config.json", revision)
    if file is None:
        raise StageError(f"{folder} has no config.json: it is no model's folder, or no model of the hub that can be reached")
    tree = json.loads(Path(file).read_text(encoding="utf-8"))
    if "transformers_weights" in tree:
        raise StageError(
            f"{folder}/config.json names other weights, in transformers_weights; save the model with save_pretrained"
        )
    shapes = _shapes(folder, revision)
    numbers = list(_whole_numbers(tree))
    for key, value in (*numbers, ("num_labels", len(tree.get("id2label") or ""))):
        if key == "num_labels" and value > _MOST_LABELS:  # transformers would make a name for each
            raise StageError(f"{folder}/config.json has {shown(value)} labels; at most {_MOST_LABELS:,} can be")
    for key, value in numbers:
        if _LAYERS.fullmatch(key) and value > len(shapes):
            weights = f"{len(shapes)} tensors{such_as(shapes)}"
            raise StageError(f"{folder}/config.json: {key} is {shown(value)}, and the weights are {weights}")
    return shapes


def told_by(auto: Any, folder: str, revision: str | None, shapes: dict[str, list[int]]) -> dict[str, Any]:
    """What `auto.from_pretrained` must be told of such a model.

    Raises:
        StageError: the configuration asks for far more than the weights hold.
    """
    told: dict[str, Any] = {}
    config = AutoConfig.from_pretrained(folder, revision=revision, trust_remote_code=False, **_USUAL)
    pad_token, known = getattr(config, "pad_token_id", None), config.get_text_config().vocab_size
    if pad_token is not None and not 0 <= pad_token < known:  # `base` gives it the tokenizer's
        told["pad_token_id"] = config.pad_token_id = None
    with torch.device("meta"), _at_most(20 * len(shapes) + 1000, f"{folder}/config.json"):
        skeleton = getattr(auto, "from_config", auto)(config)  # of one class, or of whatever kind it is
    asked = sum(tensor.numel() for tensor in (*skeleton.parameters(), *skeleton.buffers()))
    held = sum(map(math.prod, shapes.values()))
    if asked > 4 * held + _MASKS:
        many = f"asks for {asked:,} numbers, and the weights hold {held:,}"
        raise StageError(f"{folder}/config.json {many}; they are not of one model")
    if any(re.search(wrapper, name) for wrapper in _WRAPPERS for name in shapes):
        told["key_mapping"] = _WRAPPERS
    return told


def such_as(names: Collection[str]) -> str:
    """One of the names of weights, and what they are, where the names tell; for the middle of a message."""
    what = next((f" ({kind})" for mark, kind in _FOREIGN.items() if any(mark in name for name in names)), "")
    return f", such as {min(names)}{what}" if names else ""


def _find(folder: str, name: str, revision: str | None) -> str | None:
    """The path of a file of a model, in its folder or fetched from the hub; None where the model has none of that name."""
    return cached_file(folder, name, revision=revision, _raise_exceptions_for_missing_entries=False)


def _shapes(folder: str, revision: str | None) -> dict[str, list[int]]:
    """Name -> shape of every tensor, read from the headers of one safetensors file, or of those that an index names."""
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
                f"{folder}/model.safetensors.index.json names {shown(name)}, which is no safetensors file beside it; no other "
                "kind is loaded: a pickle may run code when it is read"
            )
        file = _find(folder, name, revision)
        if file is None:
            raise StageError(
                f"{folder} has no {name}; weights are loaded from safetensors alone, as save_pretrained writes them"
            )
        with safe_open(file, "pt") as tensors:
            parts = {key: tensors.get_slice(key) for key in tensors.keys()}  # noqa: SIM118 (no dictionary)
            shapes |= {key: part.get_shape() for key, part in parts.items()}
            kinds |= {key: part.get_dtype() for key, part in parts.items()}
    _refuse_twice(folder, shapes)
    for name, kind in kinds.items():  # masks and tables of positions may be whole numbers; they have other names
        if name.endswith(".weight") and not kind.startswith(("F", "BF")):
            raise StageError(f"{folder}: the weight {name} is of {kind}; save the model in float32, float16 or bfloat16")
    return shapes


def _refuse_twice(folder: str, names: Collection[str]) -> None:
    """Refuse a weight that is there with and without the name of a wrapper: which of the two counts, nobody says."""
    plain: dict[str, str] = {}
    for name in sorted(names):
        bare = name
        for wrapper, without in _WRAPPERS.items():
            bare = re.sub(wrapper, without, bare)
        if (other := plain.setdefault(bare, name)) != name:
            raise StageError(f"{folder} has the weight {bare} twice, as {other} and as {name}; save the model once more")


def _whole_numbers(tree: Any) -> Iterator[tuple[str, int]]:
    """Key and value of each whole number in a tree of JSON."""
    waiting = [tree]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield from ((key, value) for key, value in one.items() if isinstance(value, int))
        if isinstance(one, dict | list):
            waiting += one.values() if isinstance(one, dict) else one


@contextmanager
def _at_most(parameters: int, file: str) -> Iterator[None]:
    """Refuse a model of more parameters while it is being built: without end, some would take minutes."""
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
    """The first file in a local folder that is not what its name says."""
    for file in sorted(folder.glob("*")):
        try:
            if file.suffix == ".json":
                json.loads(file.read_text(encoding="utf-8"))
            elif file.suffix == ".safetensors":
                safe_open(file, "pt").__enter__()
        except (OSError, SafetensorError, ValueError, RecursionError):
            return file
    return None
