"""Tasks for small models: qualify reads them, the right answer is right, a wrong one is not, decode steps make it."""

import random
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from oea_server.lab.qualify import checks, tasks
from oea_server.lab.qualify.own_groups import CLOSES, GROUPS, LEAST_TOKENS, Text
from oea_server.lab.qualify.own_tasks import TELLING, Model, app, made, text

EACH = 8
FREE = ("brackets", "brackets-shown")
"""Something may stand before what closes."""
PAGES = ("page-phrase", "page-word", "page-finish")
FAKE = '''
"""A reasoning-gym of two datasets: one that compares, one with a scorer of its own."""
from reasoning_gym.factory import DATASETS
create_dataset = lambda name, size, seed: DATASETS[name](size, seed)
get_score_answer_fn = lambda name: DATASETS[name](0, 0).score_answer
'''
FACTORY = """
class ProceduralDataset:
    def __init__(self, size, seed):
        self.size, self.seed = size, seed
    def __iter__(self):
        return ({"question": f"{self.seed} + {i}", "answer": str(self.seed + i)} for i in range(self.size))
    def score_answer(self, answer, entry):
        return float(answer == entry["answer"])
class Scored(ProceduralDataset):
    def score_answer(self, answer, entry):
        return 1.0 if answer in (entry["answer"], "any") else 0.5
DATASETS = {"plain": ProceduralDataset, "scored": Scored}
"""


@pytest.fixture(scope="module")
def material() -> Text:
    return text()


def run(*words: str) -> Result:
    return CliRunner().invoke(app, words)


@pytest.fixture(params=GROUPS)
def group(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_qualify_reads_every_group_and_judges_it(group: str, material: Text) -> None:
    dice = random.Random(3)
    for _ in range(EACH):
        task = tasks.Task.model_validate(GROUPS[group](material, dice) | {"group": group})
        right = _right(group, task, material)
        assert checks.correct(task, right), (task, right)
        for wrong in ("", "The", right[1:], *(() if group in FREE else (f"x{right}",))):
            assert not checks.correct(task, wrong), (task, wrong)


def _right(group: str, task: tasks.Task, material: Text) -> str:
    """What the tasks were made from says, not what the task's answer says, where the two differ."""
    assert task.prompt is not None
    if group.startswith("brackets"):
        open_at_the_end = task.prompt.rsplit("\n", 1)[-1]
        return "".join(CLOSES[each] for each in reversed(open_at_the_end) if each in CLOSES)
    if group in PAGES:
        (page,) = {page for page in material.pages if task.prompt in page}
        starts = [found.end() for found in re.finditer(re.escape(task.prompt), page)]
        return next(page[at : at + 40] for at in starts if checks.correct(task, page[at : at + 40]))
    if task.judged_by == "regex":  # a name, from where it stands before
        named = re.search(r"^NAME\n(\w+)|self,( \w+)", task.prompt)
        assert named is not None
        return named[1] or named[2]
    return str(task.answer)


@pytest.mark.parametrize("name", sorted(set(GROUPS) - {*FREE, "count-lines"}))
def test_what_is_judged_is_decoded(name: str, material: Text) -> None:
    """The first token comes from prefill, which is vanilla under every rule. Brackets and numbers may be one token."""
    dice = random.Random(4)
    for _ in range(EACH):
        task = GROUPS[name](material, dice)
        length = task["max_tokens"] if task["check"] == "regex" else len(material.tokens(task["answer"]))
        assert length >= LEAST_TOKENS - 1


def test_a_file_is_of_its_seed_and_has_no_task_twice(tmp_path: Path) -> None:
    one, same, other = (tmp_path / f"{name}.jsonl" for name in ("one", "same", "other"))
    for path, seed in ((one, "1"), (same, "1"), (other, "2")):
        assert run("--out", str(path), "--number", "90", "--seed", seed).exit_code == 0
    assert one.read_bytes() == same.read_bytes() != other.read_bytes()
    found = tasks.read(one).tasks
    assert len({task.prompt for task in found}) == 90
    assert {task.group for task in found} == set(TELLING[Model.DEMO])


def test_a_model_has_only_groups_that_tell() -> None:
    for model, groups in TELLING.items():
        assert set(groups) <= set(GROUPS)
        assert not set(groups) & {"count-list", "count-lines", "page-word", "copy-sentence"}, model
        assert {task["group"] for task in made(groups, len(groups), 0)} == set(groups)


@pytest.fixture
def fake_gym(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "reasoning_gym").mkdir()
    (tmp_path / "reasoning_gym" / "__init__.py").write_text(FAKE)
    (tmp_path / "reasoning_gym" / "factory.py").write_text(FACTORY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "gym.jsonl"


def test_reasoning_gym_compares_or_scores_as_its_dataset_does(fake_gym: Path) -> None:
    assert run("--reasoning-gym", "plain", "--number", "3", "--seed", "5", "--out", str(fake_gym)).exit_code == 0
    plain = tasks.read(fake_gym).tasks
    assert [(task.prompt, task.answer, task.judged_by) for task in plain] == [
        (f"5 + {i}\n", str(5 + i), "exact") for i in range(3)
    ]
    assert run("--reasoning-gym", "scored", "--number", "1", "--out", str(fake_gym)).exit_code == 0
    (scored,) = tasks.read(fake_gym).tasks
    assert (scored.judged_by, scored.group) == ("command", "gym-scored")
    assert [checks.correct(scored, said) for said in ("0", " any\n", "7")] == [True, True, False]


def test_what_a_user_can_put_right_is_one_line(fake_gym: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = run("--reasoning-gym", "nosuch", "--out", str(fake_gym))
    nowhere = run("--out", str(fake_gym / "no" / "folder"), "--number", "1")
    no_python = run("--reasoning-gym", "plain", "--gym-python", "/no/python", "--out", str(fake_gym))
    monkeypatch.setenv("PYTHONPATH", "")
    absent = run("--reasoning-gym", "plain", "--gym-python", sys.executable, "--out", str(fake_gym))
    said = {"plain, scored": unknown, "No such file": nowhere, "--gym-python=/no/python": no_python}
    for words, result in (said | {"reasoning-gym is not installed": absent}).items():
        assert result.exit_code == 2
        assert words in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert run("--group", "repeat", "--reasoning-gym", "plain", "--out", str(fake_gym)).exit_code == 2
    assert not fake_gym.exists()
