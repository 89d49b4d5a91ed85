"""A language model as a judge: does an answer say what the gold answer says? Each answer is asked about once, ever.

Left out: grades between right and wrong. A judge's own scale drifts; a share of right answers does not.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from memr1.agents.generation import Generator
from memr1.agents.parsing import without_reasoning
from memr1.agents.prompting import read_template, render_judge_prompt
from memr1.cache_file import CacheFile, content_key
from memr1.errors import GenerationFailed
from memr1.metrics import exact_match
from memr1.records import Record

MAX_NEW_TOKENS = 1024  # a verdict is one word, but a model may reason first
ASKED_TOGETHER = 256  # what a kill can cost: verdicts are kept after each such batch
FEW = 16  # verdicts asked for, below which nothing is said about the judge itself
RIGHT, WRONG = b"\1", b"\0"

_VERDICT = re.compile(r"\W*(?:(?:verdict|answer)\W+)?(right|wrong)\W*", re.IGNORECASE)


class AnsweredQuestion(Record):
    """A question, its gold answer, and the answer that was given."""

    question: str
    gold: str
    prediction: str


class Judgement(Record):
    """One verdict per answer, None where the judge said nothing that can be read."""

    verdicts: tuple[bool | None, ...]
    num_asked: int  # different answers that the model was asked about
    num_unreadable: int  # of those, how many it gave no verdict on, not even when asked again


class Judge:
    """Judges answers in batches, and keeps every verdict: in memory, and in a file when one is given."""

    def __init__(self, generator: Generator, file: CacheFile | None = None) -> None:
        """`file` may be shared by processes; of two verdicts on one answer the first one written holds for all."""
        self._generator = generator
        self._file = file
        self._known: dict[bytes, bool] = {}
        self._num_asked = self._num_unreadable = 0

    def judge(self, answers: Sequence[AnsweredQuestion]) -> Judgement:
        """Judge all answers, asking about each different one at most once; an unreadable reply is asked for again once.

        No call is spent on an answer that equals the gold one (memr1.metrics.exact_match: right) or is empty (wrong).
        Raises GenerationFailed when the judge is away, or when most of what it says cannot be read.
        """
        keys = {answer: self._key(answer) for answer in dict.fromkeys(answers) if judge_without_asking(answer) is None}
        self._recall(keys.values())
        unknown = [answer for answer, key in keys.items() if key not in self._known]
        for start in range(0, len(unknown), ASKED_TOGETHER):
            self._ask({keys[answer]: answer for answer in unknown[start : start + ASKED_TOGETHER]})
        verdicts = tuple(
            self._known.get(keys[answer]) if answer in keys else judge_without_asking(answer) for answer in answers
        )
        num_unreadable = sum(keys[answer] not in self._known for answer in unknown)
        return Judgement(verdicts=verdicts, num_asked=len(unknown), num_unreadable=num_unreadable)

    def _ask(self, answers: Mapping[bytes, AnsweredQuestion]) -> None:
        """Ask about all of them at once. The second time the reply is sampled: a greedy one would be the same."""
        found, replies = self._read(answers, temperature=0.0)
        unread = {key: answer for key, answer in answers.items() if key not in found}
        if unread:
            again, replies = self._read(unread, temperature=1.0)
            found |= again
        if self._file is not None:
            self._file.write({key: RIGHT if verdict else WRONG for key, verdict in found.items()})
        self._known |= found
        self._recall(found)  # another process may have been faster
        self._num_asked += len(answers)
        self._num_unreadable += len(answers) - len(found)
        self._refuse_a_mute_judge(replies)

    def _read(
        self, answers: Mapping[bytes, AnsweredQuestion], temperature: float
    ) -> tuple[dict[bytes, bool], list[str]]:
        prompts = [render_judge_prompt(item.question, item.gold, item.prediction) for item in answers.values()]
        replies = self._generator.sample_texts(prompts, max_new_tokens=MAX_NEW_TOKENS, temperature=temperature)
        verdicts = zip(answers, map(parse_verdict, replies), strict=True)
        return {key: verdict for key, verdict in verdicts if verdict is not None}, replies

    def _recall(self, keys: Iterable[bytes]) -> None:
        if self._file is not None:
            self._known |= {key: value == RIGHT for key, value in self._file.read(list(keys)).items()}

    def _key(self, answer: AnsweredQuestion) -> bytes:
        """Another model or another wording of the prompt is another judge."""
        prompt = read_template("judge")
        return content_key(self._generator.name, prompt, answer.question, answer.gold, answer.prediction)

    def _refuse_a_mute_judge(self, replies: Sequence[str]) -> None:
        if self._num_asked >= FEW and 2 * self._num_unreadable > self._num_asked:
            raise GenerationFailed(
                f"the judge {self._generator.name!r} gave no verdict on {self._num_unreadable} of {self._num_asked} "
                f"answers; the last thing it said is {replies[-1][-200:]!r}. Choose a model that follows its prompt "
                "(memr1/agents/prompts/judge.txt)"
            )


def judge_without_asking(answer: AnsweredQuestion) -> bool | None:
    """True for an answer that equals the gold one, False for none at all; None where somebody must be asked."""
    if not answer.prediction.strip():
        return False
    return True if exact_match(answer.prediction, answer.gold) else None


def parse_verdict(text: str) -> bool | None:
    """What the last line of a reply says, which must be RIGHT or WRONG and nothing else; None otherwise."""
    lines = without_reasoning(text).strip().splitlines()
    found = _VERDICT.fullmatch(lines[-1]) if lines else None
    return None if found is None else found[1].lower() == "right"
