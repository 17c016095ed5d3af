"""``python -m xpander_magics``: the demo, the local server by itself, the doctor."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from xpander_magics.service.client import Client
from xpander_magics.store import Store

README = (Path(__file__).parents[1] / "README.md").read_text()


def run_main(*args: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("XPANDER_") or "CACHE" in name}
    return subprocess.run(
        [sys.executable, "-m", "xpander_magics", *args],
        cwd=cwd,
        env={**env, "XPANDER_STORE": f"sqlite:///{cwd / 'runs.db'}", **environ},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.model
@pytest.mark.network
def test_the_demo_does_the_main_job(tmp_path: Path) -> None:
    done = run_main("demo", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "Compared:" in done.stdout
    assert "notebooks/quickstart.ipynb" in done.stdout
    runs = Store(f"sqlite:///{tmp_path / 'runs.db'}").select(experiment="demo")
    assert len(runs) == 20
    assert {(run.model, run.effort) for run in runs} == {
        (model, effort) for model in ("smollm2-135m-instruct", "gemma-3-270m") for effort in ("low", "high")
    }
    assert all(run.status == "completed" and run.result and run.total_tokens for run in runs)
    low, high = ([r.total_tokens for r in runs if r.effort == effort] for effort in ("low", "high"))
    assert min(high) > max(low), "a vote of three reasoned answers takes more tokens than one direct answer"
    # The smaller model answers some of it right: a real model behind a prompt that suits it.
    assert sum((run.result or "").strip() == run.variables["label"] for run in runs if run.effort == "low") >= 5


def test_doctor_without_a_key_is_content(tmp_path: Path) -> None:
    done = run_main("doctor", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "There is no API key" in done.stdout
    assert "runs.db" in done.stdout


def test_doctor_tells_what_is_wrong(tmp_path: Path) -> None:
    done = run_main(
        "doctor", cwd=tmp_path, XPANDER_API_KEY="a-key-that-must-not-show", XPANDER_BASE_URL="http://127.0.0.1:9"
    )
    assert done.returncode == 1
    assert "!!   service" in done.stdout
    assert "a-key-that-must-not-show" not in done.stdout + done.stderr


def test_unknown_command_says_which_there_are(tmp_path: Path) -> None:
    done = run_main("dmeo", cwd=tmp_path)
    assert done.returncode == 2
    assert "demo" in done.stderr
    assert "Traceback" not in done.stderr


def test_local_serves_by_itself_until_it_is_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-u", "-m", "xpander_magics", "local"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        try:
            assert process.stdout is not None
            told = ""
            while not ("XPANDER_API_KEY=" in told and "XPANDER_BASE_URL=" in told):
                line = process.stdout.readline()
                assert line, told
                told += line
            found = dict(re.findall(r"(XPANDER_\w+)=(\S+)", told))
            with Client(found["XPANDER_API_KEY"].strip("'\""), found["XPANDER_BASE_URL"].strip("'\"")) as client:
                assert "echo" in [agent.name for agent in client.agents()]
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) in (0, 130)
        finally:
            process.kill()


def test_the_readme_has_the_two_commands_that_ci_and_users_run() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
    assert [line for line in commands if line.endswith("-m xpander_magics demo")]
    assert len([line for line in commands if line.startswith("python3 -m venv") and line.endswith("pytest")]) == 1
