"""The arithmetic of memory against numbers computed by hand and published."""

import pytest

from memr1.rl.sizing import GIB, SHAPES, SHARDINGS, Setting, choose_sharding, estimate_memory

SEVEN = SHAPES["Qwen2.5-7B"]


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("Qwen2.5-0.5B", 0.49), ("Qwen2.5-1.5B", 1.54), ("Qwen2.5-3B", 3.09), ("Qwen2.5-7B", 7.62),
        ("Llama-3.1-8B", 8.03), ("Qwen2.5-14B", 14.77),
    ],
)  # fmt: skip
def test_the_shapes_have_as_many_weights_as_the_published_models(name: str, billions: float) -> None:
    assert SHAPES[name].num_parameters / 1e9 == pytest.approx(billions, abs=0.005)


@pytest.mark.parametrize(
    ("sharding", "bytes_per_weight"),
    [("zero1", 2 + 2 + 12 / 4 + 2), ("zero2", 2 + 14 / 4 + 2), ("zero3", 16 / 4 + 2 / 4), ("zero3_offload", 2 / 4)],
)
def test_a_weight_costs_what_its_sharding_leaves_on_a_gpu(sharding: str, bytes_per_weight: float) -> None:
    need = estimate_memory(SEVEN, Setting(sharding=sharding, num_gpus=4))  # type: ignore[arg-type]
    assert need.states == pytest.approx(SEVEN.num_parameters * bytes_per_weight, rel=1e-6)


def test_an_adapter_has_two_thin_matrices_for_every_projection() -> None:
    # query and output 3584+3584, key and value 3584+512, three of the MLP 3584+18944
    assert SEVEN.num_adapter_parameters(16) == 28 * 16 * (7168 + 2 * 4096 + 7168 + 3 * 22528)


def test_the_cache_of_a_token_is_two_vectors_per_layer_and_head() -> None:
    assert SEVEN.cache_bytes_per_token == 28 * 2 * 4 * 128 * 2


def test_checkpointing_keeps_a_layers_input_alone() -> None:
    kept, again = (estimate_memory(SEVEN, Setting(checkpointing=on)).loss for on in (False, True))
    tokens = 4096 + 5 * 2048
    assert kept - again > 27 * tokens * (SEVEN.activation_bytes_per_token - 2 * SEVEN.hidden - 2000)
    assert again < kept / 8


@pytest.mark.parametrize("rank", [None, 16])
@pytest.mark.parametrize("sharding", SHARDINGS)
def test_more_gpus_never_need_more_of_each(sharding: str, rank: int | None) -> None:
    for shape in SHAPES.values():
        settings = [Setting(sharding=sharding, num_gpus=gpus, lora_rank=rank) for gpus in (1, 2, 4, 8)]  # type: ignore[arg-type]
        peaks = [estimate_memory(shape, setting).peak for setting in settings]
        assert peaks == sorted(peaks, reverse=True)


@pytest.mark.parametrize(
    ("name", "gpus", "sharding"),
    [("Qwen2.5-3B", 4, "zero2"), ("Qwen2.5-7B", 4, "zero3"), ("Llama-3.1-8B", 4, "zero3"),
     ("Qwen2.5-14B", 8, "zero3_offload")],
)  # fmt: skip
def test_the_shipped_profiles_fit_on_gpus_of_80_gb(name: str, gpus: int, sharding: str) -> None:
    need = estimate_memory(SHAPES[name], Setting(sharding=sharding, num_gpus=gpus))  # type: ignore[arg-type]
    assert need.peak <= 80 * GIB


def test_what_fits_nowhere_is_said_to() -> None:
    assert choose_sharding(SHAPES["Qwen2.5-14B"], Setting(num_gpus=8), 24) is None
