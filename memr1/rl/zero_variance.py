"""Leaves rollout groups without variance out of GRPO's loss: their advantages are zero, so all they have is a KL term.

Without a KL penalty the loss and its gradients stay the same up to rounding. With one, skipping drops the penalty on
these groups, as DAPO's (arXiv 2503.14476) filtering does; unlike there, no other group is sampled instead, and the loss
is still divided by the number of all rows: a step in which one group teaches is a small step.

Every rank runs as many rows as the rank with the most, so that all do the same passes and the same exchanges. What a
rank has too few of is filled up with rows of groups without variance, which then count like any other; and some rows
always run, because the KL divergence and the entropy that the guards watch are measured in this pass.

`Any` stands for models and TRL's batches: their types are too loose to be of help.
"""

from typing import Any

import torch

from memr1.rl.grpo import SharedPromptGrpo


class VariedGrpo(SharedPromptGrpo):
    """GRPO whose loss runs the rollout groups in which some reward differs."""

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        batch = super()._generate_and_score_completions(inputs)
        first = self.accelerator.process_index * len(inputs)
        varied = rows_of_varied_groups(self._rewards, self._group_size)
        return batch | {"varied": varied[first : first + len(inputs)]}

    def _compute_loss(self, model: Any, inputs: Any) -> torch.Tensor:
        varied = inputs["varied"]
        most = self.accelerator.gather(varied.sum()[None]).max()
        rows = choose_rows(varied, max(int(most), len(varied) // self._group_size, 1))
        kept = {name: tensor[rows] if tensor.dim() else tensor for name, tensor in inputs.items()}
        loss: torch.Tensor = super()._compute_loss(model, kept)  # type: ignore[no-untyped-call]
        return loss * share_of_the_mean(self.loss_type, inputs["completion_mask"], rows)

    @property
    def _group_size(self) -> int:
        settings: Any = self.args  # a GRPOConfig: the base class promises less
        return int(settings.num_generations)


def rows_of_varied_groups(rewards: torch.Tensor, group_size: int) -> torch.Tensor:
    """Which rows stand in a group where two rewards differ. Shapes: (groups * group_size,) both; NaN is no reward."""
    groups = rewards.view(-1, group_size)
    largest = groups.nan_to_num(nan=-torch.inf).amax(1)
    smallest = groups.nan_to_num(nan=torch.inf).amin(1)
    return (largest > smallest).repeat_interleave(group_size)


def choose_rows(varied: torch.Tensor, num_rows: int) -> torch.Tensor:
    """Places of all varied rows, filled up with the first others to `num_rows`. Shapes: (rows,) and (num_rows,)."""
    return torch.argsort(~varied, stable=True)[:num_rows]


def share_of_the_mean(loss_type: str, mask: torch.Tensor, rows: torch.Tensor) -> float:
    """What turns TRL's mean over the chosen rows into the mean over all of them, had the others been zero.

    `mask` is that of the completions of all rows, shape (rows, tokens).
    """
    if loss_type in ("dapo", "cispo"):  # divided by the tokens of the whole step already
        return 1.0
    if loss_type == "bnpo":  # a mean over tokens
        return float(mask[rows].sum() / mask.sum().clamp(min=1))
    return len(rows) / len(mask)
