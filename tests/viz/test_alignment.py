"""``mixplug viz alignment``: decoded images, correspondences, and the command on two digits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from reference.aligned import align as align_by_loops
from reference.aligned import mix as mix_by_loops
from torch import Tensor, nn
from torch.testing import assert_close
from toys import ConvNet, TokenNet, embed, feature_map, stages_of

pytest.importorskip("mmpretrain")

from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner
from typer.testing import CliRunner

import mixplug.mm  # noqa: F401  the key mixup
from mixplug.cli import app
from mixplug.data.digits import digits
from mixplug.from_config import decoder as mm_decoder
from mixplug.from_config.decoder import decoding
from mixplug.functional import align, mix
from mixplug.layouts import pool
from mixplug.viz import alignment
from mixplug.viz.alignment import WAYS, interpolations, transport

NAME = "decoder_wrn10-1_1xb64-20e_digits"
CONFIG = Path(__file__).parents[2] / "mm_configs" / "alignmix" / f"{NAME}.py"
LAM = torch.linspace(0, 1, 4)


def toy(dtype: torch.dtype) -> tuple[nn.Module, nn.Module, Tensor]:
    """A network, a decoder of its embeddings, and two images."""
    model = ConvNet().to(dtype).eval()
    decoder = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Unflatten(1, (3, 2, 2))).to(dtype)
    return model, decoder, torch.randn(2, 3, 6, 8, dtype=dtype)


@torch.no_grad()
def test_equals_a_loop_over_lambdas(dtype: torch.dtype) -> None:
    """(3.12) and (3.13) with R by loops, f and D one map at a time."""
    model, decoder, pair = toy(dtype)
    found = interpolations(stages_of(model), decoder, pair, LAM, eps=0.5, iters=7)
    a, other = (feature_map(model, image) for image in pair)
    a_aligned, other_aligned = align_by_loops(a, other, 0.5, 7)
    operands = [(a, other), (a, a_aligned), (other, a), (other, other_aligned)]
    for name, (first, second) in zip(WAYS, operands, strict=True):
        for image, lam in zip(found[name], LAM.tolist(), strict=True):
            code = embed(model, mix_by_loops(first, second, lam))
            assert_close(image, decoder(code[None])[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_ends_are_the_decoded_images(dtype: torch.dtype) -> None:
    model, decoder, pair = toy(dtype)
    stages = stages_of(model)
    found = interpolations(stages, decoder, pair, LAM)
    x, other = decoder(stages(pair).embedding)
    for name, end in zip(WAYS, (x, x, other, other), strict=True):
        assert_close(found[name][-1], end)  # λ = 1
    assert_close(found["not aligned"][0], other)
    assert_close(found["not aligned"], found["not aligned, swapped"].flip(0))
    difference = found["A aligned to A' (3.12)"][0] - other
    assert float(difference.abs().max()) > 1e-2  # the pose is that of x, so it is not the image x'


@torch.no_grad()
def test_an_image_mixed_with_itself_does_not_change(dtype: torch.dtype) -> None:
    """For a small ε the plan is the identity, and a map mixed with itself is unchanged."""
    model, decoder, pair = toy(dtype)
    stages = stages_of(model)
    same = pair[:1].expand(2, -1, -1, -1)
    expected = decoder(stages(pair[:1]).embedding).expand(4, -1, -1, -1)
    for images in interpolations(stages, decoder, same, LAM, eps=1e-4).values():
        assert_close(images, expected, atol=1e-4, rtol=1e-4)
    plan, grid = transport(stages, same, eps=1e-4)
    assert_close(plan, torch.eye(12, dtype=dtype), atol=1e-4, rtol=0)
    assert grid == (3, 4)


@torch.no_grad()
def test_another_module_a_resolution_and_tokens(dtype: torch.dtype) -> None:
    model, decoder, pair = toy(dtype)
    stages = stages_of(model)
    stages.require("body.1")

    def prepare(a: Tensor) -> Tensor:
        return pool(a, 2)

    found = interpolations(stages, decoder, pair, LAM, at="body.1", prepare=prepare)
    a = pool(model.body[1](model.body[0](pair)), 2)
    mixed = mix(a[:1], align(a[:1], a[1:])[0], 0.0)
    code = embed(model, model.body[2](mixed)[0])
    assert_close(found["A aligned to A' (3.12)"][0], decoder(code[None])[0], atol=1e-4, rtol=1e-4)
    assert transport(stages, pair, "body.1", prepare)[0].shape == (4, 4)
    vit = TokenNet().to(dtype).eval()
    tokens = interpolations(stages_of(vit), decoder, torch.randn(2, 3, 4, 4, dtype=dtype), LAM)
    ends = tokens["not aligned"][[0, -1]]
    assert_close(ends, tokens["not aligned, swapped"][[-1, 0]])
    assert_close(
        tokens["A' aligned to A (3.13)"][-1], ends[0]
    )  # the prefix tokens are those of x' too


def test_other_than_two_images() -> None:
    model, decoder, pair = toy(torch.float32)
    with pytest.raises(ValueError, match=r"two images \(2, C, H, W\), got \(1, 3, 6, 8\)"):
        interpolations(stages_of(model), decoder, pair[:1], LAM)


def test_lines_connect_corresponding_positions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions 0 1 2 / 3 4 5 to 5 4 3 / 2 1 0; 0.4 of position 0 goes to 1, a tenth of 3 to 0."""
    plan = torch.eye(6).flip(0)
    plan[0] = torch.tensor([0.0, 0.4, 0, 0, 0, 0.6])
    plan[3] = torch.tensor([0.1, 0.0, 0.9, 0, 0, 0])
    drawn: list[tuple[object, ...]] = []
    pyplot = alignment.optional("matplotlib.pyplot", "demo", "")
    axes = pyplot.Axes if hasattr(pyplot, "Axes") else type(pyplot.figure().add_subplot())
    plot = axes.plot

    def spy(self: object, *points: object, **keys: object) -> object:
        drawn.append((points, keys["linewidth"], keys["color"]))
        return plot(self, *points, **keys)

    monkeypatch.setattr(axes, "plot", spy)
    alignment.lines(torch.rand(2, 4, 6, 3), plan, (2, 3), tmp_path / "c.png")
    pairs = [(0, 5, 0.6), (0, 1, 0.4), *((i, 5 - i, 1.0) for i in (1, 2)), (3, 2, 0.9)]
    pairs += [(i, 5 - i, 1.0) for i in (4, 5)]
    assert len(drawn) == len(pairs)
    colors = {}
    for (i, j, part), ((across, down), width, color) in zip(pairs, drawn, strict=True):
        # an image is 1 high and 1.5 wide; the second is 0.45 lower, after a gap of half a width
        start = ((i % 3 + 0.5) * 0.5, (i // 3 + 0.5) / 2)
        end = (2.25 + (j % 3 + 0.5) * 0.5, 0.45 + (j // 3 + 0.5) / 2)
        assert across == pytest.approx((start[0], end[0]))
        assert down == pytest.approx((start[1], end[1]))
        assert width == pytest.approx(0.6 + 3.4 * part)
        assert colors.setdefault(i, color) == color
    assert len(set(colors.values())) == 6
    assert Image.open(tmp_path / "c.png").width > 300


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint after two iterations, its config, and two digits."""
    folder = tmp_path_factory.mktemp("decoder")
    config = Config.fromfile(CONFIG)
    config.merge_from_dict(
        {
            "work_dir": str(folder),
            "train_cfg": {"_delete_": True, "by_epoch": True, "max_epochs": 1},
            "randomness.seed": 0,
            "log_level": "ERROR",
            "train_dataloader.dataset.indices": 16,
            "train_dataloader.batch_size": 8,
            "mixup.decoder_width": 4,
        }
    )
    Runner.from_cfg(config).train()
    images, _ = digits("test")
    for name, image, size in zip("ab", images, ((16, 16), (40, 31)), strict=False):
        pixels = (255 * image[0]).round().byte().numpy()
        Image.fromarray(pixels).resize(size[::-1]).save(folder / f"{name}.png")
    return folder


def invoke(*arguments: object) -> object:
    run = CliRunner().invoke(
        app, ["viz", "alignment", *map(str, arguments)], env={"COLUMNS": "100"}
    )
    assert run.exception is None or isinstance(run.exception, SystemExit), run.exception
    return run


def test_command(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The config beside the checkpoint is used, and the drawn images are those of the model."""
    drawn = []
    monkeypatch.setattr(alignment, "figure", lambda *given: drawn.append(given))
    saved = trained / "epoch_1.pth"
    files = (trained / "a.png", trained / "b.png")
    run = invoke(*files, "--ckpt", saved, "--steps", 3, "--iters", 5, "--out", tmp_path)
    assert run.exit_code == 0, run.output
    assert "4 x 4 positions, ε = 0.1, 5 iterations" in run.output
    assert str((tmp_path / "correspondences.png").resolve()) in run.output
    ((originals, rows, lam, path, _),) = drawn
    assert lam == [0.0, 0.5, 1.0] and path == tmp_path / "alignment.png"
    pixels, _ = digits("test")
    assert_close(originals[0], pixels[0, 0, :, :, None].expand(-1, -1, 3), atol=0.003, rtol=0)
    assert originals.shape == (2, 16, 16, 3)  # the center of 40 x 31
    (config,) = trained.glob("*.py")
    found = decoding(config, saved)
    model = found.stages.model
    with torch.no_grad():
        image = (found.ready(files[:1]) * 84.7 + 77.9) / 255
        assert_close(image[0, 0], pixels[0, 0], atol=0.003, rtol=0)
        a = model.backbone((image * 255 - 77.9) / 84.7)[-1]
        decoded = model.mixup.decoder(model.neck.fc(a.flatten(1)))
    expected = ((decoded * 84.7 + 77.9) / 255).clamp(0, 1)[0].flip(0).permute(1, 2, 0)
    assert_close(rows["A aligned to A' (3.12)"][2], expected, atol=1e-4, rtol=1e-4)
    assert_close(rows["not aligned, swapped"][0], expected, atol=1e-4, rtol=1e-4)


def test_figure_is_drawn(trained: Path, tmp_path: Path) -> None:
    saved, out = trained / "epoch_1.pth", tmp_path / "v"
    (config,) = trained.glob("*.py")
    run = invoke(
        trained / "a.png", trained / "b.png", "--ckpt", saved, "--config", config, "--out", out
    )
    assert run.exit_code == 0, run.output
    wide, high = Image.open(out / "alignment.png").size
    assert wide > 1200 and wide > 2 * high  # nine columns, four rows


@pytest.mark.parametrize("case", ["no decoder", "other config", "width", "no image", "missing"])
def test_errors(case: str, trained: Path, tmp_path: Path) -> None:
    saved, picture, (config,) = trained / "epoch_1.pth", trained / "a.png", trained.glob("*.py")
    if case == "no decoder":
        state = torch.load(saved, weights_only=False)["state_dict"]
        saved = tmp_path / "plain.pth"
        torch.save({k: v for k, v in state.items() if not k.startswith("mixup.")}, saved)
        message = "has no decoder (no weights mixup.decoder.*). Train one: mixplug train decoder_"
    elif case == "other config":
        config, message = "baseline_wrn10-1_1xb64-10e_digits", "has no decoder, that is, no mixup="
    elif case == "width":
        config, message = NAME, "does not fit the config: size mismatch for decoder.linear.weight"
    elif case == "no image":
        picture = tmp_path / "text.png"
        picture.write_text("no image")
        message = "text.png is not an image"
    else:
        picture, message = tmp_path / "none.png", "There is no image"
    run = invoke(picture, trained / "b.png", "--ckpt", saved, "--config", config)
    assert run.exit_code == 1
    assert message in " ".join(run.output.split())


def test_the_config_must_be_given_if_it_is_not_beside_the_checkpoint(
    trained: Path, tmp_path: Path
) -> None:
    saved = tmp_path / "epoch_1.pth"
    saved.write_bytes((trained / "epoch_1.pth").read_bytes())
    run = invoke(trained / "a.png", trained / "b.png", "--ckpt", saved)
    assert run.exit_code == 1
    message = "must have one config, got 0. Choose the config of epoch_1.pth with --config."
    assert message in " ".join(run.output.split())


def test_rgb_and_bgr_networks() -> None:
    """Red is passed in the order that the network expects, and comes out red."""
    for to_rgb in (False, True):
        config = Config.fromfile(CONFIG)
        config.data_preprocessor.to_rgb = to_rgb
        config.data_preprocessor.mean = [10.0, 20.0, 30.0]
        model = MODELS.build(
            {**config.model, "_scope_": "mmpretrain", "data_preprocessor": config.data_preprocessor}
        )
        stages = type("S", (), {"model": model})()
        found = mm_decoder.Decoding(stages, None, None, (), "mmpretrain")
        red = torch.tensor([255.0, 0, 0] if to_rgb else [0, 0, 255.0])
        ready = (red - torch.tensor([10.0, 20, 30])) / 84.7
        shown = found.shown(ready.view(1, 3, 1, 1))
        assert_close(shown.flatten(), torch.tensor([1.0, 0, 0]), atol=1e-6, rtol=0)
