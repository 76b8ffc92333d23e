"""``mixplug bench dora``: DoRA's step compared with DINO's and with an eager one; clip loading."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from mixplug import sampling
from mixplug.bench.clips import clip_rows
from mixplug.bench.measure import NO_BOUND, Row, in_turns, peak_bytes, ratio
from mixplug.functional.track import (
    masked_frames,
    object_masks,
    object_prototypes,
    patch_masks,
    refine_prototypes,
    track,
)
from mixplug.models.self_distillation import (
    DINO,
    DoRA,
    SelfDistillation,
    StepOutput,
    TeacherOutput,
    Views,
)
from mixplug.models.vit.encoder import build_timm_vit

Tick = Callable[[], None]
ARCH, FRAMES, OUTPUTS = "vit_small_patch16_224", 8, 65536


class EagerDoRA(DoRA):
    """The same training step, written in the simplest way.

    Every block computes its attention matrix and all tokens. The teacher runs once for the targets
    and once more for the attention of its last block, and the tracker uses the whole matrix.
    Objects are masked in pixels one after the other, and the loss adds one term after the other.
    """

    @classmethod
    def like(cls, method: DoRA) -> EagerDoRA:
        """A copy of a method with all its weights."""
        eager = with_matrices(method)
        eager.__class__ = cls
        return eager

    def teach(self, large: Tensor, generator: torch.Generator) -> TeacherOutput:
        """Targets and masks from two passes of the teacher."""
        _, clips, frames = large.shape[:3]
        images, view = large.flatten(0, 2), self.teacher_encoder
        tokens, size = view.tokens(images), (large.shape[-2], large.shape[-1])
        scale = tokens.queries.shape[-1] ** -0.5
        matrices = (tokens.queries @ tokens.keys.mT * scale).softmax(-1)  # (2 B T, h, 1 + N, 1 + N)
        rows = matrices[:, :, 0, tokens.prefix :]
        flat = [
            t.transpose(1, 2).flatten(2)[:, tokens.prefix :] for t in (tokens.queries, tokens.keys)
        ]
        heads = sampling.subsets(clips, rows.shape[1], self.objects, generator).repeat(2, 1)
        masks = []
        for clip, chosen in enumerate(heads.to(rows.device)):
            first = clip * frames
            objects = object_prototypes(rows[first, chosen][None], flat[0][first][None])
            objects = refine_prototypes(objects, tokens.patches[first][None])
            for frame in range(first, first + frames):
                attention = track(objects, flat[1][frame][None])
                masks.append(object_masks(attention, tokens.grid, size)[0])
        pairs = zip(images, masks, strict=True)
        seen = [torch.stack([image * mask for mask in of]) for image, of in pairs]
        return TeacherOutput(view.cls(images), torch.stack(seen))

    def predict(
        self, teacher: TeacherOutput, small: Tensor | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Class tokens from all tokens of the last block."""
        assert small is not None
        versions, encoder = teacher.images.shape[1], self.student_encoder
        images = (teacher.images.flatten(0, 1), small.flatten(0, 2))
        tokens = [encoder.cls_and_patches(part)[0] for part in images]
        logits = self.student.head(torch.cat(tokens)).split([len(t) for t in tokens])
        large = logits[0].unflatten(0, (2, -1, versions))
        return {"cls": large}, {"cls": logits[1].unflatten(0, (len(small), -1))}

    def losses(self, outputs: StepOutput) -> dict[str, Tensor]:
        """One term after the other."""
        target, student = outputs.targets["cls"], outputs.student["cls"]
        views = [self._term(target[u], x[1 - u]) for u in range(2) for x in student.unbind(2)]
        locals_ = [self._term(target[u], x) for u in range(2) for x in outputs.small["cls"]]
        terms = len(views) + len(locals_)
        return {self.loss_name: sum(views) / terms, "loss_local": sum(locals_) / terms}

    def monitors(self, outputs: StepOutput, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """None, so that only the step is measured."""
        return {}

    def _term(self, target: Tensor, logits: Tensor) -> Tensor:
        likely = (logits / self.student_temperature).log_softmax(-1)
        return -(target * likely).sum(-1).mean()


def with_matrices(method: DoRA) -> DoRA:
    """A copy in which all blocks compute their attention matrix."""
    other = copy.deepcopy(method)
    for module in other.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    return other


def step_rows(device: torch.device, rounds: int, tick: Tick) -> Iterator[Row]:
    """A step of DoRA: ViT-S/16, one clip of 8 frames, two views of 224 and six of 96 pixels."""
    views = _views(device)
    methods = {"DoRA": _method(DoRA, device), "DINO": _method(DINO, device)}
    calls = {name: _step(method, views) for name, method in methods.items()}
    calls["tracker"] = _tracker(methods["DoRA"], views)
    seconds = in_turns(calls, max(2, rounds // 2), tick)
    note = (
        f"{min(seconds['DoRA']):.2f} s; thesis 1.67 (60 epochs take as long as 100 of DINO, 6.5.4)"
    )
    yield Row(
        "DoRA's step / DINO's", ratio(seconds["DoRA"], seconds["DINO"]), NO_BOUND, False, "x", note
    )
    share = 100 * ratio(seconds["tracker"], seconds["DoRA"])
    note = "from the teacher's tokens to masked views"
    yield Row("  share of the tracker", share, 4.0, False, "%", note)


def eager_rows(device: torch.device, rounds: int, tick: Tick) -> Iterator[Row]:
    """The same step with attention matrices in every block."""
    views, method = _views(device), _method(DoRA, device)
    calls = {"fused": _step(method, views), "eager": _step(EagerDoRA.like(method), views)}
    calls["matrices"] = _step(with_matrices(method), views)
    seconds = in_turns(calls, max(2, rounds // 2), tick)
    note = f"{min(seconds['eager']):.2f} s against {min(seconds['fused']):.2f} s"
    yield Row("eager step / ours", ratio(seconds["eager"], seconds["fused"]), 1.2, True, "x", note)
    note = "our step with an attention matrix in every block"
    yield Row(
        "  matrices alone", ratio(seconds["matrices"], seconds["fused"]), NO_BOUND, False, "x", note
    )
    peaks = {name: _peak(calls[name], device) for name in ("fused", "eager")}
    less = 100 * (1 - peaks["fused"] / peaks["eager"])
    note = f"{peaks['fused'] / 1e9:.2f} GB against {peaks['eager'] / 1e9:.2f} GB"
    yield Row("  reduction of peak memory", less, 30.0, True, "%", note)


def _method(kind: type[SelfDistillation], device: torch.device) -> SelfDistillation:
    torch.manual_seed(0)
    return kind(build_timm_vit(ARCH), head={"out_dim": OUTPUTS}).to(device).train()


def _views(device: torch.device) -> Views:
    large = torch.randn(2, 1, FRAMES, 3, 224, 224, device=device)
    return Views(large, torch.randn(6, 1, FRAMES, 3, 96, 96, device=device))


def _step(method: SelfDistillation, views: Views) -> Callable[[], None]:
    """Forward and backward; the gradient is dropped, so all rounds are equal."""

    def step() -> None:
        terms = method(views)
        torch.stack([value for key, value in terms.items() if "loss" in key]).sum().backward()
        method.zero_grad(set_to_none=True)

    return step


def _tracker(method: DoRA, views: Views) -> Callable[[], None]:
    """The computation between the teacher's tokens and the masked views."""
    frames, source = views.large.flatten(0, 2), torch.Generator().manual_seed(0)
    with torch.no_grad():
        tokens = method.teacher_encoder.tokens(frames)

    @torch.no_grad()
    def call() -> None:
        masks = patch_masks(method.attention(tokens, 1, FRAMES, source))
        masked_frames(frames, masks, tokens.grid)

    return call


def _peak(call: Callable[[], None], device: torch.device) -> int:
    if device.type != "cuda":
        return peak_bytes(call)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    return torch.cuda.max_memory_allocated(device) - before


GROUPS = {"step": step_rows, "eager": eager_rows, "clips": clip_rows}
