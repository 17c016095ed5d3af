"""Scorers: what scores a run's answer, made of a text such as ``numeric:5%`` or of any function. No I/O.

``[NAME=]SCORER[:ARGUMENT]`` is the text: the score's name, the rule, and what the rule needs. ``measures`` has the
rules; a judge, which asks a model, is in ``judge``.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from xpander_magics import extras
from xpander_magics.errors import ConfigError, SchemaError, XpanderError, did_you_mean
from xpander_magics.results import Run
from xpander_magics.safety import Redactor, secret_variables
from xpander_magics.scoring import embeddings, functions, measures
from xpander_magics.scoring.measures import NO_EXPECTED, Answer, Measure, Unscored, plain_value

WORDS = {
    "exact": "the expected text, but for white space around it; a number by its value",
    "normalized": "the expected text, but for case, punctuation, articles and white space",
    "contains": "the expected text is somewhere in the answer, whatever the case",
    "regex:PATTERN": "the pattern is found in the answer",
    "numeric[:TOLERANCE|P%]": "the last number in the answer is the expected one",
    "choice[:a|b|c]": "the expected choice is named, and no other; without a list, all expected values are the choices",
    "json": "the answer's JSON equals the expected one",
    "fields[:a,b]": "the share of the expected object's fields that are equal",
    "schema[:NAME]": "the answer's JSON is valid by that schema, or by the one that was asked for",
    "similarity": "how alike the two texts are by characters, from 0 to 1",
    "embedding": "how alike the two texts are in meaning: the cosine of static embeddings",
}
"""The scorers as they are written, with what each one says."""

SCORERS = (*(word.partition("[")[0].partition(":")[0] for word in WORDS), "judge:")
"""The words that they begin with, a judge's among them."""

_LONGEST_NAME = 60


@dataclass(frozen=True)
class Scorer:
    """What scores answers one by one.

    Attributes:
        name: of the score; ``score_NAME`` in the frame.
        spec: how scores are made, kept with them.
        measure: a score of one answer; see ``measures``.
        needs_expected: whether nothing can be scored without an expected value.
        needs_all: whether it has to see all expected values first; then ``prepared`` makes the one that scores.
    """

    name: str
    spec: str
    measure: Measure = field(repr=False)
    needs_expected: bool = True
    needs_all: bool = False

    def score(self, run: Run, expected: Any = None) -> float | None:
        """The score of a run; None where it has no answer that can be used, or there is no expected value.

        Raises:
            XpanderError: the scorer can't score this run; says why.
        """
        answer = answer_of(run)
        if answer is None:
            return None
        outcome = self.outcomes([answer], [expected])[0]
        if not isinstance(outcome, Unscored):
            return outcome
        if outcome.is_error:
            raise XpanderError(f"The scorer {self.name} can't score run {run.run_id[:8]}: {outcome}.")
        return None

    def outcomes(self, answers: Iterable[Answer], expected: Iterable[Any]) -> list[float | Unscored]:
        """A score for each answer, or why there is none; one answer's trouble is no other's."""
        measure, needs, found = self.measure, self.needs_expected, list[float | Unscored]()
        for answer, value in zip(answers, expected, strict=True):
            wanted = value if type(value) is str else plain_value(value)
            if wanted is None and needs:
                found.append(Unscored(NO_EXPECTED))
                continue
            try:
                found.append(measure(answer, wanted))
            except Unscored as reason:
                found.append(reason)
            except RecursionError:
                found.append(Unscored("it is nested too deep", is_error=True))
            except Exception as error:  # the user's own function may raise anything
                told = Redactor(secret_variables().values())(f"{type(error).__name__}: {error}".rstrip(": "))
                found.append(Unscored(f"it raised {told[:300]}", is_error=True))
        return found

    def prepared(self, expected: Iterable[Any]) -> Scorer:
        """This scorer, once it has seen all expected values.

        Raises:
            ConfigError: they don't do.
        """
        return _choice(self.name, _distinct(expected)) if self.needs_all else self


@dataclass(frozen=True)
class _Embedding(Scorer):
    """Scores all answers at once: one by one would take many times as long."""

    def outcomes(self, answers: Iterable[Answer], expected: Iterable[Any]) -> list[float | Unscored]:
        wanted = [plain_value(value) for value in expected]
        pairs = [(a.text, measures.text_of(w)) if w is not None else None for a, w in zip(answers, wanted, strict=True)]
        cosines = iter(embeddings.cosines([pair for pair in pairs if pair is not None]))
        found = [Unscored(NO_EXPECTED) if pair is None else next(cosines) for pair in pairs]
        return [Unscored("a text without words has no meaning") if value is None else value for value in found]


def answer_of(run: Run) -> Answer | None:
    """What a scorer looks at of a run; None where it has no answer that can be used.

    A completed run whose answer breaks its schema, or is no JSON, has an answer: it is scored.
    """
    if run.status != "completed" or run.result is None:
        return None
    return Answer(run.run_id, run.result, run.output, lambda: run)


def scorer_of(given: Any, variables: Mapping[str, Any] | None = None) -> Scorer:
    """A scorer from its text, from a function, or as it is.

    Args:
        given: a ``Scorer``, such a text, or a function; see ``of_function``.
        variables: the notebook's, where functions and schemas are looked for by name.

    Raises:
        ConfigError: it is none of these; says what is near, or what is missing.
    """
    if isinstance(given, Scorer):
        return given
    if isinstance(given, str):
        return parse_scorer(given, variables or {})
    if callable(given):
        return of_function(given)
    raise ConfigError(f"A scorer is a text such as 'exact', or a function; not a value of type {type(given).__name__}.")


def parse_scorer(spec: str, variables: Mapping[str, Any]) -> Scorer:
    """The scorer that ``[NAME=]SCORER[:ARGUMENT]`` says. Raises as ``scorer_of``."""
    name, word, argument = parts_of(spec)
    own = variables.get(word)
    made = _MAKERS.get(word)
    if made is not None and callable(own):
        raise ConfigError(f"{word!r} is a scorer and a function of the notebook, too; give that one another name.")
    if made is not None:
        scorer = made(argument, variables)
    elif callable(own) and argument is None:
        scorer = of_function(own, named=word)
    elif isinstance(own, Scorer) and argument is None:
        scorer = own
    else:
        names = [*_MAKERS, "judge", *(n for n, value in variables.items() if callable(value) and n[:1] != "_")]
        otherwise = f"There are {', '.join(_MAKERS)}, judge, and the notebook's functions."
        raise ConfigError(f"There is no scorer {word!r}. {did_you_mean(word, names, otherwise=otherwise)}")
    return replace(scorer, name=name) if name else scorer


def parts_of(spec: str) -> tuple[str | None, str, str | None]:
    """The name, the word and the argument of a scorer's text.

    Raises:
        ConfigError: it is empty, or its name can't name a score.
    """
    found = re.fullmatch(r"(?:([^:=]*)=)?([^:]*)(?::(.*))?", spec.strip(), re.DOTALL)
    name, word, argument = found.groups() if found else (None, "", None)
    if not word.strip():
        raise ConfigError(
            f"A scorer is written [NAME=]SCORER[:ARGUMENT], such as exact or close=numeric:5%; not {spec!r}."
        )
    return None if name is None else checked_name(name.strip()), word.strip(), argument


def checked_name(name: str) -> str:
    """A score's name, which is part of a column's; raises ConfigError where it can't be."""
    if not re.fullmatch(r"\w(?:[\w-]*\w)?", name) or len(name) > _LONGEST_NAME:
        raise ConfigError(
            f"A score's name is made of letters, digits, _ and - ({_LONGEST_NAME} at the most), which {name!r} isn't."
        )
    return name


def of_function(function: Callable[..., Any], *, named: str = "lambda") -> Scorer:
    """A scorer from a function; see ``functions``.

    Args:
        named: what it is called where it has no name of its own.

    Raises:
        ConfigError: it can't be called as a scorer.
    """
    return Scorer(*functions.adapted(function, named))


def _plainly(word: str, measure: Measure) -> Callable[[str | None, Mapping[str, Any]], Scorer]:
    def make(argument: str | None, variables: Mapping[str, Any]) -> Scorer:
        if argument is not None:
            raise ConfigError(f"The scorer {word} takes nothing after a colon.")
        return Scorer(word, word, measure)

    return make


def _similarity(argument: str | None, variables: Mapping[str, Any]) -> Scorer:
    try:
        import rapidfuzz  # noqa: F401  # whether it is there is to be known before anything is sent
    except ImportError:
        raise ConfigError(extras.missing("The scorer similarity needs", "similarity")) from None
    return _plainly("similarity", measures.similarity)(argument, variables)


def _embedding(argument: str | None, variables: Mapping[str, Any]) -> Scorer:
    model = embeddings.model_name()
    plain = _plainly("embedding", lambda answer, expected: math.nan)(argument, variables)
    return _Embedding("embedding", f"embedding ({model})", plain.measure)


def _regex(argument: str | None, variables: Mapping[str, Any]) -> Scorer:
    import regex

    if not argument:
        raise ConfigError(r"The scorer regex needs a pattern: regex:\bbug\b")
    try:
        pattern = regex.compile(argument)
    except regex.error as error:
        raise ConfigError(f"The scorer regex has a pattern that can't be read: {error}.") from None
    return Scorer("regex", f"regex:{argument}", measures.matches(pattern), needs_expected=False)


def _numeric(argument: str | None, variables: Mapping[str, Any]) -> Scorer:
    if argument is None:
        return Scorer("numeric", "numeric", measures.numeric())
    text, percent = argument.strip().removesuffix("%"), argument.strip().endswith("%")
    try:
        tolerance = float(text)
    except ValueError:
        tolerance = -1.0
    if not 0 <= tolerance < math.inf:
        raise ConfigError(f"The scorer numeric takes a tolerance such as 0.01 or 5%, not {argument!r}.")
    measure = measures.numeric(tolerance / 100 if percent else tolerance, relative=percent)
    return Scorer("numeric", f"numeric:{argument.strip()}", measure)


def _choice_of(argument: str | None, variables: Mapping[str, Any]) -> Scorer:
    if argument is not None:
        return _choice("choice", [part.strip() for part in argument.split("|")])

    def unprepared(answer: Answer, expected: Any) -> float:
        raise Unscored("the choices aren't known; name them: choice:a|b", is_error=True)

    return Scorer("choice", "choice", unprepared, needs_all=True)


def _choice(name: str, choices: Sequence[str]) -> Scorer:
    if len({" ".join(one.casefold().split()) for one in choices}) < max(len(choices), 2) or not all(choices):
        shown = "|".join(choices)[:200]
        raise ConfigError(
            f"The scorer choice needs two or more choices, each another: choice:bug|billing; not {shown!r}."
        )
    return Scorer(name, f"choice:{'|'.join(choices)}", measures.choice(choices))


def _distinct(expected: Iterable[Any]) -> list[str]:
    """The texts of expected values, each once, whatever its case."""
    by_form: dict[str, str] = {}
    for value in expected:
        wanted = plain_value(value)
        if wanted is not None:
            text = measures.text_of(wanted).strip()
            by_form.setdefault(" ".join(text.casefold().split()), text)
    return sorted(text for text in by_form.values() if text)


def _fields(argument: str | None, variables: Mapping[str, Any]) -> Scorer:
    if argument is None:
        return Scorer("fields", "fields", measures.fields())
    names = list(dict.fromkeys(part.strip() for part in argument.split(",")))
    if not all(names):
        raise ConfigError(f"The scorer fields takes names with commas between them: fields:a,b; not {argument!r}.")
    return Scorer("fields", f"fields:{','.join(names)}", measures.fields(names))


def _schema(argument: str | None, variables: Mapping[str, Any]) -> Scorer:
    from xpander_magics.plans.schemas import schema_from

    if argument is None:
        return Scorer("schema", "schema", measures.keeps_schema(None), needs_expected=False)
    try:
        schema = schema_from(variables.get(argument, argument))
    except (ConfigError, SchemaError) as error:
        raise ConfigError(f"The scorer schema:{argument} has no schema. {error}") from None
    digest = hashlib.sha256(json.dumps(schema, sort_keys=True).encode()).hexdigest()[:8]
    return Scorer("schema", f"schema:{argument} ({digest})", measures.keeps_schema(schema), needs_expected=False)


_MAKERS: dict[str, Callable[[str | None, Mapping[str, Any]], Scorer]] = {
    "exact": _plainly("exact", measures.exact),
    "normalized": _plainly("normalized", measures.normalized),
    "contains": _plainly("contains", measures.contains),
    "regex": _regex,
    "numeric": _numeric,
    "choice": _choice_of,
    "json": _plainly("json", measures.same_json),
    "fields": _fields,
    "schema": _schema,
    "similarity": _similarity,
    "embedding": _embedding,
}
