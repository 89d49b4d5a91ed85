"""What every Generator promises, whatever stands behind it; then what each of them promises besides.

The endpoint is a real HTTP server on loopback, with faults: it refuses, breaks, hangs and answers out of order.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from memr1.agents.endpoint_generator import EndpointGenerator
from memr1.agents.generation import Generator, ScriptedGenerator
from memr1.agents.generators import build_generator, model_location
from memr1.agents.transformers_generator import TransformersGenerator, merge_adapter
from memr1.errors import CheckpointMissing, ConfigError, GenerationFailed
from memr1.model_options import EndpointModel, ScriptedModel, TransformersModel
from tests.builders import write_random_model
from tests.endpoint_server import Handler, Server, completion, serving


def endpoint(server: Server, **options: Any) -> EndpointGenerator:
    return EndpointGenerator("m", url=server.url, **{"first_pause_seconds": 0.01, "timeout_seconds": 20, **options})


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("random_model"), ends="abcdefghijklmnopqrstuvwxyz0123456789")


@pytest.fixture(params=["scripted", "transformers", "endpoint"])
def generator(request: pytest.FixtureRequest, random_model: Path) -> Iterator[Generator]:
    if request.param == "scripted":
        yield ScriptedGenerator(lambda prompt: f"echo {prompt}")
    elif request.param == "transformers":
        yield TransformersGenerator(random_model, batch_size=3)
    else:
        with serving() as server:
            yield endpoint(server)


PROMPTS = ["one", "a longer prompt than the others", "", "zwölf 😀", "one", "two\nlines"]


def test_every_prompt_gets_one_text_in_order(generator: Generator) -> None:
    texts = generator.sample_texts(PROMPTS, max_new_tokens=6)
    assert len(texts) == len(PROMPTS) and all(isinstance(text, str) for text in texts)
    assert texts == [generator.sample_texts([prompt], max_new_tokens=6)[0] for prompt in PROMPTS]


def test_no_prompts_give_no_texts(generator: Generator) -> None:
    assert generator.sample_texts([], max_new_tokens=6) == []


def test_greedy_decoding_repeats_itself(generator: Generator) -> None:
    assert generator.sample_texts(PROMPTS, max_new_tokens=6) == generator.sample_texts(PROMPTS, max_new_tokens=6)


def test_a_sampled_prompt_may_be_asked_twice_in_one_call(generator: Generator) -> None:
    assert len(generator.sample_texts(["one", "one"], max_new_tokens=6, temperature=1.0)) == 2


def test_a_generator_has_a_name(generator: Generator) -> None:
    assert generator.name


# --- transformers ---


def greedy_by_hand(folder: Path, prompt: str, max_new_tokens: int) -> str:
    """One prompt, no cache, no padding: what the decoding loop must agree with."""
    generator = TransformersGenerator(folder)
    model, tokenizer = generator._model, generator._tokenizer
    ids = tokenizer(prompt + "\n")["input_ids"]
    start = len(ids)
    for _ in range(max_new_tokens):
        with torch.inference_mode():
            following = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if following in model.generation_config.eos_token_id:
            break
        ids.append(following)
    return str(tokenizer.decode(ids[start:], skip_special_tokens=True))


def test_batches_of_unlike_prompts_decode_as_each_would_alone(random_model: Path) -> None:
    prompts = [f"{'x' * number} number {number * number}" for number in range(20)]
    alone = [greedy_by_hand(random_model, prompt, 24) for prompt in prompts]
    assert len({len(text) for text in alone}) > 5  # they end at different places, so rows leave the batch
    assert TransformersGenerator(random_model, batch_size=16).sample_texts(prompts, max_new_tokens=24) == alone


def test_sampling_is_seeded_and_follows_the_temperature(random_model: Path) -> None:
    def draw(seed: int, temperature: float) -> list[str]:
        generator = TransformersGenerator(random_model, seed=seed)
        return generator.sample_texts(["say"] * 12, max_new_tokens=8, temperature=temperature)

    assert draw(1, 1.0) == draw(1, 1.0) != draw(2, 1.0)
    assert len(set(draw(1, 1.0))) > 1
    greedy = TransformersGenerator(random_model).sample_texts(["say"], max_new_tokens=8)
    assert set(draw(1, 1e-4)) == set(greedy)


def test_a_prompt_longer_than_the_context_is_refused_with_the_numbers(random_model: Path) -> None:
    generator = TransformersGenerator(random_model)
    with pytest.raises(GenerationFailed, match=r"506 tokens and 7 new ones do not fit into the 512"):
        generator.sample_texts(["x" * 505], max_new_tokens=7)
    assert len(generator.sample_texts(["x" * 505], max_new_tokens=6)) == 1


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMissing, match=r"holds no model weights"):
        TransformersGenerator(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(CheckpointMissing, match="cannot load a model"):
        TransformersGenerator(tmp_path)


def test_a_model_that_is_nowhere_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointMissing, match="nobody/nothing"):
        TransformersGenerator("nobody/nothing")


def test_an_adapter_changes_the_model_and_merging_it_changes_nothing_more(random_model: Path, tmp_path: Path) -> None:
    adapter = write_adapter(random_model, tmp_path / "adapter")
    prompts = ["one", "two", "three"]
    plain = TransformersGenerator(random_model).sample_texts(prompts, max_new_tokens=12)
    adapted = build_generator(TransformersModel(model=str(random_model)), None, adapter)
    assert adapted.name == str(adapter)
    assert adapted.sample_texts(prompts, max_new_tokens=12) != plain
    merge_adapter(random_model, adapter, tmp_path / "merged")
    merged = build_generator(TransformersModel(model="a hub id that is not asked for"), None, tmp_path / "merged")
    assert merged.sample_texts(prompts, max_new_tokens=12) == adapted.sample_texts(prompts, max_new_tokens=12)


def write_adapter(base: Path, folder: Path) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(5)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    return folder


# --- endpoint ---


def test_answers_come_back_in_order_though_the_server_answers_out_of_order() -> None:
    def later_for_earlier(handler: Handler, prompt: str, attempt: int) -> bool:
        time.sleep(0.05 * (8 - int(prompt)))
        return False

    with serving(later_for_earlier) as server:
        prompts = [str(number) for number in range(8)]
        assert endpoint(server, concurrency=8).sample_texts(prompts, max_new_tokens=5) == [
            f"echo {prompt}" for prompt in prompts
        ]


def test_the_request_says_what_was_asked_and_carries_the_key() -> None:
    with serving() as server:
        endpoint(server, key="secret").sample_texts(["hi"], max_new_tokens=17, temperature=0.5)
    assert server.bodies == [
        {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 17, "temperature": 0.5}
    ]
    assert server.keys == {"Bearer secret"}


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lambda handler: handler.reply(500, "boom"), id="500"),
        pytest.param(lambda handler: handler.reply(503, {"error": "loading"}), id="503"),
        pytest.param(lambda handler: handler.reply(200, '{"choices": [{"mess'), id="broken JSON"),
        pytest.param(lambda handler: handler.reply(200, {"choices": []}), id="no choice"),
        pytest.param(lambda handler: handler.reply(200, completion(None)), id="no text"),
        pytest.param(lambda handler: handler.hang_up(), id="connection closed"),
    ],
)
def test_a_broken_answer_is_asked_for_again(fault: Callable[[Handler], None]) -> None:
    def twice(handler: Handler, prompt: str, attempt: int) -> bool:
        if attempt <= 2:
            fault(handler)
        return attempt <= 2

    with serving(twice) as server:
        assert endpoint(server, num_retries=2).sample_texts(["a", "b"], max_new_tokens=5) == ["echo a", "echo b"]
        assert server.asked == {"a": 3, "b": 3}


def test_an_answer_that_takes_too_long_is_asked_for_again() -> None:
    def hang_once(handler: Handler, prompt: str, attempt: int) -> bool:
        if attempt == 1:
            time.sleep(1.5)
        return False

    with serving(hang_once) as server:
        assert endpoint(server, timeout_seconds=0.5, num_retries=8).sample_texts(["a"], max_new_tokens=5) == ["echo a"]
        with pytest.raises(GenerationFailed, match=r"no answer within 0\.5 s.*timeout_seconds"):
            endpoint(server, timeout_seconds=0.5, num_retries=0).sample_texts(["b"], max_new_tokens=5)


@pytest.mark.parametrize(
    "retry_after",
    [
        pytest.param(lambda: "1", id="seconds"),
        pytest.param(lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True), id="a date"),
    ],
)
def test_a_server_that_asks_for_a_pause_gets_it(retry_after: Callable[[], str]) -> None:
    def too_many(handler: Handler, prompt: str, attempt: int) -> bool:
        if attempt == 1:
            handler.reply(429, {"error": "slow down"}, Retry_After=retry_after())
        return attempt == 1

    with serving(too_many) as server:
        started = time.monotonic()
        assert endpoint(server).sample_texts(["a"], max_new_tokens=5) == ["echo a"]
        assert time.monotonic() - started >= 0.9


def test_the_last_reason_is_told_when_every_attempt_failed() -> None:
    def always(handler: Handler, prompt: str, attempt: int) -> bool:
        handler.reply(502, "no backend")
        return True

    with serving(always) as server:
        with pytest.raises(GenerationFailed, match=r"model 'm' in 3 attempt.*status 502, 'no backend'"):
            endpoint(server, num_retries=2).sample_texts(["a"], max_new_tokens=5)
        assert server.asked["a"] == 3


def test_a_mistake_of_the_caller_is_not_repeated_and_ends_the_rest() -> None:
    def refuse(handler: Handler, prompt: str, attempt: int) -> bool:
        handler.reply(401, {"error": "bad key"})
        return True

    with serving(refuse) as server:
        with pytest.raises(GenerationFailed, match=r"status 401.*MEMR1_ENDPOINT_KEY"):
            endpoint(server, concurrency=2, key="hunter2").sample_texts([str(n) for n in range(100)], max_new_tokens=5)
        assert sum(server.asked.values()) < 100 and max(server.asked.values()) == 1


def test_an_error_message_never_shows_the_key() -> None:
    generator = EndpointGenerator("m", url="http://127.0.0.1:9/v1", key="hunter2", num_retries=0)
    with pytest.raises(GenerationFailed, match="Is the server running") as failure:
        generator.sample_texts(["a"], max_new_tokens=5)
    assert "hunter2" not in str(failure.value)


def test_no_more_requests_are_under_way_than_allowed() -> None:
    under_way, most = 0, 0
    lock = threading.Lock()

    def count(handler: Handler, prompt: str, attempt: int) -> bool:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.05)
        with lock:
            under_way -= 1
        return False

    with serving(count) as server:
        endpoint(server, concurrency=3).sample_texts([str(number) for number in range(12)], max_new_tokens=5)
    assert 1 < most <= 3


def test_equal_greedy_prompts_are_asked_once_and_sampled_ones_each_time() -> None:
    with serving() as server:
        assert endpoint(server).sample_texts(["a", "b", "a"], max_new_tokens=5) == ["echo a", "echo b", "echo a"]
        assert server.asked == {"a": 1, "b": 1}
        endpoint(server).sample_texts(["c", "c"], max_new_tokens=5, temperature=1.0)
        assert server.asked["c"] == 2


def test_one_endpoint_generator_serves_several_threads() -> None:
    with serving() as server, ThreadPoolExecutor(4) as pool:
        generator = endpoint(server)
        calls = [pool.submit(generator.sample_texts, [f"{n}a", f"{n}b"], max_new_tokens=5) for n in range(8)]
        assert [call.result() for call in calls] == [[f"echo {n}a", f"echo {n}b"] for n in range(8)]


# --- from a configuration ---


def test_the_configuration_chooses_the_generator(monkeypatch: pytest.MonkeyPatch, random_model: Path) -> None:
    scripted = build_generator(ScriptedModel(kind="scripted", reply="yes"), "answer_agent")
    assert scripted.sample_texts(["a", "b"], max_new_tokens=1) == ["yes", "yes"]
    local = build_generator(TransformersModel(model=str(random_model)), None)
    assert isinstance(local, TransformersGenerator) and local.name == str(random_model)
    with serving() as server:
        monkeypatch.setenv("MEMR1_ENDPOINT_URL", server.url + "/")
        monkeypatch.setenv("MEMR1_ENDPOINT_KEY", "k")
        remote = build_generator(EndpointModel(kind="endpoint", model="m"), None)
        assert remote.sample_texts(["a"], max_new_tokens=1) == ["echo a"]
        assert server.keys == {"Bearer k"}


@pytest.mark.parametrize("url", [None, "", "localhost:8000"])
def test_an_endpoint_without_a_usable_address_is_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch, url: str | None
) -> None:
    monkeypatch.delenv("MEMR1_ENDPOINT_URL", raising=False)
    if url is not None:
        monkeypatch.setenv("MEMR1_ENDPOINT_URL", url)
    with pytest.raises(ConfigError, match=r"\$MEMR1_ENDPOINT_URL"):
        build_generator(EndpointModel(kind="endpoint", model="m"), None)


def test_only_models_in_this_process_have_weights_to_train() -> None:
    with pytest.raises(ConfigError, match="'endpoint' has no weights"):
        model_location(EndpointModel(kind="endpoint", model="m"), "answer_agent")
    with pytest.raises(ConfigError, match='"tiny"'):
        model_location(TransformersModel(), None)
    assert model_location(TransformersModel(model="Qwen/Qwen2.5-3B-Instruct"), None) == "Qwen/Qwen2.5-3B-Instruct"
