"""``mixplug viz`` on a few digits: embeddings, neighbors, and errors in one line."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import torch

pytest.importorskip("mmpretrain")

from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.registry import MODELS
from typer.testing import CliRunner

from mixplug.cli import app
from mixplug.data.retrieval import retrieval_set
from mixplug.from_config import figures as from_config
from mixplug.from_config.config import state_dict_of
from mixplug.from_config.embeddings import embeddings_of
from mixplug.viz import retrieval

SHIPPED = Path(__file__).parents[2] / "mm_configs" / "metrix"
FEW = """
_base_ = ['{base}']
few = dict(type='mixplug.RetrievalDataset', name='digits', size=16,
           pipeline=[dict(type='PackInputs')])
train_dataloader = dict(
    batch_size=16, dataset=dict(_delete_=True, split='train', indices=48, **few))
test_dataloader = dict(batch_size=24, dataset=dict(_delete_=True, {test}))
"""
TEST = "split='test', indices=60, **few"
ROLES = (
    "type='ConcatDataset', ignore_keys='classes', datasets=[dict(split='test', indices=20, **few), "
    "dict(split='test', role='gallery', indices=50, **few), "
    "dict(split='train', indices=30, **few)]"
)


def config(folder: Path, name: str = "baseline-ms", test: str = TEST) -> Path:
    path = folder / f"{name}.py"
    base = SHIPPED / f"{name}_wrn10-1_1xb64-10e_digits.py"
    path.write_text(FEW.format(base=base, test=test))
    return path


def checkpoint(path: Path, folder: Path, seed: int = 1) -> Path:
    """Weights as mmengine saves them, with logs beside them."""
    torch.manual_seed(seed)
    model = MODELS.build(Config.fromfile(path).model)
    for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.running_mean.normal_()
    logs = {"message_hub": {"log_scalars": {"loss": HistoryBuffer([1.0], [1])}}}
    saved = folder / f"epoch_{seed}.pth"
    torch.save({"state_dict": model.state_dict(), "meta": {"epoch": 1}, **logs}, saved)
    return saved


def invoke(*arguments: object) -> object:
    run = CliRunner().invoke(app, ["viz", *map(str, arguments)], env={"COLUMNS": "100"})
    assert run.exception is None or isinstance(run.exception, SystemExit), run.exception
    return run


def test_embeddings_are_the_models_in_order(tmp_path: Path) -> None:
    path = config(tmp_path)
    saved = checkpoint(path, tmp_path)
    ticks: list[tuple[int, int]] = []
    found = embeddings_of(path, saved, tick=lambda *t: ticks.append(t))
    digits = retrieval_set("digits", split="test")
    assert found.labels.tolist() == list(digits.labels[:60])
    assert (found.sizes, ticks) == ([24, 24, 12], [(1, 3), (2, 3), (3, 3)])
    assert list(found.class_names) == ["5", "6", "7", "8", "9"]
    model = MODELS.build(Config.fromfile(path).model).eval()
    model.load_state_dict(torch.load(saved, weights_only=False)["state_dict"])
    images = (digits.images[:60] * 255).round().expand(-1, 3, -1, -1)
    with torch.no_grad():
        expected = model.embed((images - 77.9) / 84.7)
    torch.testing.assert_close(found.embeddings, expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(found.image(7), images[7].byte().permute(1, 2, 0))


def test_weights_of_another_loss_fit_and_epoch_0_follows_the_seed(tmp_path: Path) -> None:
    saved = checkpoint(config(tmp_path, "baseline-pa"), tmp_path)  # with proxies
    path = config(tmp_path)
    assert any(key.startswith("loss.") for key in state_dict_of(saved))
    trained = embeddings_of(path, saved).embeddings
    first, again, other = (embeddings_of(path, seed=seed).embeddings for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other) and not torch.allclose(first, trained)


@pytest.mark.parametrize("test", [TEST, ROLES], ids=["queries", "gallery"])
def test_retrieval_shows_the_nearest(
    test: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = config(tmp_path, test=test)
    saved = checkpoint(path, tmp_path)
    shown: list[list[retrieval.Retrieved]] = []
    page = retrieval.page
    monkeypatch.setattr(retrieval, "page", lambda rows, *t: (shown.append(rows), page(rows, *t))[1])
    run = invoke("retrieval", path, saved, "--queries", 4, "--top", 3, "--out", tmp_path / "v")
    assert run.exit_code == 0, run.output
    found = embeddings_of(path, saved)
    asked = [i for i, role in enumerate(found.roles) if role == "query"]
    items = [i for i, role in enumerate(found.roles) if role == "gallery"] or asked
    pictures = {i: found.image(i) for i in range(len(found.labels))}
    assert len(shown[0]) == 4
    for row in shown[0]:
        query = next(i for i in asked if torch.equal(pictures[i], row.query))
        others = [i for i in items if i != query]
        s = found.embeddings.double() @ found.embeddings[query].double()
        nearest = sorted(others, key=lambda i: -float(s[i]))[:3]
        for image, hit, caption, i in zip(
            row.neighbors, row.hits, row.captions, nearest, strict=True
        ):
            assert torch.equal(image, pictures[i])
            assert hit == (int(found.labels[i]) == int(found.labels[query]))
            assert caption == str(5 + int(found.labels[i]))
    hits = sum(sum(row.hits) for row in shown[0])
    assert f"{hits} of 12 neighbors" in run.output
    for name in ("retrieval.png", "retrieval.html"):
        assert str((tmp_path / "v" / name).resolve()) in run.output
        assert (tmp_path / "v" / name).stat().st_size > 1000


def test_embedding_draws_the_same_examples_for_every_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = config(tmp_path, test=ROLES)
    saved = [checkpoint(path, tmp_path, seed) for seed in (1, 2)]
    drawn = []
    monkeypatch.setattr(from_config.embedding, "figure", lambda *keys: drawn.append(keys))
    monkeypatch.setattr(
        from_config.embedding, "flat_map", lambda e, seed: (e[:, :2], f"plain {seed}")
    )
    run = invoke("embedding", path, *saved, "--classes", 3, "--seed", 4, "--out", tmp_path / "v")
    assert run.exit_code == 0, run.output
    ((maps, labels, names, _, title),) = drawn
    assert list(maps) == ["epoch_1.pth", "epoch_2.pth"] and names == ["5", "6", "7", "8", "9"]
    test = torch.tensor([role != "train" for role in embeddings_of(path, saved[0]).roles])
    for rows, point in zip(maps.values(), saved, strict=True):
        found = embeddings_of(path, point)
        some = test & torch.isin(found.labels, labels.unique())
        assert torch.equal(rows, found.embeddings[some, :2])
        assert torch.equal(labels, found.labels[some])
    assert len(labels.unique()) == 3 and "of 3 classes, by plain 4" in title


def test_positivity_takes_the_loss_of_the_config(tmp_path: Path) -> None:
    path = config(tmp_path, "metrix-embed-ms")
    path.write_text(path.read_text() + "model = dict(loss=dict(loss=dict(beta=7.0)))\n")
    run = invoke("positivity", path, "--out", tmp_path / "v")
    assert run.exit_code == 0, run.output
    assert "mixed pairs at epoch 0, β=7, γ=75, m=0.77" in run.output
    assert {file.name for file in (tmp_path / "v").iterdir()} == {
        "positivity.png",
        "positivity.json",
    }


class Evil:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("evil"),))


def test_a_map_without_a_number_has_all_of_few_classes(tmp_path: Path) -> None:
    path = config(tmp_path)
    run = invoke("embedding", path, checkpoint(path, tmp_path), "--out", tmp_path / "v")
    assert run.exit_code == 0 and "60 test examples of 5 classes" in run.output
    assert (tmp_path / "v" / "embedding_5.png").is_file()


def test_errors_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = config(tmp_path)
    saved = checkpoint(path, tmp_path)
    state = dict(state_dict_of(saved))
    state["head.fc.weight"] = torch.zeros(3, 3)
    del state["head.fc.bias"]
    torch.save(state, tmp_path / "other.pth")
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"state_dict": Evil()}))
    torch.save({"state_dict": {"a": Evil()}}, tmp_path / "evil2.pth")
    no_model = tmp_path / "empty.py"
    no_model.write_text("a = 1\n")
    broken = tmp_path / "broken.py"
    broken.write_text("a = (\n")
    refused = [
        (("retrieval", "nosuch", saved), "nosuch is neither a file nor the name of a config"),
        (("retrieval", path, "no.pth"), "There is no checkpoint no.pth"),
        (
            ("retrieval", path, "other.pth"),
            r"other.pth does not fit the config: 1 keys of the model are missing "
            r"\(head.fc.bias, ...\); 1 keys have another shape \(head.fc.weight, ...\)",
        ),
        (("retrieval", path, "evil.pth"), "evil.pth is not a checkpoint of weights"),
        (("retrieval", path, "evil2.pth"), "evil2.pth is not a checkpoint of weights"),
        (("retrieval", path, saved, "--queries", 61), "Cannot draw 61 queries: .* has 60"),
        (("retrieval", path, saved, "--top", 60), "Cannot draw 60 neighbors: .* only 60 items"),
        (
            ("embedding", path, saved, "--classes", 6),
            r"--classes must be in \[1, 5\], .*; got 6",
        ),
        (
            ("embedding", path, saved, saved, "--classes", 2),
            "Checkpoints need different paths, but one occurs twice",
        ),
        (("positivity", no_model), "needs the keys model and train_dataloader"),
        (("positivity", broken), "broken.py is not an mm config"),
    ]
    for arguments, message in refused:
        run = invoke(*arguments, "--out", tmp_path / "v")
        assert run.exit_code == 1, run.output
        (line,) = [text for text in run.output.splitlines() if "mixplug: error" in text]
        assert re.search(message, line), line
        assert run.output.rstrip().endswith(line)
    assert not (tmp_path / "evil").exists()
