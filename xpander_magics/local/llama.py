"""llama.cpp with one model, in a process of its own: ``python -m xpander_magics.local.llama``.

``gguf.py`` starts it. A file or a grammar that brings the native code down takes this process with it, and
neither the server nor the tasks of other models. It reads what to load in one line of JSON from stdin, answers
with its address in one line, and ends when stdin is closed.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib.util
import json
import os
import signal
import sys
from typing import Any

from xpander_magics import extras
from xpander_magics.errors import ConfigError

PARALLEL = 4
"""Answers decoded at once by one model; they share its context."""

_SECONDS_TO_LOAD = 600
_PR_SET_PDEATHSIG = 1


def load(path: str, key: str, template: str | None, context: int) -> Any:
    """A llama.cpp server in this process, loaded and listening on loopback; it wants the key."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise ConfigError(extras.missing("GGUF models need", "local"))
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.hostnames = ["127.0.0.1"]
    params.api_keys = [key]
    params.n_ctx = context
    params.n_parallel = PARALLEL
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = _threads()
    params.verbosity = -1
    params.ui = False
    if template is not None:
        params.chat_template = template
    return xllamacpp.Server(params)


def _threads() -> int:
    """One processor is left to the notebook.

    llama.cpp's threads wait for each other by spinning: where another process takes one's processor, all stand
    still, and answers take 20 times as long. More than 8 make models of this size no faster.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, usable - 1))


def main() -> None:
    """What ``gguf.py`` starts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # that of the terminal is for the server
    answers = os.dup(1)
    os.dup2(2, 1)  # what the native code prints is no answer
    # A file's chat template can keep loading from ever ending, and no thread of Python's runs meanwhile.
    faulthandler.dump_traceback_later(_SECONDS_TO_LOAD, exit=True)
    line = sys.stdin.buffer.readline()
    if not line:
        return
    what = json.loads(line)
    _end_with(what.pop("parent"))
    try:
        server = load(**what)
        told = {"address": server.listening_address}
    except (ConfigError, OSError, RuntimeError) as error:
        told = {"error": str(error)}
    os.write(answers, json.dumps(told).encode() + b"\n")
    faulthandler.cancel_dump_traceback_later()
    while sys.stdin.buffer.read(1 << 16):
        pass
    os._exit(0)  # a model that is still decoding would keep the interpreter from ending


def _end_with(parent: int) -> None:
    """Where the system can do it: also while the native code holds the interpreter."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before we asked
            os._exit(0)


if __name__ == "__main__":
    main()
