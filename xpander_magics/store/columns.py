"""The columns: how the values of each are kept, and how they are framed. pandas is imported inside functions.

A run has three shapes: a ``Run``, a row of the store, a row of a frame. ``COLUMNS`` has one line a
column, and the line's ``Kind`` knows all three: ``pack`` (a ``Run``'s value to the store's, which
never raises), ``unpack`` (back), and ``gather`` with ``join`` (many of the store's to one array).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from xpander_magics.contract import EFFORTS, MODES, THINK_MODES
from xpander_magics.results import Run
from xpander_magics.safety import encodable
from xpander_magics.store.values import (
    MARK,
    escape,
    from_json,
    from_microseconds,
    to_integer,
    to_json,
    to_microseconds,
    to_real,
    unescape,
)

STATUSES = ("planned", "pending", "executing", "paused", "completed", "failed", "error", "stopped", "unknown")
"""The statuses in the order of a run's life."""


class Kind:
    """How the values of a column are kept and framed; this one: nullable strings.

    They are Python's own, whether pyarrow is there or not: the dtype is the same on every machine,
    half a surrogate pair fits in, and beside the parsed JSON Arrow's would save no memory.
    """

    dtype = "string"
    shared = ""  # columns of one ``shared`` name have one ``memo``, others have their own

    def pack(self, value: Any) -> Any:
        """A run's value as the store keeps it."""
        if value is None:
            return None
        return escape(value if isinstance(value, str) else to_json(value))

    def unpack(self, stored: Any) -> Any:
        """The store's value as a run has it."""
        return None if stored is None else unescape(stored)

    def fits(self, stored: Any) -> bool:
        """Whether a value is one that ``pack`` may have made."""
        return stored is None or isinstance(stored, str)

    def gather(self, stored: Sequence[Any], memo: dict[Any, Any]) -> Any:
        """A batch of the store's values as a part for ``join``; ``memo`` lives as long as the frame's making."""
        import pandas as pd

        # One look at all of them is a tenth of the cost of a look at each.
        if MARK in "".join(filter(None, stored)):
            stored = [self.unpack(value) for value in stored]
        return pd.array(stored, dtype=pd.StringDtype("python"))

    def join(self, parts: list[Any], memo: dict[Any, Any]) -> Any:
        """All parts as one array of ``dtype``."""
        import pandas as pd

        if not parts:
            return pd.array([], dtype=pd.StringDtype("python"))
        return pd.concat([pd.Series(part, copy=False) for part in parts], ignore_index=True).array


class Repeated(Kind):
    """Strings of which few differ: equal ones become one object, so a template counts once in memory."""

    def gather(self, stored: Sequence[Any], memo: dict[Any, Any]) -> Any:
        return super().gather(list(map(memo.setdefault, stored, stored)), memo)


class Category(Kind):
    """Strings of a small set.

    Unordered, though the categories have an order, which sorting and grouping follow (low before
    high): an ordered set would claim that an effort that is new at the service is more than
    ``xhigh``. The known ones are always all there and first, so that frames of different runs concat
    to a category again; where the set is open (models) pandas makes strings of it unless both frames
    have the same. Columns that are compared with each other (``model == requested_model``) share
    their categories, without which pandas refuses. Halves of surrogate pairs are spelled out.
    """

    dtype = "category"

    def __init__(self, *known: str, shared: str = "") -> None:
        self.known = known
        self.shared = shared

    def gather(self, stored: Sequence[Any], memo: dict[Any, Any]) -> Any:
        import numpy as np

        for value in set(stored).difference(memo):
            memo[value] = -1 if value is None else len(memo) - (None in memo)
        return np.fromiter(map(memo.__getitem__, stored), dtype="int32", count=len(stored))

    def join(self, parts: list[Any], memo: dict[Any, Any]) -> Any:
        import numpy as np
        import pandas as pd

        # pandas can't hash half of a surrogate pair among categories, nor can pyarrow hold it.
        seen = [encodable(self.unpack(value)) for value in memo if value is not None]
        categories = [*self.known, *sorted(set(seen).difference(self.known))]
        place = {value: number for number, value in enumerate(categories)}
        # The last one stands for the missing, whose code is -1.
        new_code = np.array([*(place[value] for value in seen), -1], dtype="int32")
        codes = new_code[np.concatenate([np.empty(0, "int32"), *parts])]
        return pd.Categorical.from_codes(codes, categories=pd.Index(categories, dtype="str"))


class Number(Kind):
    """What numpy holds with a mask: 64-bit integers. A count beyond them is missing, not wrong."""

    dtype = "Int64"
    numpy = "int64"
    absent: Any = 0

    def pack(self, value: Any) -> Any:
        return to_integer(value)

    def unpack(self, stored: Any) -> Any:
        if isinstance(stored, (str, bytes)):  # SQLite keeps in any column what it is given
            raise TypeError("no number")
        return stored

    def fits(self, stored: Any) -> bool:
        return stored is None or (type(stored) is int and to_integer(stored) is not None)

    def gather(self, stored: Sequence[Any], memo: dict[Any, Any]) -> Any:
        import numpy as np

        missing = np.fromiter((value is None for value in stored), dtype=bool, count=len(stored))
        if missing.any():
            stored = [self.absent if value is None else value for value in stored]
        return np.array(stored, dtype=self.numpy), missing

    def join(self, parts: list[Any], memo: dict[Any, Any]) -> Any:
        import numpy as np

        values = np.concatenate([np.empty(0, self.numpy), *(part[0] for part in parts)])
        return self.finish(values, np.concatenate([np.empty(0, bool), *(part[1] for part in parts)]))

    def finish(self, values: Any, missing: Any) -> Any:
        """One array of ``dtype``, without the values where ``missing``."""
        import pandas as pd

        return pd.arrays.IntegerArray(values, missing)


class Real(Number):
    """64-bit floats. NaN is missing: that is what it means here, and SQLite keeps it so."""

    dtype = "Float64"
    numpy = "float64"

    def pack(self, value: Any) -> Any:
        return to_real(value)

    def fits(self, stored: Any) -> bool:
        return stored is None or isinstance(stored, float)

    def finish(self, values: Any, missing: Any) -> Any:
        import pandas as pd

        return pd.arrays.FloatingArray(values, missing)


class Flag(Number):
    """True, False or missing."""

    dtype = "boolean"
    numpy = "bool"

    def pack(self, value: Any) -> Any:
        return value if isinstance(value, bool) else None

    def unpack(self, stored: Any) -> Any:
        return None if stored is None else bool(super().unpack(stored))

    def gather(self, stored: Sequence[Any], memo: dict[Any, Any]) -> Any:
        return super().gather([self.unpack(value) for value in stored], memo)  # numpy takes any text for True

    def fits(self, stored: Any) -> bool:
        return stored is None or isinstance(stored, bool)

    def finish(self, values: Any, missing: Any) -> Any:
        import pandas as pd

        return pd.arrays.BooleanArray(values, missing)


class Time(Number):
    """Times as microseconds since 1970 in UTC: exact, ordered, and the same in every database."""

    dtype = "datetime64[us, UTC]"
    absent = -(1 << 63)  # what numpy reads as "not a time"

    def pack(self, value: Any) -> Any:
        return to_microseconds(value)

    def unpack(self, stored: Any) -> Any:
        return from_microseconds(stored)

    def fits(self, stored: Any) -> bool:
        try:
            return super().fits(stored) and (self.unpack(stored), True)[1]
        except OverflowError:  # beyond the year 9999
            return False

    def finish(self, values: Any, missing: Any) -> Any:
        import pandas as pd

        return pd.DatetimeIndex(values.view("datetime64[us]")).tz_localize("UTC").array


class Json(Kind):
    """Parsed JSON. Missing is None, which is JSON's own: ``pd.NA`` in an object column has no truth value."""

    dtype = "object"

    def __init__(self, empty: Callable[[], Any] = lambda: None) -> None:
        self.empty = empty

    def pack(self, value: Any) -> Any:
        value = self.empty() if value is None else value
        return None if value is None else to_json(value)

    def unpack(self, stored: Any) -> Any:
        return self.empty() if stored is None else from_json(stored)

    def gather(self, stored: Sequence[Any], memo: dict[Any, Any]) -> Any:
        # One parse for all: it knows the keys again, and each row gets lists and dicts of its own.
        try:
            values = json.loads(f"[{','.join(value or 'null' for value in stored)}]")
            if len(values) == len(stored):
                return values
        except (ValueError, RecursionError):
            pass
        return [from_json(value) for value in stored]

    def join(self, parts: list[Any], memo: dict[Any, Any]) -> Any:
        import pandas as pd

        # As a Series: pandas 3 would look into a bare object array, and make one of strings of it.
        return pd.Series(list(itertools.chain.from_iterable(parts)), dtype="object")


class Tags(Json):
    """A list of strings. Quotes, backslashes and commas are written as ``\\uXXXX``: ``"TAG"`` is then only found
    where it is a tag, so the database can look for one."""

    def __init__(self) -> None:
        super().__init__(list)

    def pack(self, value: Any) -> str:
        tags = value if isinstance(value, (list, tuple, set, frozenset)) else [] if value is None else [value]
        return f"[{','.join(self.needle(tag) for tag in tags)}]"

    def needle(self, tag: Any) -> str:
        """What to look for to find this tag."""
        text = to_json(tag if isinstance(tag, str) else str(tag))[1:-1]
        return '"{}"'.format(text.replace("\\\\", "\\u005c").replace('\\"', "\\u0022").replace(",", "\\u002c"))


class Scores(Json):
    """Scores by name. NaN and what is no number are left out."""

    def __init__(self) -> None:
        super().__init__(dict)

    def pack(self, value: Any) -> str:
        scores = value.items() if isinstance(value, Mapping) else ()
        packed = {str(name): to_real(score) for name, score in scores}
        return to_json({name: score for name, score in packed.items() if score is not None})


TEXT, REPEATED, TIME, INTEGER, REAL, FLAG = Kind(), Repeated(), Time(), Number(), Real(), Flag()
OBJECT, TAGS, SCORES = Json(dict), Tags(), Scores()
PROVIDER, MODEL = Category(shared="provider"), Category(shared="model")
EFFORT = Category(*EFFORTS, shared="effort")


class Column(NamedTuple):
    """One attribute of ``Run`` that is kept: its name everywhere, and how its values are kept and framed."""

    name: str
    kind: Kind

    @property
    def dtype(self) -> str:
        """The frame's dtype, as pandas spells it."""
        return self.kind.dtype


COLUMNS = (
    Column("run_id", TEXT),
    Column("sweep_id", REPEATED),
    Column("experiment", REPEATED),
    Column("task_id", TEXT),
    Column("thread_id", TEXT),
    Column("created_at", TIME),
    Column("started_at", TIME),
    Column("finished_at", TIME),
    Column("target_kind", Category("agent", "workflow")),
    Column("status", Category(*STATUSES)),
    Column("target_id", REPEATED),
    Column("target", REPEATED),
    Column("agent_version", REPEATED),
    Column("provider", PROVIDER),
    Column("model", MODEL),
    Column("effort", EFFORT),
    Column("think_mode", Category(*THINK_MODES)),
    Column("requested_provider", PROVIDER),
    Column("requested_model", MODEL),
    Column("requested_effort", EFFORT),
    Column("mode", Category(*MODES)),
    Column("prompt", TEXT),
    Column("template", REPEATED),
    Column("result", TEXT),
    Column("error", TEXT),
    Column("error_type", REPEATED),
    Column("output", Json()),
    Column("variables", OBJECT),
    Column("tags", TAGS),
    Column("tools_used", Json(list)),
    Column("metadata", OBJECT),
    Column("repeat", INTEGER),
    Column("attempts", INTEGER),
    Column("prompt_tokens", INTEGER),
    Column("completion_tokens", INTEGER),
    Column("total_tokens", INTEGER),
    Column("actions", INTEGER),
    Column("cost_usd", REAL),
    Column("is_byok", FLAG),
    Column("latency_s", REAL),
    Column("ttft_s", REAL),
    Column("queue_s", REAL),
    Column("server_s", REAL),
    Column("title", TEXT),
    Column("note", TEXT),
)
"""The frame's columns in their order; then come the scores."""

UNFRAMED = (
    Column("scores", SCORES),  # in the frame a column each
    Column("request", OBJECT),
    Column("version", REPEATED),
    Column("base_url", REPEATED),
    Column("cache_key", TEXT),
    Column("sent_at", TIME),
    Column("number", INTEGER),
)
"""What else is kept of a run."""

KEPT = (*COLUMNS, *UNFRAMED)
"""All that is kept of a run."""

FRAME_ROW = (*(column.name for column in COLUMNS), "scores")
"""What ``build`` wants of each row, in this order."""


def pack(run: Run) -> dict[str, Any]:
    """All that is kept of the run, as the store keeps it."""
    return {column.name: column.kind.pack(getattr(run, column.name)) for column in KEPT}


def unpack(row: Iterable[Any]) -> Run:
    """The run of a stored row, which has the values of ``KEPT`` in their order."""
    return Run(**{column.name: column.kind.unpack(value) for column, value in zip(KEPT, row, strict=True)})
