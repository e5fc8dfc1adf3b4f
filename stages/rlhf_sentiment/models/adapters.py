"""Low-rank adapters (LoRA; Hu et al. 2021, 2106.09685), by peft.

A layer of the trunk can have several adapters, of which one acts, or none. So one trunk serves several models: `Trunk` gives
each of them as a model of its own. A saved adapter stands alone in a folder, and plain peft loads it.
"""

import copy
import json
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..engine.errors import StageError
from ..engine.messages import listed
from .recomputing import recompute
from .value_head import reward_class

if TYPE_CHECKING:
    from ..settings.lora import Lora

FOLDER = "adapter"  # inside the folder of a model
POLICY, CRITIC, REWARD = "policy", "critic", "reward"  # names of adapters in a trunk
_WEIGHTS, _SETTINGS, _HEAD = "adapter_model.safetensors", "adapter_config.json", "base_model.model.score.weight"  # peft's names


def add_adapter(model: PreTrainedModel, lora: "Lora", name: str, base: str, setting: str) -> None:
    """Give a model's trunk a new adapter, which acts and learns. The trunk's own weights are frozen.

    Args:
        model: a causal language model or a reward model. Its head is unchanged.
        lora: the adapter's settings.
        name: of the adapter.
        base: the folder of the model that the adapter belongs on.
        setting: the name of `lora` in params.yaml, for messages.

    Raises:
        StageError: a name in `lora.target` fits no product of the trunk.
    """
    from peft import LoraConfig  # its import takes time, which other runs do not need

    trunk = model.base_model
    products = [
        key.removesuffix(".base_layer")
        for key, module in trunk.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and ".lora_" not in key
    ]
    targets = products if lora.target == "all" else lora.target
    for target in targets:
        if not any(key == target or key.endswith(f".{target}") for key in products):
            there = sorted({key.rsplit(".", 1)[-1] for key in products})
            raise StageError(f"{setting}.target: no product of the model is called {target}; there are {listed(there)}")
    config = LoraConfig(
        base_model_name_or_path=base,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(targets),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in trunk.modules()),
    )
    _inject(config, trunk, name)


def _inject(config: Any, trunk: PreTrainedModel, name: str) -> None:
    from peft import inject_adapter_in_model

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # `Trunk` has several adapters on purpose
        inject_adapter_in_model(config, trunk, name)
    trunk.to(trunk.device)


def adapter_layers(module: nn.Module) -> dict[str, Any]:
    """Return the layers of a model that have adapters, by name."""
    return {name: layer for name, layer in module.named_modules() if hasattr(layer, "lora_A")}


def of_adapter(module: nn.Module, name: str) -> dict[str, nn.Parameter]:
    """Return the weights of an adapter, by their names in the module."""
    return {key: weight for key, weight in module.named_parameters() if f".{name}." in key}


def set_dropout(model: nn.Module, share: float) -> None:
    """Set the dropout of all adapters. trl's trainer of reward models switches every dropout off."""
    for layer in adapter_layers(model).values():
        for dropout in layer.lora_dropout.values():
            if isinstance(dropout, nn.Dropout):
                dropout.p = share


def save_adapter(model: PreTrainedModel, name: str, folder: Path) -> None:
    """Write an adapter alone, as peft does. The head of a reward model belongs to its adapter."""
    prefix, head = f"base_model.model.{model.base_model_prefix}.", getattr(model, "score", None)
    own = {prefix + key.replace(f".{name}.", "."): weight for key, weight in of_adapter(model.base_model, name).items()}
    config = copy.deepcopy(model.base_model.peft_config[name])
    config.inference_mode, config.task_type = True, "CAUSAL_LM"
    config.target_modules = sorted(config.target_modules)  # a set has another order in each process
    if head is not None:
        config.task_type, config.modules_to_save = "SEQ_CLS", ["score"]
        own[_HEAD] = head.weight
    folder.mkdir(parents=True)
    config.save_pretrained(str(folder))
    save_file({key: weight.detach().contiguous() for key, weight in own.items()}, folder / _WEIGHTS, {"format": "pt"})


def merged(model: PreTrainedModel, name: str) -> dict[str, Tensor]:
    """Return the weights of a model without adapters that computes what this one does: W + alpha / rank * B A."""
    weights = {key.replace(".base_layer.", "."): weight for key, weight in model.state_dict().items() if ".lora_" not in key}
    for place, layer in adapter_layers(model).items():
        if name in layer.lora_A:
            weights[f"{place}.weight"] = weights[f"{place}.weight"] + layer.get_delta_weight(name)
    return weights


def has_adapter(folder: str | Path, base: str) -> bool:
    """Return whether a model's folder has an adapter that belongs on the model in `base`."""
    file = Path(folder) / FOLDER / _SETTINGS
    return file.exists() and bool(json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"] == base)


class Trunk:
    """One trunk in memory, shared by models that differ in their adapters.

    Each view is a model with modules of its own down to the trunk, whose layers all views share. Before a view computes, its
    adapter becomes the one that acts, and the only one that can learn.
    """

    def __init__(self, model: PreTrainedModel, folder: str) -> None:
        """Freeze a causal language model, whose trunk it is. The adapters belong on `folder`, from where it was loaded."""
        self._model, self._folder = model.requires_grad_(False), folder
        self._acting: str | None = None

    def add(self, name: str, lora: "Lora", setting: str) -> None:
        """Add a new adapter, as `add_adapter` does."""
        add_adapter(self._model, lora, name, self._folder, setting)
        self.act(name)

    def load(self, name: str, folder: str) -> Tensor:
        """Add a reward model's adapter, which `save_adapter` wrote to the folder of the model, and return the head, (1, D)."""
        from peft import PeftConfig

        place, trunk = Path(folder) / FOLDER, self._model.base_model
        config = PeftConfig.from_pretrained(str(place))
        config.modules_to_save = None  # the head is not part of the trunk
        _inject(config, trunk, name)
        self.act(name)
        prefix = f"base_model.model.{self._model.base_model_prefix}."
        saved = load_file(place / _WEIGHTS, device=str(self._model.device))
        with torch.no_grad():
            for key, weight in of_adapter(trunk, name).items():
                weight.copy_(saved[prefix + key.replace(f".{name}.", ".")])
        return saved[_HEAD]

    def policy(self, name: str | None) -> PreTrainedModel:
        """Return a causal language model in which the adapter `name` acts, or none."""
        view = _twin(self._model)
        setattr(view, self._model.base_model_prefix, self.trunk(name))
        return view

    def trunk(self, name: str | None) -> PreTrainedModel:
        """Return a trunk without a head in which the adapter `name` acts, or none."""
        view = _twin(self._model.base_model)
        view._forward_pre_hooks = OrderedDict()
        view.register_forward_pre_hook(lambda *_: self.act(name))
        return view

    def reward_model(self, name: str, head: Tensor) -> PreTrainedModel:
        """Return a reward model in which the adapter `name` acts.

        Args:
            name: of the adapter.
            head: its weights. (1, D)
        """
        with torch.device("meta"):  # its own trunk is replaced
            view: Any = reward_class(self._model.config)(copy.deepcopy(self._model.config))
        setattr(view, view.base_model_prefix, self.trunk(name))
        view.score = nn.Linear(head.shape[1], 1, bias=False, device="meta")
        view.score.weight = nn.Parameter(head, requires_grad=False)
        return view.eval()

    def act(self, name: str | None) -> None:
        """Let the adapter `name` act in all layers, or none."""
        if name == self._acting:
            return
        for layer in adapter_layers(self._model.base_model).values():
            acts = name in layer.lora_A
            if acts:
                layer.set_adapter(name)
            layer._disable_adapters = not acts
        self._acting = name

    def recompute(self) -> None:
        """Let the layers compute again in the backward pass, with the adapter that acted in the first computation."""
        recompute(self._model.base_model, lambda: (nullcontext(), self._while_acts(self._acting)))

    @contextmanager
    def _while_acts(self, name: str | None) -> Iterator[None]:
        self.act(name)
        yield


def _twin(module: Any) -> Any:
    """Return a module that has the same children, weights and buffers, in tables of its own."""
    twin = copy.copy(module)
    for table in ("_modules", "_parameters", "_buffers"):
        setattr(twin, table, getattr(module, table).copy())
    return twin
