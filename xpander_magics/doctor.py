"""What is installed, configured and reachable: ``python -m xpander_magics doctor``."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable

from xpander_magics import config, extras
from xpander_magics.errors import AuthError, XpanderError
from xpander_magics.session import Session

_NEEDED = ("anywidget", "ipython", "ipywidgets", "jinja2", "pandas", "requests", "sqlalchemy")
_CLOCKS_APART = 60.0  # seconds


def doctor(write: Callable[[str], object] = print) -> bool:
    """Writes a line for each thing looked at; False when one that is needed doesn't work."""
    session = Session()
    write(f"ok   Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    versions = [f"{name} {extras.version_of(name)}" for name in ("xpander-magics", *_NEEDED)]
    write(f"ok   {versions[0]}: {', '.join(versions[1:])}")
    for extra in extras.names():
        lacks = extras.lacking(extra)
        how = f": {extras.install(lacks)}" if lacks else ""
        write(f"{'--' if lacks else 'ok':4} extra [{extra}]{how}")
    try:
        return all([_service(session, write), _store(session, write), _weights(write)])
    finally:
        session.close()


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
        none = not error.status_code
        _problem(write, f"service {config.base_url_from()}: " if none else "", error, "--" if none else "!!")
        return none
    except XpanderError as error:
        _problem(write, "service: ", error)
        return False
    return True


def _store(session: Session, write: Callable[[str], object]) -> bool:
    try:
        newest = session.store.select(limit=1)
    except XpanderError as error:
        _problem(write, "runs: ", error)
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
        _problem(write, "weights: ", error)
        return False
    return True


def _problem(write: Callable[[str], object], what: str, error: Exception, mark: str = "!!") -> None:
    first, *further = str(error).splitlines()
    write(f"{mark}   {what}{first}")
    for line in further:
        write(f"     {line}")
