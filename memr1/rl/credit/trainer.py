"""The hook into TRL: a step's batch is not completions of prompts but the turns of rollouts, one row each.

What is read at a step follows from its number, so TRL's own examples say nothing: there is one for every step. Rows
come to as many on every rank, in equal passes, by rows of padding (mask 0, advantage 0); the loss is divided by the
rows that are turns. Every rank enters the same collectives whatever it reads: the weights are gathered once a step for
all turns, and the starting policy runs once per pass.

`Any` stands for models and TRL's batches: their types are too loose to be of help.
"""

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import use_adapter

from memr1.agents.decoding import pad_left
from memr1.config import AgentConfig
from memr1.rl.credit.advantages import ScoredRollout, compare_rollouts, pad_rows, step_figures, weigh_turns
from memr1.rl.credit.curriculum import count_most_turns, sessions_at
from memr1.rl.credit.task import TrajectoryTask
from memr1.rl.credit.trajectories import Rollout, Sample
from memr1.rl.grpo import SharedPromptGrpo
from memr1.rl.guards import check_room
from memr1.rl.rollout import ManagerReward
from memr1.rl.trainer import (
    Batches,
    adapters,
    callbacks,
    chat_rows,
    decode_batch,
    load_tokenizer,
    training_arguments,
    watch,
)
from memr1.training_options import AgentTraining, TrainingConfig

Row = tuple[list[int], list[int], float]  # prompt, completion, advantage
SingleTurns = tuple[list[dict[str, str]], list[dict[str, str]], ManagerReward]  # to train, to validate, their reward
PADDING: Row = ([0, 0], [], 0.0)  # two tokens: what a rank runs must not depend on whether it has turns


class TrajectoryGrpo(SharedPromptGrpo):
    """GRPO whose rollouts are whole trajectories and reread sessions."""

    def __init__(self, *args: Any, task: TrajectoryTask, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._task = task
        self._num_calls = 0  # of the sampler, in this step

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, torch.Tensor]:
        """This rank's turns of the step as TRL's batch; `inputs` says nothing."""
        rank, num_ranks = self.accelerator.process_index, self.accelerator.num_processes
        self._num_calls = 0
        plan = self._task.plan(self.state.global_step)
        with self.whole_model() as model:
            rollouts = self._task.roll_out(plan, partial(self._sample, model), rank, num_ranks)
        scored: list[list[ScoredRollout]] = gather_object([self._task.score(plan, rollouts, self._tell)])
        everyone = [item for ranked in scored for item in ranked]
        self._report(everyone)
        first = sum(map(len, scored[:rank]))
        rows = list(self._rows(rollouts, everyone, first))
        turns_of_ranks = [sum(item.num_turns for item in ranked) for ranked in scored]
        num_rows = pad_rows(turns_of_ranks, self._num_passes)
        batch = self._pad([*rows, *[PADDING] * (num_rows - len(rows))])
        share = num_rows * num_ranks / max(1, sum(turns_of_ranks))
        return batch | {"rows_per_turn": torch.tensor(share, device=self.accelerator.device)}

    @property
    def _num_passes(self) -> int:
        settings: Any = self.args  # a GRPOConfig: the base class promises less
        return int(settings.steps_per_generation)

    def _next_call(self) -> int:
        """A number that no other call of the step has, on whichever rank."""
        self._num_calls += 1
        return int(self._num_calls * self.accelerator.num_processes + self.accelerator.process_index)

    def _sample(self, model: Any, prompts: list[str]) -> list[Sample]:
        """Raises TrainingError for a prompt that leaves no room for a completion."""
        prompt_ids, *_ = self._tokenize_prompts([[{"role": "user", "content": prompt}] for prompt in prompts])
        room = getattr(self.causal_model(self.model).config, "max_position_embeddings", None)
        settings: Any = self.args
        check_room(max(map(len, prompt_ids)), settings.max_completion_length, room, "of a rollout")
        completion_ids = self.sample_completions(model, prompt_ids, call=self._next_call())
        texts = self._tokenizer.batch_decode(completion_ids, skip_special_tokens=True)
        return [
            Sample(text, prompt, completion, completion[-1] not in self.eos_token_ids)
            for text, prompt, completion in zip(texts, prompt_ids, completion_ids, strict=True)
        ]

    def _rows(self, rollouts: list[Rollout], everyone: list[ScoredRollout], first: int) -> Any:
        """A row per turn of this rank's rollouts, which stand from `first` on among everyone's."""
        advantages = compare_rollouts(everyone, scale=self.scale_rewards != "none")
        weights = weigh_turns([item.num_turns for item in everyone])
        for place, rollout in enumerate(rollouts, first):
            for sample, _ in rollout.turns:
                yield list(sample.prompt_ids), list(sample.completion_ids), advantages[place] * weights[place]

    def _pad(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        """Shapes: prompts (rows, longest prompt), completions (rows, longest completion), advantages (rows,)."""
        device = self.accelerator.device
        prompt_ids, prompt_mask = pad_left([prompt for prompt, _, _ in rows], device)
        completion_ids, completion_mask = pad_right([completion for _, completion, _ in rows], device)
        batch = {
            "prompt_ids": prompt_ids,
            "prompt_mask": prompt_mask,
            "completion_ids": completion_ids,
            "completion_mask": completion_mask,
            "advantages": torch.tensor([advantage for _, _, advantage in rows], device=device),
        }
        return batch | ({"ref_per_token_logps": self._reference_log_probs(batch)} if self.beta else {})

    def _reference_log_probs(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Of the starting policy, pass by pass: as many forward passes on every rank. Shape (rows, tokens)."""
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        settings: Any = self.args
        policy: Any = self.model
        adapted: Any = self.accelerator.unwrap_model(policy)
        start = nullcontext() if self.ref_model is not None else use_adapter(adapted, adapter_name=None)
        model = policy if self.ref_model is None else self.ref_model
        num_tokens = batch["completion_ids"].size(1)
        with torch.no_grad(), disable_gradient_checkpointing(policy, settings.gradient_checkpointing_kwargs), start:
            passes = [
                self._get_per_token_logps_and_entropies(model, *part, num_tokens)[0]
                for part in zip(ids.chunk(self._num_passes), mask.chunk(self._num_passes), strict=True)
            ]
        return torch.cat(passes)

    def _compute_loss(self, model: Any, inputs: Any) -> torch.Tensor:
        """TRL's mean over rows, made one over those that are turns."""
        loss: torch.Tensor = super()._compute_loss(model, inputs) * inputs["rows_per_turn"]  # type: ignore[no-untyped-call]
        return loss

    def _tell(self, name: str, value: float) -> None:
        self._metrics["train"][name].append(value)

    def _report(self, everyone: list[ScoredRollout]) -> None:
        sessions = sessions_at(self._task.credit.curriculum, self.state.global_step)
        for name, value in {**step_figures(everyone), "sessions": sessions}.items():
            self._metrics["train"][name].append(value)


def pad_right(rows: list[list[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and mask, both of shape (rows, longest), at least one token long."""
    longest = max(1, *map(len, rows))
    tokens = [row + [0] * (longest - len(row)) for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)


def build_trajectory_trainer(
    model: Path | str,
    task: TrajectoryTask,
    single_turns: SingleTurns | None = None,
    *,
    agent: AgentConfig,
    schedule: AgentTraining,
    training: TrainingConfig,
    deepspeed: Path,
    folder: Path,
    seed: int,
) -> SharedPromptGrpo:
    """A trainer of the Memory Manager by trajectories; checkpoints and metrics go to `folder`.

    Single turns, as for the other kind of credit, probe the sampler and choose between checkpoints.
    """
    most_turns = count_most_turns(task.asked, task.credit)
    num_passes = max(1, -(-most_turns // (training.num_processes * training.micro_batch)))
    # One example of TRL's lasts one step. Two rows per pass, because a group has at least two.
    batches = Batches(2 * num_passes * training.num_processes, rows_per_pass=2, num_passes=num_passes)
    steps = [{"prompt": f"step {number}"} for number in range(max(1, schedule.num_steps))]
    trainer = TrajectoryGrpo(
        task=task,
        decode_batch=decode_batch(training),
        model=str(model),
        reward_funcs=task.score,  # TRL wants one by name; rewards belong to rollouts here, not to completions
        args=training_arguments(agent, schedule, training, batches, deepspeed, folder, seed),
        train_dataset=Dataset.from_list(steps),
        processing_class=load_tokenizer(model),
        peft_config=adapters(training),
        callbacks=callbacks(training, folder),
    )
    if single_turns is not None:
        examples, validation, reward = single_turns
        watch(trainer, training, chat_rows(examples), chat_rows(validation), reward)
    return trainer
