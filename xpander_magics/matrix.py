"""The runs of a sweep as a matrix: inputs by configurations, with equal answers counted. No widget, no I/O.

An *input* is what was asked: the variables of a prompt, the prompt, and what its conversation has had before. A
*configuration* is one combination of the settings that vary; a prompt template is one of these where several were
filled in with the same variables. A *cell* is where the two meet: one run, or its repeats.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from xpander_magics.asked import SETTINGS, Asked, InputKey, asked_of, configuration_names, laid_out, short_models
from xpander_magics.contract import WAITING
from xpander_magics.results import Run, has_failed
from xpander_magics.safety import as_shown, plain
from xpander_magics.store.values import to_json

EQUAL = "Answers are equal if they differ in white space alone; JSON, if it holds the same values."
"""What counts as an equal answer, for people."""
FAILURE = "no answer that can be used, or a score below 0.5"
"""What counts as a failure, for people."""
ERROR = "ended as failed, error or unknown, or with an error's name"
"""What counts as an error, for people."""

NO_ANSWER = -1  # in place of an answer's number: none has come yet
_PASSED = 0.5
_PREVIEW = 160


class Input(NamedTuple):
    """What was asked: the variables' values as text, by their names, and the prompt.

    Of competing prompts it is the first.
    """

    variables: dict[str, str]
    prompt: str


class Outcome(NamedTuple):
    """What the matrix keeps of a run.

    Attributes:
        usable: whether it has an answer that can be judged.
        answer: the number of its answer; equal answers have one number.
        status: the task's, with the error's name where it completed all the same.
    """

    run_id: str
    usable: bool
    input: int
    configuration: int
    answer: int
    status: str
    failure: bool
    error: bool
    seconds: float | None
    tokens: int | None
    cost: float | None
    scores: dict[str, float]
    noted: bool


class Summary(NamedTuple):
    """What a configuration, or a cell, has come to.

    Attributes:
        scores: the mean of each scorer's scores.
        seconds: the median.
        tokens, cost: the sums, the latter in US dollars; None where none is known.
    """

    runs: int
    failures: int
    scores: dict[str, float]
    seconds: float | None
    tokens: int | None
    cost: float | None


@dataclass
class Matrix:
    """Runs as inputs by configurations.

    Attributes:
        settings: the settings that vary.
        configurations: their values, in the order in which they appear; one without any where nothing varies.
        variables: the names of all variables, those that hold lists and dicts last.
        outcomes: what became of the runs, in their order.
        answers: the texts of the answers, harmless for a terminal; of equal ones the first.
        cells: the numbers of the runs of each input and configuration, in the order of the repeats.
    """

    settings: list[str]
    configurations: list[tuple[str | None, ...]]
    variables: list[str]
    inputs: list[Input]
    outcomes: list[Outcome]
    answers: list[str]
    cells: dict[tuple[int, int], list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.cells = {}
        for number, outcome in enumerate(self.outcomes):
            self.cells.setdefault((outcome.input, outcome.configuration), []).append(number)

    @property
    def names(self) -> list[str]:
        """A short name for each configuration, harmless anywhere but in HTML; no two are alike."""
        return configuration_names(self.settings, self.configurations)

    @property
    def scorers(self) -> list[str]:
        """The names of all scores."""
        return list(dict.fromkeys(name for outcome in self.outcomes for name in outcome.scores))

    @property
    def varying(self) -> list[str]:
        """The variables that tell the inputs apart."""
        return [n for n in self.variables if len({one.variables.get(n) for one in self.inputs}) > 1]

    def groups(self, numbers: Iterable[int]) -> dict[int, list[int]]:
        """The runs among these that gave the same answer, by its number, the most frequent first."""
        found: dict[int, list[int]] = {}
        for number in numbers:
            found.setdefault(self.outcomes[number].answer, []).append(number)
        return dict(sorted(found.items(), key=lambda item: -len(item[1])))

    def differs(self, place: tuple[int, int], baseline: int) -> bool:
        """Whether a cell holds an answer that the baseline's cell of the same input lacks, or lacks one of it.

        What has no answer, or has failed, is compared with nothing.
        """
        own, other = (self._answers_at(at) for at in (place, (place[0], baseline)))
        return bool(own and other and own != other)

    def _answers_at(self, place: tuple[int, int]) -> set[int]:
        at = [self.outcomes[number] for number in self.cells.get(place, ())]
        return {outcome.answer for outcome in at if outcome.status.startswith("completed")} - {NO_ANSWER}

    def summary(self, numbers: Sequence[int]) -> Summary:
        """What these runs have come to."""
        outcomes = [self.outcomes[number] for number in numbers]
        scores: dict[str, list[float]] = {}
        for outcome in outcomes:
            for name, score in outcome.scores.items():
                scores.setdefault(name, []).append(score)
        seconds, tokens, costs = (
            [value for outcome in outcomes if (value := getattr(outcome, name)) is not None]
            for name in ("seconds", "tokens", "cost")
        )
        return Summary(
            runs=len(outcomes),
            failures=sum(outcome.failure for outcome in outcomes),
            scores={name: statistics.fmean(values) for name, values in scores.items()},
            seconds=statistics.median(seconds) if seconds else None,
            tokens=sum(tokens) if tokens else None,
            cost=sum(costs) if costs else None,
        )

    def summaries(self) -> list[Summary]:
        """What each configuration has come to."""
        of_each: list[list[int]] = [[] for _ in self.configurations]
        for number, outcome in enumerate(self.outcomes):
            of_each[outcome.configuration].append(number)
        return [self.summary(numbers) for numbers in of_each]

    def columns(self) -> dict[str, Any]:
        """All of it for a front end, by columns, long texts cut: some 100 bytes a run besides its answer."""
        scorers, names = self.scorers, self.varying
        statuses = list(dict.fromkeys(outcome.status for outcome in self.outcomes))
        place = {status: number for number, status in enumerate(statuses)}
        inputs = [[one.variables.get(name, "") for name in names] or [one.prompt] for one in self.inputs]
        previews = [preview(text) for text in self.answers]
        return {
            "configurations": [
                {"name": name, **summary._asdict(), "scores": [summary.scores.get(name) for name in scorers]}
                for name, summary in zip(self.names, self.summaries(), strict=True)
            ],
            "scorers": [plain(name) for name in scorers],
            "names": [plain(name) for name in names] or ["prompt"],
            "inputs": [[preview(text) for text in one] for one in inputs],
            "answers": previews,
            "cut": [
                number
                for number, text in enumerate(self.answers)
                if len(previews[number]) < len(" ".join(text.split()))
            ],
            "statuses": [plain(status) for status in statuses],
            "input": [outcome.input for outcome in self.outcomes],
            "configuration": [outcome.configuration for outcome in self.outcomes],
            "answer": [outcome.answer for outcome in self.outcomes],
            "status": [place[outcome.status] for outcome in self.outcomes],
            "failure": [int(outcome.failure) for outcome in self.outcomes],
            "error": [int(outcome.error) for outcome in self.outcomes],
            "noted": [int(outcome.noted) for outcome in self.outcomes],
            "seconds": [_rounded(outcome.seconds, 2) for outcome in self.outcomes],
            "tokens": [outcome.tokens for outcome in self.outcomes],
            "cost": [_rounded(outcome.cost, 7) for outcome in self.outcomes],
            "scores": [[_rounded(outcome.scores.get(name), 4) for outcome in self.outcomes] for name in scorers],
        }

    def matching(self, words: str) -> list[int]:
        """The inputs in whose variables, prompt or answers these words stand, whatever their case."""
        wanted = words.casefold()
        answers = {number for number, text in enumerate(self.answers) if wanted in text.casefold()}
        found = {outcome.input for outcome in self.outcomes if outcome.answer in answers}
        for number, (variables, prompt) in enumerate(self.inputs):
            if any(wanted in text.casefold() for text in (prompt, *variables.values())):
                found.add(number)
        return sorted(found)


def matrix_of(runs: Iterable[Run]) -> Matrix:
    """The matrix of these runs; of each it keeps no more than what it shows."""
    asked: dict[Asked, int] = {}
    which: list[int] = []
    variables: dict[str, dict[str, Any]] = {}
    outcomes: list[Outcome] = []
    answers: dict[tuple[str, str], int] = {}
    texts: list[str] = []
    same: dict[str | None, str | None] = {}  # a text that thousands of runs have is kept once
    for run in runs:
        one = asked_of(run, same)
        variables.setdefault(one.variables, run.variables)
        which.append(asked.setdefault(one, len(asked)))
        outcomes.append(_outcome(run, which[-1], answers, texts))
    layout = laid_out(asked, variables)
    models = short_models(one.settings[0] for one in asked)
    configurations: dict[tuple[str | None, ...], int] = {}
    inputs: dict[InputKey, int] = {}
    kept: list[Input] = []
    nested: set[str] = set()
    places: list[tuple[int, int]] = []
    for one, key in zip(asked, layout.inputs, strict=True):
        if key not in inputs:
            inputs[key] = len(inputs)
            left = {name: value for name, value in variables[one.variables].items() if name not in layout.told}
            if layout.threads:
                left = {**left, "thread": one.thread}
            nested.update(name for name, value in left.items() if isinstance(value, (dict, list)))
            kept.append(Input({name: plain(as_shown(value)) for name, value in left.items()}, plain(one.prompt)))
        chosen = (models.get(one.settings[0]), *one.settings[1:])
        values = tuple(chosen[number] for number in layout.vary)
        places.append((inputs[key], configurations.setdefault(values, len(configurations))))
    for number, place in enumerate(which):
        outcomes[number] = outcomes[number]._replace(input=places[place][0], configuration=places[place][1])
    names = sorted(dict.fromkeys(name for one in kept for name in one.variables), key=nested.__contains__)
    return Matrix([SETTINGS[number] for number in layout.vary], list(configurations), names, kept, outcomes, texts)


def _outcome(run: Run, asked: int, answers: dict[tuple[str, str], int], texts: list[str]) -> Outcome:
    """What became of a run; equal answers have one number, and so have a failure and its repeats."""
    status = f"{run.status}: {run.error_type}" if run.status == "completed" and run.error_type else run.status
    answer = NO_ANSWER
    if run.status != "planned" and run.status not in WAITING:
        # Each failure has its own reason: those of other inputs aren't shown in its place.
        why = f"{asked} {run.error_type or ''}"
        key = status, compared(run.result, run.output) if run.status == "completed" else why
        answer = answers.setdefault(key, len(texts))
        if answer == len(texts):
            texts.append(plain(answer_of(run)))
    failed = has_failed(run)
    return Outcome(
        run_id=run.run_id,
        usable=is_usable(run),
        input=0,
        configuration=0,
        answer=answer,
        status=status,
        failure=failed or any(score < _PASSED for score in run.scores.values()),
        error=run.status in ("failed", "error", "unknown") or run.error_type is not None,
        seconds=run.latency_s,
        tokens=run.total_tokens,
        cost=run.cost_usd,
        scores=dict(run.scores),
        noted=bool(run.note or run.tags),
    )


def is_usable(run: Run) -> bool:
    """Whether a run has an answer that can be judged: it completed, and without an error."""
    return run.status == "completed" and run.error_type is None and run.result is not None


def answer_of(run: Run) -> str:
    """What a run's row says of it: its answer; of one that failed, why."""
    # A failed task's result says why; its error says in more words that it failed, which stands beside it.
    is_answer = run.status == "completed" or (run.error_type == "TaskFailed" and run.result)
    return (run.result if is_answer else run.error or run.result) or ""


def compared(result: str | None, output: Any) -> str:
    """What two answers must have in common to be equal; see ``EQUAL``."""
    if output is None:
        return " ".join((result or "").split())
    try:
        return json.dumps(output, sort_keys=True, default=str)
    except (TypeError, ValueError, RecursionError):
        return to_json(output)


def preview(text: str) -> str:
    """The beginning of a text, in one line."""
    line = " ".join(text[: 4 * _PREVIEW].split())
    return line if len(line) <= _PREVIEW and len(text) <= 4 * _PREVIEW else f"{line[: _PREVIEW - 1]}…"


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
