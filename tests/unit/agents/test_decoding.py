"""The decoding loop gives what `generate` gives, and draws as often as the model's shares say."""

from collections import Counter
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, Qwen2ForCausalLM

from memr1.agents.decoding import _draw, choose_width, decode
from tests.builders import random_qwen2

END, NEW_TOKENS = 1, 8
PROMPTS = [[5, 9, 30], [7], [5, 9, 30], [11, 12, 13, 14, 15, 16], [5, 9, 30], [7]]


@pytest.fixture(scope="module")
def model() -> Qwen2ForCausalLM:
    return random_qwen2(40)


def test_greedy_decoding_gives_what_generate_gives_row_by_row(model: Qwen2ForCausalLM) -> None:
    with torch.no_grad():
        endless = decode(model, PROMPTS, end_ids=[], max_new_tokens=NEW_TOKENS)
        ends = [endless[0][2], endless[3][4]]  # so that rows end at different places
        greedy = GenerationConfig(max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0, eos_token_id=ends)
        ours = decode(model, PROMPTS, end_ids=ends, max_new_tokens=NEW_TOKENS)
        stock = [
            model.generate(input_ids=torch.tensor([prompt]), generation_config=greedy)[0, len(prompt) :].tolist()
            for prompt in PROMPTS
        ]
    assert ours == stock
    assert len({len(ids) for ids in ours}) > 1


def test_a_repeated_prompt_runs_once_and_its_rows_are_decoded_as_one_sequence(model: Qwen2ForCausalLM) -> None:
    shapes: list[tuple[int, ...]] = []
    hook = model.model.layers[0].register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape[:2])))
    with torch.no_grad():
        decode(model, [PROMPTS[0]] * 4 + [PROMPTS[3]] * 4, end_ids=[], max_new_tokens=3)
    hook.remove()
    assert shapes == [(2, 6), (2, 4), (2, 4)]


@pytest.mark.parametrize(
    ("sizes", "width"),
    [([1, 1, 1], 1), ([8, 8, 8], 8), ([8, 8, 3], 8), ([3, 2, 1], 2), ([1] * 9 + [8], 1), ([100], 16)],
)
def test_rows_share_a_sequence_as_long_as_few_slots_stay_empty(sizes: list[int], width: int) -> None:
    assert choose_width(sizes) == width


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_of_either_kind_sees_the_prompt_and_the_rows_own_tokens_only(attention: str) -> None:
    model = random_qwen2(40)
    model.set_attn_implementation(attention)
    draws = torch.rand(6, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    prompts = [PROMPTS[0]] * 3 + [PROMPTS[3]] * 3
    with torch.no_grad():
        together = decode(model, prompts, end_ids=[END, 3, 7], max_new_tokens=12, draws=draws)
        alone = [
            decode(model, [prompt], end_ids=[END, 3, 7], max_new_tokens=12, draws=draws[[row]])[0]
            for row, prompt in enumerate(prompts)
        ]
    assert together == alone


def test_sampling_draws_by_the_models_own_shares(model: Qwen2ForCausalLM) -> None:
    number, prompt = 4000, [5, 9, 30]
    draws = torch.rand(number, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        texts = decode(model, [prompt] * number, end_ids=[], max_new_tokens=1, temperature=2.0, draws=draws)
        wanted = torch.softmax(model(input_ids=torch.tensor([prompt])).logits[0, -1] / 2.0, -1)
    counts = Counter(ids[0] for ids in texts)
    for token, share in enumerate(wanted.tolist()):
        assert abs(counts[token] / number - share) < 4 * (share * (1 - share) / number) ** 0.5 + 1e-3


def test_a_number_falls_in_the_share_of_the_token_it_chooses() -> None:
    logits = torch.tensor([0.5, 0.0, 0.25, 0.25, 0.0]).log().repeat(5, 1)
    draws = torch.tensor([0.0, 0.4999, 0.5, 0.75, 1 - 2**-53], dtype=torch.float64)
    assert _draw(logits, draws).tolist() == [0, 0, 2, 3, 3]


def test_what_is_drawn_for_a_prompt_does_not_depend_on_its_neighbours(model: Qwen2ForCausalLM) -> None:
    draws = torch.rand(len(PROMPTS), 20, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    ends = [END, 3, 7, 12, 20]  # so that rows end at different places, and leave the batch
    with torch.no_grad():
        together = decode(model, PROMPTS, end_ids=ends, max_new_tokens=20, draws=draws)
        alone = [
            decode(model, [prompt], end_ids=ends, max_new_tokens=20, draws=draws[[row]])[0]
            for row, prompt in enumerate(PROMPTS)
        ]
    assert together == alone
    assert len({len(ids) for ids in together}) > 1 and together[0] != together[2]


@pytest.mark.parametrize("temperature", [None, 2.0])
def test_the_samplers_log_probabilities_are_those_of_a_pass_over_the_whole_text(
    model: Qwen2ForCausalLM, temperature: float | None
) -> None:
    given: list[list[float]] = []
    draws = torch.rand(len(PROMPTS), NEW_TOKENS, dtype=torch.float64) if temperature else None
    shares: dict[str, Any] = {"temperature": temperature or 1.0, "draws": draws}
    with torch.no_grad():
        outputs = decode(model, PROMPTS, end_ids=[END, 5, 9], max_new_tokens=NEW_TOKENS, log_probs=given, **shares)
        for prompt, completion, log_probs in zip(PROMPTS, outputs, given, strict=True):
            logits = model(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
            whole = torch.log_softmax(logits / (temperature or 1.0), -1)
            expected = whole.gather(-1, torch.tensor(completion)[:, None])[:, 0].tolist()
            assert log_probs == pytest.approx(expected, abs=1e-4)
