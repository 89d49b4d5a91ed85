"""A trainer for one agent: memr1's settings put into TRL's words, and what it leaves on disk at every step."""

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig as PeftLoraConfig
from transformers import AutoConfig, AutoTokenizer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import GRPOConfig, GRPOTrainer

from memr1.config import AgentConfig
from memr1.rl.checkpoints import seal_checkpoint
from memr1.rl.grpo import SharedPromptGrpo
from memr1.rl.guards import Guards, check_lengths, refuse_nan
from memr1.rl.ppo import PpoTrainer
from memr1.rl.rollout import AnswerReward, ManagerReward
from memr1.training_options import AgentTraining, TrainingConfig

ADAM_BETAS = (0.9, 0.98)  # runs have tens of steps: the usual 0.999 would average over more steps than there are


def build_trainer(
    model: Path | str,
    examples: list[dict[str, str]],
    reward: ManagerReward | AnswerReward,
    *,
    agent: AgentConfig,
    schedule: AgentTraining,
    training: TrainingConfig,
    deepspeed: Path | None,
    folder: Path,
    seed: int,
) -> GRPOTrainer:
    """A trainer whose examples are rows of `id` and `prompt`; checkpoints and metrics go to `folder`.

    `deepspeed` is a file of deepspeed_configs/; without one torch trains alone, and the losses are the same.

    Raises TrainingError for an example that does not fit into the model's context.
    """
    rows = [{"example_id": row["id"], "prompt": [{"role": "user", "content": row["prompt"]}]} for row in examples]
    tokenizer = AutoTokenizer.from_pretrained(str(model), padding_side="left")
    room = getattr(AutoConfig.from_pretrained(str(model)), "max_position_embeddings", None)
    check_lengths(examples, lambda text: len(tokenizer(text)["input_ids"]), agent.max_new_tokens, room)
    kind = partial(PpoTrainer, ppo=training) if training.algorithm == "ppo" else SharedPromptGrpo
    return kind(
        model=str(model),
        reward_funcs=refuse_nan(reward),
        args=_arguments(agent, schedule, training, deepspeed, folder, seed),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=_adapters(training),
        callbacks=[StepLog(folder / "metrics.jsonl"), Guards(training.guards, step_metrics), WholeCheckpoints()],
    )


def _arguments(
    agent: AgentConfig,
    schedule: AgentTraining,
    training: TrainingConfig,
    deepspeed: Path | None,
    folder: Path,
    seed: int,
) -> GRPOConfig:
    on_gpu = torch.cuda.is_available()
    passes = training.num_processes * training.num_accumulation_steps
    num_epochs = training.num_epochs if training.algorithm == "ppo" else 1
    return GRPOConfig(
        output_dir=str(folder),
        max_steps=schedule.num_steps,
        learning_rate=schedule.learning_rate,
        lr_scheduler_type="linear",
        adam_beta1=ADAM_BETAS[0],
        adam_beta2=ADAM_BETAS[1],
        max_grad_norm=1.0,
        beta=schedule.kl_coefficient,
        **_loss(training),
        num_iterations=num_epochs,
        num_generations=training.completions_per_prompt,
        per_device_train_batch_size=training.completions_per_step // passes,
        gradient_accumulation_steps=training.num_accumulation_steps,
        max_completion_length=agent.max_new_tokens,
        temperature=training.temperature,
        use_cpu=not on_gpu,
        bf16=on_gpu,
        model_init_kwargs={"dtype": "bfloat16" if on_gpu else "float32"},
        activation_checkpointing=on_gpu,
        deepspeed=str(deepspeed) if deepspeed else None,
        ddp_find_unused_parameters=False,  # without DeepSpeed: the value head would count as unused
        logging_steps=1,
        save_steps=-(-training.checkpoint_every // num_epochs) * num_epochs,  # between two rollouts, never among passes
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        seed=seed,
        data_seed=seed,
    )


def _loss(training: TrainingConfig) -> dict[str, Any]:
    if training.algorithm == "ppo":  # the critic is the baseline; "dapo": a mean over the tokens of all processes
        return {"loss_type": "dapo", "scale_rewards": "none", "epsilon": training.clip_range}
    if training.loss == "gspo":
        return {"loss_type": "grpo", "scale_rewards": "group", "importance_sampling_level": "sequence"}
    # Dr. GRPO (arXiv 2503.20783) is the paper that found dividing by the deviation to be a bias.
    return {"loss_type": training.loss, "scale_rewards": "none" if training.loss == "dr_grpo" else "group"}


def _adapters(training: TrainingConfig) -> PeftLoraConfig | None:
    if training.lora is None:
        return None
    return PeftLoraConfig(
        r=training.lora.rank, lora_alpha=training.lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )


class StepLog(TrainerCallback):
    """Appends one line per optimiser step to metrics.jsonl (main process only)."""

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
        if not state.is_world_process_zero or not logs or "reward" not in logs:
            return
        line = {"step": state.global_step, **step_metrics(logs), "seconds": round(time.monotonic() - self._started, 2)}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def step_metrics(logs: dict[str, float]) -> dict[str, float]:
    """TRL's log line in memr1's words."""
    names = {
        "reward": "reward",
        "reward_std": "reward_deviation",
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
    }
    named = {ours: logs[theirs] for theirs, ours in names.items() if logs.get(theirs) is not None}
    operations = {key: value for key, value in logs.items() if key.startswith("operations/")}
    return {key: round(float(value), 6) for key, value in {**named, **operations}.items()}


class WholeCheckpoints(TrainerCallback):
    """Seals a checkpoint once every process has written its part of it."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if state.is_world_process_zero and args.output_dir is not None:
            seal_checkpoint(Path(args.output_dir) / f"checkpoint-{state.global_step}", state.global_step)
