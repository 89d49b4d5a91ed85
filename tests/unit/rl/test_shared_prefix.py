"""Sharing a prompt among its completions changes the cost of a step and nothing else."""

import pytest
import torch
from transformers import Qwen2ForCausalLM
from trl.trainer.utils import add_fused_lm_head

from memr1.rl.shared_prefix import share_prompts
from tests.builders import random_qwen2

PROMPT_TOKENS, COMPLETION_TOKENS = 24, 5


def tiny_model() -> Qwen2ForCausalLM:
    model: Qwen2ForCausalLM = random_qwen2(60)
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    return model


def rollout_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Three left-padded prompts with four completions each, rows shuffled as TRL shuffles them."""
    torch.manual_seed(1)
    prompts = torch.randint(2, 60, (3, PROMPT_TOKENS))
    mask = torch.ones_like(prompts)
    for row, padding in enumerate((0, 5, 17)):
        mask[row, :padding], prompts[row, :padding] = 0, 0
    order = torch.randperm(12)
    prompts, mask = prompts.repeat_interleave(4, 0)[order], mask.repeat_interleave(4, 0)[order]
    completions = torch.randint(2, 60, (12, COMPLETION_TOKENS))
    return torch.cat([prompts, completions], 1), torch.cat([mask, torch.ones_like(completions)], 1)


def log_probs_and_gradients(model: Qwen2ForCausalLM, **sharing: int) -> tuple[torch.Tensor, torch.Tensor]:
    input_ids, mask = rollout_batch()
    labels = input_ids.masked_fill(mask == 0, -100)
    labels[:, :PROMPT_TOKENS] = -100
    model.zero_grad()
    output = model(input_ids=input_ids, attention_mask=mask, labels=labels, fused_lm_head=True, **sharing)
    log_probs = output.log_probs[:, -COMPLETION_TOKENS:]
    (log_probs * torch.linspace(-1, 1, 12)[:, None]).sum().backward()
    gradients = [weights.grad.flatten() for weights in model.parameters() if weights.grad is not None]
    return log_probs.detach(), torch.cat(gradients)


def test_shared_prompts_give_the_same_log_probabilities_and_gradients() -> None:
    model = tiny_model()
    stock_values, stock_gradients = log_probs_and_gradients(model)
    share_prompts(model)
    values, gradients = log_probs_and_gradients(model, shared_prompt_tokens=PROMPT_TOKENS)
    assert torch.allclose(values, stock_values, rtol=1e-4, atol=1e-3)
    assert (gradients - stock_gradients).norm() / stock_gradients.norm() < 1e-5


def test_shared_prompts_run_fewer_tokens_through_the_model() -> None:
    model = tiny_model()
    share_prompts(model)
    seen: list[int] = []
    model.model.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[0] * args[0].shape[1]))
    log_probs_and_gradients(model, shared_prompt_tokens=PROMPT_TOKENS)
    assert seen == [3 * (PROMPT_TOKENS - 1), 12 * (COMPLETION_TOKENS + 1)]


def test_gradient_checkpointing_keeps_prompts_shared_and_changes_no_gradient() -> None:
    model = tiny_model().train()
    stock_values, stock_gradients = log_probs_and_gradients(model)
    share_prompts(model)
    model.activation_checkpointing_enable()
    seen: list[int] = []
    model.model.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[0] * args[0].shape[1]))
    values, gradients = log_probs_and_gradients(model, shared_prompt_tokens=PROMPT_TOKENS)
    assert seen[:2] == [3 * (PROMPT_TOKENS - 1), 12 * (COMPLETION_TOKENS + 1)]
    assert torch.allclose(values, stock_values, rtol=1e-4, atol=1e-3)
    assert (gradients - stock_gradients).norm() / stock_gradients.norm() < 1e-5


def test_gradient_checkpointing_keeps_fewer_activations_of_shared_prompts() -> None:
    kept = {}
    for checkpointing in (False, True):
        model = tiny_model().train()
        share_prompts(model)
        if checkpointing:
            model.activation_checkpointing_enable()
        sizes: dict[int, int] = {}
        input_ids, mask = rollout_batch()

        def keep(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(
                input_ids=input_ids,
                attention_mask=mask,
                labels=input_ids,
                fused_lm_head=True,
                shared_prompt_tokens=PROMPT_TOKENS,
            )
        kept[checkpointing] = sum(sizes.values())
    assert kept[True] < kept[False] / 2


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_reentrant_checkpointing_takes_the_stock_path_in_training(mode: str) -> None:
    model = tiny_model()
    stock_values, _ = log_probs_and_gradients(model)
    share_prompts(model)
    model.activation_checkpointing_enable({"use_reentrant": True})
    model.train(mode == "train")
    seen: list[int] = []
    model.model.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[0]))
    values, _ = log_probs_and_gradients(model, shared_prompt_tokens=PROMPT_TOKENS)
    assert seen[0] == (12 if mode == "train" else 3)
    assert torch.allclose(values, stock_values, rtol=1e-4, atol=1e-3)


def test_sharing_leaves_no_trace_on_checkpointed_layers() -> None:
    model = tiny_model().train()
    share_prompts(model)
    model.activation_checkpointing_enable()
    log_probs_and_gradients(model, shared_prompt_tokens=PROMPT_TOKENS)
    assert all("_can_checkpoint_with_cache" not in vars(layer) for layer in model.model.layers)
