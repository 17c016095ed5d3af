"""The votes: which pairs are asked, in what order, what is kept of them, and what they come to."""

from __future__ import annotations

import itertools
import json
import math
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from notebook_shell import Notebook
from test_board import Front
from test_kernel import running_kernel

import xpander_magics as xp
from xpander_magics.config import Settings
from xpander_magics.errors import ConfigError
from xpander_magics.local.launch import LocalServer
from xpander_magics.matrix import matrix_of
from xpander_magics.outcomes import Entry, Runs
from xpander_magics.results import Run
from xpander_magics.session import Session
from xpander_magics.showing.tables import standing_bundle
from xpander_magics.store import Store
from xpander_magics.store.votes import Vote
from xpander_magics.voting.pairs import Ballot, Contest, Pair
from xpander_magics.voting.standing import bradley_terry, strengths_frame, votes_frame, wilson, win_rates_frame
from xpander_magics.voting.votes import Voting, cast
from xpander_magics.widgets.front import VIEW


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'runs.db'}")
    yield store
    store.close()


def answered(model: str, row: Any, result: str | None = None, **given: Any) -> Run:
    """A run that has answered."""
    told = {
        "result": f"{model} says {row}" if result is None else result,
        "variables": {"q": row},
        "template": "{{ q }}",
    }
    return Run(
        **{
            "status": "completed",
            "prompt": str(row),
            "requested_provider": "p",
            "requested_model": model,
            **told,
            **given,
        }
    )


def crossed(models: str, rows: int, repeats: int = 1) -> list[Run]:
    """Each model's answers to each row."""
    return [
        answered(model, row, f"{model}{row}.{repeat}", repeat=repeat)
        for row in range(rows)
        for model in models
        for repeat in range(repeats)
    ]


def vote_of(pair: Pair, choice: str = "left", voter: str = "ada") -> Vote:
    return Vote(pair.left.run_id, pair.right.run_id, choice, voter)


def all_of(ballot: Ballot, voter: str = "ada") -> list[Pair]:
    """Every pair of a ballot, each voted on by its voter as it comes."""
    pairs: list[Pair] = []
    while (pair := ballot.next()) is not None:
        assert len(pairs) < ballot.total
        pairs.append(pair)
        ballot.count(vote_of(pair, voter=voter))
    return pairs


def matchups(pairs: list[Pair]) -> list[tuple[int, frozenset[int]]]:
    return [(left.input, frozenset((left.configuration, right.configuration))) for left, right in pairs]


# ---- which pairs


def test_each_two_configurations_meet_once_on_each_input() -> None:
    ballot = Ballot(Contest(crossed("abc", 5, repeats=3)), [], "ada", 1)
    pairs = all_of(ballot)
    assert ballot.total == ballot.judged == len(pairs) == 15
    assert set(matchups(pairs)) == {
        (row, frozenset(two)) for row in range(5) for two in itertools.combinations(range(3), 2)
    }
    assert ballot.identical == 0


def test_the_same_seed_gives_the_same_session_another_gives_another() -> None:
    contest = Contest(crossed("abcd", 6, repeats=2))
    first, again, other, bobs = (
        all_of(Ballot(contest, [], voter, seed), voter)
        for voter, seed in (("ada", 1), ("ada", 1), ("ada", 2), ("bob", 1))
    )
    assert first == again
    assert first != other
    assert first != bobs


def test_sides_and_repeats_are_shuffled() -> None:
    contest = Contest(crossed("ab", 200, repeats=2))
    pairs = all_of(Ballot(contest, [], "ada", 1))
    left = sum(pair.left.configuration == 0 for pair in pairs)
    assert 60 < left < 140
    order = list(contest.answers)
    repeats = Counter(order.index(answer.run_id) % 2 for pair in pairs for answer in pair)
    assert 140 < repeats[0] < 260


def test_the_least_voted_pairs_come_first_and_inputs_are_spread() -> None:
    contest = Contest(crossed("abc", 4))
    by_bob = [vote_of(pair, voter="bob") for pair in all_of(Ballot(contest, [], "bob", 5), "bob")]
    of_a_and_b = [v for v in by_bob if {contest.side(v.left_run), contest.side(v.right_run)} == {"a", "b"}]
    pairs = all_of(Ballot(contest, of_a_and_b, "ada", 1))
    assert len(pairs) == 12
    assert frozenset((0, 1)) not in [two for _, two in matchups(pairs)[:8]]
    fresh = all_of(Ballot(contest, [], "ada", 1))
    assert Counter(two for _, two in matchups(fresh[:3])).most_common(1)[0][1] == 1
    assert len({row for row, _ in matchups(fresh[:4])}) == 4


def test_what_this_voter_has_judged_isnt_asked_again_whatever_repeat_it_was() -> None:
    contest = Contest(crossed("ab", 3, repeats=4))
    done = [vote_of(pair) for pair in all_of(Ballot(contest, [], "ada", 1))[:2]]
    again = Ballot(contest, done, "ada", 99)
    assert (again.judged, again.total) == (2, 3)
    assert len(all_of(again)) == 1
    assert len(all_of(Ballot(contest, done, "bob", 1), "bob")) == 3


def test_identical_answers_arent_asked_but_counted() -> None:
    same = [answered("a", 1, "Yes."), answered("b", 1, " Yes.\n"), answered("c", 1, "No.")]
    as_json = [
        answered(m, 2, t, output={"x": 1, "y": 2}) for m, t in (("a", '{"x":1,"y":2}'), ("b", '{"x": 1, "y": 2}'))
    ]
    ballot = Ballot(Contest([*same, *as_json]), [], "ada", 1)
    assert (ballot.total, ballot.identical) == (2, 2)
    assert len(all_of(ballot)) == 2


def test_a_vote_on_answers_that_a_later_session_finds_identical_counts_as_judged() -> None:
    runs = [answered("a", 1, "x"), answered("b", 1, "x"), answered("b", 1, "y")]
    vote = Vote(runs[0].run_id, runs[2].run_id, "left", "ada")
    for seed in range(8):
        ballot = Ballot(Contest(runs), [vote], "ada", seed)
        assert (ballot.judged, ballot.total, ballot.identical) == (1, 1, 0)
        assert ballot.next() is None


@pytest.mark.parametrize(
    "given",
    [
        {"status": "failed"},
        {"status": "planned", "result": None},
        {"error_type": "SchemaError"},
        {"variables": {"q": 2}, "prompt": "2"},
        {"prompt": "other"},
        {"request": {"id": "thread"}},
        {"requested_model": "a"},
    ],
    ids=str,
)
def test_what_makes_no_pair(given: dict[str, Any]) -> None:
    runs = [answered("a", 1, "x"), answered("b", 1, "y")]
    vars(runs[1]).update(given)
    ballot = Ballot(Contest(runs), [], "ada", 1)
    assert (ballot.total, ballot.identical, ballot.next()) == (0, 0, None)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"requested_effort": "high"}, ["low", "high"]),
        ({"request": {"think_mode": "harder"}}, ["default think", "harder"]),
        ({"target": "editor"}, ["writer", "editor"]),
        ({"version": "draft"}, ["default version", "draft"]),
        ({"requested_model": "b", "requested_effort": "high"}, ["a · low", "b · high"]),
        ({"template": "Please: {{ q }}", "prompt": "Please: 1"}, ["{{ q }}", "Please: {{ q }}"]),
        ({"requested_model": None, "provider": "p", "model": "b"}, ["a", "default model"]),
    ],
)
def test_configurations_are_named_by_what_varies(given: dict[str, Any], names: list[str]) -> None:
    runs = [answered("a", 1, result, requested_effort="low", target="writer") for result in "xy"]
    vars(runs[1]).update(given)
    contest = Contest(runs)
    assert contest.names == names
    assert Ballot(contest, [], "ada", 1).total == 1


def test_all_is_as_on_the_board() -> None:
    runs = crossed("abc", 3, repeats=2)
    for broken in (*runs[:2], runs[6]):  # all that the first has to say on the first input, and a repeat
        broken.status, broken.result = "failed", None
    runs[8].result, runs[10].result = "the  same\n", "the same"
    contest, matrix = Contest(runs), matrix_of(runs)
    assert contest.names == matrix.names == ["a", "b", "c"]
    for run, outcome in zip(runs, matrix.outcomes, strict=True):
        if outcome.usable:
            assert contest.answers[run.run_id][2:] == (outcome.input, outcome.answer)
            assert contest.side(run.run_id) == matrix.names[outcome.configuration]
        else:
            assert run.run_id not in contest.answers
    assert contest.answers[runs[8].run_id].text == contest.answers[runs[10].run_id].text
    assert Contest(runs[:2]).names == []


def test_ten_thousand_runs_are_paired_as_they_are_asked() -> None:
    contest = Contest(crossed("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMN", 200))
    ballot = Ballot(contest, [], "ada", 1)
    assert ballot.total == 200 * 50 * 49 // 2
    pairs = []
    for _ in range(30):
        pair = ballot.next()
        assert pair is not None
        pairs.append(pair)
        ballot.count(vote_of(pair))
    assert len(set(matchups(pairs))) == len({row for row, _ in matchups(pairs)}) == 30


# ---- a person's votes


def test_votes_are_kept_undone_and_gone_on_with(store: Store) -> None:
    runs = crossed("ab", 3)
    store.add(runs)
    voting = Voting(runs, store, sweep_id="s", voter="ada", seed=4)
    first = voting.pair
    assert first is not None
    vote = voting.cast("both-good")
    assert store.votes.select([run.run_id for run in runs]) == [vote]
    assert (vote.choice, vote.voter, vote.seed, vote.sweep_id) == ("both_good", "ada", 4, "s")
    assert (vote.left_run, vote.right_run) == (first.left.run_id, first.right.run_id)
    assert voting.pair not in (None, first)
    voting.cast("skip")
    again = Voting(runs, store, voter="ada", seed=4)
    assert (again.judged, again.total, again.pair) == (2, 3, voting.pair)
    assert again.undo() is not None
    assert again.undo() is not None
    assert again.pair == first
    assert again.undo() is None
    assert not again.can_undo
    assert [v.choice for v in store.votes.select([run.run_id for run in runs], undone=True)] == ["both_good", "skip"]
    for number in range(3):
        assert again.judged == number
        again.cast("left")
    assert again.pair is None
    with pytest.raises(ConfigError, match="nothing left to vote on"):
        again.cast("left")


def test_another_voter_has_pairs_of_ones_own(store: Store) -> None:
    runs = crossed("ab", 2)
    store.add(runs)
    voting = Voting(runs, store, voter="ada")
    voting.cast("left")
    voting.change_voter("  Bob\n")
    assert (voting.voter, voting.judged, voting.can_undo) == ("Bob", 0, False)
    voting.cast("right")
    voting.change_voter("ada")
    assert voting.judged == 1
    with pytest.raises(ConfigError, match="1 to 200 characters"):
        voting.change_voter("")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"voter": ""}, "voter takes a name"),
        ({"voter": 5}, "voter takes a name"),
        ({"seed": "1"}, "seed takes a whole number"),
        ({"seed": -1}, "seed takes"),
        ({"seed": 2**63}, "seed takes"),
        ({"seed": True}, "seed takes"),
    ],
)
def test_wrong_arguments(store: Store, given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Voting(crossed("ab", 1), store, **given)


def test_nothing_to_judge_says_why(store: Store) -> None:
    with pytest.raises(
        ConfigError, match=r"two completed answers .* Usable answers: 3, configurations among them: 1\."
    ):
        Voting(crossed("a", 3), store)
    with pytest.raises(ConfigError, match=r"A vote takes left, .*skip; not 'lft'\. Did you mean left"):
        Voting(crossed("ab", 1), store).cast("lft")
    with pytest.raises(ConfigError, match="not a value of type int"):
        Voting(crossed("ab", 1), store).cast(1)  # type: ignore[arg-type]


def test_a_vote_by_command_and_its_refusals(store: Store) -> None:
    left, right, other = answered("a", 1, "x"), answered("b", 1, "y"), answered("b", 2, "z")
    other_prompt = answered("a", 1, "z", template="Please: {{ q }}", prompt="Please: 1")
    assert cast(store, left, other_prompt, "right", "ada").choice == "right"
    assert cast(store, left, answered("a", 1, "z"), "skip", "ada").choice == "skip"  # a repeat
    vote = cast(store, left, right, "both-bad", "ada")
    assert store.votes.select([left.run_id, right.run_id]) == [vote]
    assert cast(store, left, right, "undo", "ada") == vote
    for two, choice, says in (
        ((left, right), "undo", "has no vote on these two runs"),
        ((left, left), "left", "the same one"),
        ((left, other), "left", "asked different things"),
        ((left, answered("b", 1, "z", request={"id": "thread"})), "left", "asked different things"),
        ((left, Run(status="failed", error_type="TaskFailed")), "left", "no answer to judge: it is TaskFailed"),
        ((left, right), "up", "A vote takes left, right"),
        ((left, answered("b", 1, "x")), "left", "Both answers are the same"),
    ):
        with pytest.raises(ConfigError, match=says):
            cast(store, *two, choice, "ada")
    assert store.votes.select([left.run_id, right.run_id]) == []


# ---- what they come to


def test_frames_have_their_columns_even_when_empty() -> None:
    contest = Contest(crossed("ab", 1))
    dtypes = {name: str(dtype) for name, dtype in votes_frame(contest, []).dtypes.items()}
    assert dtypes == {
        "vote_id": "string",
        "created_at": "datetime64[us, UTC]",
        "voter": "string",
        "choice": "category",
        **dict.fromkeys(("left_run_id", "right_run_id", "left", "right", "winner"), "string"),
    }
    rates = win_rates_frame(contest, [])
    assert list(rates) == [
        *("configuration", "opponent", "wins", "losses", "both_good", "both_bad", "skipped"),
        *("win_rate", "low", "high"),
    ]
    assert {str(dtype) for dtype in rates.dtypes} == {"string", "Int64", "Float64"}


def test_votes_as_a_frame_and_win_rates() -> None:
    runs = [*crossed("ba", 6)]  # b stands first
    contest = Contest(runs)
    left_right = [(runs[2 * n].run_id, runs[2 * n + 1].run_id) for n in range(6)]
    choices = ("left", "right", "left", "both_good", "both_bad", "skip")
    votes = [Vote(*two, choice, "ada") for two, choice in zip(left_right, choices, strict=True)]
    votes.append(Vote(*left_right[0][::-1], "right", "bob"))  # the other way round: b again
    frame = votes_frame(contest, votes)
    assert list(frame["winner"].astype("object").where(frame["winner"].notna(), None)) == [
        *("b", "a", "b", None, None, None, "b")
    ]
    assert frame["left_run_id"][6] == left_right[0][1]
    assert frame["created_at"][0] == votes[0].added_at
    (row,) = win_rates_frame(contest, votes).to_dict("records")
    assert (row["configuration"], row["opponent"]) == ("b", "a")
    counts = [row[name] for name in ("wins", "losses", "both_good", "both_bad", "skipped")]
    assert counts == [3, 1, 1, 1, 1]
    assert (row["win_rate"], row["low"], row["high"]) == (0.75, *wilson(3, 4))


def test_wilsons_interval() -> None:
    # Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263, method 3.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 0) == (None, None)


# Wins at home and away in the American League's East, 1987: Agresti, Categorical Data Analysis (2nd ed., table 10.10).
TEAMS = ("Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore")
HOME = """\
-    4-3  4-2  4-3  6-1  4-2  6-0
3-3  -    4-2  4-3  6-0  6-1  4-3
2-5  4-3  -    2-4  4-3  4-2  6-0
3-3  5-1  2-5  -    4-3  4-2  6-1
5-1  2-5  3-3  4-2  -    5-2  6-0
2-5  3-3  3-4  4-3  4-2  -    2-4
2-5  1-5  1-6  2-4  1-6  3-4  -"""


def test_bradley_terry_as_published() -> None:
    first, second, score = [], [], []
    for home, line in enumerate(HOME.splitlines()):
        for away, games in enumerate(line.split()):
            won, lost = map(int, games.split("-")) if games != "-" else (0, 0)
            first += [home] * (won + lost)
            second += [away] * (won + lost)
            score += [1.0] * won + [0.0] * lost
    assert len(score) == 273
    found = bradley_terry(first, second, score, range(273), 7)
    # As R's BradleyTerry2 (Turner and Firth, 2012) has them, against Baltimore.
    published = [1.5814, 1.4364, 1.2945, 1.2476, 1.1077, 0.6839, 0.0]
    assert [one.strength - found[6].strength for one in found] == pytest.approx(published, abs=5e-5)
    assert sum(one.strength for one in found) == pytest.approx(0)


def test_the_order_of_two_doesnt_matter() -> None:
    first, second, score = [0, 0, 1, 2, 0, 1], [1, 1, 2, 0, 2, 0], [1.0, 0.0, 0.5, 1.0, 1.0, 0.0]
    swapped = bradley_terry(second, first, [1 - s for s in score], range(6), 3)
    for one, other in zip(bradley_terry(first, second, score, range(6), 3), swapped, strict=True):
        assert one[:3] == pytest.approx(other[:3])


TRUE = np.array([0.8, 0.2, -0.3, -0.7])


def simulated(
    chance: np.random.Generator, inputs: int, votes_each: int
) -> tuple[list[int], list[int], list[float], list[int]]:
    """Votes by configurations of known strengths; some pairs of each input are judged by three persons, who agree
    more than chance."""
    first: list[int] = []
    second: list[int] = []
    score: list[float] = []
    clusters: list[int] = []
    for number in range(inputs):
        for _ in range(votes_each):
            one, other = (int(n) for n in chance.choice(4, 2, replace=False))
            wins = 1 / (1 + math.exp(TRUE[other] - TRUE[one]))
            opinion = float(chance.random() < wins)
            for _ in range(3):
                first.append(one)
                second.append(other)
                score.append(opinion if chance.random() < 0.5 else float(chance.random() < wins))
                clusters.append(number)
    return first, second, score, clusters


def test_intervals_hold_the_truth_though_votes_on_one_input_agree() -> None:
    """With the model's own errors alone it is 90%: the correlation of persons would be taken for certainty."""
    chance = np.random.default_rng(20261122)
    held = []
    for _ in range(200):
        found = bradley_terry(*simulated(chance, 60, 3), 4)
        held += [one.low <= truth <= one.high for one, truth in zip(found, TRUE, strict=True)]
    assert 0.92 <= np.mean(held) <= 0.98


def test_what_cant_be_estimated_says_why() -> None:
    # 0 beats all; 1, 2 and 3 beat each other in a ring; 4 loses to all; 5 has no votes.
    beats = [(0, 1), (0, 2), (1, 2), (2, 3), (3, 1), (1, 4), (2, 4)]
    found = bradley_terry([a for a, _ in beats], [b for _, b in beats], [1.0] * 7, range(7), 6)
    assert [one.note for one in found] == [
        "not estimable: it won every vote so far",
        *(None, None, None),
        "not estimable: it lost every vote so far",
        "not estimable: no votes yet",
    ]
    assert [math.isnan(one.strength) for one in found] == [True, False, False, False, True, True]
    assert [one.strength for one in found[1:4]] == pytest.approx([0, 0, 0], abs=1e-6)
    two_groups = [(0, 1), (1, 0), (2, 3), (3, 2), (0, 2)]
    notes = [one.note for one in bradley_terry(*zip(*two_groups, strict=True), [1.0] * 5, range(5), 4)]  # type: ignore[misc]
    assert notes.count(None) == notes.count("not estimable: too few votes connect it with the others") == 2
    assert all(one.note for one in bradley_terry([], [], [], [], 3))


def test_the_standing_shows_strengths_where_three_compete() -> None:
    contest = Contest(crossed("abc", 20))
    pairs = all_of(Ballot(contest, [], "ada", 1))
    votes = [vote_of(pair, ("left", "right", "both_good", "both_bad", "skip")[n % 5]) for n, pair in enumerate(pairs)]
    bundle = standing_bundle(contest, votes)
    for shown in bundle.values():
        assert "Strengths (Bradley–Terry" in shown
        assert "60 votes by 1 person on 3 configurations" in shown
        assert "configuration" in shown
    strengths = strengths_frame(contest, votes)
    assert list(strengths["configuration"].sort_values()) == ["a", "b", "c"]
    assert int(strengths["votes"].sum()) == 2 * 48
    two = standing_bundle(Contest(crossed("ab", 1)), [])
    assert two["text/plain"].startswith("No votes yet: 2 configurations")
    assert "configuration</th>" not in two["text/html"]


def test_hostile_names_are_harmless_in_the_standing() -> None:
    runs = [answered(model, 1, model) for model in ("<img src=x onerror=alert(1)>", "b\x1b[2J")]
    votes = [Vote(runs[0].run_id, runs[1].run_id, "left", "<script>")]
    bundle = standing_bundle(Contest(runs), votes)
    assert "<img" not in bundle["text/html"]
    assert "\x1b" not in bundle["text/plain"]


def test_without_statsmodels_the_counts_stand(tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["statsmodels"] = None
sys.path[:0] = [{str(Path(__file__).parent)!r}]
from test_votes import *
contest = Contest(crossed("abc", 2))
votes = [vote_of(pair) for pair in all_of(Ballot(contest, [], "ada", 1))]
frame = win_rates_frame(contest, votes)
print(int(frame["wins"].sum() + frame["losses"].sum()), frame["low"].isna().all())
print("pip install 'scipy" in standing_bundle(contest, votes)["text/plain"])
try:
    strengths_frame(contest, votes)
except ConfigError as error:
    print(error)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=True)
    said = ended.stdout.splitlines()
    assert said[:2] == ["6 True", "True"]
    needed = "Intervals and strengths need the extra [stats]: python -m pip install 'scipy"
    assert said[2].startswith(needed)


# ---- as a user meets it


@pytest.fixture
def runs(store: Store, tmp_path: Path) -> Runs:
    kept = crossed("ab", 3)
    store.add(kept)
    session = Session(Settings(store=f"sqlite:///{tmp_path / 'runs.db'}"))
    entries = [Entry(n, run.run_id) for n, run in enumerate(kept)]
    return Runs(session, "5" * 32, entries, {run.run_id: run for run in kept})


def test_runs_vote_and_their_frames(runs: Runs) -> None:
    view = runs.vote(voter="ada", seed=1)
    view.cast("left")
    view.cast("both_bad")
    view.undo()
    assert list(runs.votes["choice"]) == ["left"]
    assert list(runs.votes["voter"]) == ["ada"]
    assert runs.votes["winner"][0] == runs.votes["left"][0]
    assert int(runs.win_rates()["wins"][0] + runs.win_rates()["losses"][0]) == 1
    assert list(runs.strengths()["votes"]) == [1, 1]
    assert "1 vote by 1 person" in view.static()["text/plain"]


SWEPT = """\
import json
rows = [{"q": "one"}, {"q": "two"}]
get_ipython().run_cell_magic("xpander", "echo -m scripted/echo,scripted/think --over rows -o runs -q", "{{ q }}")
for n, run in enumerate(runs):
    run.result = f"answer {n}"
    runs.session.store.update(run)
print(json.dumps([run.run_id for run in runs]))"""


def test_a_front_end_hears_no_name_before_the_vote(connected: LocalServer) -> None:
    with running_kernel() as kernel:
        ids = json.loads(kernel.text(SWEPT))
        front = Front(kernel, "view = runs.vote(voter='ada', seed=1)\nview")
        told = front.ask(kind="ready")
        assert {told["pair"]["a"], told["pair"]["b"]} < {f"<p>answer {n}</p>\n" for n in range(4)}
        state = kernel.text("print(json.dumps(view.get_state(['stand_in']) | {'keys': sorted(view.keys)}))")
        telling = ["scripted", "echo", "think", *ids, *(run_id[:8] for run_id in ids)]
        assert not [word for word in telling if word in f"{told} {state} {front.shown}"]
        after = front.ask(kind="vote", choice="right", ticket=told["ticket"])
        assert {after["last"]["a"], after["last"]["b"]} == {"echo", "think"}
        assert (after["judged"], after["can_undo"]) == (1, True)
        # A second click on the same pair judges no other.
        assert front.ask(kind="vote", choice="right", ticket=told["ticket"])["judged"] == 1
        for odd in ({"choice": "<b>"}, {"choice": None}, {}):
            assert front.ask(kind="vote", ticket=after["ticket"], **odd)["kind"] == "error"
        assert front.ask(kind="voter", name=7)["kind"] == "error"
        assert "1 vote by 1 person" in front.ask(kind="standing")["html"]
        assert front.ask(kind="undo")["judged"] == 0
        assert kernel.text("print(len(runs.votes))") == "0\n"
        for line in ("%xpander vote runs", "%xpander vote"):
            _, outputs = kernel.run(line)
            assert VIEW in next(out for out in outputs if out["msg_type"] == "display_data")["content"]["data"]
        kernel.text("%config XpanderMagics.widgets = False")
        assert kernel.text("%xpander vote runs").startswith("No votes yet: 2 configurations")


SLOW = """\
import sys, threading
loaded = threading.Event()
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "statsmodels":
            loaded.wait(60)
sys.meta_path.insert(0, Slow())"""


def test_a_vote_doesnt_wait_for_the_standing(connected: LocalServer) -> None:
    with running_kernel() as kernel:
        kernel.text(SWEPT)
        kernel.text(SLOW)
        front = Front(kernel, "runs.vote(voter='ada', seed=1)")
        told = front.ask(kind="ready")
        told = front.ask(kind="vote", choice="left", ticket=told["ticket"])
        front.send(kind="standing")
        told = front.ask(kind="vote", choice="both_bad", ticket=told["ticket"])
        assert (told["kind"], told["judged"]) == ("pair", 2)
        kernel.run("loaded.set()")
        while "2 votes by 1 person" not in told.get("html", ""):  # what was asked before the second vote comes first
            told = front.ask(kind="standing")


def test_a_vote_that_cant_be_kept_isnt_shown_as_kept(runs: Runs, tmp_path: Path) -> None:
    view = runs.vote(voter="ada", seed=1)
    before = view.voting.pair
    (tmp_path / "runs.db").chmod(0o600)
    runs.session.store.close()
    (tmp_path / "runs.db").rename(tmp_path / "away.db")
    (tmp_path / "runs.db").mkdir()
    with pytest.raises(xp.StoreError):
        view.cast("left")
    assert (view.voting.pair, view.voting.judged) == (before, 0)


def test_the_command(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "rows = [{'q': 'one'}, {'q': 'two'}]"
    notebook.run(f"{rows}\n")
    notebook.run("%%xpander echo -m scripted/echo,scripted/think --over rows -o runs -q\n{{ q }}")
    runs = notebook.ns["runs"]
    for number, run in enumerate(runs):
        run.result = f"answer {number}"
        runs.session.store.update(run)
    left, right = runs[0].run_id, runs[1].run_id
    capsys.readouterr()
    assert notebook.run(f"%xpander vote {left} {right[:8]} both-good --voter ada") is None
    assert capsys.readouterr().out == f"Kept: both good (left {left[:8]}, right {right[:8]}), by ada.\n"
    for line in ("%xpander vote runs --voter ada", "%xpander vote --voter ada"):
        notebook.run(line)
        out = capsys.readouterr().out
        assert "1 vote by 1 person on 2 configurations" in out
        assert "1 of 2 pairs are judged by ada." in out
    # A sweep that took over these answers, and that no variable holds.
    notebook.run("%%xpander echo -m scripted/echo,scripted/think --over rows --cached -q\n{{ q }}")
    for line in ("%xpander vote --voter ada", f"%xpander vote {runs.sweep_id[:12]} --voter ada"):
        notebook.run(line)
        assert "1 of 2 pairs are judged by ada." in capsys.readouterr().out
    notebook.run(f"%xpander vote {left} {right} undo --voter ada")
    assert capsys.readouterr().out.startswith("Taken back: both good")
    assert runs.votes.empty
    with pytest.raises(ConfigError, match="takes two runs and one of left, right"):
        notebook.run(f"%xpander vote {left} {right}")


def test_by_words_alone(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    """In a terminal there was no way to see a pair, and none to judge one without its names."""
    with pytest.raises(ConfigError, match="No pair is shown that could be judged left"):
        notebook.run("%xpander vote left")
    notebook.run("rows = [{'q': 'first?'}, {'q': 'second?'}]")
    notebook.run("%%xpander echo -m scripted/echo,scripted/think --over rows -o runs -q\n{{ q }}")
    runs = notebook.ns["runs"]
    for number, run in enumerate(runs):
        run.result = f"answer {number}\x1b[2J"
        runs.session.store.update(run)
    capsys.readouterr()
    notebook.run("%xpander vote runs --voter ada --seed 1")
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    asked = re.search(r"--- asked\n(first|second)\?\n--- left\nanswer (\d)\S*\n--- right\nanswer (\d)", shown)
    assert asked is not None, shown
    assert {int(asked[2]) // 2, int(asked[3]) // 2} == {["first", "second"].index(asked[1])}
    assert not re.search("echo|think", shown)
    notebook.run("%xpander vote left")
    after = capsys.readouterr().out
    names = [runs[int(asked[side])].model for side in (2, 3)]
    assert f"Kept: left. The left one was {names[0]}, the right one {names[1]}." in after
    assert "1 of 2 pairs are judged by ada." in after
    notebook.run("%xpander vote undo")
    assert "Taken back.\n0 of 2 pairs" in capsys.readouterr().out
    notebook.run("%xpander vote skip")
    notebook.run("%xpander vote both-bad")
    assert "2 of 2 pairs are judged by ada." in capsys.readouterr().out
    assert sorted(runs.votes["choice"]) == ["both_bad", "skip"]
    with pytest.raises(ConfigError, match="All pairs are judged"):
        notebook.run("%xpander vote left")
