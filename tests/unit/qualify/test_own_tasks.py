"""Tasks for small models: qualify reads them, the right answer is right, a wrong one is not, decode
steps make it."""

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
        numbers = range(self.size)
        return ({"question": f"{self.seed} + {i}", "answer": str(self.seed + i)} for i in numbers)
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
    """The first token comes from prefill, which is vanilla under every rule. Brackets and numbers
    may be one token."""
    dice = random.Random(4)
    for _ in range(EACH):
        task = GROUPS[name](material, dice)
        length = (
            task["max_tokens"] if task["check"] == "regex" else len(material.tokens(task["answer"]))
        )
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
    assert (
        run(
            "--reasoning-gym", "plain", "--number", "3", "--seed", "5", "--out", str(fake_gym)
        ).exit_code
        == 0
    )
    plain = tasks.read(fake_gym).tasks
    assert [(task.prompt, task.answer, task.judged_by) for task in plain] == [
        (f"5 + {i}\n", str(5 + i), "exact") for i in range(3)
    ]
    assert run("--reasoning-gym", "scored", "--number", "1", "--out", str(fake_gym)).exit_code == 0
    (scored,) = tasks.read(fake_gym).tasks
    assert (scored.judged_by, scored.group) == ("command", "gym-scored")
    assert [checks.correct(scored, said) for said in ("0", " any\n", "7")] == [True, True, False]


LM_EVAL = """
class Asked:
    def __init__(self, doc):
        self.doc = doc
    @property
    def filtered_resps(self):
        return {"strict": self.resps[0].strip().lower(), "loose": "never looked at"}
class Config:
    generation_kwargs, num_fewshot = {"until": ["\\n", "."], "max_gen_toks": 9}, None
class Task:
    config = Config()
    eval_docs = [{"ask": f"Say {each}.", "right": each} for each in ("yes", "no", "perhaps")]
    def __init__(self, name):
        self.OUTPUT_TYPE = "loglikelihood" if name == "scored" else "generate_until"
    def fewshot_context(self, doc, num_fewshot):
        print("as lm-eval prints")
        return f"{num_fewshot}: {doc['ask']}\\n"
    def construct_requests(self, doc, ctx, metadata):
        return Asked(doc)
    def apply_filters(self):
        assert len(self._instances) == 1
    def process_results(self, doc, results):
        return {"exact_match": float(results[0] == doc["right"]), "other": 0.0}
class TaskManager:
    def __init__(self, include_path):
        self.known = {"own": Task("own"), "scored": Task("scored")} if include_path else {}
    def load(self, names):
        return {"tasks": {name: self.known[name] for name in names}}
"""
"""An lm-eval with a task that is generated and one that is not, in whatever folder it is pointed
to."""


@pytest.fixture
def fake_lm_eval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "lm_eval").mkdir()
    (tmp_path / "lm_eval" / "__init__.py").touch()
    (tmp_path / "lm_eval" / "tasks.py").write_text(LM_EVAL)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "lm.jsonl"


def test_a_generative_task_of_lm_eval_is_judged_by_its_own_filters_and_metric(
    fake_lm_eval: Path,
) -> None:
    words = ("--lm-eval", "own", "--include-path", str(fake_lm_eval.parent), "--number", "2")
    assert run(*words, "--out", str(fake_lm_eval)).exit_code == 0
    found = tasks.read(fake_lm_eval).tasks
    assert [task.prompt for task in found] == ["0: Say yes.\n", "0: Say no.\n"]
    assert {(task.judged_by, task.group, task.max_tokens, *task.stop) for task in found} == {
        ("command", "own", 9, "\n", ".")
    }
    assert [checks.correct(found[0], said) for said in (" Yes\n", "no")] == [True, False]


def test_what_lm_eval_cannot_say_is_one_line(
    fake_lm_eval: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = ("--include-path", str(fake_lm_eval.parent), "--out", str(fake_lm_eval))
    said = {
        "a task of loglikelihood, whose answers are scored in prefill": run(
            "--lm-eval", "scored", *there
        ),
        "--lm-eval=own: KeyError": run("--lm-eval", "own", "--out", str(fake_lm_eval)),
        "--lm-eval-python=/no/python": run(
            "--lm-eval", "own", "--lm-eval-python", "/no/python", *there
        ),
    }
    monkeypatch.setenv("PYTHONPATH", "")
    for words, result in (
        said | {"lm-eval is not installed": run("--lm-eval", "own", *there)}
    ).items():
        assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
        assert words in result.stderr
    assert run("--lm-eval", "own", "--reasoning-gym", "plain", *there).exit_code == 2
    assert not fake_lm_eval.exists()


def test_what_a_user_can_put_right_is_one_line(
    fake_gym: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = run("--reasoning-gym", "nosuch", "--out", str(fake_gym))
    nowhere = run("--out", str(fake_gym / "no" / "folder"), "--number", "1")
    no_python = run(
        "--reasoning-gym", "plain", "--gym-python", "/no/python", "--out", str(fake_gym)
    )
    monkeypatch.setenv("PYTHONPATH", "")
    absent = run("--reasoning-gym", "plain", "--gym-python", sys.executable, "--out", str(fake_gym))
    said = {"plain, scored": unknown, "No such file": nowhere, "--gym-python=/no/python": no_python}
    for words, result in (said | {"reasoning-gym is not installed": absent}).items():
        assert result.exit_code == 2
        assert words in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert (
        run("--group", "repeat", "--reasoning-gym", "plain", "--out", str(fake_gym)).exit_code == 2
    )
    assert not fake_gym.exists()
