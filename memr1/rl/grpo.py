"""GRPO (arXiv 2508.19828, eq. 3) by TRL's GRPOTrainer: memr1's settings put into its words.

Loss and group-normalised advantages are the paper's (`loss_type="grpo"`, `scale_rewards="group"`), the KL penalty is
measured against the starting policy, every step is on-policy.
"""

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel
from transformers import AutoTokenizer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import GRPOConfig, GRPOTrainer
from trl.models import unwrap_model_for_generation

from memr1.agents.decoding import decode
from memr1.config import AgentConfig, AgentTraining, GrpoTraining
from memr1.rl.checkpoints import seal_checkpoint
from memr1.rl.rollout import AnswerReward, ManagerReward
from memr1.rl.shared_prefix import share_prompts

ADAM_BETAS = (0.9, 0.98)  # runs have tens of steps: the usual 0.999 would average over more steps than there are


class SharedPromptGrpo(GRPOTrainer):
    """TRL's GRPO, except that nothing is computed twice: a prompt runs once for its whole rollout group
    (memr1.rl.shared_prefix, memr1.agents.decoding), and equal completions of a group are scored once in the loss."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for model in (self.model, self.ref_model):
            if model is not None:
                plain = self.accelerator.unwrap_model(model)
                share_prompts(plain.get_base_model() if isinstance(plain, PeftModel) else plain)

    def _generate_single_turn(self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any) -> Any:
        """Completions (their end token included) and no log-probabilities: those are computed in the loss."""
        if self.use_vllm:
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)  # type: ignore[no-untyped-call]
        settings: Any = self.args  # a GRPOConfig: the base class promises less
        whole = unwrap_model_for_generation(
            self.model_wrapped, self.accelerator, gather_deepspeed3_params=settings.ds3_gather_for_generation
        )
        with whole as model, torch.no_grad():
            completions = decode(
                model,
                prompt_ids,
                end_ids=self.eos_token_ids,
                max_new_tokens=settings.max_completion_length,
                temperature=self.temperature,
            )
        return completions, None

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        rows, row_of = torch.unique(
            torch.stack([input_ids, attention_mask.to(input_ids.dtype)], -1), dim=0, return_inverse=True
        )
        shared = partial(model, shared_prompt_tokens=input_ids.size(1) - logits_to_keep)
        log_probs, entropies, auxiliary = super()._get_per_token_logps_and_entropies(
            shared, rows[..., 0], rows[..., 1], logits_to_keep, *args, **kwargs
        )
        return log_probs[row_of], None if entropies is None else entropies[row_of], auxiliary


def build_trainer(
    model: Path | str,
    examples: list[dict[str, str]],
    reward: ManagerReward | AnswerReward,
    *,
    agent: AgentConfig,
    schedule: AgentTraining,
    training: GrpoTraining,
    deepspeed: Path,
    folder: Path,
    seed: int,
) -> GRPOTrainer:
    """A trainer whose examples are rows of `id` and `prompt`; checkpoints and metrics go to `folder`."""
    rows = [{"example_id": row["id"], "prompt": [{"role": "user", "content": row["prompt"]}]} for row in examples]
    return SharedPromptGrpo(
        model=str(model),
        reward_funcs=reward,
        args=_arguments(agent, schedule, training, deepspeed, folder, seed),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(str(model), padding_side="left"),
        peft_config=_adapters(training),
        callbacks=[StepLog(folder / "metrics.jsonl"), WholeCheckpoints()],
    )


def _arguments(
    agent: AgentConfig, schedule: AgentTraining, training: GrpoTraining, deepspeed: Path, folder: Path, seed: int
) -> GRPOConfig:
    on_gpu = torch.cuda.is_available()
    passes = training.num_processes * training.num_accumulation_steps
    return GRPOConfig(
        output_dir=str(folder),
        max_steps=schedule.num_steps,
        learning_rate=schedule.learning_rate,
        lr_scheduler_type="linear",
        adam_beta1=ADAM_BETAS[0],
        adam_beta2=ADAM_BETAS[1],
        max_grad_norm=1.0,
        beta=schedule.kl_coefficient,
        loss_type="grpo",
        scale_rewards="group",
        num_generations=training.completions_per_prompt,
        per_device_train_batch_size=training.completions_per_step // passes,
        gradient_accumulation_steps=training.num_accumulation_steps,
        max_completion_length=agent.max_new_tokens,
        temperature=training.temperature,
        use_cpu=not on_gpu,
        bf16=on_gpu,
        model_init_kwargs={"dtype": "bfloat16" if on_gpu else "float32"},
        activation_checkpointing=on_gpu,
        deepspeed=str(deepspeed),
        logging_steps=1,
        save_steps=training.checkpoint_every,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        seed=seed,
        data_seed=seed,
    )


def _adapters(training: GrpoTraining) -> PeftLoraConfig | None:
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
