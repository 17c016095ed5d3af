"""What is installed, configured and reachable: ``python -m xpander_magics doctor``."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from collections.abc import Callable

from xpander_magics import config
from xpander_magics.errors import AuthError, XpanderError
from xpander_magics.session import Session

_NEEDED = ("anywidget", "ipython", "ipywidgets", "jinja2", "pandas", "requests", "sqlalchemy")
_EXTRAS = {
    "local": ("fastapi", "uvicorn", "httpx", "pyyaml", "tqdm", "xllamacpp"),
    "keyring": ("keyring",),
    "lab": ("jupyterlab",),
    "postgres": ("psycopg",),
    "stats": ("statsmodels",),
}


_CLOCKS_APART = 60.0  # seconds


def doctor(write: Callable[[str], object] = print) -> bool:
    """Writes a line for each thing looked at; False when one that is needed doesn't work."""
    session = Session()
    write(f"ok   Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    write(f"ok   xpander-magics {_version('xpander-magics')}: " + ", ".join(f"{n} {_version(n)}" for n in _NEEDED))
    for extra, names in _EXTRAS.items():
        missing = [name for name in names if _version(name) is None]
        lacks = f"lacks {', '.join(missing)}: pip install 'xpander-magics[{extra}]'"
        write(f"{'--' if missing else 'ok':4} extra [{extra}]{f' {lacks}' if missing else ''}")
    try:
        return all([_service(session, write), _store(session, write), _weights(write)])
    finally:
        session.close()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _service(session: Session, write: Callable[[str], object]) -> bool:
    try:
        client = session.client
        write(f"ok   service {client.base_url}, key {client.key_shown}")
        write(f"ok   reachable: {len(client.providers())} providers of models, {len(client.agents())} agents")
        if client.clock_behind > _CLOCKS_APART:
            told = f"is {client.clock_behind:,.0f} s ahead of the service's. Set it: lost answers are found by it."
            write(f"!!   clock: this computer's {told}")
            return False
    except AuthError as error:
        missing = not error.status_code
        write(f"{'--' if missing else '!!'}   service {config.base_url_from()}: {_first(error)}")
        return missing
    except XpanderError as error:
        write(f"!!   service: {_first(error)}")
        return False
    return True


def _store(session: Session, write: Callable[[str], object]) -> bool:
    try:
        newest = session.store.select(limit=1)
    except XpanderError as error:
        write(f"!!   runs: {error}")
        return False
    write(f"ok   runs: {session.store.location}, {'newest ' + newest[0].run_id[:8] if newest else 'none yet'}")
    return True


def _weights(write: Callable[[str], object]) -> bool:
    if importlib.util.find_spec("xllamacpp") is None:
        return True
    from xpander_magics.local.models import KNOWN, cached

    try:
        for model in KNOWN:
            there = cached(model) is not None
            write(f"{'ok' if there else '--':4} weights {model}{'' if there else ': fetched on first use'}")
    except XpanderError as error:
        write(f"!!   weights: {_first(error)}")
        return False
    return True


def _first(error: Exception) -> str:
    return str(error).splitlines()[0]
