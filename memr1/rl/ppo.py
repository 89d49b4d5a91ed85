"""PPO (arXiv 1707.06347) on TRL's GRPOTrainer: the same rollouts, rewards, loss and files, and a critic for a baseline.

The critic is a value head on the policy's last hidden states, computed in the same forward pass as the
log-probabilities, with a learning rate of its own. The reward of a completion falls due at its last token; every token
pays for its divergence from the starting policy (arXiv 1909.08593, eq. 2). Generalized advantage estimation (arXiv
1506.02438, no discount) spreads both over the tokens; advantages are whitened over all tokens of all ranks.

`Any` stands for models and TRL's batches: their types are too loose to be of help.
"""

import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch

from memr1.rl.grpo import SharedPromptGrpo
from memr1.training_options import PpoTraining

HEAD = "value_head"


class PpoTrainer(SharedPromptGrpo):
    """Proximal policy optimisation. A rollout group is only a number of completions of one prompt here."""

    def __init__(self, *args: Any, ppo: PpoTraining, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ppo = ppo
        self._head = add_value_head(self.causal_model(self.model))
        self._values = torch.empty(0)  # of the last forward pass of the policy: shape (rows, completion tokens)
        if self.use_vllm:
            sampler: Any = self.vllm_generation
            sampler._iter_named_params = without_head(sampler._iter_named_params)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's optimiser, the value head in a group of its own."""
        optimizer = super().create_optimizer(*args, **kwargs)
        head = list(self._head.parameters())
        for group in optimizer.param_groups:
            group["params"] = [weights for weights in group["params"] if all(weights is not own for own in head)]
        optimizer.add_param_group({"params": head, "lr": self._ppo.critic_learning_rate, "weight_decay": 0.0})
        return optimizer

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        self._head.collected.clear()
        found = super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        if self._head.collected:  # the starting policy has no head
            self._values = torch.cat(self._head.collected)
        return found

    def _spread(self, row_of: torch.Tensor, num_tokens: int) -> None:
        if self._head.collected:
            self._head.collected[-1] = self._head.collected[-1][row_of, -num_tokens - 1 : -1]

    def rehearse(self, *args: Any) -> torch.Tensor:
        total = super().rehearse(*args) + self._values.float().sum()
        self._values = torch.empty(0)  # keep no graph alive
        self._head.collected.clear()
        return total

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        """TRL's batch, with advantages, returns and values for every token instead of one advantage per completion."""
        batch = super()._generate_and_score_completions(inputs)
        mask = batch["completion_mask"].float()
        with torch.no_grad():
            log_probs, _, _ = self._get_per_token_logps_and_entropies(
                self.model,
                torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
                torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
                mask.size(1),
                batch_size=self.args.per_device_train_batch_size,
            )
        values = self._values.float() * mask
        divergence = (log_probs - batch["ref_per_token_logps"]) * mask if self.beta else torch.zeros_like(mask)
        first = self.accelerator.process_index * len(mask)
        scores = self._rewards[first : first + len(mask)]
        rewards = place_rewards(torch.nan_to_num(scores), mask) - self.beta * divergence
        advantages, returns = estimate_advantages(rewards, values, mask, self._ppo.gae_lambda)
        scored = mask * ~torch.isnan(scores)[:, None]  # what could not be scored teaches nobody
        self.report("explained_variance", _explained_variance(*self._moments(scored, values, returns)))
        self.report("kl", self._mean(divergence, mask))
        mean, square = self._mean(advantages, scored), self._mean(advantages**2, scored)
        batch["advantages"] = (advantages - mean) / (square - mean**2).clamp(min=1e-8).sqrt() * scored
        # What the value loss of one pass of one process is divided by, so that gradients average to those of the mean.
        share = self.accelerator.reduce(scored.sum(), reduction="mean")
        batch |= {"old_per_token_logps": log_probs, "old_values": values, "returns": returns, "scored": scored}
        return batch | {"num_scored": share.clamp(min=1.0)}

    def _compute_loss(self, model: Any, inputs: Any) -> torch.Tensor:
        """TRL's clipped policy loss, without its KL term (it is in the rewards), and the clipped value loss."""
        coefficient, self.beta = self.beta, 0.0
        try:
            policy_loss: torch.Tensor = super()._compute_loss(model, inputs)  # type: ignore[no-untyped-call]
        finally:
            self.beta = coefficient
        losses = clipped_value_losses(
            self._values.float(), inputs["old_values"], inputs["returns"], self._ppo.clip_range
        )
        self.report("value_loss", self._mean(losses.detach(), inputs["scored"]))
        value_loss: torch.Tensor = (losses * inputs["scored"]).sum() / inputs["num_scored"]
        return policy_loss + self._ppo.value_coefficient * value_loss

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """The policy alone: nobody serves a critic, and DeepSpeed's own files carry it between checkpoints."""
        policy: Any = self.model
        weights = state_dict if state_dict is not None else policy.state_dict()
        super()._save(output_dir, {name: tensor for name, tensor in weights.items() if f"{HEAD}." not in name})

    def _mean(self, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Over all tokens of all ranks."""
        local = torch.stack([(values * mask).sum(), mask.sum()])
        totals: torch.Tensor = self.accelerator.reduce(local, reduction="sum")
        return totals[0] / totals[1].clamp(min=1.0)

    def _moments(self, mask: torch.Tensor, values: torch.Tensor, returns: torch.Tensor) -> list[torch.Tensor]:
        errors = returns - values
        return [self._mean(item, mask) for item in (errors, errors**2, returns, returns**2)]


class ValueHead(torch.nn.Linear):
    """One number per hidden state, 0 at the start."""

    def __init__(self, hidden_size: int, like: torch.Tensor) -> None:
        super().__init__(hidden_size, 1, device=like.device, dtype=like.dtype)
        torch.nn.init.zeros_(self.weight)
        torch.nn.init.zeros_(self.bias)
        self.collected: list[torch.Tensor] = []  # what it gave since this was last cleared

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Shapes: hidden (rows, tokens, size), result (rows, tokens)."""
        return super().forward(hidden)[..., 0]


def add_value_head(model: Any) -> ValueHead:
    """Give a causal model (already given TRL's fused head) a critic that runs in its scoring forward passes."""
    head = ValueHead(model.config.hidden_size, next(model.parameters()))
    model.add_module(HEAD, head)
    latest: dict[str, torch.Tensor] = {}

    def remember(module: Any, inputs: Any, output: Any) -> None:
        latest["hidden"] = output.last_hidden_state

    model.base_model.register_forward_hook(remember)
    stock_forward = model.forward

    @functools.wraps(stock_forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = stock_forward(*args, **kwargs)
        hidden = latest.pop("hidden")
        if kwargs.get("fused_lm_head"):
            head.collected.append(head(hidden))  # from outside: ZeRO-3 wraps what a module gives to gather its weights
        return output

    model.forward = types.MethodType(forward, model)
    return head


def without_head(parameters: Callable[[], Iterator[tuple[str, torch.Tensor]]]) -> Any:
    """The same named parameters except the critic's, which a sampler of completions does not know."""
    return lambda: ((name, weights) for name, weights in parameters() if f"{HEAD}." not in name)


def place_rewards(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """A completion's score at its last token. Shapes: scores (rows,), mask and result (rows, tokens)."""
    rewards = torch.zeros_like(mask)
    last = (mask.sum(-1).long() - 1).clamp(min=0)
    rewards[torch.arange(len(mask), device=mask.device), last] = scores
    return rewards * mask


def estimate_advantages(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gae_lambda: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalized advantage estimation without discount: advantages and returns, all of shape (rows, tokens).

    With lambda 1 an advantage is what was still to come minus the value; with 0 it is the error of one step.
    """
    advantages = torch.zeros_like(values)
    following = torch.zeros_like(values[:, 0])
    next_value = torch.zeros_like(following)
    for token in range(values.size(1) - 1, -1, -1):
        error = rewards[:, token] + next_value - values[:, token]
        following = (error + gae_lambda * following) * mask[:, token]
        advantages[:, token] = following
        next_value = values[:, token] * mask[:, token]
    return advantages, (advantages + values) * mask


def clipped_value_losses(
    values: torch.Tensor, old_values: torch.Tensor, returns: torch.Tensor, clip_range: float
) -> torch.Tensor:
    """Half the squared error, the worse of the values' and of those kept within `clip_range` of the old ones.

    All of shape (rows, tokens).
    """
    kept = old_values + (values - old_values).clamp(-clip_range, clip_range)
    return 0.5 * torch.maximum((values - returns) ** 2, (kept - returns) ** 2)


def _explained_variance(
    error: torch.Tensor, error_square: torch.Tensor, gain: torch.Tensor, gain_square: torch.Tensor
) -> torch.Tensor:
    """1 for a critic that foresees every return, 0 for one that knows their mean alone."""
    return 1 - (error_square - error**2) / (gain_square - gain**2).clamp(min=1e-8)
