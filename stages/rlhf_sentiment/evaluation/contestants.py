"""The models that are compared, in the order of every table.

CONTRIBUTING.md has a recipe for a new contestant. `sample` depends on this file, so colours are in plots.py.
"""

from dataclasses import dataclass, field

# The contestant that guards and KL are measured from.
REFERENCE = "sft"
# The contestant that the title, the headline and the hacking gap are about.
TREATMENT = "rlhf"


@dataclass(frozen=True)
class Contestant:
    """A model that answers the test prompts.

    Attributes:
        name: in tables, in the trees of figures and in the names of its sample files.
        title: in sentences.
        folder: holds the model.
        compared_with: metrics key -> name of the contestant that this one is measured against, prompt by prompt.
    """

    name: str
    title: str
    folder: str
    compared_with: dict[str, str] = field(default_factory=dict)

    @property
    def answers(self) -> str:
        """The file of its answers, sampled as `generation` says."""
        return f"data/samples/{self.name}.jsonl"

    @property
    def rollouts(self) -> str | None:
        """The file of its untruncated answers at PPO's temperature, from which its KL from the reference is measured.

        The reference has none: its KL from itself is 0.
        """
        return None if self.name == REFERENCE else f"data/samples/{self.name}_rollout.jsonl"

    @property
    def counts(self) -> str:
        """The file that says how many prompts it answered."""
        return f"reports/sample_{self.name}.json"

    @property
    def is_tuned(self) -> bool:
        """Whether it is measured against the reference. Its KL and its comparisons are then among the metrics."""
        return REFERENCE in self.compared_with.values()


CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        Contestant("base", "Base", "models/base"),
        Contestant("sft", "SFT", "models/sft", {"sft_over_base": "base"}),
        Contestant("rlhf", "RLHF", "models/ppo", {"improvement": "base", "improvement_over_sft": "sft"}),
    )
}

# Metrics key -> the contestant and the one that it is measured against. The latest contestant comes first.
COMPARISONS = {
    key: (contestant.name, other)
    for contestant in reversed(CONTESTANTS.values())
    for key, other in contestant.compared_with.items()
}
