"""From the completions of one step to their rewards: apply, retrieve, let the frozen partner answer, score.

Everything is batched over the whole step, and every distinct outcome is answered once: the completions of a rollout
group mostly agree with one another.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from memr1.agents.answer_agent import AnswerAgent, AnswerRequest, retrieve_for_question
from memr1.agents.parsing import ParseFailure, parse_answer, parse_operations
from memr1.bank.bank import record_operations
from memr1.bank.embedding import Embedder
from memr1.bank.entry import MemoryEntry
from memr1.bank.in_memory import InMemoryBank
from memr1.bank.operation import Operation
from memr1.config import RetrievalConfig
from memr1.rl.examples import AnswerExample, LinkedQuestion, ManagerExample
from memr1.rl.reward import RewardName, altered_turns, questions_at_stake, score_answers

LogMetric = Callable[[str, float], None]
Completion = str | list[dict[str, str]]
Outcome = tuple[str, tuple[Operation, ...]]  # example id, operations: what decides a Manager's reward


def completion_text(completion: Completion) -> str:
    """TRL hands a chat completion as a list of messages, a plain one as text."""
    return completion if isinstance(completion, str) else "".join(message["content"] for message in completion)


class ManagerReward:
    """Reward of the Memory Manager: do the questions at stake get their answers from the bank it leaves behind?"""

    __name__ = "answers"

    def __init__(
        self,
        examples: Iterable[ManagerExample],
        banks: Mapping[str, Sequence[MemoryEntry]],
        speakers: Mapping[str, Sequence[str]],
        answer_agent: AnswerAgent,
        embedder: Embedder,
        retrieval: RetrievalConfig,
        reward: RewardName,
        max_retention: int,
    ) -> None:
        """`banks` maps an example's id to the whole bank before its turn, `speakers` a scope to who speaks in it."""
        self._examples = {example.id: example for example in examples}
        self._banks = banks
        self._speakers = speakers
        self._answer_agent = answer_agent
        self._embedder = embedder
        self._retrieval = retrieval
        self._reward: RewardName = reward
        self._max_retention = max_retention

    def __call__(
        self, completions: Sequence[Completion], example_id: Sequence[str], log_metric: LogMetric, **_: object
    ) -> list[float | None]:
        """One reward per completion: None where nothing can be asked, 0 where the output does not parse."""
        parsed = [self._parse(key, text) for key, text in zip(example_id, completions, strict=True)]
        _log_operations(parsed, log_metric)
        outcomes = {
            (key, ops) for key, ops in zip(example_id, parsed, strict=True) if not isinstance(ops, ParseFailure)
        }
        scores = self._score(sorted(outcomes, key=repr))
        return [
            (0.0 if self._examples[key].questions else None)
            if isinstance(operations, ParseFailure)
            else scores[key, operations]
            for key, operations in zip(example_id, parsed, strict=True)
        ]

    def _parse(self, example_id: str, completion: Completion) -> tuple[Operation, ...] | ParseFailure:
        example = self._examples[example_id]
        by_id = {entry.id: entry for entry in self._banks[example_id]}
        return parse_operations(completion_text(completion), [by_id[entry_id] for entry_id in example.shown])

    def _score(self, outcomes: Sequence[Outcome]) -> dict[Outcome, float | None]:
        altered: dict[str, set[str]] = {}
        for key, operations in outcomes:
            altered.setdefault(key, set()).update(altered_turns(operations, self._banks[key]))
        asked = {key: self._at_stake(key, turns) for key, turns in altered.items()}
        self._embed_ahead(outcomes, asked)
        requests = [request for outcome in outcomes for request in self._requests(outcome, asked[outcome[0]])]
        answers = iter(self._answer_agent.answer(requests))
        scores: dict[Outcome, float | None] = {}
        for outcome in outcomes:
            questions = asked[outcome[0]]
            texts = [next(answers).text for _ in questions]
            scores[outcome] = score_answers(self._reward, texts, [question.answer for question in questions])
        return scores

    def _at_stake(self, key: str, altered: set[str]) -> list[LinkedQuestion]:
        example = self._examples[key]
        return questions_at_stake(example.questions, example.retention, altered, self._max_retention)

    def _embed_ahead(self, outcomes: Sequence[Outcome], asked: Mapping[str, list[LinkedQuestion]]) -> None:
        """Embed every text of the step in one batch; the embedder remembers them."""
        texts = [entry.text for key in asked for entry in self._banks[key]]
        texts += [operation.text for _, operations in outcomes for operation in operations if operation.text]
        texts += [question.text for questions in asked.values() for question in questions]
        self._embedder.embed(list(dict.fromkeys(texts)))

    def _requests(self, outcome: Outcome, questions: Sequence[LinkedQuestion]) -> Iterator[AnswerRequest]:
        key, operations = outcome
        example = self._examples[key]
        entries, _ = record_operations(
            self._banks[key], operations, example.source, scope=example.scope, sequence=example.bank_sequence + 1
        )
        bank = InMemoryBank(example.scope, self._embedder, entries=entries)
        for question in questions:
            memories = retrieve_for_question(
                bank, question.text, self._speakers[example.scope], self._retrieval.entries_per_speaker
            )
            yield AnswerRequest(question_id=question.id, question=question.text, memories=tuple(memories))


class AnswerReward:
    """Reward of the Answer Agent: is its answer right?"""

    __name__ = "answers"

    def __init__(self, examples: Iterable[AnswerExample], reward: RewardName) -> None:
        self._examples = {example.id: example for example in examples}
        self._reward: RewardName = reward

    def __call__(
        self, completions: Sequence[Completion], example_id: Sequence[str], log_metric: LogMetric, **_: object
    ) -> list[float | None]:
        """One reward per completion: 0 where the output does not parse."""
        rewards: list[float | None] = []
        num_failures = 0
        for key, completion in zip(example_id, completions, strict=True):
            answer = parse_answer(completion_text(completion), ())
            if isinstance(answer, ParseFailure):
                num_failures += 1
                rewards.append(0.0)
                continue
            rewards.append(score_answers(self._reward, [answer.text], [self._examples[key].answer]))
        log_metric("parse_failures", num_failures / len(completions))
        return rewards


def _log_operations(parsed: Sequence[tuple[Operation, ...] | ParseFailure], log_metric: LogMetric) -> None:
    """Shares of completions, so that ranks of equal size average to the share over all of them."""
    kinds = Counter(operation.kind for item in parsed if not isinstance(item, ParseFailure) for operation in item)
    log_metric("parse_failures", sum(isinstance(item, ParseFailure) for item in parsed) / len(parsed))
    for kind in ("ADD", "UPDATE", "DELETE", "NOOP"):
        log_metric(f"operations/{kind}", kinds[kind] / len(parsed))
