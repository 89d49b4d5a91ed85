"""Which examples a whole training sees, in which order."""

from collections.abc import Iterator
from itertools import chain, count, islice, repeat

import torch
from torch.utils.data import Sampler


class ExampleStream(Sampler[int]):
    """Row numbers of one training from its first step to its last, as one epoch: in shuffled order, again and again.

    TRL's own sampler shuffles anew in every epoch and forgets when resumed how often it has: the examples then come in
    another order than in a run that was never stopped. It also drops the last examples of an epoch, and has none to
    give when there are fewer than a step asks for.
    """

    def __init__(
        self,
        num_examples: int,
        *,
        num_batches: int,
        prompts_per_batch: int,
        group_size: int,
        num_passes: int,
        seed: int,
    ) -> None:
        """A batch is the rows of one rollout; the trainer asks for the same one `num_passes` times."""
        self._num_examples, self._num_batches, self._num_passes = num_examples, num_batches, num_passes
        self._prompts_per_batch, self._group_size = prompts_per_batch, group_size
        self._seed = seed

    def __len__(self) -> int:
        return self._num_batches * self._prompts_per_batch * self._group_size

    def __iter__(self) -> Iterator[int]:
        order = torch.Generator().manual_seed(self._seed)
        shuffled = (torch.randperm(self._num_examples, generator=order).tolist() for _ in count())
        examples = chain.from_iterable(shuffled)
        for batch in range(self._num_batches):
            if batch % self._num_passes == 0:
                chosen = list(islice(examples, self._prompts_per_batch))
            yield from chain.from_iterable(repeat(example, self._group_size) for example in chosen)
