"""Jinja's sandbox for a notebook's variables: a template reads, it doesn't act, and it comes to an end.

Jinja's own sandbox keeps a template from the inside of objects. A notebook has more: modules, open files, DataFrames
that write files, runs that send others. So what acts by its own is refused, by where it is defined and by its name.

Rendering runs in the kernel, whose interrupt waits for what C does. So nothing huge is ever begun: each rendering has
a budget of time, looked at in each loop and call, and one of what it makes, counted where a template makes something
and estimated before, where little text asks for much (``'x' * 10**10``).
"""

from __future__ import annotations

import functools
import math
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePath
from types import ModuleType
from typing import Any

import jinja2
import jinja2.nodes
import jinja2.sandbox
import jinja2.visitor
from jinja2.exceptions import SecurityError

SECONDS = 30.0
"""How long a template may be compiled, or rendered once."""
MOST = 20_000_000
"""So many characters and items may be made by that, in all."""

_MOST_BITS = 100_000  # of a whole number: what is larger, no prompt needs, and C computes without a pause
_SEVERAL = (list, tuple, set, frozenset, deque)
# What is called from these packages acts: on files, processes, the network, the kernel, the service.
_ACTING = re.compile(
    r"IPython|_?io|_posixsubprocess|_?socket|_?thread|aiohttp|anyio|asyncio|atexit|boto3|code|codecs|codeop|concurrent"
    r"|ctypes|dbm|faulthandler|fileinput|ftplib|gc|glob|google|httpx?|imp|importlib|inspect|ipykernel|joblib|linecache"
    r"|logging|mmap|multiprocessing|nt|openai|os|pathlib|pickle|pkgutil|platform|posix|pty|requests|runpy|select"
    r"|selectors|shelve|shutil|signal|site|smtplib|socketserver|sqlalchemy|sqlite3|ssl|subprocess|sys|tempfile"
    r"|threading|timeit|trace|traceback|traitlets|urllib3?|webbrowser|xmlrpc|xpander_magics|zipfile|zipimport"
)
_ACTING_BUILTIN = re.compile(
    r"__import__|breakpoint|compile|delattr|eval|exec|getattr|globals|input|locals|memoryview|object|open|print"
    r"|setattr|super|type|vars"
)
# Methods of any library, by what their names say: they write, run code by its text or name, draw, or change in place.
_ACTING_NAME = re.compile(
    r"to_(?:clipboard|disk|excel|feather|file|gbq|hdf|iceberg|netcdf|orc|parquet|pickle|sql|stata|zarr)"
    r"|agg|aggregate|apply|applymap|boxplot|commit|dump|eval|execute\w*|from_custom_template|hist|map_\w+|pipe|plot|query"
    r"|(?:delete|read|save|scan|sink|write)(?:_\w+|fig|lines|txt)?|sql|tofile|transform|unlink"
    r"|append|byteswap|clear|extend|fill|insert|isetitem|itemset|move_to_end|partition|pop|popitem|put|remove|resize"
    r"|reverse|setdefault|setfield|setflags|sort|subtract|update"
)
# These make a text, but for a path: its place is the first, or one of these names.
_WRITING = re.compile(r"to_(?:csv|html|json|latex|markdown|string|xml)|info|serialize")
_PATHS = frozenset({"buf", "file", "path", "path_or_buf", "path_or_buffer"})


class TooMuch(Exception):
    """A template asks for more than there is for it; says of what."""


class _Budget(threading.local):
    """What is left to this thread's rendering."""

    end = math.inf
    left = math.inf


_budget = _Budget()


@contextmanager
def budget() -> Iterator[None]:
    """Within it, this thread compiles or renders one template. One within another has a budget of its own."""
    before = _budget.end, _budget.left
    _budget.end, _budget.left = time.monotonic() + SECONDS, MOST
    try:
        yield
    finally:
        _budget.end, _budget.left = before


def _spend(amount: float) -> None:
    _budget.left -= amount
    _afford(0)


def _afford(amount: float) -> None:
    if _budget.left < amount:
        raise TooMuch(f"it makes more than {MOST:,} characters and items")
    if time.monotonic() > _budget.end:
        raise TooMuch(f"it isn't done after {SECONDS:g} s")


def _weight(value: Any) -> float:
    """How many characters and items a value comes to once it is written, where it is of Python's own types.

    It looks no further than can be afforded.
    """
    if isinstance(value, (str, bytes, bytearray)):
        return len(value)
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return math.inf
    total = 1.0
    rest: list[Any] = [value]
    while rest and total <= _budget.left:
        one = rest.pop()
        if isinstance(one, (*_SEVERAL, dict)):
            total += len(one)
            if total <= _budget.left:
                rest += [*one, *one.values()] if isinstance(one, dict) else one
        elif isinstance(one, (str, bytes, bytearray)):
            total += len(one)
    return total


def _made(value: Any) -> Any:
    """A value that the template has just made, paid for."""
    _spend(_weight(value))
    return value


class Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """The environment of all templates."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True, finalize=_finalized
        )
        self.filters = {name: _bounded(name, function) for name, function in self.filters.items()}

    def bounded(self, parsed: jinja2.nodes.Template) -> jinja2.nodes.Template:
        """The same template, which looks at its budget in each loop, and wherever it puts things together."""
        made: jinja2.nodes.Template = _Bounding(self).visit(parsed)
        return made.set_environment(self)  # type: ignore[return-value]

    def tick(self, size: int = 0) -> bool:
        """What a loop calls in each round, with the length of its text."""
        _spend(size + 1)
        return True

    def joined(self, *parts: Any) -> str:
        """``a ~ b``."""
        return str(_made("".join([_finalized(part) for part in parts])))

    def paid(self, value: Any) -> Any:
        """A list, a tuple or a dict as it is written in a template."""
        return _made(value)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """What Jinja asks before each attribute."""
        if isinstance(obj, ModuleType) or not super().is_safe_attribute(obj, attr, value):
            return False
        # An accessor such as ``df.plot`` can be called, and has no name of its own.
        return not (callable(value) and (acts(value, called=True) or acts(value, called=True, name=attr)))

    def getitem(self, obj: Any, argument: Any) -> Any:
        """``obj[argument]``; pandas calls what it is given there."""
        self._refuse(argument)
        return super().getitem(obj, argument)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805  # as Jinja has it
        """What a template calls."""
        if getattr(__obj, "__self__", None) is __self:  # tick, joined, paid
            return __obj(*args)
        _spend(1)
        __self._refuse(__obj, called=True)
        given = {name: value for name, value in kwargs.items() if name[:1] != "_"}  # Jinja has some of its own
        for value in (*args, *given.values()):
            __self._refuse(value)
        name = str(getattr(__obj, "__name__", ""))
        if _writes(name, args, given):
            raise SecurityError(f"{name} with these arguments, which writes")
        owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)
        if isinstance(owner, (str, bytes, bytearray, int)) or name == "generate_lorem_ipsum":
            _afford(_estimate(name, owner, args, given))
        return _made(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """``left + right``, and the like."""
        if operator == "*":
            for several, times in ((left, right), (right, left)):
                if isinstance(several, (str, bytes, bytearray, *_SEVERAL)) and isinstance(times, int):
                    _afford(_weight(several) * times)
        elif operator == "**" and not isinstance(left, float) and isinstance(right, int):
            bits = left.bit_length() if isinstance(left, int) else 64
            _afford(math.inf if abs(right) * max(bits, 1) > _MOST_BITS else 0)
        elif operator == "%" and isinstance(left, (str, bytes)):
            _afford(_estimate("format", left, right if isinstance(right, tuple) else (right,), {}))
        return _made(super().call_binop(context, operator, left, right))

    def _refuse(self, value: Any, *, called: bool = False) -> None:
        several = value.values() if isinstance(value, dict) else value if isinstance(value, _SEVERAL) else (value,)
        for one in several:
            if callable(one) and acts(one, called=called):
                shown = getattr(one, "__qualname__", None) or type(one).__qualname__
                raise SecurityError(f"{shown}, which acts")


def acts(function: Any, *, called: bool = False, name: str = "") -> bool:
    """Whether what can be called does more than to tell something of a value, as far as place and name say.

    Args:
        called: whether its arguments are looked at, too; otherwise, what writes when it is given a path does act.
        name: what it was asked for by; its own when empty.
    """
    while isinstance(function, functools.partial):
        function = function.func
    owner = getattr(function, "__self__", None)
    name = name or str(getattr(function, "__name__", ""))
    if isinstance(owner, (str, bytes)) or (isinstance(owner, PurePath) and hasattr(PurePath, name)):
        return False
    home = owner.__name__ if isinstance(owner, ModuleType) else getattr(function, "__module__", None)
    one = owner if owner is not None and not isinstance(owner, ModuleType) else function
    kinds = one.__mro__ if isinstance(one, type) else type(one).__mro__
    homes = {str(place).partition(".")[0] for place in (home, *(kind.__module__ for kind in kinds))}
    if any(map(_ACTING.fullmatch, homes)) or (home == "builtins" and _ACTING_BUILTIN.fullmatch(name)):
        return True
    if str(home) == "__main__":  # the user's own, who knows what it does
        return False
    return bool(_ACTING_NAME.fullmatch(name) or (not called and _WRITING.fullmatch(name)))


def _writes(name: str, args: tuple[Any, ...], given: Mapping[str, Any]) -> bool:
    if _WRITING.fullmatch(name) and (args[:1] not in ((), (None,)) or any(given.get(path) for path in _PATHS)):
        return True
    return bool(given.get("inplace"))


def _finalized(value: Any) -> str:
    """What is put out for a value."""
    text = value if isinstance(value, str) else str(value)
    _spend(len(text))
    return text


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that looks at the budget."""
    first = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        _spend(1)
        before, value, given = args[:first], args[first], args[first + 1 :]
        _afford(_estimate(name, value, given, kwargs))
        return _made(function(*before, _ticking(value) if isinstance(value, Iterator) else value, *given, **kwargs))

    return bounded


def _ticking(items: Iterator[Any]) -> Iterator[Any]:
    for item in items:
        _spend(1)
        yield item


def _estimate(name: str, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float:
    """The size of what a filter or a method of a text makes, at the most, where that is more than it was given."""
    given = [*args, *kwargs.values()]
    number = max((abs(one) for one in given if isinstance(one, int)), default=0)
    texts = [one for one in given if isinstance(one, (str, bytes))]
    longest = max(map(len, texts), default=0)
    if name in ("center", "ljust", "rjust", "zfill", "to_bytes", "batch", "slice", "round"):
        return number
    if name == "generate_lorem_ipsum":
        return math.prod(abs(one) for one in given if isinstance(one, int) and one) * 1000
    if name == "join":
        several = (args or (value,))[0] if isinstance(value, (str, bytes)) and not texts else value
        each = len(value) if several is not value and isinstance(value, (str, bytes)) else longest
        return each * (len(several) if hasattr(several, "__len__") else jinja2.sandbox.MAX_RANGE)
    if name == "sum":
        return _weight(value) ** 2 / 100 if any(isinstance(one, _SEVERAL) for one in given) else 0
    if name == "tojson":
        return _weight(value) * number
    if name not in ("expandtabs", "format", "format_map", "indent", "replace", "translate", "wordwrap"):
        return 0
    text = value if isinstance(value, (str, bytes)) else str(value)
    if name == "expandtabs":
        return len(str(text).split("\t")) * max(number, 8)
    if name == "indent":
        return (str(text).count("\n") + 1) * max(number, longest, 4)
    if name == "replace":
        return str(text).count(str(texts[0])) * longest if texts and isinstance(text, str) else len(text) * longest
    if name == "wordwrap":
        return len(text) * longest
    if name == "translate":
        tables = [table.values() for table in given if isinstance(table, dict)]
        return len(text) * max((len(one) for table in tables for one in table if isinstance(one, str)), default=1)
    return _formatted(text if isinstance(text, str) else text.decode("latin-1"), given, number)


# The widths and precisions of "%5.2f" and of "{:>5.2f}"; a star, or braces within braces, take them from a value.
_WIDTHS = re.compile(r"%(?:\([^)]*\))?[^%\w*.]*(\*|\d*)(?:\.(\*|\d*))?|\{[^{}:]*:([^{}]*)(\{)?")


def _formatted(form: str, given: list[Any], number: int) -> float:
    total = 0.0
    longest = max((_weight(one) for one in given), default=0)
    for found in _WIDTHS.finditer(form):
        parts = "".join(part + " " for part in found.groups() if part)
        total += sum(float(width) for width in re.findall(r"\d+", parts))
        total += number if "*" in parts or "{" in parts else 0
    fields = form.replace("%%", "").replace("{{", "")
    return total + longest * (fields.count("%") + fields.count("{"))


class _Bounding(jinja2.visitor.NodeTransformer):
    """Puts looks at the budget into a parsed template."""

    def __init__(self, environment: Sandbox) -> None:
        self._environment = environment

    def visit_For(self, node: jinja2.nodes.For) -> Any:  # noqa: N802
        self.generic_visit(node)
        texts = node.find_all(jinja2.nodes.TemplateData)
        tick = self._call(node, "tick", [jinja2.nodes.Const(sum(len(text.data) for text in texts))])
        node.body.insert(0, jinja2.nodes.ExprStmt(tick).set_lineno(node.lineno))
        if node.test is not None:
            node.test = jinja2.nodes.And(self._call(node, "tick", []), node.test).set_lineno(node.lineno)
        return node

    def visit_Concat(self, node: jinja2.nodes.Concat) -> Any:  # noqa: N802
        self.generic_visit(node)
        return self._call(node, "joined", node.nodes)

    def visit_List(self, node: jinja2.nodes.List) -> Any:  # noqa: N802
        return self._paid(node)

    def visit_Dict(self, node: jinja2.nodes.Dict) -> Any:  # noqa: N802
        return self._paid(node)

    def visit_Tuple(self, node: jinja2.nodes.Tuple) -> Any:  # noqa: N802
        return self._paid(node) if node.ctx == "load" else node

    def _paid(self, node: Any) -> Any:
        self.generic_visit(node)
        return self._call(node, "paid", [node])

    def _call(self, node: jinja2.nodes.Node, name: str, args: list[Any]) -> Any:
        callee = jinja2.nodes.EnvironmentAttribute(name)
        return jinja2.nodes.Call(callee, args, [], None, None).set_lineno(node.lineno)
