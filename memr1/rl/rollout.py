"""From the completions of one step to their rewards: apply, retrieve, let the frozen partner answer, score, add.

Everything is batched over the whole step, and every distinct outcome is answered once: the completions of a rollout
group mostly agree with one another.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from memr1.agents.answer_agent import AnswerAgent, AnswerRequest, retrieve_for_question
from memr1.agents.judge import AnsweredQuestion
from memr1.agents.parsing import ParseFailure, parse_answer, parse_operations
from memr1.bank.bank import record_operations
from memr1.bank.embedding import Embedder
from memr1.bank.entry import MemoryEntry
from memr1.bank.in_memory import InMemoryBank
from memr1.bank.operation import Operation
from memr1.bank.retrieval import embedded_part
from memr1.config import RetrievalConfig
from memr1.rl.examples import AnswerExample, LinkedQuestion, ManagerExample
from memr1.rl.reward import (
    LogMetric,
    ScoreAnswers,
    add_extra_rewards,
    altered_turns,
    count_words,
    mean_score,
    questions_at_stake,
    score_evidence_kept,
    score_memory_size,
)
from memr1.training_options import ExtraRewards

Completion = str | list[dict[str, str]]
Outcome = tuple[str, tuple[Operation, ...] | None]  # example id, operations (None: unreadable): what decides a reward
Asked = Mapping[str, Sequence[LinkedQuestion]]  # by example id
ExtraScores = Mapping[str, float | None]  # by name


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
        score: ScoreAnswers,
        extra_rewards: ExtraRewards,
        max_retention: int,
    ) -> None:
        """`banks` maps an example's id to the whole bank before its turn, `speakers` a scope to who speaks in it."""
        self._examples = {example.id: example for example in examples}
        self._banks = banks
        self._speakers = speakers
        self._answer_agent = answer_agent
        self._embedder = embedder
        self._retrieval = retrieval
        self._score = score
        self._weights = extra_rewards
        self._max_retention = max_retention

    def __call__(
        self, completions: Sequence[Completion], example_id: Sequence[str], log_metric: LogMetric, **_: object
    ) -> list[float | None]:
        """One reward per completion: None where nothing can be asked.

        Output that does not parse leaves the bank as it was, and has no answer right.
        """
        rows = [(key, self._parse(key, text)) for key, text in zip(example_id, completions, strict=True)]
        _log_operations([operations for _, operations in rows], log_metric)
        outcomes = sorted(set(rows), key=repr)
        asked = self._at_stake(outcomes)
        after = {outcome: self._bank_after(outcome) for outcome in outcomes}
        answers = self._score_outcomes(after, asked, log_metric)
        extras = {outcome: self._score_extras(outcome, after[outcome], asked) for outcome in outcomes}
        return _weigh([(answers[row], extras[row]) for row in rows], self._weights, log_metric)

    def _parse(self, example_id: str, completion: Completion) -> tuple[Operation, ...] | None:
        example = self._examples[example_id]
        by_id = {entry.id: entry for entry in self._banks[example_id]}
        parsed = parse_operations(completion_text(completion), [by_id[entry_id] for entry_id in example.shown])
        return None if isinstance(parsed, ParseFailure) else parsed

    def _at_stake(self, outcomes: Sequence[Outcome]) -> Asked:
        altered: dict[str, set[str]] = {}
        for key, operations in outcomes:
            altered.setdefault(key, set()).update(altered_turns(operations or (), self._banks[key]))
        return {
            key: questions_at_stake(
                self._examples[key].questions, self._examples[key].retention, turns, self._max_retention
            )
            for key, turns in altered.items()
        }

    def _bank_after(self, outcome: Outcome) -> list[MemoryEntry]:
        key, operations = outcome
        example = self._examples[key]
        entries, _ = record_operations(
            self._banks[key], operations or (), example.source, scope=example.scope, sequence=example.bank_sequence + 1
        )
        return entries

    def _score_outcomes(
        self, after: Mapping[Outcome, Sequence[MemoryEntry]], asked: Asked, log_metric: LogMetric
    ) -> dict[Outcome, float | None]:
        """Mean score of each outcome's answers, all of them answered and scored in one batch."""
        readable = [outcome for outcome in after if outcome[1] is not None]
        self._embed_ahead(readable, asked)
        requests = [request for outcome in readable for request in self._requests(outcome, after[outcome], asked)]
        texts = [answer.text for answer in self._answer_agent.answer(requests)]
        questions = [question for key, _ in readable for question in asked[key]]
        answered = [
            AnsweredQuestion(question=question.text, gold=question.answer, prediction=text)
            for question, text in zip(questions, texts, strict=True)
        ]
        scores = iter(self._score(answered, log_metric))
        means = {outcome: mean_score([next(scores) for _ in asked[outcome[0]]]) for outcome in readable}
        unread = {outcome: 0.0 if self._examples[outcome[0]].questions else None for outcome in after}
        return unread | means

    def _score_extras(self, outcome: Outcome, entries: Sequence[MemoryEntry], asked: Asked) -> ExtraScores:
        if not self._weights.names:
            return {}
        key, operations = outcome
        example = self._examples[key]
        words = count_words(self._banks[key]), count_words(entries)
        scores = {
            "format": float(operations is not None),
            "memory_size": score_memory_size(*words, example.words_read, example.turn_words),
            "evidence_kept": score_evidence_kept(asked[key], entries),
        }
        return {name: scores[name] for name in self._weights.names}

    def _embed_ahead(self, outcomes: Sequence[Outcome], asked: Asked) -> None:
        """Embed every text of the step in one batch; the embedder remembers them."""
        keys = dict.fromkeys(key for key, _ in outcomes)
        texts = [entry.text for key in keys for entry in self._banks[key]]
        texts += [operation.text for _, operations in outcomes for operation in operations or () if operation.text]
        for key in keys:
            speakers = self._speakers[self._examples[key].scope]
            texts += [embedded_part(question.text, speakers) for question in asked[key]]
        self._embedder.embed(list(dict.fromkeys(texts)))

    def _requests(self, outcome: Outcome, entries: Sequence[MemoryEntry], asked: Asked) -> Iterator[AnswerRequest]:
        scope = self._examples[outcome[0]].scope
        bank = InMemoryBank(scope, self._embedder, entries=entries)
        for question in asked[outcome[0]]:
            memories = retrieve_for_question(
                bank, question.text, self._speakers[scope], self._retrieval.entries_per_speaker
            )
            yield AnswerRequest(question_id=question.id, question=question.text, memories=tuple(memories))


class AnswerReward:
    """Reward of the Answer Agent: is its answer right?"""

    __name__ = "answers"

    def __init__(self, examples: Iterable[AnswerExample], score: ScoreAnswers, extra_rewards: ExtraRewards) -> None:
        """Of the extra rewards only `format` is about an answer."""
        self._examples = {example.id: example for example in examples}
        self._score = score
        self._weights = extra_rewards

    def __call__(
        self, completions: Sequence[Completion], example_id: Sequence[str], log_metric: LogMetric, **_: object
    ) -> list[float | None]:
        """One reward per completion: 0 for the answer of an output that does not parse."""
        parsed = [parse_answer(completion_text(completion), ()) for completion in completions]
        failures = [isinstance(answer, ParseFailure) for answer in parsed]
        log_metric("parse_failures", sum(failures) / len(parsed))
        answered = [
            AnsweredQuestion(
                question=self._examples[key].question, gold=self._examples[key].answer, prediction=answer.text
            )
            for key, answer in zip(example_id, parsed, strict=True)
            if not isinstance(answer, ParseFailure)
        ]
        scores = iter(self._score(answered, log_metric))
        answers = [0.0 if failure else next(scores) for failure in failures]
        extras = [{"format": float(not failure)} if self._weights.format else {} for failure in failures]
        return _weigh(list(zip(answers, extras, strict=True)), self._weights, log_metric)


def _weigh(
    rows: Sequence[tuple[float | None, ExtraScores]], weights: ExtraRewards, log_metric: LogMetric
) -> list[float | None]:
    """The rewards of completions from their answers' score and their extra scores; logs each apart, before weighing."""
    for answers, extras in rows:
        if answers is None or not extras:
            continue
        for name, score in {"answers": answers, **extras}.items():
            if score is not None:
                log_metric(f"reward/{name}", score)
    return [add_extra_rewards(answers, extras, weights) for answers, extras in rows]


def _log_operations(parsed: Sequence[tuple[Operation, ...] | None], log_metric: LogMetric) -> None:
    """Shares of completions, so that ranks of equal size average to the share over all of them."""
    kinds = Counter(operation.kind for operations in parsed for operation in operations or ())
    log_metric("parse_failures", sum(operations is None for operations in parsed) / len(parsed))
    for kind in ("ADD", "UPDATE", "DELETE", "NOOP"):
        log_metric(f"operations/{kind}", kinds[kind] / len(parsed))
