"""The file of a sweep, such as sweeps/kl.yaml: which settings to try, and how."""

import itertools
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, Self

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import ConfigDict, Field, PlainValidator, ValidationError, model_validator

from rlhf_sentiment.engine.errors import ConfigError
from rlhf_sentiment.engine.messages import listed, shown
from rlhf_sentiment.engine.params import Settings, load, read_yaml
from rlhf_sentiment.settings.edit import edited
from rlhf_sentiment.settings.whole import Params

# What a sweep sets itself: all validation prompts, and none of another file.
ON_VALIDATION = {"evaluate.split": "validation", "evaluate.num_samples": None, "evaluate.prompts_file": None}
# Trials are comparable if they have the same data, prompts and judge. `make seeds` varies the seed.
_FIXED = ("seed", "data", "judge", "evaluate")
_FAULTS = {  # kind of a fault of pydantic -> what the message says
    "missing": "missing",
    "extra_forbidden": "unknown key; a sweep has params, sampler, trials, max_kl and seed",
    "too_short": "should have at least one key of params.yaml",
    "dict_type": "should be a section, with keys of params.yaml",
}
_RANGE = "should be a list of values, or a range such as {low: 0.1, high: 1.0, log: true}, or with `int: true`"


def _values(value: object) -> BaseDistribution:
    """Return the values to try, from a list or from a range of the file."""
    if isinstance(value, list):
        if not value or not all(one is None or isinstance(one, bool | int | float | str) for one in value):
            raise ValueError(f"should have at least one value, and no lists (got {shown(value)})")
        if twice := [one for place, one in enumerate(value) if one in value[:place]]:
            raise ValueError(f"should have each value once (got {shown(twice[0])} twice)")
        return CategoricalDistribution(value)
    if not isinstance(value, dict) or not {"low", "high"} <= value.keys() <= {"low", "high", "log", "int"}:
        raise ValueError(f"{_RANGE} (got {shown(value)})")
    options = {"log": False, "int": False} | value
    whole = options.pop("int")
    ends = (value["low"], value["high"])
    kinds = (int,) if whole else (int, float)
    if not all(type(end) in kinds for end in ends) or not all(type(flag) is bool for flag in (whole, options["log"])):
        raise ValueError(f"{_RANGE} (got {shown(value)})")
    return IntDistribution(**options) if whole else FloatDistribution(**options)


class Spec(Settings):
    """A sweep.

    Attributes:
        params: key in params.yaml, such as ppo.kl_coef -> the values to try, as a list, or as a range with low and high.
        sampler: grid tries all combinations of the lists. random and tpe are samplers of Optuna.
        trials: the number of trials, for random and tpe.
        max_kl: the largest KL from the fine-tuned model, in nats per response, of a trial that can be chosen.
        seed: of the sampler.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    params: Annotated[dict[str, Annotated[BaseDistribution, PlainValidator(_values)]], Field(min_length=1)]
    sampler: Literal["grid", "random", "tpe"]
    trials: Annotated[int, Field(ge=1, le=10_000)] | None = None
    max_kl: Annotated[float, Field(gt=0)]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        fixed = [key for key in self.params if key.split(".")[0] in _FIXED]
        if fixed:
            raise ValueError(
                f"params: {listed(fixed)}: a sweep keeps seed, data, judge and evaluate, so that trials are comparable"
            )
        ranges = [key for key, values in self.params.items() if not isinstance(values, CategoricalDistribution)]
        if self.sampler == "grid" and ranges:
            raise ValueError(f"params.{ranges[0]}: a grid needs a list of values; a range needs `sampler: tpe` or random")
        if (self.sampler == "grid") != (self.trials is None):
            raise ValueError("trials: give the number of trials for random and tpe; a grid has as many as it has combinations")
        return self

    @property
    def combinations(self) -> list[dict[str, Any]]:
        """The combinations of a grid, in the order of the file. For a range: its two ends."""
        ends = [
            one.choices if isinstance(one, CategoricalDistribution) else (one.low, one.high) for one in self.params.values()
        ]
        return [dict(zip(self.params, values, strict=True)) for values in itertools.product(*ends)]

    @property
    def wanted(self) -> int:
        """The number of trials."""
        return self.trials or len(self.combinations)


def read_spec(path: Path, params: str) -> Spec:
    """Read the file of a sweep, and check its settings.

    Args:
        path: the file.
        params: the text of params.yaml.

    Raises:
        ConfigError: the file is missing or wrong, or params.yaml would be wrong with one of its combinations.
    """
    if not re.fullmatch(r"\w[\w-]*\.yaml", path.name):
        raise ConfigError(f"{path}: should be named NAME.yaml, with letters, digits, - and _ in NAME")
    tree = read_yaml(path)
    try:
        spec = Spec.model_validate(tree)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"]))
        said = _FAULTS.get(fault["type"], fault["msg"].removeprefix("Value error, ").removeprefix("Input "))
        raise ConfigError(f"{path}: {where}: {said}" if where else f"{path}: {said}") from None
    for settings in spec.combinations:
        _check(path, params, settings)
    return spec


def _check(path: Path, params: str, settings: dict[str, Any]) -> None:
    """Refuse a combination with which params.yaml would be wrong.

    Raises:
        ConfigError: the message has the file of the sweep and the key.
    """
    with TemporaryDirectory() as folder:
        file = Path(folder) / "params.yaml"
        try:
            file.write_text(edited(params, {key: (None, value) for key, value in (settings | ON_VALIDATION).items()}))
            load(Params, file, whole=True)
        except KeyError as error:
            raise ConfigError(f"{path}: params: {error.args[0]}: params.yaml has no such section") from None
        except ConfigError as error:
            line = str(error).splitlines()[0].removeprefix(f"{file}: ")
            tried = ", ".join(f"{key}={value}" for key, value in settings.items())
            raise ConfigError(f"{path}: with {tried}: {line}") from None
