"""``mixplug list``: all names of the catalog and the mm registries, with keys and examples."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner

import mixplug
import mixplug.mm
from mixplug import catalog, overview, registry
from mixplug.cli import app
from mixplug.overview import Key

ALL = overview.everything()
VAGUE = re.compile(r"(of mmengine|mmengine's|see [:`\w.]+)\.$")
IN_MM = {name: t for child in registry.REGISTRIES for name, t in child.module_dict.items()}


def invoke(*words: str) -> str:
    run = CliRunner().invoke(app, ["list", *words], env={"COLUMNS": "100"})
    assert run.exit_code == 0, run.output
    assert max(map(len, run.output.splitlines()), default=0) <= 100 or "--json" in words
    return run.output


@pytest.mark.parametrize("one", ALL, ids=lambda one: f"{one.name}-{'-'.join(one.hosts)}")
class TestEveryName:
    def test_has_a_summary(self, one: overview.Named) -> None:
        assert 20 <= len(one.summary) <= 140 and one.summary.endswith("."), one.summary
        assert "``" not in one.summary and ":class:" not in one.summary
        assert not one.summary.startswith(("Keys:", "\\"))

    def test_every_key_has_a_meaning(self, one: overview.Named) -> None:
        silent = [key.name for key in one.keys if not key.meaning]
        assert not silent, f"The docstring of {one.name} does not say what {silent} mean."
        vague = [k.name for k in one.keys if len(k.meaning.split()) < 2 or VAGUE.match(k.meaning)]
        assert not vague, f"The docstring of {one.name} does not say much about {vague}."

    def test_a_summary_that_cites_the_thesis_has_a_reference(self, one: overview.Named) -> None:
        assert one.reference or not re.search(r"\d\.\d", one.summary)

    def test_tools_get_a_description_without_markup(self, one: overview.Named) -> None:
        text = one.as_dict()["description"]
        assert not re.search(r"``|:\w+:`|::$|\.\. \w+", text, re.MULTILINE), text
        assert bool(text) == bool(one.description)

    @pytest.mark.parametrize("columns", ["80", "100"])
    def test_nothing_is_cut(self, one: overview.Named, columns: str) -> None:
        run = CliRunner().invoke(app, ["list", one.name], env={"COLUMNS": columns})
        assert run.exit_code == 0 and "…" not in run.output
        assert max(map(cell_len, run.output.splitlines())) <= int(columns)

    def test_shows_every_key_that_the_class_takes(self, one: overview.Named) -> None:
        kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        taken = inspect.signature(one.target).parameters.values()
        assert {p.name for p in taken if p.kind not in kinds} <= {key.name for key in one.keys}

    def test_has_an_example_that_names_it(self, one: overview.Named) -> None:
        ast.parse(one.example)
        assert one.name in one.example

    def test_belongs_to_a_group(self, one: overview.Named) -> None:
        assert one.kind in overview.GROUPS and one.hosts


def test_all_names_are_listed() -> None:
    listed = {one.name for one in ALL}
    assert listed == {entry.name for entry in catalog.entries()} | set(IN_MM)
    words = set(invoke().split())
    assert listed <= words
    assert {e.alias for e in catalog.entries() if e.alias != e.name.lower()} <= words


@pytest.mark.parametrize("columns", ["80", "100"])
def test_nothing_of_the_whole_list_is_cut(columns: str) -> None:
    run = CliRunner().invoke(app, ["list"], env={"COLUMNS": columns})
    assert run.exit_code == 0 and "…" not in run.output


def test_names_for_mm_have_their_mm_class() -> None:
    assert {o.name: o.target for o in ALL if o.hosts == ("mm",)} == IN_MM


def test_groups_are_apart_and_in_order() -> None:
    lines = invoke().splitlines()
    titles = [line for line in lines if line in overview.GROUPS.values()]
    assert titles == [t for t in overview.GROUPS.values() if t in titles]
    assert {"Mixers", "Evaluators", "Data sets", "Backbones"} <= {*titles}


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["evaluators"], "evaluator"), (["evaluator"], "evaluator"), (["Data", "sets"], "dataset"),
        (["datasets"], "dataset"), (["data-set"], "dataset"), (["loss"], "loss"),
        (["losses"], "loss"), (["selfsup"], "selfsup"), (["self-supervised", "methods"], "selfsup"),
        (["optimizer wrapper constructors"], "optimizer constructor"), (["hooks"], "hook"),
    ],
)  # fmt: skip
def test_one_group(words: list[str], kind: str) -> None:
    output = invoke(*words)
    shown = {one.name for one in ALL if one.kind == kind}
    assert shown <= set(output.split())
    assert output.startswith(overview.GROUPS[kind])
    first = {line.split()[0] for line in output.splitlines() if line.strip()}
    assert not first & ({one.name for one in ALL} - shown)


@pytest.mark.parametrize("name", ["AlignMixup", "alignmix", "mixplug.AlignMixup", "align_mixup"])
def test_one_name(name: str) -> None:
    output = invoke(name)
    assert output.startswith("AlignMixup  mixer, alias alignmix")
    for key, value in catalog.find("AlignMixup").defaults.items():
        row = next(line.split() for line in output.splitlines() if line.split()[:1] == [key])
        assert row[1] == repr(value).split()[0] and len(row) > 2
    assert "mixup = dict(type='AlignMixup')" in output


def test_a_name_of_two_classes_shows_both() -> None:
    output = invoke("RecallAtK")
    assert "mixplug.RecallAtK" in output and "mixed_epochs" in output and "in percent" in output
    assert "metric = mixplug.RecallAtK(" in output and "val_evaluator = dict(" in output
    assert "Better when lower: alignment, uniformity, utilization" in output


def test_an_unknown_name_suggests_groups_and_names() -> None:
    run = CliRunner().invoke(app, ["list", "evaluater"], env={"COLUMNS": "100"})
    assert run.exit_code == 2
    assert "There is no name and no group 'evaluater'. Did you mean 'evaluators'?" in run.output
    with pytest.raises(KeyError, match=r"group 'MetricLearnr'\. Did you mean 'MetricLearner'\?"):
        overview.find("MetricLearnr")


def test_json_for_tools() -> None:
    found = json.loads(invoke("--json"))
    assert [one["name"] for one in found] == [one.name for one in ALL]
    (hook,) = json.loads(invoke("DistillationHook", "--json"))
    assert set(hook) == {
        "name", "kind", "aliases", "hosts", "reference", "summary", "description", "keys",
        "example", "higher_is_better", "lower_is_better",
    }  # fmt: skip
    key = next(key for key in hook["keys"] if key["name"] == "ema_decay")
    assert key == {
        "name": "ema_decay", "required": False, "default": "(0.996, 1.0)",
        "meaning": key["meaning"],
    }  # fmt: skip
    (learner,) = json.loads(invoke("MetricLearner", "--json"))
    assert learner["keys"][0] | {"meaning": ""} == {
        "name": "backbone", "required": True, "default": None, "meaning": "",
    }  # fmt: skip


def test_keys_handed_on_to_a_base_are_listed_with_their_defaults() -> None:
    class Mine(mixplug.models.ViTPyramid):
        """Mine.

        Args:
            extra: more.
        """

        def __init__(self, extra: float = 1 / 3, **keys: object) -> None: ...

    Mine.__module__ = "mixplug.somewhere"
    found = {key.name: key for key in overview.keys_of(Mine)}
    assert found["extra"] == Key("extra", False, "0.3333", "more.")
    assert found["embed_dim"].default == "384" and found["embed_dim"].meaning
    assert "**keys" not in found


WITHOUT = """
import sys
sys.modules["mmengine"] = None
from rich.cells import cell_len
from typer.testing import CliRunner
from mixplug.cli import app
for words in ([], ["--json"], ["evaluators"], ["AlignMixup"]):
    run = CliRunner().invoke(app, ["list", *words], env={"COLUMNS": "100"})
    print(run.exit_code, run.stdout, run.stderr, sep="<field>", end="<run>")
"""


def test_without_openmmlab_the_catalog_is_listed_and_the_rest_is_named() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    full, as_json, group, one = (part.split("<field>") for part in done.stdout.split("<run>")[:4])
    said = " ".join(full[1].split())
    assert full[0] == "0" and {e.name for e in catalog.entries()} <= set(said.split())
    assert "Not listed, because mmengine is not installed: models, evaluators, data sets" in said
    assert "Install OpenMMLab with: uv sync --inexact --extra mm" in said
    assert {one["name"] for one in json.loads(as_json[1])} == {e.name for e in catalog.entries()}
    assert "mmengine is not installed" in as_json[2]
    assert group[0] == "0" and "mmengine is not installed" in " ".join(group[1].split())
    assert one[0] == "0" and one[1].startswith("AlignMixup  mixer")
