"""From the banks of rollouts to rewards: the frozen Answer Agent answers for all of them in one batch."""

from collections.abc import Iterator, Sequence

from memr1.agents.answer_agent import AnswerAgent, AnswerRequest, retrieve_for_question
from memr1.agents.judge import AnsweredQuestion
from memr1.bank.embedding import Embedder
from memr1.bank.in_memory import InMemoryBank
from memr1.bank.retrieval import embedded_part
from memr1.rl.examples import LinkedQuestion
from memr1.rl.reward import LogMetric, ScoreAnswers, mean_score

View = tuple[str, tuple[tuple[object, ...], ...]]  # a question and the memories shown with it: what decides an answer


class BankScorer:
    """Scores banks by what can be answered from them."""

    def __init__(
        self, answer_agent: AnswerAgent, embedder: Embedder, entries_per_speaker: int, score: ScoreAnswers
    ) -> None:
        """`embedder` is the one that the banks retrieve with."""
        self._answer_agent = answer_agent
        self._embedder = embedder
        self._entries_per_speaker = entries_per_speaker
        self._score = score

    def score(
        self, asked: Sequence[tuple[InMemoryBank, Sequence[str], Sequence[LinkedQuestion]]], log_metric: LogMetric
    ) -> list[float | None]:
        """Mean score of each (bank, speakers, questions); None without a question.

        A question that several banks show alike is answered once.
        """
        texts = [embedded_part(question.text, speakers) for _, speakers, questions in asked for question in questions]
        self._embedder.embed(list(dict.fromkeys(texts)))  # remembered: one batch instead of one call each
        requests = [list(self._requests(*item)) for item in asked]
        distinct = {_view(request): request for group in requests for request in group}
        answers = dict(zip(distinct, self._answer_agent.answer(list(distinct.values())), strict=True))
        answered = [
            AnsweredQuestion(question=question.text, gold=question.answer, prediction=answers[_view(request)].text)
            for group, (_, _, questions) in zip(requests, asked, strict=True)
            for request, question in zip(group, questions, strict=True)
        ]
        scores = iter(self._score(answered, log_metric))
        return [mean_score([next(scores) for _ in questions]) for _, _, questions in asked]

    def _requests(
        self, bank: InMemoryBank, speakers: Sequence[str], questions: Sequence[LinkedQuestion]
    ) -> Iterator[AnswerRequest]:
        for question in questions:
            memories = retrieve_for_question(bank, question.text, speakers, self._entries_per_speaker)
            yield AnswerRequest(question_id=question.id, question=question.text, memories=tuple(memories))


def _view(request: AnswerRequest) -> View:
    return request.question, tuple((entry.speaker, entry.time, entry.text) for entry in request.memories)
