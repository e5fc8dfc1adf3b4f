"""Check all of params.yaml before any work: every key, its type, its range, and combinations that cannot work.

What it writes is always the same, and `prepare` depends on that: a typo in any section is found in two seconds, and a
change that is right reruns only the stages that load it.
"""

from pathlib import Path
from typing import Self

from pydantic import model_validator

from rlhf_sentiment.config import Device, Seed, Settings
from rlhf_sentiment.run import stage, writing
from rlhf_sentiment.settings.base import BaseSettings
from rlhf_sentiment.settings.checkpoints import CheckpointEvery
from rlhf_sentiment.settings.data import DataSettings
from rlhf_sentiment.settings.evaluate import EvaluateSettings
from rlhf_sentiment.settings.generation import GenerationSettings
from rlhf_sentiment.settings.judge import JudgeSettings
from rlhf_sentiment.settings.ppo import PPOSettings
from rlhf_sentiment.settings.report import ReportTo
from rlhf_sentiment.settings.reward import RewardSettings
from rlhf_sentiment.settings.sft import SFTSettings

WRITES = ["data/checked.json"]


class Params(Settings):
    """All of params.yaml."""

    seed: Seed
    device: Device
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
        if self.evaluate.prompts_file and not Path(self.evaluate.prompts_file).is_file():
            raise ValueError(f"evaluate.prompts_file: {self.evaluate.prompts_file}: no such file of prompts")
        if self.evaluate.prompts_file is None and self.evaluate.num_samples > self.data.prompts_test:
            raise ValueError(
                f"evaluate.num_samples ({self.evaluate.num_samples}) must be at most "
                f"data.prompts_test ({self.data.prompts_test})"
            )
        if self.evaluate.shown_samples > self.evaluate.listed_prompts:
            raise ValueError(
                f"evaluate.shown_samples ({self.evaluate.shown_samples}) must be at most "
                f"evaluate.listed_prompts ({self.evaluate.listed_prompts})"
            )
        if self.ppo.batch_size > self.data.prompts_train:
            raise ValueError(
                f"ppo.batch_size ({self.ppo.batch_size}) must be at most data.prompts_train ({self.data.prompts_train})"
            )
        if self.ppo.validation_prompts > self.data.prompts_validation:
            raise ValueError(
                f"ppo.validation_prompts ({self.ppo.validation_prompts}) must be at most data.prompts_validation "
                f"({self.data.prompts_validation})"
            )
        if self.base.model == "scratch":  # the model's positions are known: a prompt has at least one token
            lengths = {
                "sft.max_length": self.sft.max_length,
                "reward.max_length": self.reward.max_length,
                "ppo.max_new_tokens + 1": self.ppo.max_new_tokens + 1,
                "generation.max_new_tokens + 1": self.generation.max_new_tokens + 1,
            }
            for name, length in lengths.items():
                if length > self.base.context:
                    raise ValueError(f"{name} ({length}) must be at most base.context ({self.base.context})")
        return self


def main(params: Params) -> str:
    with writing(WRITES[0]) as aside:
        aside.write_text('{"params": "checked"}\n', encoding="utf-8")
    return "params are in order"


if __name__ == "__main__":
    stage("check", __doc__, Params, main, (), WRITES)
