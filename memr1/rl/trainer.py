"""A trainer for one agent: memr1's settings put into TRL's words, and what it leaves on disk at every step."""

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig as PeftLoraConfig
from transformers import AutoConfig, AutoTokenizer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import GRPOConfig

from memr1.config import AGENTS, AgentConfig
from memr1.rl.canary import SamplerCanary
from memr1.rl.checkpoints import seal_checkpoint
from memr1.rl.grpo import SharedPromptGrpo
from memr1.rl.guards import Guards, check_lengths, refuse_nan
from memr1.rl.lengths import leave_out_long_prompts, list_left_out
from memr1.rl.ppo import PpoTrainer
from memr1.rl.preflight import MemoryPreflight
from memr1.rl.rollout import AnswerReward, ManagerReward
from memr1.rl.sampling import sampler_arguments
from memr1.rl.shared_policy import SharedReward
from memr1.rl.validation import Validation
from memr1.rl.zero_variance import VariedGrpo
from memr1.training_options import AgentTraining, InProcessRollout, TrainingConfig

COLUMN_GROUPS = tuple(f"{group}/" for group in ("operations", "reward", "judge", *AGENTS))
ADAM_BETAS = (0.9, 0.98)  # runs have tens of steps: the usual 0.999 would average over more steps than there are


@dataclass(frozen=True)
class Batches:
    """How TRL is to divide one optimiser step. `group_size` rows of its sampler in succession are the same example."""

    group_size: int
    rows_per_pass: int  # of one process
    num_passes: int  # forward and backward passes of one process


def build_trainer(
    model: Path | str,
    examples: list[dict[str, str]],
    validation: list[dict[str, str]],
    reward: ManagerReward | AnswerReward | SharedReward,
    *,
    agent: AgentConfig,
    schedule: AgentTraining,
    training: TrainingConfig,
    deepspeed: Path | None,
    folder: Path,
    seed: int,
) -> SharedPromptGrpo:
    """A trainer whose examples are rows of `id` and `prompt`; checkpoints and metrics go to `folder`.

    The validation examples (there may be none) choose between checkpoints; `reward` knows them too. Without `deepspeed`
    (a file of deepspeed_configs/) torch trains alone, to the same losses. Raises TrainingError for prompts too long.
    """
    tokenizer = load_tokenizer(model)
    kept, held_out = _choose_examples(examples, validation, partial(_count_prompt_tokens, tokenizer), training, folder)
    room = getattr(AutoConfig.from_pretrained(str(model)), "max_position_embeddings", None)
    check_lengths([*kept, *held_out], partial(_count_prompt_tokens, tokenizer), agent.max_new_tokens, room)
    passes = training.num_processes * training.num_accumulation_steps
    batches = Batches(
        training.completions_per_prompt, training.completions_per_step // passes, training.num_accumulation_steps
    )
    trainer = _algorithm(training, schedule)(
        decode_batch=decode_batch(training),
        model=str(model),
        reward_funcs=refuse_nan(reward),
        args=training_arguments(agent, schedule, training, batches, deepspeed, folder, seed),
        train_dataset=Dataset.from_list(chat_rows(kept)),
        processing_class=tokenizer,
        peft_config=adapters(training),
        callbacks=callbacks(training, folder),
    )
    if training.guards.memory_preflight:
        trainer.add_callback(MemoryPreflight(trainer, chat_rows([*kept, *held_out])))
    watch(trainer, training, chat_rows(kept), chat_rows(held_out), reward)
    return trainer


def watch(
    trainer: SharedPromptGrpo,
    training: TrainingConfig,
    rows: list[dict[str, Any]],
    held_out: list[dict[str, Any]],
    reward: ManagerReward | AnswerReward | SharedReward,
) -> None:
    """Compare the sampler with the trainer on some of `rows`, and choose between checkpoints on those held out."""
    settings: Any = trainer.args
    trainer.add_callback(SamplerCanary(trainer, rows, training.guards.max_sampler_gap, settings.save_steps))
    if held_out:
        trainer.add_callback(Validation(trainer, held_out, refuse_nan(reward)))


def chat_rows(examples: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Examples as a trainer holds them: `example_id` and `prompt`, a list of messages."""
    return [{"example_id": row["id"], "prompt": _as_chat(row["prompt"])} for row in examples]


def _algorithm(training: TrainingConfig, schedule: AgentTraining) -> Callable[..., SharedPromptGrpo]:
    if training.algorithm == "ppo":
        return partial(PpoTrainer, ppo=training)
    # Without a KL penalty a group without variance adds exactly nothing to the loss.
    return VariedGrpo if training.skip_zero_variance or schedule.kl_coefficient == 0 else SharedPromptGrpo


def _choose_examples(
    examples: list[dict[str, str]],
    validation: list[dict[str, str]],
    count_tokens: Callable[[str], int],
    training: TrainingConfig,
    folder: Path,
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Those of both that are not too long; the others are listed in `folder`. Raises TrainingError when all are."""
    everything = [*examples, *validation]
    short, left_out = leave_out_long_prompts(everything, count_tokens, training.max_prompt_tokens)
    if os.environ.get("RANK", "0") == "0":
        list_left_out(left_out, len(everything), folder)
    held_out_ids = {row["id"] for row in validation}
    kept = [row for row in short if row["id"] not in held_out_ids]
    return kept, [row for row in short if row["id"] in held_out_ids]


def decode_batch(training: TrainingConfig) -> int:
    """Completions that one process decodes together; vLLM decides for itself."""
    rollout = training.rollout
    return rollout.batch_size if rollout.kind == "in_process" else InProcessRollout().batch_size


def _as_chat(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def _count_prompt_tokens(tokenizer: Any, prompt: str) -> int:
    """Tokens of a prompt as the model sees it."""
    if tokenizer.chat_template is None:
        return len(tokenizer(prompt)["input_ids"])
    return len(tokenizer.apply_chat_template(_as_chat(prompt), add_generation_prompt=True)["input_ids"])


def load_tokenizer(model: Path | str) -> Any:
    """The tokenizer beside the weights, padding on the left."""
    return AutoTokenizer.from_pretrained(str(model), padding_side="left")


def callbacks(training: TrainingConfig, folder: Path) -> list[TrainerCallback]:
    """What every training leaves on disk, and what stops it."""
    return [StepLog(folder / "metrics.jsonl"), Guards(training.guards, step_metrics), WholeCheckpoints()]


def training_arguments(
    agent: AgentConfig,
    schedule: AgentTraining,
    training: TrainingConfig,
    batches: Batches,
    deepspeed: Path | None,
    folder: Path,
    seed: int,
) -> GRPOConfig:
    """memr1's settings in TRL's words."""
    num_epochs = training.num_epochs if training.algorithm == "ppo" else 1
    return GRPOConfig(
        output_dir=str(folder),
        max_steps=schedule.num_steps,
        **_optimiser(schedule, training),
        beta=schedule.kl_coefficient,
        **_loss(training),
        num_iterations=num_epochs,
        num_generations=batches.group_size,
        per_device_train_batch_size=batches.rows_per_pass,
        gradient_accumulation_steps=batches.num_passes,
        max_completion_length=agent.max_new_tokens,
        temperature=training.temperature,
        **sampler_arguments(training, agent.max_new_tokens),
        **_precision(torch.cuda.is_available()),
        activation_checkpointing=training.gradient_checkpointing,
        deepspeed=str(deepspeed) if deepspeed else None,
        ddp_find_unused_parameters=False,  # without DeepSpeed: the value head would count as unused
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would write a loss of 0 in place of one that is not a number
        save_steps=-(-training.checkpoint_every // num_epochs) * num_epochs,  # between two rollouts, never among passes
        save_total_limit=3 if training.max_validation_examples else 2,  # the two newest, and the best scored
        report_to="none",
        disable_tqdm=True,
        seed=seed,
        data_seed=seed,
    )


def _optimiser(schedule: AgentTraining, training: TrainingConfig) -> dict[str, Any]:
    return {
        "learning_rate": schedule.learning_rate,
        "lr_scheduler_type": {"linear": "linear", "constant": "constant_with_warmup"}[training.schedule],
        "warmup_steps": training.warmup_steps,
        "adam_beta1": ADAM_BETAS[0],
        "adam_beta2": ADAM_BETAS[1],
        "max_grad_norm": 1.0,
    }


def _precision(on_gpu: bool) -> dict[str, Any]:
    dtype = "bfloat16" if on_gpu else "float32"
    return {"use_cpu": not on_gpu, "bf16": on_gpu, "model_init_kwargs": {"dtype": dtype}}


def _loss(training: TrainingConfig) -> dict[str, Any]:
    if training.algorithm == "ppo":  # the critic is the baseline; "dapo": a mean over the tokens of all processes
        return {"loss_type": "dapo", "scale_rewards": "none", "epsilon": training.clip_range}
    if training.loss == "gspo":
        return {"loss_type": "grpo", "scale_rewards": "group", "importance_sampling_level": "sequence"}
    # Dr. GRPO (arXiv 2503.20783) is the paper that found dividing by the deviation to be a bias.
    return {"loss_type": training.loss, "scale_rewards": "none" if training.loss == "dr_grpo" else "group"}


def adapters(training: TrainingConfig) -> PeftLoraConfig | None:
    """The LoRA adapters to train, or None for all weights."""
    if training.lora is None:
        return None
    return PeftLoraConfig(
        r=training.lora.rank, lora_alpha=training.lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )


class StepLog(TrainerCallback):
    """Appends a line to metrics.jsonl for every step that makes rollouts or is scored (main process only)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._started = time.monotonic()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._started = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if not state.is_world_process_zero or not logs or not {"reward", "validation_reward"}.intersection(logs):
            return
        line = {"step": state.global_step, **step_metrics(logs), "seconds": round(time.monotonic() - self._started, 2)}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def step_metrics(logs: dict[str, float]) -> dict[str, float]:
    """TRL's log line in memr1's words; the reward of a step in which nothing could be asked or judged is nan."""
    names = {
        "reward": "reward",
        "reward_std": "reward_deviation",
        "local_reward": "local_reward",
        "sessions": "sessions",
        "turns": "turns",
        "frac_reward_zero_std": "zero_variance_groups",
        "kl": "kl",
        "value_loss": "value_loss",
        "explained_variance": "explained_variance",
        "entropy": "entropy",
        "loss": "loss",
        "grad_norm": "gradient_norm",
        "learning_rate": "learning_rate",
        "completions/mean_length": "completion_tokens",
        "completions/clipped_ratio": "cut_off_completions",
        "parse_failures": "parse_failures",
        "sampler_gap": "sampler_gap",
        "validation_reward": "validation_reward",
    }
    named = {ours: logs[theirs] for theirs, ours in names.items() if logs.get(theirs) is not None}
    if "reward" in logs and logs["reward"] is None:
        named["reward"] = math.nan
    own = {key: value for key, value in logs.items() if key.startswith(COLUMN_GROUPS) and value is not None}
    return {key: round(float(value), 6) for key, value in {**named, **own}.items()}


class WholeCheckpoints(TrainerCallback):
    """Seals a checkpoint once every process has written its part of it."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if state.is_world_process_zero and args.output_dir is not None:
            seal_checkpoint(Path(args.output_dir) / f"checkpoint-{state.global_step}", state.global_step)
