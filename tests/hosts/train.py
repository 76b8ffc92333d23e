"""A small training script on timm's own parts, with the flags of timm's train.py that mixing meets.

timm's train.py is not in its package, so the tests train with this one. Names of flags, and the
order in which the task is made, resumed, compiled and distributed, are those of timm's. Only
--val-every is not: it validates within an epoch, as many scripts that derive from timm's do.
"""

import argparse
import contextlib
import os
from collections.abc import Callable
from functools import partial

import torch
import yaml
from timm import utils
from timm.data import create_dataset, create_loader, resolve_data_config
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy
from timm.models import create_model
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.task import ClassificationTask, load_task_ema_checkpoint, resume_task_checkpoint


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train an image classifier.")
    add = parser.add_argument
    add("-c", "--config", default="")
    add("--data-dir", required=True)
    add("--model", default="test_resnet")
    add("--model-kwargs", nargs="*", default={}, action=utils.ParseKwargs)
    add("--num-classes", type=int, default=None)
    add("--img-size", type=int, default=None)
    add("-b", "--batch-size", type=int, default=64)
    add("-j", "--workers", type=int, default=0)
    add("--no-prefetcher", action="store_true")
    add("--no-aug", action="store_true")
    add("--mean", type=float, nargs="+", default=None)
    add("--std", type=float, nargs="+", default=None)
    add("--use-multi-epochs-loader", action="store_true")
    add("--val-every", type=int, default=0)
    add("--epochs", type=int, default=1)
    add("--start-epoch", type=int, default=None)
    add("--warmup-epochs", type=int, default=0)
    add("--opt", default="adamw")
    add("--lr", type=float, default=1e-3)
    add("--layer-decay", type=float, default=None)
    add("--clip-grad", type=float, default=None)
    add("--clip-mode", default="norm")
    add("--grad-accum-steps", type=int, default=1)
    add("--smoothing", type=float, default=0.1)
    add("--bce-loss", action="store_true")
    add("--mixup-off-epoch", type=int, default=0)
    add("--amp", action="store_true")
    add("--amp-dtype", default="float16")
    add("--torchcompile", nargs="?", default=None, const="inductor")
    add("--model-ema", action="store_true")
    add("--model-ema-decay", type=float, default=0.9998)
    add("--resume", default="")
    add("--seed", type=int, default=42)
    add("--device", default="cpu")
    add("--output", default="output")
    add("--experiment", default="run")
    first, _ = parser.parse_known_args()
    if first.config:
        with open(first.config) as file:
            parser.set_defaults(**yaml.safe_load(file))
    return parser.parse_args()


def main() -> None:
    args = arguments()
    device = utils.init_distributed_device(args)
    utils.random_seed(args.seed, args.rank)
    model = create_model(args.model, num_classes=args.num_classes, **args.model_kwargs).to(device)
    train_set, eval_set = (loader(args, model, split, device) for split in ("train", "validation"))

    task = ClassificationTask(model=model, criterion=criterion(args), device=device, verbose=False)
    model, eval_model = task.get_trainable_module(), task.get_eval_model()
    optimizer = create_optimizer_v2(model, opt=args.opt, lr=args.lr, layer_decay=args.layer_decay)

    first = 0
    if args.resume:
        first = resume_task_checkpoint(task, args.resume, optimizer=optimizer)
    if args.model_ema:
        task.setup_ema(decay=args.model_ema_decay)
        if args.resume:
            load_task_ema_checkpoint(task, args.resume)
    if args.torchcompile:
        task.compile(backend=args.torchcompile)
        model, eval_model = task.get_trainable_module(), task.get_eval_model()
        if task.has_ema():
            task.compile_ema(backend=args.torchcompile)
    if args.distributed:
        task.prepare_distributed(device_ids=None if device.type == "cpu" else [device])
        model = task.get_trainable_module()

    saver, folder = None, None
    if utils.is_primary(args):
        folder = utils.get_outdir(args.output, args.experiment)
        saver = utils.CheckpointSaver(
            model, optimizer, args=args, checkpoint_dir=folder, recovery_dir=folder, task=task
        )
    first = first if args.start_epoch is None else args.start_epoch
    schedule, epochs = create_scheduler_v2(
        optimizer, num_epochs=args.epochs, warmup_epochs=args.warmup_epochs
    )
    for epoch in range(first, epochs):
        if args.distributed:
            train_set.sampler.set_epoch(epoch)
        test = partial(validate, eval_model, eval_set, args, device)
        trained = {"loss": train_one_epoch(task, train_set, optimizer, args, device, test)}
        if args.distributed:
            utils.distribute_bn(model, args.world_size, True)
        tested = validate(eval_model, eval_set, args, device)
        if task.has_ema():
            tested = validate(task.get_eval_model(ema=True), eval_set, args, device)
        if saver is not None:
            summary = os.path.join(folder, "summary.csv")
            utils.update_summary(epoch, trained, tested, summary, write_header=epoch == first)
            saver.save_checkpoint(epoch, metric=tested["top1"])
        schedule.step(epoch + 1)
    if args.distributed:
        torch.distributed.destroy_process_group()


def loader(
    args: argparse.Namespace, model: torch.nn.Module, split: str, device: torch.device
) -> torch.utils.data.DataLoader:
    training = split == "train"
    config = resolve_data_config(vars(args), model=model)
    return create_loader(
        create_dataset("", root=args.data_dir, split=split, is_training=training),
        input_size=config["input_size"],
        batch_size=args.batch_size,
        is_training=training,
        no_aug=args.no_aug,
        mean=config["mean"],
        std=config["std"],
        num_workers=args.workers,
        distributed=args.distributed,
        use_prefetcher=not args.no_prefetcher,
        device=device,
        use_multi_epochs_loader=args.use_multi_epochs_loader,
    )


def criterion(args: argparse.Namespace) -> torch.nn.Module:
    if args.bce_loss:
        return BinaryCrossEntropy(smoothing=args.smoothing)
    if args.smoothing:
        return LabelSmoothingCrossEntropy(smoothing=args.smoothing)
    return torch.nn.CrossEntropyLoss()


def autocast(args: argparse.Namespace, device: torch.device) -> contextlib.AbstractContextManager:
    if not args.amp:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, args.amp_dtype))


def train_one_epoch(
    task: ClassificationTask,
    batches: torch.utils.data.DataLoader,
    optimizer: torch.optim.Optimizer,
    args: argparse.Namespace,
    device: torch.device,
    test: Callable[[], object],
) -> float:
    """The mean loss."""
    task.get_trainable_module().train()
    optimizer.zero_grad()
    meter, last = utils.AverageMeter(), len(batches) - 1
    for index, (x, y) in enumerate(batches):
        x, y = x.to(device), y.to(device)
        update = index == last or (index + 1) % args.grad_accum_steps == 0
        with contextlib.nullcontext() if update else task.no_sync():
            with autocast(args, device):
                loss = task(x, y)["loss"] / args.grad_accum_steps
            loss.backward()
        meter.update(loss.item() * args.grad_accum_steps, len(x))
        if update:
            if args.clip_grad is not None:
                parameters = task.get_clip_parameters(exclude_head="agc" in args.clip_mode)
                utils.dispatch_clip_grad(parameters, args.clip_grad, args.clip_mode)
            optimizer.step()
            optimizer.zero_grad()
            task.update_ema()
        if args.val_every and (index + 1) % args.val_every == 0:
            test()
            task.get_trainable_module().train()
    return meter.avg


@torch.inference_mode()
def validate(
    model: torch.nn.Module,
    batches: torch.utils.data.DataLoader,
    args: argparse.Namespace,
    device: torch.device,
) -> dict[str, float]:
    model.eval()
    score = partial(utils.accuracy, topk=(1,))
    meter = utils.AverageMeter()
    for x, y in batches:
        x, y = x.to(device), y.to(device)
        with autocast(args, device):
            meter.update(score(model(x), y)[0].item(), len(x))
    return {"top1": meter.avg}


if __name__ == "__main__":
    main()
