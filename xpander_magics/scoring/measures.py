"""What an answer is worth by one rule: plain functions of an answer and of what was expected. No I/O.

Each takes an ``Answer`` and the expected value and returns a number, or raises ``Unscored`` where this answer can't be
scored. What is expected may be any cell of a DataFrame: text, a number or a switch of Python's, numpy's or pandas'
types, or parsed JSON.
"""

from __future__ import annotations

import decimal
import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from xpander_magics.errors import SchemaError
from xpander_magics.plans.schemas import check, parse_json

if TYPE_CHECKING:
    from xpander_magics.results import Run

PATTERN_SECONDS = 1.0
"""How long a pattern is looked for in one answer."""

_MOST_COMPARED = 10**11  # characters by characters: some seconds


class Answer(NamedTuple):
    """What a scorer looks at.

    Attributes:
        run_id: of its run, for messages.
        text: the answer as it was written.
        output: its JSON, where JSON was asked for.
        run: makes the run itself, for those few that look at it.
    """

    run_id: str
    text: str
    output: Any
    run: Callable[[], Run]


class Unscored(Exception):
    """This answer can't be scored; says why.

    Attributes:
        is_error: whether something is wrong that somebody should mend, rather than missing.
    """

    def __init__(self, reason: str, *, is_error: bool = False) -> None:
        super().__init__(reason)
        self.is_error = is_error


Measure = Callable[[Answer, Any], float]

NO_EXPECTED = "no expected value"


def plain_value(value: Any) -> Any:
    """A value as Python's own types have it; None for the missing of any library (None, NaN, NaT, NA)."""
    if value is None or type(value) in (str, bool, int, dict, list):
        return value
    if type(value).__name__ in {"NAType", "NaTType"}:
        return None
    if isinstance(value, decimal.Decimal):
        return float(value) if value.is_finite() else None
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        value = value.tolist()
    return None if isinstance(value, float) and math.isnan(value) else value


def exact(answer: Answer, expected: Any) -> float:
    """1 where the answer is what was expected, but for white space around it; else 0.

    An expected number is compared by its value ("3" and "3.0" are 3), ``True`` and ``False`` whatever their case, dicts
    and lists as JSON.
    """
    if type(expected) is str:  # nearly always
        return float(answer.text.strip() == expected.strip())
    if isinstance(expected, bool):
        return float(answer.text.strip().lower() == str(expected).lower())
    if isinstance(expected, (int, float)):
        try:
            return float(float(answer.text) == expected)
        except (ValueError, OverflowError):
            return 0.0
    if isinstance(expected, (dict, list, tuple)):
        return same_json(answer, expected)
    return float(answer.text.strip() == str(expected).strip())


_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_ASCII_MARKS = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


def normal_form(text: str) -> str:
    """A text without what most often doesn't matter: case, punctuation, articles, white space.

    As the SQuAD evaluation does it (Rajpurkar et al. 2016), and for other scripts: NFKC first, and the punctuation of
    all of Unicode. Where nothing would be left ("A", "The", "?!"), what was taken away last stays.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = "".join(c for c in folded if c not in _ASCII_MARKS and not unicodedata.category(c).startswith("P"))
    for candidate in (_ARTICLES.sub(" ", words), words):
        if not candidate.isspace() and candidate:
            return " ".join(candidate.split())
    return folded.strip()


def normalized(answer: Answer, expected: Any) -> float:
    """1 where both have one ``normal_form``; else 0."""
    return float(normal_form(answer.text) == normal_form(text_of(expected)))


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def contains(answer: Answer, expected: Any) -> float:
    """1 where the answer has what was expected in it, whatever the case and the white space; else 0.

    Within words, too: "no" is in "know". ``choice`` looks for whole words.
    """
    wanted = _folded(text_of(expected))
    if not wanted:
        raise Unscored(NO_EXPECTED)
    return float(wanted in _folded(answer.text))


def matches(pattern: Any) -> Measure:
    """1 where a compiled pattern of ``regex`` is found in the answer; else 0.

    Python's ``re`` knows no time limit, and holds all of the kernel while it searches: a pattern that backtracks
    without an end (``(a+)+$``) would freeze it for good. ``regex`` gives up after ``PATTERN_SECONDS``.
    """

    def measure(answer: Answer, expected: Any) -> float:
        try:
            # Other threads go on meanwhile.
            return float(pattern.search(answer.text, timeout=PATTERN_SECONDS, concurrent=True) is not None)
        except TimeoutError:
            raise Unscored(f"the pattern wasn't done after {PATTERN_SECONDS:g} s", is_error=True) from None

    return measure


_NUMBER = re.compile(
    r"(?:(?<![\w.,])[-+−])?"  # a sign, and not the dash of "3-5"
    r"(?:\d{1,3}(?:[,_'’\u00a0\u202f]\d{3})+(?!\d)|\d+|(?<!\d)(?=\.\d))"
    r"(?:\.\d+)?"
    r"(?:[eE][-+−]?\d{1,3}(?!\w))?"
    r"(?:\s?%)?"
)
_GROUPING = str.maketrans("−", "-", "_,'’\u00a0\u202f %")


class Amount(NamedTuple):
    """A number as it was written."""

    value: float
    percent: bool = False


def number_in(text: str) -> Amount | None:
    """The last number in a text: an answer ends with what it comes to.

    Thousands may be set apart by commas, underscores, apostrophes or no-break spaces; decimals by a point; an exponent
    and a percent sign belong to it. None where there is none, or one too large for a float.
    """
    found = None
    for found in _NUMBER.finditer(text):  # noqa: B007  # the last one
        pass
    if found is None:
        return None
    value = float(found[0].translate(_GROUPING))
    return Amount(value, found[0].endswith("%")) if math.isfinite(value) else None


def numeric(tolerance: float = 0.0, *, relative: bool = False) -> Measure:
    """1 where the number in the answer (``number_in``) is the expected one, within a tolerance; else 0.

    Where one of the two has a percent sign and the other hasn't, "12%" is 12 as well as 0.12.

    Args:
        tolerance: how far apart they may be; besides, what floats can't tell apart is equal.
        relative: whether the tolerance is a share of the expected number.
    """

    def near(value: float, wanted: float) -> bool:
        allowed = tolerance * abs(wanted) if relative else tolerance
        slack = 1e-9 * max(abs(value), abs(wanted))  # of 0.1 + 0.2, and of a tolerance's own border
        return abs(value - wanted) <= allowed + slack

    def measure(answer: Answer, expected: Any) -> float:
        wanted = number_in(expected) if isinstance(expected, str) else None
        if type(expected) in (int, float):
            wanted = Amount(float(expected))
        if wanted is None or not math.isfinite(wanted.value):
            raise Unscored(f"the expected value {shortened(expected)} has no number", is_error=True)
        given = number_in(answer.text)
        if given is None:
            return 0.0
        if given.percent == wanted.percent:
            return float(near(given.value, wanted.value))
        hundredths = [amount.value / 100 if amount.percent else amount.value for amount in (given, wanted)]
        return float(near(given.value, wanted.value) or near(*hundredths))

    return measure


def choice(choices: Iterable[str]) -> Measure:
    """1 where the answer names the expected one of the choices, and no other; else 0.

    Named is what stands there as whole words, whatever the case and the white space. Of overlapping choices ("bug",
    "not a bug") the longest counts.
    """
    by_form = {_folded(one): one for one in choices}
    longest_first = sorted(by_form, key=len, reverse=True)
    pattern = re.compile("|".join(_as_words(form) for form in longest_first))

    def measure(answer: Answer, expected: Any) -> float:
        wanted = _folded(text_of(expected))
        if wanted not in by_form:
            raise Unscored(f"the expected value {shortened(expected)} is none of the choices", is_error=True)
        return float(set(pattern.findall(_folded(answer.text))) == {wanted})

    return measure


def _as_words(form: str) -> str:
    """A pattern for a text that doesn't begin or end within a word."""
    before = r"(?<!\w)" if form[0].isalnum() else ""
    after = r"(?!\w)" if form[-1].isalnum() else ""
    return f"{before}{re.escape(form)}{after}"


def same_json(answer: Answer, expected: Any) -> float:
    """1 where the answer's JSON equals the expected one; else 0, and where it is no JSON, too.

    Numbers are equal by value, objects whatever the order of their keys; ``true`` is no 1. An expected text is read as
    JSON where it is JSON.
    """
    found, output = _output(answer)
    return float(found and equal(output, expected_json(expected)))


def fields(names: Sequence[str] = ()) -> Measure:
    """The share of the expected object's fields that the answer's JSON object has with equal values, as ``same_json``.

    Args:
        names: these fields alone; all of the expected object's when empty.
    """

    def measure(answer: Answer, expected: Any) -> float:
        wanted = expected_json(expected)
        if not isinstance(wanted, Mapping) or not wanted:
            raise Unscored(f"the expected value {shortened(expected)} is no JSON object with fields", is_error=True)
        for name in names:
            if name not in wanted:
                raise Unscored(f"the expected object has no field {name!r}", is_error=True)
        _, output = _output(answer)
        if not isinstance(output, Mapping):
            return 0.0
        asked = names or list(wanted)
        return sum(name in output and equal(output[name], wanted[name]) for name in asked) / len(asked)

    return measure


def keeps_schema(schema: Mapping[str, Any] | None) -> Measure:
    """1 where the answer's JSON is valid by a schema; else 0, and where it is no JSON, too.

    Args:
        schema: None for the one that each run was asked to keep.
    """

    def measure(answer: Answer, expected: Any) -> float:
        wanted = schema if schema is not None else answer.run().request.get("output_schema")
        if not isinstance(wanted, Mapping):
            raise Unscored("it isn't known which schema it was asked to keep; name one: schema:NAME", is_error=True)
        found, output = _output(answer)
        try:
            check(output, wanted)
        except SchemaError:
            return 0.0
        return float(found)

    return measure


def similarity(answer: Answer, expected: Any) -> float:
    """How alike the two texts are, by characters: 1 - (Levenshtein distance) / (length of the longer), from 0 to 1.

    White space around them doesn't count. RapidFuzz's ``Levenshtein.normalized_similarity``, whose time grows with the
    product of the lengths, and which no interrupt ends.
    """
    from rapidfuzz.distance import Levenshtein

    given, wanted = answer.text.strip(), text_of(expected).strip()
    if len(given) * len(wanted) > _MOST_COMPARED:
        raise Unscored(f"texts of {len(given):,} and {len(wanted):,} characters are too long for it", is_error=True)
    return float(Levenshtein.normalized_similarity(given, wanted))


def _output(answer: Answer) -> tuple[bool, Any]:
    """The answer's JSON, and whether it is JSON at all."""
    if answer.output is not None:
        return True, answer.output
    try:
        return True, parse_json(answer.text)
    except SchemaError:
        return False, None


def expected_json(expected: Any) -> Any:
    """An expected value as JSON: a text is parsed, where it can be."""
    if not isinstance(expected, str):
        return expected
    try:
        return parse_json(expected)
    except SchemaError:
        return expected


def equal(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal: numbers by value, and a boolean is no number."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(equal(value, other[name]) for name, value in one.items())
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def text_of(expected: Any) -> str:
    """An expected value as one would write it: a whole number without a point, dicts and lists as JSON."""
    if isinstance(expected, str):
        return expected
    if isinstance(expected, bool):
        return str(expected).lower()
    if isinstance(expected, float) and expected.is_integer() and abs(expected) < 2**53:
        return str(int(expected))  # pandas makes floats of whole numbers where one is missing
    if isinstance(expected, (dict, list, tuple)):
        return json.dumps(expected, ensure_ascii=False, default=str)
    return str(expected)


def shortened(value: Any) -> str:
    """A value for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
