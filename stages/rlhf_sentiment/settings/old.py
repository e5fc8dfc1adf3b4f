"""Values of old settings: what the keys of the first version and of trl become, with their values."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..engine.hints import hint, keys_in
from ..engine.messages import cut, shown
from ..engine.renamed import RENAMED, either, plain

Tree = Mapping[str, Any]

# The full names and revisions of models and data sets that old files name in short.
MODELS = {
    "distilgpt2": ("distilbert/distilgpt2", "2290a62682d06624634c1f46a6ad5be0f47f38aa"),
    "gpt2": ("openai-community/gpt2", "main"),
    "gpt2-medium": ("openai-community/gpt2-medium", "main"),
    "gpt2-large": ("openai-community/gpt2-large", "main"),
    "gpt2-xl": ("openai-community/gpt2-xl", "main"),
}
DATA_SETS = {
    "imdb": ("stanfordnlp/imdb", "e6281661ce1c48d982bc483cf8a173c1bbeb5d31"),
    "sst2": ("stanfordnlp/sst2", "8d51e7e4887a4caaa95b3fbebbf53c0490b58bbb"),
}
PROMPT_TOKENS = 8  # of an old max_length, which counted prompt and response
ADAPTIVE_TARGET = 6.0  # trl's target KL


class Converted(NamedTuple):
    """The settings of an old file.

    Attributes:
        values: new values by key, such as ppo.steps.
        sources: the old key from which each value comes.
        lines: what became of each old key.
        faults: what is wrong, a line for each old key.
    """

    values: dict[str, Any]
    sources: dict[str, str]
    lines: list[str]
    faults: list[str]


def modern(old: Tree, base: Tree) -> Converted:
    """Return the settings of an old file.

    Args:
        old: the content of the file.
        base: a complete tree of settings, for the values that the file does not have.
    """
    done = Converted({}, {}, [], [])
    named = {plain(name): value for name, value in old.items() if value is not None}
    for name, value in old.items():
        if value is None and plain(name) in RENAMED:
            continue
        try:
            values = _values(plain(name), value, named, base)
        except ValueError as error:
            done.faults.append(f"{cut(name)}: {error}")
            continue
        twice = [key for key in values if key in done.values and done.values[key] != values[key]]
        if twice:
            done.faults.append(f"{cut(name)}: gives {twice[0]} another value than {done.sources[twice[0]]}")
        done.values.update(values)
        done.sources.update(dict.fromkeys(values, name))
        done.lines.append(f"{cut(name)} {_written(value)} {_outcome(name, values)}")
    _fit_micro_batch(done, base)
    _keep_rates(done, named, base)
    _compute_fast(done)
    unset = [name for name, value in old.items() if value is None and plain(name) in RENAMED]
    done.lines.extend(f"{cut(name)} null {_unset(name, done, base)}" for name in unset)
    return done


def _unset(name: str, done: Converted, base: Tree) -> str:
    """Return what becomes of an old key that is null."""
    became = RENAMED[plain(name)]
    kept = [f"{key} keeps {_written(_at(base, key))}" for key in became.settings if key not in done.values]
    return f"is not set; {', '.join(kept) or 'it changes nothing'}"


def _outcome(name: str, values: Tree) -> str:
    became = RENAMED.get(plain(name))
    if became is None:
        return "stays"
    note = f"; {became.note}" if became.note else ""
    if not values:
        return ("changes nothing" if became.settings else "has no setting now") + note
    return f"becomes {', '.join(f'{key} {_written(value)}' for key, value in values.items())}{note}"


def _values(name: str, value: Any, old: Tree, base: Tree) -> dict[str, Any]:
    """Return the settings of one old key with their values.

    Raises:
        ValueError: the key is unknown, or its value is wrong in a way that the settings do not show.
    """
    if name in RULES:
        return RULES[name](value, old, base)
    if name in RENAMED:
        return dict.fromkeys(RENAMED[name].settings, value)
    known = keys_in(dict(base))
    if name in known and not isinstance(_at(base, name), dict):
        return {name: value}
    raise ValueError(f"unknown key; leave it out, or correct its name; {hint(name, '', [*known, 'extends'])}")


def _fit_micro_batch(done: Converted, base: Tree) -> None:
    """Lower ppo.micro_batch_size where it does not divide the minibatch of a new ppo.batch_size."""
    ppo = base["ppo"] | {key.removeprefix("ppo."): value for key, value in done.values.items() if key.startswith("ppo.")}
    batch, parts, micro = ppo["batch_size"], ppo["minibatches"], ppo["micro_batch_size"]
    if not all(type(one) is int and one > 0 for one in (batch, parts, micro)) or "ppo.micro_batch_size" in done.values:
        return
    if batch % parts == 0 and micro < batch // parts and batch // parts % micro:
        fitting = max(size for size in range(1, micro + 1) if batch // parts % size == 0)
        done.values["ppo.micro_batch_size"] = fitting
        done.sources["ppo.micro_batch_size"] = done.sources.get("ppo.batch_size", "batch_size")
        done.lines.append(f"ppo.micro_batch_size becomes {fitting}, which divides the minibatch of {batch // parts}")


def _keep_rates(done: Converted, old: Tree, base: Tree) -> None:
    """Say that a learning rate of the Trainer of transformers is PPO's alone."""
    kept = [key for key in ("sft.learning_rate", "reward.learning_rate") if key not in done.values]
    if kept and "ppo.learning_rate" in done.values and {"per_device_train_batch_size", "num_train_epochs"} & old.keys():
        values = either([f"{key} keeps {_written(_at(base, key))}" for key in kept], "and")
        done.lines.append(f"{values}; {done.sources['ppo.learning_rate']} is for PPO only")


def _compute_fast(done: Converted) -> None:
    """Set `arithmetic: fast` where the old settings need it: for a GPU, for bfloat16, and for large pretrained models."""
    needs = [
        key
        for key, portable in (("device", ("auto", "cpu")), ("ppo.dtype", ("float32",)), ("base.model", ("scratch",)))
        if done.values.get(key, portable[0]) not in portable
    ]
    if needs:
        for key, value in {"arithmetic": "fast", "threads": "auto"}.items():
            if key not in done.values:
                done.values[key], done.sources[key] = value, done.sources[needs[0]]
                done.lines.append(f"{key} becomes {value}, because of {needs[0]} {_written(done.values[needs[0]])}")


def _at(tree: Tree, key: str) -> Any:
    """Return the value at a key such as ppo.steps."""
    for part in key.split("."):
        tree = tree[part]
    return tree


def _written(value: Any) -> str:
    """Return a value as YAML has it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else shown(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"should be true or false (got {shown(value)})")
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"should be a whole number of at least 1 (got {shown(value)})")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"should be a name (got {shown(value)})")
    return value


def _model(value: Any, _: Tree, base: Tree) -> dict[str, Any]:
    name = _name(value).removeprefix("./").rstrip("/")
    pretrained = name.startswith("models/pretrained/")
    if not pretrained and (value.startswith(("./", "../", "/", "~")) or name.startswith("models/")):
        raise ValueError(f"{shown(value)} is a local folder; copy it below models/pretrained, and name models/pretrained/NAME")
    if pretrained or name == "scratch":
        return {"base.model": name, "base.revision": None}
    if name == base["base"]["model"]:
        return {"base.model": name, "base.revision": base["base"]["revision"]}
    model, revision = MODELS.get(name, (name, "main"))
    return {"base.model": model, "base.revision": revision}


def _data_set(value: Any, _: Tree, base: Tree) -> dict[str, Any]:
    name = _name(value).removeprefix("./")
    if name in ("synthetic", "auto") or name.startswith("data/raw/"):
        return {"data.source": name}
    data_set, revision = DATA_SETS.get(name, (name, "main"))
    if name == base["data"]["hub"]["dataset"]:
        data_set, revision = name, base["data"]["hub"]["revision"]
    return {"data.source": "hub", "data.hub.dataset": data_set, "data.hub.revision": revision}


def _max_length(value: Any, old: Tree, _: Tree) -> dict[str, Any]:
    """Return the settings for an old max_length: longer texts were truncated, and responses had the rest of the tokens."""
    longest = _whole(value)
    values = {"sft.max_length": longest, "reward.max_length": longest, "sft.cut": True, "reward.cut": True}
    if not {"max_new_tokens", "response_length", "output_max_length"} & old.keys():
        values |= dict.fromkeys(("ppo.max_new_tokens", "generation.max_new_tokens"), max(longest - PROMPT_TOKENS, 1))
    return values


def _batch(old: Tree, base: Tree) -> int:
    batch = old.get("batch_size", base["ppo"]["batch_size"])
    if type(batch) is not int or batch < 1:
        raise ValueError("needs a batch_size that is a whole number")
    return batch


def _minibatches(_: Any, old: Tree, base: Tree) -> dict[str, Any]:
    """Return the settings for trl's mini_batch_size and gradient_accumulation_steps, whose product is one optimizer step."""
    batch = _batch(old, base)
    micro = old.get("mini_batch_size")
    accumulated = _whole(old.get("gradient_accumulation_steps", 1))
    if micro is None:
        return {}
    size = _whole(micro) * accumulated
    if batch % size:
        raise ValueError(f"a minibatch of {size} responses should divide the batch of {batch}")
    return {"ppo.minibatches": batch // size, "ppo.micro_batch_size": micro}


def _episodes(value: Any, old: Tree, base: Tree) -> dict[str, Any]:
    batch = _batch(old, base)
    return {"ppo.steps": max(_whole(value) // batch, 1)}


def _adaptive(value: Any, old: Tree, _: Tree) -> dict[str, Any]:
    return {"ppo.kl_target": old.get("target", ADAPTIVE_TARGET) if _flag(value) else None}


def _target(value: Any, old: Tree, _: Tree) -> dict[str, Any]:
    return {"ppo.kl_target": None if old.get("adap_kl_ctrl") is False else value}


def _epochs(value: Any, *_: Tree) -> dict[str, Any]:
    """Return the settings for a number of epochs, which transformers writes as 3.0."""
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    return dict.fromkeys(RENAMED["num_train_epochs"].settings, whole)


Rule = Callable[[Any, Tree, Tree], dict[str, Any]]
RULES: dict[str, Rule] = {
    **dict.fromkeys(("model", "model_name", "model_name_or_path", "base_model", "sft_model_path"), _model),
    **dict.fromkeys(("dataset", "dataset_name", "query_dataset"), _data_set),
    **dict.fromkeys(("mini_batch_size", "gradient_accumulation_steps"), _minibatches),
    "max_length": _max_length,
    "total_episodes": _episodes,
    "num_train_epochs": _epochs,
    "max_steps": lambda value, *_: {} if value == -1 else {"ppo.steps": value},  # -1 is the default of transformers
    "adap_kl_ctrl": _adaptive,
    "target": _target,
    "use_wandb": lambda value, *_: {"report_to": "wandb" if _flag(value) else "none"},
    "log_with": lambda value, *_: {"report_to": "none" if value is None else value},
    "bf16": lambda value, *_: {"ppo.dtype": "bfloat16" if _flag(value) else "float32"},
}
