"""timm's training script with a mixer bound in: flags, checkpoints, resuming, errors, learning."""

from __future__ import annotations

import copy
import math
import re
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import timm.task
import torch
from hosts.hosting import HERE, TIMM_FLAGS, TimmRun, own_process, variants
from timm.loss import (
    BinaryCrossEntropy,
    JsdCrossEntropy,
    LabelSmoothingCrossEntropy,
    SoftTargetCrossEntropy,
)
from timm.task import ClassificationTask, resume_task_checkpoint
from torch import Tensor, nn
from torch.testing import assert_close

import mixplug
from mixplug import sampling
from mixplug.hosts.timm.task import LEARNED, MixupTask, bind
from timm_hooks import train as timm_hooks_train

STEPS = 4  # 128 images in batches of 32
AE = {"decoder": "ae", "image_shape": (3, 16, 16)}
SMALL = ("--img-size", 16)

# The flags that mixing meets, shared out among the mixers to spare runs.
FLAGS = {
    "mixup": "--no-prefetcher --smoothing 0",
    "cutmix": "--bce-loss --no-prefetcher",
    "manifold": "--grad-accum-steps 2 --no-prefetcher",
    "alignmix": "--amp --amp-dtype bfloat16",
    "multimix": "--bce-loss --smoothing 0",
    "one_of": "--smoothing 0.2",
    "dense_multimix": "--torchcompile eager --model-ema --grad-accum-steps 2",
    "alignmix-ae": "--model-ema --model-ema-decay 0.5 --img-size 16",
    "alignmix-vae": "--clip-grad 0.1 --clip-mode agc --img-size 16",
}


def plain_model() -> nn.Module:
    return timm.create_model("test_resnet", num_classes=10)


def make_task(
    mixer: object, model: nn.Module | None = None, criterion: nn.Module | None = None, **bound: Any
) -> MixupTask:
    task = bind(ClassificationTask, mixer, **bound)
    criterion = criterion or nn.CrossEntropyLoss()
    return task(model=model or plain_model(), criterion=criterion, verbose=False)


def batch(size: int = 6) -> tuple[Tensor, Tensor]:
    return torch.randn(size, 3, 64, 64), torch.arange(size) % 10


def test_the_flags_are_given_to_every_mixer() -> None:
    assert FLAGS.keys() == variants().keys()


@pytest.mark.parametrize("name", FLAGS)
def test_an_epoch_of_train_py(name: str, timm_train: Callable, seen: list[dict]) -> None:
    run: TimmRun = timm_train(
        f"mixplug.{name.partition('-')[0]}", *FLAGS[name].split(), settings=variants()[name]
    )
    assert [(s["step"], s["epoch"], s["batch"]) for s in seen] == [(i, 0, 32) for i in range(STEPS)]
    assert math.isfinite(run.column("train_loss")[0])
    checkpoint = run.checkpoint
    assert run.state["step"] == STEPS
    plain = plain_model()
    keys = [key for key in checkpoint if key.startswith("state_dict")]
    assert ("state_dict_ema" in keys) == ("--model-ema" in FLAGS[name])
    for key in keys:
        assert list(checkpoint[key]) == list(plain.state_dict())
        plain.load_state_dict(checkpoint[key], strict=True)
    assert bool(run.state["learned"]) == ("-" in name)
    assert all(key.startswith(LEARNED) for key in run.state["learned"])
    path = run.folder / "last.pth.tar"
    timm.create_model("test_resnet", num_classes=10, checkpoint_path=str(path))


def test_ema_of_the_decoder_is_kept_apart_from_it(timm_train: Callable) -> None:
    flags = (*SMALL, "--model-ema", "--model-ema-decay", 0.5)
    checkpoint = timm_train("mixplug.alignmix", *flags, settings=AE).checkpoint
    key = "mixup.decoder.linear.weight"
    trained = checkpoint["task_state"]["mixplug"]["learned"][key]
    averaged = checkpoint["task_state_ema"]["mixplug"]["learned"][key]
    assert not torch.equal(trained, averaged)
    assert_close(trained, averaged, rtol=0, atol=0.02)


def test_runs_as_a_command_and_a_mixer_is_found_by_dotted_path(
    script: Path, image_folder: Path, tmp_path: Path
) -> None:
    flags = ["--data-dir", str(image_folder), *TIMM_FLAGS, "--epochs", "1"]
    out = ["--output", str(tmp_path), "--experiment", "run"]
    mixer = ["--mixup-impl", "mixplug.mixers.multimix.MultiMix", "--mixup-args", "n=32", "prob=1"]
    command = [sys.executable, "-m", "timm_hooks.train", str(script), *flags, *out, *mixer]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = TimmRun(tmp_path / "run")
    assert run.state["step"] == STEPS
    assert run.checkpoint["args"].model == "test_resnet"


def test_two_processes_of_torchrun(image_folder: Path, tmp_path: Path) -> None:
    flags = ["--data-dir", str(image_folder), *TIMM_FLAGS, "--img-size", "16"]
    flags += ["--grad-accum-steps", "2"]
    out = ["--output", str(tmp_path), "--experiment", "run"]
    mixer = ["--mixup-impl", "mixplug.alignmix", "--mixup-args", "decoder=ae"]
    mixer += ["image_shape=(3,16,16)"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launch, "-m", "timm_hooks.train", str(HERE / "train.py"), *flags, *out, *mixer]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = TimmRun(tmp_path / "run")
    assert run.state["step"] == STEPS // 2
    assert list(run.checkpoint["state_dict"]) == list(plain_model().state_dict())


def test_dense_multimix_learns(timm_train: Callable) -> None:
    flags = ["--epochs", "8", "-b", "16", "--lr", "3e-3", "--smoothing", "0"]
    run: TimmRun = timm_train(
        "mixplug.dense_multimix", *flags, settings={"prob": 1, "n": 200, "m": 4}
    )
    accuracy = run.column("eval_top1")
    assert max(accuracy[:1]) < 40 < 60 < accuracy[-1]  # chance is 10
    assert run.column("train_loss")[-1] < run.column("train_loss")[0] - 0.2


def test_compiled_by_inductor_it_trains_the_same() -> None:
    model = timm.create_model("test_vit", num_classes=10, depth=1, img_size=32)
    x, y = batch(4)
    x = x[..., :32, :32].contiguous()
    mixer = mixplug.build("dense_multimix", n=32, prob=0.5)
    eager, compiled = (make_task(mixer, copy.deepcopy(model)) for _ in range(2))
    compiled.compile(backend="inductor")
    for _ in range(6):  # both branches come up
        results = [task(x, y) for task in (eager, compiled)]
        for result in results:
            result["loss"].backward()
        assert_close(results[1]["loss"], results[0]["loss"])
        assert_close(results[1]["output"], results[0]["output"])
    gradients = [[p.grad for p in task.parameters()] for task in (eager, compiled)]
    assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-5)
    state = compiled.get_checkpoint_state()["state_dict"]
    assert list(state) == list(model.state_dict())
    torch._dynamo.reset()


def test_off_epoch_leaves_the_second_epoch_clean(timm_train: Callable, seen: list[dict]) -> None:
    timm_train("mixplug.alignmix", "--epochs", 2, "--mixup-off-epoch", 1)
    assert [(s["epoch"], s["soft"]) for s in seen] == [(0, True)] * STEPS + [(1, False)] * STEPS


def test_off_epoch_comes_from_a_yaml_file_too(
    timm_train: Callable, seen: list[dict], tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("mixup_off_epoch: 1\n")
    timm_train("mixplug.mixup", "--config", config, "--epochs", 2)
    assert [s["soft"] for s in seen] == [True] * STEPS + [False] * STEPS


def test_resumed_it_goes_on_where_it_stopped(timm_train: Callable, seen: list[dict]) -> None:
    first: TimmRun = timm_train("mixplug.alignmix", *SMALL, "--model-ema", settings=AE)
    path = first.folder / "last.pth.tar"
    flags = (*SMALL, "--model-ema", "--epochs", 2, "--resume", path, "--seed", 7)
    second: TimmRun = timm_train("mixplug.alignmix", *flags, settings=AE)
    assert [(s["epoch"], s["step"]) for s in seen[STEPS:]] == [(1, STEPS + i) for i in range(STEPS)]
    assert first.state["seed"] == second.state["seed"] == 42
    assert second.state["epoch"] == 1

    task = make_task(mixplug.build("alignmix", **AE))
    before = copy.deepcopy(task.stages.learned.state_dict())
    assert resume_task_checkpoint(task, str(path), log_info=False) == 1
    restored = task.stages.learned.state_dict()
    for key, value in first.state["learned"].items():
        assert torch.equal(restored[key.removeprefix(LEARNED)], value)
    assert len(restored) == len(first.state["learned"])
    assert not torch.equal(before["decoder.linear.weight"], restored["decoder.linear.weight"])
    assert (task.seed, task.step) == (42, STEPS)


def test_start_epoch_wins_over_the_checkpoint(timm_train: Callable, seen: list[dict]) -> None:
    first: TimmRun = timm_train("mixplug.mixup")
    flags = ("--epochs", 4, "--start-epoch", 3, "--mixup-off-epoch", 3)
    timm_train("mixplug.mixup", *flags, "--resume", first.folder / "last.pth.tar")
    assert [(s["epoch"], s["soft"]) for s in seen[STEPS:]] == [(3, False)] * STEPS


def test_a_checkpoint_with_a_decoder_is_taken_up_without_one() -> None:
    with_decoder = make_task(mixplug.build("alignmix", **AE))
    without = make_task(mixplug.build("alignmix"))
    state = with_decoder.get_checkpoint_state()
    without.load_checkpoint_state(state["state_dict"], state["task_state"])
    assert torch.equal(without.trainable_module.fc.weight, with_decoder.trainable_module.fc.weight)


def test_a_plain_checkpoint_starts_a_run_with_a_decoder() -> None:
    model = plain_model()
    task = make_task(mixplug.build("alignmix", **AE))
    before = copy.deepcopy(task.stages.learned.state_dict())
    task.load_checkpoint_state(model.state_dict())
    assert torch.equal(task.trainable_module.fc.weight, model.fc.weight)
    for key, value in task.stages.learned.state_dict().items():
        assert torch.equal(value, before[key])


def test_agc_leaves_out_the_classifier_not_the_decoder() -> None:
    task = make_task(mixplug.build("alignmix", **AE))
    clipped = {id(p) for p in task.get_clip_parameters(exclude_head=True)}
    model = task.trainable_module
    assert {n for n, p in model.named_parameters() if id(p) not in clipped} == {
        "fc.weight",
        "fc.bias",
    }


@pytest.mark.parametrize(
    "criterion",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(label_smoothing=0.2),
        LabelSmoothingCrossEntropy(0.1),
        BinaryCrossEntropy(smoothing=0.1),
        BinaryCrossEntropy(smoothing=0.1, target_threshold=0.2, pos_weight=3.0),
        BinaryCrossEntropy(smoothing=0.0, sum_classes=True),
    ],
    ids=["ce", "ce-smooth", "smooth", "bce", "bce-threshold", "bce-sum"],
)
@pytest.mark.parametrize("name", ["mixup", "multimix"])
def test_an_epoch_without_mixing_has_timms_own_loss(criterion: nn.Module, name: str) -> None:
    x, y = batch()
    model = plain_model()
    plain = ClassificationTask(copy.deepcopy(model), criterion, verbose=False)
    task = make_task(mixplug.build(name, off_epoch=1), model, criterion)
    task.get_trainable_module().train()
    task.epoch = 0
    mixed = task(x, y)["loss"]
    task.epoch = 1
    unmixed = task(x, y)
    plain.trainable_module.train()
    expected = plain(x, y)
    assert_close(unmixed["loss"], expected["loss"])
    assert_close(unmixed["output"], expected["output"])
    assert abs(mixed.item() - expected["loss"].item()) > 1e-4


def test_soft_rows_are_not_smoothed_again() -> None:
    x, y = batch()
    rows = nn.functional.one_hot(y, 10).float() * 0.5 + 0.05
    task = make_task(mixplug.build("mixup", prob=0), criterion=LabelSmoothingCrossEntropy(0.1))
    model = copy.deepcopy(task.trainable_module)
    assert_close(task(x, rows)["loss"], SoftTargetCrossEntropy()(model(x), rows))


def test_the_loss_stays_float32_under_autocast() -> None:
    task = make_task(mixplug.build("alignmix", modes=("A",)))
    x, y = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = task(x, y)
    assert result["output"].dtype == torch.bfloat16
    assert result["loss"].dtype == torch.float32


def test_in_eval_mode_it_is_timms_task() -> None:
    x, y = batch()
    task = make_task(mixplug.build("mixup"))
    task.trainable_module.eval()
    result = task(x, y)
    assert torch.equal(result["loss"], nn.functional.cross_entropy(task.trainable_module(x), y))
    assert task.step == 0


def test_jsd_loss_is_refused_when_the_task_is_made() -> None:
    with pytest.raises(ValueError, match="--jsd-loss compares augmented splits"):
        make_task(mixplug.build("mixup"), criterion=JsdCrossEntropy(num_splits=3))


def test_packed_patches_are_refused() -> None:
    task = make_task(mixplug.build("mixup"))
    with pytest.raises(ValueError, match="--naflex-loader gives packed patches"):
        task({"patches": torch.zeros(1)}, torch.zeros(1))


CLASHES = {
    "--mixup 0.2": r"--mixup cannot be used with --mixup-impl: both would mix the batch",
    "--cutmix 1.0": r"--cutmix cannot .*Leave it out, or use --mixup-impl mixplug\.cutmix",
    "--cutmix-minmax 0.2 0.8": r"--cutmix-minmax cannot be used",
    "--kd-model-name resnet18": r"--kd-model-name cannot .*distillation uses another task of timm",
    "--kd-model resnet18": r"--kd-model-name cannot",
    "--naflex-loader": r"--naflex-loader cannot",
    "--torchscript": r"--torchscript cannot .*Use --torchcompile",
    "--grad-checkpointing": r"--grad-checkpointing cannot .*Leave it out",
    "--jsd-loss": r"--jsd-loss cannot",
    "--config clash.yaml": r"--mixup cannot be used",
    "--mixup-impl mixplug.alignmx": r"no mixer 'mixplug\.alignmx'\. Did you mean 'AlignMixup'",
    "--mixup-impl no_such.Mixer": r"Nothing is importable as 'no_such\.Mixer'",
    "--mixup-impl torch.nn.ReLU": r"is not a mixer: it gives a ReLU",
    "--mixup-args alpa=1": r"AlignMixup has no key 'alpa'\. Did you mean 'alpha'",
    "--mixup-args alpha=-1": r"AlignMixup needs alpha > 0, got -1",
    "--mixup-args=alpha": r"--mixup-args needs KEY=VALUE, got 'alpha'",
    "--mixup-impl=": r"--mixup-impl needs a dotted path, such as mixplug\.alignmix",
}


@pytest.mark.parametrize("flags", CLASHES)
def test_a_wrong_command_says_what_to_do(
    flags: str,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("clash.yaml").write_text("mixup: 0.2\n")
    argv = [str(HERE / "train.py"), "--mixup-impl", "mixplug.alignmix", *flags.split()]
    with own_process(), pytest.raises(SystemExit) as exit_:
        timm_hooks_train.main(argv)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("timm_hooks.train: error: ")
    assert re.search(CLASHES[flags], error), error


def test_a_wrong_command_exits_with_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "timm_hooks.train", str(HERE / "train.py")]
    command += ["--mixup", "0.2", "--mixup-impl", "mixplug.alignmix"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 2
    assert "--mixup cannot be used with --mixup-impl" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_path_that_is_no_file_says_where_train_py_is(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        timm_hooks_train.main(["no/train.py", "--mixup-impl", "mixplug.alignmix"])
    assert "huggingface/pytorch-image-models" in capsys.readouterr().err


def test_a_script_without_timms_task_is_found_out(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("trained = True\n")
    with own_process(), pytest.raises(ValueError, match="so nothing was mixed"):
        timm_hooks_train.main([str(script), "--mixup-impl", "mixplug.mixup"])


def test_the_script_sees_its_own_arguments_only(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("import sys\nraise SystemExit('|'.join(sys.argv))\n")
    argv = [str(script), "data", "--lr", "0.1", "--mixup-impl=mixplug.mixup", "--mixup-args"]
    with own_process(), pytest.raises(SystemExit) as exit_:
        timm_hooks_train.main([*argv, "alpha=2.0", "prob=0.5", "--epochs", "3"])
    assert exit_.value.code == f"{script}|data|--lr|0.1|--epochs|3"


def test_settings_are_python_values_or_words() -> None:
    argv = [__file__, "--mixup-impl", "m", "--mixup-args", "a=1", "b=(3,4)", "c=ae", "--lr", "0.1"]
    assert timm_hooks_train.split_arguments(argv) == (
        __file__,
        "m",
        {"a": 1, "b": (3, 4), "c": "ae"},
        ["--lr", "0.1"],
    )


def test_arguments_of_the_checkpoint_are_the_scripts(timm_train: Callable) -> None:
    args = timm_train("mixplug.mixup").checkpoint["args"]
    assert isinstance(args, Namespace)
    assert not hasattr(args, "mixup_impl")


def test_examples_that_the_loss_ignores_have_no_part() -> None:
    """Whatever the index: -100, or one that timm's data set uses."""
    x, y = batch()
    losses = []
    for index in (-100, 255):
        torch.manual_seed(0)
        task = make_task(
            mixplug.build("InputMixup"), criterion=nn.CrossEntropyLoss(ignore_index=index)
        )
        task.trainable_module.eval()
        task.trainable_module.training = True
        labels = y.clone()
        labels[:2] = index
        losses.append(task(x, labels)["loss"])
    assert_close(*losses)


def test_a_loss_for_class_indices_is_refused_before_training() -> None:
    class OfIndices(nn.Module):
        def forward(self, logits: Tensor, y: Tensor) -> Tensor:
            return logits.gather(1, y[:, None]).mean()

    with pytest.raises(ValueError, match=r"OfIndices cannot be mixed\. A mixed target is a row"):
        make_task(mixplug.build("InputMixup"), criterion=OfIndices())
    with pytest.raises(ValueError, match="NLLLoss takes class indices"):
        make_task(mixplug.build("InputMixup"), criterion=nn.NLLLoss())


def test_a_threshold_that_leaves_no_class_is_warned_of() -> None:
    x, y = batch()
    criterion = BinaryCrossEntropy(target_threshold=0.6)
    task = make_task(mixplug.build("MultiMix", n=32, prob=1.0, alpha=50.0), criterion=criterion)
    with pytest.warns(UserWarning, match="MultiMix mixes targets of which .*--bce-target-thresh"):
        task(x, y)


def test_a_threshold_on_pairs_is_that_of_timm(recwarn: pytest.WarningsRecorder) -> None:
    x, y = batch()
    threshold = BinaryCrossEntropy(smoothing=0.1, target_threshold=0.3)
    task = make_task(mixplug.build("InputMixup"), criterion=threshold)
    mixed = task.mixer(task.stages, x, y, sampling.generators(task.seed, 0))
    expected = threshold(mixed.logits, mixed.target * 0.9 + 0.1 / 10)
    assert_close(mixed.loss(threshold), expected)
    assert not [w for w in recwarn if "bce-target-thresh" in str(w.message)]
