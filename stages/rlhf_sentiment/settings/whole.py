"""All of params.yaml: every section, and checks across sections."""

from os.path import isfile
from typing import Self

from pydantic import model_validator

from ..engine.arithmetic import Computing
from ..engine.inputs import whence
from ..engine.trackers import ReportTo
from .base import BaseSettings
from .checkpoint_every import CheckpointEvery
from .counts import Asked
from .data import DataSettings, whole_numbers
from .evaluate import EvaluateSettings
from .generation import GenerationSettings
from .judge import JudgeSettings
from .ppo import PPOSettings
from .reward import RewardSettings
from .sft import SFTSettings


class Params(Computing):
    """All of params.yaml."""

    report_to: ReportTo
    checkpoint_every: CheckpointEvery
    data: DataSettings
    base: BaseSettings
    sft: SFTSettings
    reward: RewardSettings
    judge: JudgeSettings
    ppo: PPOSettings
    generation: GenerationSettings
    evaluate: EvaluateSettings

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if (file := self.evaluate.prompts_file) and not isfile(file):
            raise ValueError(f"evaluate.prompts_file: {file}: no such file of prompts{whence(file)}")
        limits: list[tuple[str, Asked, str, Asked]] = [
            ("ppo.batch_size", self.ppo.batch_size, "data.prompts_train", self.data.prompts_train),
            ("ppo.validation_prompts", self.ppo.validation_prompts, "data.prompts_validation", self.data.prompts_validation),
            ("evaluate.shown_samples", self.evaluate.shown_samples, "evaluate.listed_prompts", self.evaluate.listed_prompts),
        ]
        if self.evaluate.prompts_file is None:
            prompts = f"prompts_{self.evaluate.split}"
            limits.append(("evaluate.num_samples", self.evaluate.num_samples, f"data.{prompts}", getattr(self.data, prompts)))
        if self.base.model == "scratch":  # the number of positions is known, and a prompt has at least one token
            positions = {
                "sft.max_length": self.sft.max_length,
                "reward.max_length": self.reward.max_length,
                "ppo.max_new_tokens + 1": self.ppo.max_new_tokens + 1,
                "generation.max_new_tokens + 1": self.generation.max_new_tokens + 1,
            }
            limits += [(name, tokens, "base.context", self.base.context) for name, tokens in positions.items()]
        beyond = [
            f"{name} ({asked}) must be at most {limit} ({most})"
            for name, asked, limit, most in limits
            if isinstance(asked, int) and isinstance(most, int) and asked > most  # `prepare` checks shares and empty counts
        ]
        if self.evaluate.prompts_file and self.evaluate.split != "test":
            beyond.append(
                f"evaluate.split must be test with evaluate.prompts_file, which has no split (got {self.evaluate.split})"
            )
        if "synthetic" in (self.data.source, self.judge.source):
            beyond += whole_numbers(self.data, "labelled_texts", "labelled_held_out")
        if beyond:
            raise ValueError("; ".join(beyond))
        return self
