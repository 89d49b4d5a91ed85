"""Small values for tests, each with defaults for everything that a test does not care about."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from memr1.bank.entry import MemoryEntry
from memr1.data.conversation import Conversation, Dataset, Fact, Question, Session, Splits, Turn

NOON = datetime(2024, 5, 1, 12)


def turn(identity: str, text: str, speaker: str = "Ann") -> Turn:
    """One utterance."""
    return Turn(id=identity, speaker=speaker, text=text)


def conversation(
    identity: str = "c1",
    lines: Sequence[tuple[str, str]] = (("Ann", "I live in Rome."), ("Bob", "I drive a Fiat.")),
    *,
    turns_per_session: int = 10,
    facts: Sequence[Fact] = (),
) -> Conversation:
    """(speaker, text) lines as turns D1:1, D1:2 … in sessions one day apart; speakers in order of appearance."""
    sessions = []
    for number, start in enumerate(range(0, len(lines), turns_per_session), 1):
        spoken = lines[start : start + turns_per_session]
        turns = tuple(turn(f"D{number}:{place}", text, who) for place, (who, text) in enumerate(spoken, 1))
        sessions.append(Session(id=f"D{number}", time=NOON + timedelta(days=number - 1), turns=turns))
    speakers = tuple(dict.fromkeys(who for who, _ in lines))
    return Conversation(id=identity, speakers=speakers, sessions=tuple(sessions), facts=tuple(facts))


def entry(
    identity: str,
    text: str,
    *,
    speaker: str = "Ann",
    scope: str = "c1",
    time: datetime = NOON,
    turn_ids: Sequence[str] = ("D1:1",),
) -> MemoryEntry:
    """A memory entry."""
    return MemoryEntry(id=identity, scope=scope, speaker=speaker, text=text, time=time, turn_ids=tuple(turn_ids))


def question(
    identity: str = "q1",
    text: str = "Where does Ann live?",
    answer: str = "Rome",
    *,
    conversation_id: str = "c1",
    category: int = 4,
    evidence: Sequence[str] = ("D1:1",),
) -> Question:
    """A question with its gold answer."""
    return Question(
        id=identity,
        conversation_id=conversation_id,
        text=text,
        answer=answer,
        category=category,
        evidence=tuple(evidence),
    )


def dataset(
    conversations: Sequence[Conversation] = (),
    questions: Sequence[Question] = (),
    *,
    splits: Mapping[str, Sequence[str]] | None = None,
    name: str = "test",
    licence_notice: str = "",
) -> Dataset:
    """A dataset; without `splits` every conversation is in train, and in no other split."""
    kept = tuple(conversations) or (conversation(),)
    chosen = splits or {"train": [item.id for item in kept]}
    return Dataset(
        name=name,
        sha256="0" * 64,
        licence_notice=licence_notice,
        conversations=kept,
        questions=tuple(questions),
        splits=Splits(**{key: tuple(chosen.get(key, ())) for key in ("train", "validation", "test")}),
    )


def write_random_model(
    folder: Path, *, seed: int = 0, hidden_size: int = 32, num_layers: int = 2, ends: Sequence[str] = ()
) -> Path:
    """A Qwen2 of random weights whose tokens are bytes, with a tokeniser and a chat template. It speaks gibberish.

    `ends` are characters that end its output like the end-of-text token does.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: number for number, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>")
    wrapped.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}{{ '\\n' }}"
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(wrapped),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        initializer_range=0.2,  # far enough apart that padding cannot change which token is likeliest
        eos_token_id=wrapped.eos_token_id,
        pad_token_id=wrapped.pad_token_id,
    )
    model = Qwen2ForCausalLM(config)
    model.generation_config.eos_token_id = [wrapped.eos_token_id, *wrapped.convert_tokens_to_ids(list(ends))]
    model.save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return folder


QWEN_CHAT = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\\n{{ message['content'] }}<|im_end|>\\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\\n{% endif %}"
)
LLAMA_CHAT = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\\n\\n"
    "{{ message['content'] }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\\n\\n{% endif %}"
)


def write_chat_model(folder: Path, family: Literal["qwen2", "llama"]) -> Path:
    """Random weights in the form in which a family publishes its instruct models: special tokens, a chat template, two
    end tokens; a Llama begins with a token of its own and has none to pad with.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: number for number, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if family == "qwen2":
        special = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
        wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, extra_special_tokens=["<|im_start|>"])
        wrapped.chat_template, ends = QWEN_CHAT, ["<|im_end|>", "<|endoftext|>"]
    else:
        special = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
        headers = ["<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>"]
        wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, extra_special_tokens=headers)
        wrapped.chat_template, ends = LLAMA_CHAT, ["<|end_of_text|>", "<|eot_id|>"]
    torch.manual_seed(0)
    shape = {
        "vocab_size": len(wrapped), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
        "bos_token_id": wrapped.bos_token_id, "eos_token_id": wrapped.convert_tokens_to_ids(ends),
        "tie_word_embeddings": family == "qwen2",
    }  # fmt: skip
    model = Qwen2ForCausalLM(Qwen2Config(**shape)) if family == "qwen2" else LlamaForCausalLM(LlamaConfig(**shape))
    model.save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return folder


def random_qwen2(vocabulary_size: int) -> Any:
    """A tiny Qwen2 of seeded random weights, in eval mode; token 0 pads and token 1 ends."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=vocabulary_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        initializer_range=0.5,  # large weights: attention that tells positions apart, and logits without near-ties
    )
    return Qwen2ForCausalLM(config).eval()


def build_small_trainer(
    folder: Path, model: Path, kind: Any = None, *, rows: Sequence[Any] = (), **settings: Any
) -> Any:
    """A memr1 trainer in this process alone, without DeepSpeed. Callbacks are the test's to add.

    Its rewards mean nothing, but differ between completions. `settings` are GRPOConfig's; `lora` is a rank, `ppo` the
    section of memr1.training_options, `train` rows of `example_id` and `prompt`.
    """
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import GRPOConfig

    from memr1.rl.grpo import SharedPromptGrpo

    rank, ppo = settings.pop("lora", 0), settings.pop("ppo", None)
    fixed = {
        "output_dir": str(folder), "max_steps": 2, "learning_rate": 1e-3, "per_device_train_batch_size": 8,
        "num_generations": 4, "max_completion_length": 8, "beta": 0.02, "use_cpu": True, "bf16": False,
        "activation_checkpointing": False, "model_init_kwargs": {"dtype": "float32"}, "report_to": "none",
        "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True, "seed": 3,
    }  # fmt: skip
    return (kind or SharedPromptGrpo)(
        model=str(model),
        reward_funcs=_length_reward,
        args=GRPOConfig(**{**fixed, **settings}),
        train_dataset=Dataset.from_list(
            list(rows) or [prompt_row(f"e{number}", "ab" * number) for number in range(1, 9)]
        ),
        processing_class=AutoTokenizer.from_pretrained(str(model), padding_side="left"),
        peft_config=LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM") if rank else None,
        **({"ppo": ppo} if ppo else {}),
    )


def prompt_row(identity: str, text: str) -> dict[str, Any]:
    """A training example as a trainer holds it."""
    return {"example_id": identity, "prompt": [{"role": "user", "content": text}]}


def _length_reward(completions: Sequence[Any], **_: Any) -> list[float]:
    return [sum(map(ord, completion[0]["content"])) % 97 / 97 for completion in completions]
