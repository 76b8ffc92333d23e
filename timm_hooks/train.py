"""Run timm's unmodified train.py with a mixer.

    python -m timm_hooks.train TRAIN_PY [timm's own arguments] --mixup-impl IMPL
                               [--mixup-args KEY=VALUE ...] [--samples-per-class M]

TRAIN_PY is the path of train.py from timm's repository (huggingface/pytorch-image-models); timm's
package does not contain it. IMPL is a dotted path to a mixer, such as mixplug.alignmix,
mixplug.dense_multimix or your own subclass of mixplug.Mixer. It may also be a metric loss, such as
mixplug.metrix, which then trains the network. With --samples-per-class, for metric losses, a
batch has M examples of each of its classes. All other arguments are passed to train.py.
"""

from __future__ import annotations

import argparse
import ast
import os
import runpy
import sys
from collections.abc import Sequence

_CLASHES = {
    "mixup": "both would mix the batch. Leave it out",
    "cutmix": "both would mix the batch. Leave it out, or use --mixup-impl mixplug.cutmix",
    "cutmix_minmax": "both would mix the batch. Leave it out",
    "kd_model_name": "distillation uses another task of timm. Leave it out",
    "naflex_loader": "its batches are packed patches. Leave it out",
    "torchscript": "features of a scripted model cannot be mixed. Use --torchcompile",
    "grad_checkpointing": "blocks that run again in the backward pass are not mixed. Leave it out",
    "jsd_loss": "it compares augmented splits of a batch. Leave it out",
}


def split_arguments(argv: Sequence[str]) -> tuple[str, str, dict[str, object], list[str]]:
    """Separate our arguments from timm's.

    Args:
        argv: arguments without the program's name.

    Returns:
        Path of train.py, dotted path of the mixer, the mixer's settings, and timm's arguments.

    Raises:
        ValueError: an argument is missing, or is not KEY=VALUE.
    """
    script, impl, settings, rest = "", "", {}, []
    tokens = list(argv)
    while tokens:
        token = tokens.pop(0)
        flag, equals, value = token.partition("=")
        if flag == "--mixup-impl":
            impl = value if equals else (tokens.pop(0) if tokens else "")
        elif flag == "--mixup-args":
            given = [value] if equals else []
            while tokens and not tokens[0].startswith("-") and "=" in tokens[0]:
                given.append(tokens.pop(0))
            settings.update(map(_setting, given))
        elif not script and not token.startswith("-"):
            script = token
        else:
            rest.append(token)
    if not os.path.isfile(script):
        raise ValueError(
            f"The first argument must be the path of timm's train.py, got {script!r}. Get it from "
            f"timm's repository (huggingface/pytorch-image-models); the package does not have it."
        )
    if not impl:
        raise ValueError("--mixup-impl needs a dotted path, such as mixplug.alignmix.")
    return script, impl, settings, rest


def timm_settings(argv: Sequence[str]) -> dict[str, object]:
    """Settings about mixing in timm's arguments, or in the YAML file of --config."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-c", "--config", default="")
    first, _ = parser.parse_known_args(argv)
    for name in ("mixup", "cutmix"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    for name in ("mixup-off-epoch", "start-epoch"):
        parser.add_argument(f"--{name}", type=int, default=None)
    parser.add_argument("--cutmix-minmax", nargs="+", type=float, default=None)
    parser.add_argument("--kd-model-name", default=None)
    for name in ("naflex-loader", "torchscript", "grad-checkpointing", "jsd-loss"):
        parser.add_argument(f"--{name}", action="store_true")
    if first.config:
        import yaml

        with open(first.config) as file:
            parser.set_defaults(**yaml.safe_load(file))
    return vars(parser.parse_known_args(argv)[0])


def main(argv: Sequence[str] | None = None) -> None:
    """Replace timm's task by one with the mixer, then run train.py as its own program."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        return
    try:
        script, rest, tasks = prepare(argv)
    except (ImportError, KeyError, ValueError) as error:
        print(f"timm_hooks.train: error: {error.args[0]}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [script, *rest]
    sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
    runpy.run_path(script, run_name="__main__")
    if not any(task.built for task in tasks):
        raise ValueError(
            f"{script} trained without timm.task.ClassificationTask, so nothing was mixed. Use "
            f"timm >= 1.0.27 and the train.py of the same version."
        )


def prepare(argv: Sequence[str]) -> tuple[str, list[str], list[type]]:
    """Path of train.py, timm's arguments, and the task classes that replace timm's."""
    script, impl, settings, rest = split_arguments(argv)
    rest, samples = samples_per_class(rest)
    found = timm_settings(rest)
    for name, why in _CLASHES.items():
        if found[name]:
            flag = "--" + name.replace("_", "-")
            raise ValueError(f"{flag} cannot be used with --mixup-impl: {why}.")
    epochs = found["mixup_off_epoch"], found["start_epoch"]
    return script, rest, bind_tasks(impl, settings, *epochs, samples)


def samples_per_class(argv: Sequence[str]) -> tuple[list[str], int | None]:
    """Timm's arguments without ``--samples-per-class``, and its value."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--samples-per-class", type=int, default=None)
    found, rest = parser.parse_known_args(argv)
    return rest, found.samples_per_class


def bind_tasks(
    impl: str,
    settings: dict[str, object],
    off_epoch: int | None,
    start_epoch: int | None,
    samples: int | None = None,
) -> list[type]:
    """Build the mixer and replace timm's tasks by tasks with it, before train.py imports them.

    Functions that make the training loader and resume a checkpoint are wrapped, so that the tasks
    know the epoch and how images are normalized.
    """
    from mixplug.mixers.building import build_mixer
    from mixplug.optional import optional

    timm_task = optional("timm.task", "timm", "timm_hooks")
    timm_data = optional("timm.data", "timm", "timm_hooks")
    from mixplug.hosts.timm.loader import TrainingLoader
    from mixplug.hosts.timm.task import bind, resuming
    from mixplug.models import register_in_timm

    register_in_timm()
    if off_epoch:  # in timm 0 means never
        settings = {"off_epoch": off_epoch, **settings}
    mixer = build_mixer(impl, **settings)
    loader, tasks = TrainingLoader(samples), []
    loader.first = start_epoch or 0
    for name in ("ClassificationTask", "MultiLabelClassificationTask"):
        base = getattr(timm_task, name, None)  # the second is newer than timm 1.0.27
        if base is not None:
            tasks.append(bind(base, mixer, start_epoch, loader))
            setattr(timm_task, name, tasks[-1])
    timm_data.create_loader = loader.watched(timm_data.create_loader)
    timm_task.resume_task_checkpoint = resuming(timm_task.resume_task_checkpoint)
    return tasks


def _setting(token: str) -> tuple[str, object]:
    key, equals, value = token.partition("=")
    if not equals or not key:
        raise ValueError(f"--mixup-args needs KEY=VALUE, got {token!r}.")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


if __name__ == "__main__":
    main()
