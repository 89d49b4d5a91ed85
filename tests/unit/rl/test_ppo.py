"""The arithmetic of PPO against values computed by hand, and a critic that costs the policy nothing."""

import pytest
import torch
from trl.trainer.utils import add_fused_lm_head

from memr1.rl.ppo import HEAD, add_value_head, clipped_value_losses, estimate_advantages, place_rewards
from memr1.rl.shared_prefix import share_prompts
from tests.builders import random_qwen2

MASK = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])


def test_a_completions_score_falls_due_at_its_last_token() -> None:
    rewards = place_rewards(torch.tensor([2.0, 3.0]), MASK)
    assert rewards.tolist() == [[0.0, 0.0, 2.0], [0.0, 3.0, 0.0]]


def test_advantages_are_those_computed_by_hand() -> None:
    rewards = torch.tensor([[0.0, 0.0, 1.0], [-0.5, 1.0, 0.0]])
    values = torch.tensor([[0.2, 0.4, 0.6], [0.5, 0.25, 0.0]])
    # Row 1, errors: 0 + .4 - .2 = .2, 0 + .6 - .4 = .2, 1 + 0 - .6 = .4; with lambda 1/2: .35, .4, .4 from the end on.
    # Row 2, errors: -.5 + .25 - .5 = -.75, 1 - .25 = .75; with lambda 1/2: -.375, .75.
    advantages, returns = estimate_advantages(rewards, values, MASK, gae_lambda=0.5)
    assert torch.allclose(advantages, torch.tensor([[0.4, 0.4, 0.4], [-0.375, 0.75, 0.0]]))
    assert torch.allclose(returns, torch.tensor([[0.6, 0.8, 1.0], [0.125, 1.0, 0.0]]))


def test_with_lambda_one_a_return_is_what_was_still_to_come() -> None:
    torch.manual_seed(0)
    rewards, values = torch.randn(2, 3) * MASK, torch.randn(2, 3) * MASK
    _, returns = estimate_advantages(rewards, values, MASK, gae_lambda=1.0)
    still_to_come = rewards.flip(-1).cumsum(-1).flip(-1) * MASK
    assert torch.allclose(returns, still_to_come, atol=1e-6)


@pytest.mark.parametrize(
    ("value", "loss"),
    [
        (0.5, 0.5 * 0.5**2),  # within the range: the plain error
        (0.9, 0.5 * 0.8**2),  # nearer to the return than the range allows: the clipped value, .2, counts
        (-0.9, 0.5 * 1.9**2),  # farther away: the plain error counts
    ],
)
def test_the_value_loss_takes_the_worse_of_plain_and_clipped(value: float, loss: float) -> None:
    old, returns = torch.zeros(1, 1), torch.ones(1, 1)
    clip_range = 0.2 if abs(value) > 0.5 else 1.0
    reached = clipped_value_losses(torch.full((1, 1), value), old, returns, clip_range)
    assert float(reached) == pytest.approx(loss)


def test_the_critic_sees_the_states_that_the_tokens_were_chosen_in() -> None:
    model = random_qwen2(60)
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    share_prompts(model)
    head = add_value_head(model)
    torch.nn.init.normal_(head.weight)
    ids = torch.randint(2, 60, (1, 9)).repeat(3, 1)
    ids[:, 5:] = torch.randint(2, 60, (3, 4))
    labels = ids.clone()
    labels[:, :5] = -100
    arguments = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, "fused_lm_head": True}
    model(**arguments)
    model(**arguments, shared_prompt_tokens=5)
    plain, shared = (values[:, -5:-1] for values in head.collected)
    with torch.no_grad():
        hidden = model.base_model(input_ids=ids).last_hidden_state[:, 4:-1]
    assert torch.allclose(plain, hidden @ head.weight[0] + head.bias, atol=1e-5)
    assert torch.allclose(plain, shared, atol=1e-5)
    assert any(name.startswith(HEAD) for name in model.state_dict())
