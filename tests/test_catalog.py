"""The table: names, aliases, configs, suggestions, plugins, and a walk over every entry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from batches import batch, toy

import mixplug
from mixplug import Mixer, catalog, sampling
from mixplug.mixers.alignmix import AlignMixup
from mixplug.mixers.multimix import MultiMix
from mixplug.models.self_distillation import Views

ALIASES = {
    "InputMixup": "mixup",
    "CutMix": "cutmix",
    "ManifoldMixup": "manifold",
    "AlignMixup": "alignmix",
    "MultiMix": "multimix",
    "DenseMultiMix": "dense_multimix",
    "OneOf": "one_of",
}


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, catalog.Entry]]:
    """A copy of the table, so that what a test registers is gone afterwards."""
    mixplug.entries()
    copied = dict(catalog._table)
    monkeypatch.setattr(catalog, "_table", copied)
    monkeypatch.setattr(catalog, "_followers", [])  # or mm keeps a model of what a test registers
    yield copied


BACKBONE = {"name": "vit_tiny_patch16_224", "embed_dim": 12, "depth": 1}
# for keys without a default
GIVEN = {"num_classes": 3, "dim": 5, "loss": "Contrastive", "backbone": BACKBONE}
SMALLER = {
    "selfsup": {"head": {"out_dim": 16, "hidden": 8, "bottleneck": 4}},
    "backbone": {"embed_dim": 12, "num_heads": 2},
    "neck": {"embed_dim": 12},
}
OF_ITS_OWN = {
    "PML": {"loss": "TripletMarginLoss"},
    "ProxySynthesis": {"loss": {"type": "ProxyAnchor", "num_classes": 3, "dim": 5}},
}


def spec_of(entry: catalog.Entry, **keys: object) -> dict[str, object]:
    required = [k for k, default in entry.defaults.items() if default is catalog.REQUIRED]
    given = {**GIVEN, **OF_ITS_OWN.get(entry.name, {})}
    return {"type": entry.name, **{k: given[k] for k in required}, **keys}


def mixer_step(mixer: Mixer, step: int) -> list[torch.Tensor]:
    model, stages = toy(torch.float32)
    mixer.attach(stages)
    x, y = batch(torch.float32, 3)
    mixer(stages, x, y, sampling.generators(0, step)).loss().backward()
    return [p.grad for p in model.parameters()]


def loss_step(loss: torch.nn.Module, step: int) -> list[torch.Tensor]:
    embeddings = torch.randn(9, 5, requires_grad=True)
    loss(embeddings, torch.arange(9) % 3).backward()
    return [embeddings.grad, *(p.grad for p in loss.parameters())]


def selfsup_step(method: torch.nn.Module, step: int) -> list[torch.Tensor]:
    views = Views(torch.randn(2, 1, 2, 3, 32, 32), torch.randn(2, 1, 2, 3, 16, 16))
    losses = method(views)
    sum(loss for key, loss in losses.items() if key.startswith("loss")).backward()
    return [p.grad for p in method.student.parameters() if p.requires_grad]


def backbone_step(backbone: torch.nn.Module, step: int) -> list[torch.Tensor]:
    sum(level.square().mean() for level in backbone(torch.randn(1, 3, 32, 48))).backward()
    return [p.grad for p in backbone.parameters()]


def neck_step(neck: torch.nn.Module, step: int) -> list[torch.Tensor]:
    maps = [torch.randn(2, 12, 2, 3, requires_grad=True) for _ in range(4)]
    sum(level.square().mean() for level in neck(maps)).backward()
    return [x.grad for x in maps] + [p.grad for p in neck.parameters()]


GRADIENTS = {
    "mixer": mixer_step,
    "loss": loss_step,
    "selfsup": selfsup_step,
    "backbone": backbone_step,
    "neck": neck_step,
}


@pytest.mark.filterwarnings("ignore:.* at level '.*' got no ")
@pytest.mark.parametrize(
    "entry", [e for e in mixplug.entries() if e.kind in GRADIENTS], ids=lambda entry: entry.name
)
def test_it_trains_on_the_cpu(entry: catalog.Entry) -> None:
    built = mixplug.build(spec_of(entry, **SMALLER.get(entry.kind, {})))
    for step in range(8):
        built.zero_grad() if isinstance(built, torch.nn.Module) else None
        gradients = GRADIENTS[entry.kind](built, step)
        assert all(bool(g.isfinite().all()) for g in gradients)
        assert sum(float(g.abs().sum()) for g in gradients) > 1e-3


def test_every_kind_that_learns_is_walked() -> None:
    assert {entry.kind for entry in mixplug.entries()} == {*GRADIENTS, "metric"}


@pytest.mark.parametrize("entry", mixplug.entries(), ids=lambda entry: entry.name)
class TestEveryEntry:
    def test_says_where_it_comes_from(self, entry: catalog.Entry) -> None:
        assert entry.reference.strip() and entry.kind and entry.hosts
        assert entry.alias == entry.alias.lower()
        assert entry.target.__doc__.strip()

    def test_builds_from_its_name_and_its_defaults(self, entry: catalog.Entry) -> None:
        built = mixplug.build(spec_of(entry))
        assert type(built) is entry.target
        again = mixplug.build({**entry.defaults, **spec_of(entry)})
        assert str(built) == str(again)

    def test_refuses_an_unknown_key(self, entry: catalog.Entry) -> None:
        key = list(entry.defaults)[-1]
        with pytest.raises(KeyError, match=f"{entry.target.__name__} has no key '{key}x'.*'{key}'"):
            mixplug.build(spec_of(entry, **{f"{key}x": 3}))

    def test_says_which_key_is_missing(self, entry: catalog.Entry) -> None:
        for key in set(spec_of(entry)) - {"type"}:
            spec = spec_of(entry)
            del spec[key]
            with pytest.raises(ValueError, match=f"{entry.target.__name__} needs the key '{key}'"):
                mixplug.build(spec)

    def test_is_an_attribute_of_the_package(self, entry: catalog.Entry) -> None:
        assert getattr(mixplug, entry.name) is entry.target
        assert getattr(mixplug, entry.alias) is entry.target


def test_losses_are_the_contract() -> None:
    names = {entry.name for entry in mixplug.entries("loss")}
    assert names >= {
        "BinomialDeviance", "Contrastive", "IMix", "LiftedStructure", "Metrix", "MoCHi",
        "MultiSimilarity", "NCA", "PML", "ProxyAnchor", "ProxyNCA", "ProxyNCAPlusPlus",
        "ProxySynthesis",
    }  # fmt: skip


def test_methods_of_self_supervision() -> None:
    assert {"DINO", "DoRA"} <= {entry.name for entry in mixplug.entries("selfsup")}
    with pytest.raises(
        KeyError, match=r"There is no self-distillation method 'Dora'\. Did you mean 'DoRA'"
    ):
        mixplug.build("Dora", kind="selfsup")
    with pytest.raises(ValueError, match="is not a self-distillation method: it gives a ReLU"):
        mixplug.build("torch.nn.ReLU", kind="selfsup")


def test_names_and_aliases_are_the_contract() -> None:
    """Configs have them, so none goes and none changes; others may come."""
    assert ALIASES.items() <= {e.name: e.alias for e in mixplug.entries("mixer")}.items()


def test_rows_are_in_order_and_of_one_kind() -> None:
    names = [entry.name for entry in mixplug.entries("mixer")]
    assert names == sorted(names)
    assert {entry.kind for entry in mixplug.entries("mixer")} == {"mixer"}
    assert mixplug.entries("nothing") == []


@pytest.mark.parametrize(
    "spec",
    [
        "AlignMixup",
        "alignmix",
        "mixplug.AlignMixup",
        "mixplug.alignmix",
        "mixplug.mixers.alignmix.AlignMixup",
        AlignMixup,
        {"type": "AlignMixup"},
        {"type": "mixplug.AlignMixup"},
        {"type": AlignMixup},
    ],
    ids=str,
)
def test_ways_to_name_it(spec: object) -> None:
    assert mixplug.build(spec) == AlignMixup()
    assert mixplug.build(spec, iters=3) == AlignMixup(iters=3)


def test_keys_and_overrides() -> None:
    config = {"type": "MultiMix", "n": 5, "alpha": [1, 2]}
    before = {**config, "alpha": list(config["alpha"])}
    assert mixplug.build(config) == MultiMix(n=5, alpha=(1, 2))
    assert mixplug.build(config, n=7, m=2) == MultiMix(n=7, m=2, alpha=(1, 2))
    assert config == before


def test_a_class_that_takes_more_keys_judges_them_itself(table: dict[str, catalog.Entry]) -> None:
    @mixplug.register("Open", kind="open")
    class Open:
        def __init__(self, first: int, second: int = 2, **others: int) -> None:
            self.all = (first, second, others)

    assert mixplug.build("Open", first=1, third=3).all == (1, 2, {"third": 3})
    with pytest.raises(ValueError, match="Open needs the key 'first', which is not given"):
        mixplug.build("Open", third=3)
    assert catalog.find("Open").defaults == {"first": catalog.REQUIRED, "second": 2}


def test_a_dotted_path_into_any_package() -> None:
    loss = mixplug.build({"type": "torch.nn.CrossEntropyLoss", "label_smoothing": 0.1})
    assert isinstance(loss, torch.nn.CrossEntropyLoss) and loss.label_smoothing == 0.1


@pytest.mark.parametrize("path", ["torch.nn.Nothing", "nowhere.at.all.Mix", "torch.nowhere.Mix"])
def test_a_dotted_path_to_nothing(path: str) -> None:
    with pytest.raises(KeyError, match=f"Nothing is importable as '{path}': "):
        mixplug.build(path)


def test_a_module_that_lacks_a_part_of_its_own_says_so(
    tmp_path: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not 'nothing is importable', which would send its author looking in the wrong place."""
    (tmp_path / "has_a_gap.py").write_text("import a_missing_package\nclass Mix: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_missing_package"):
        mixplug.build("has_a_gap.Mix")


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("AlignMixupp", "AlignMixup"),
        ("alignmixup", "AlignMixup"),
        ("multi_mix", "MultiMix"),
        ("mixplug.Cutmixx", "CutMix"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(name: str, guess: str) -> None:
    message = rf"There is no mixer '{name}'\. Did you mean '{guess}'\? Known: AlignMixup, "
    with pytest.raises(KeyError, match=message):
        mixplug.build(name, kind="mixer")


def test_an_unknown_name_with_nothing_near() -> None:
    with pytest.raises(KeyError, match=r"There is no entry 'qqq'\. Known: .*MultiMix"):
        mixplug.build({"type": "qqq"})


def test_a_name_of_another_kind() -> None:
    with pytest.raises(KeyError, match=r"There is no loss 'MultiMix'\."):
        mixplug.build("MultiMix", kind="loss")


def test_an_unknown_key_suggests_the_nearest() -> None:
    message = r"AlignMixup has no key 'itres'\. Did you mean 'iters'\? Known: .*eps, iters"
    with pytest.raises(KeyError, match=message):
        mixplug.build({"type": "AlignMixup", "itres": 5})
    with pytest.raises(KeyError, match=r"MultiMix has no key 'Alpha'\. Did you mean 'alpha'\?"):
        mixplug.build("MultiMix", Alpha=1)
    with pytest.raises(KeyError, match=r"MultiMix has no key 'qqqq'\. Known: off_epoch, n, m"):
        mixplug.build("MultiMix", qqqq=1)


def test_a_config_without_a_type() -> None:
    message = r"A config needs the key 'type', got \['alpha', 'n'\]\."
    with pytest.raises(ValueError, match=message):
        mixplug.build({"n": 5, "alpha": 1})


def test_values_are_checked_by_the_object() -> None:
    with pytest.raises(ValueError, match=r"MultiMix needs n >= 1, got 0\."):
        mixplug.build({"type": "MultiMix", "n": 0})


def test_what_another_package_registers_is_an_entry(table: dict[str, catalog.Entry]) -> None:
    @mixplug.register("MyMix", reference="our paper")
    @dataclass(frozen=True, kw_only=True)
    class MyMix(Mixer):
        strength: float = 0.5

    assert mixplug.build({"type": "MyMix", "strength": 2}) == MyMix(strength=2)
    assert mixplug.build("mymix", kind="mixer") == MyMix()
    assert mixplug.mymix is MyMix
    entry = catalog.find("MyMix")
    assert (entry.reference, entry.alias, entry.kind) == ("our paper", "mymix", "mixer")
    assert entry.defaults == {"off_epoch": None, "strength": 0.5}
    assert entry in mixplug.entries("mixer")
    with pytest.raises(KeyError, match=r"MyMix has no key 'strenght'\. Did you mean 'strength'\?"):
        mixplug.build("MyMix", strenght=1)


@pytest.mark.parametrize(("name", "alias"), [("MultiMix", ""), ("Mine", "multimix")])
def test_a_name_that_is_taken_names_both_owners(
    name: str, alias: str, table: dict[str, catalog.Entry]
) -> None:
    before = dict(table)

    class Mine: ...

    message = (
        r"'(MultiMix|multimix)' is already registered by mixplug\.mixers\.multimix\.MultiMix, so "
        r".*Mine needs another name\."
    )
    with pytest.raises(KeyError, match=message):
        mixplug.register(name, alias=alias)(Mine)
    assert table == before


def test_who_follows_gets_every_row_of_a_kind(table: dict[str, catalog.Entry]) -> None:
    """Those there are and those to come, each once."""
    methods: list[str] = []
    everything: list[str] = []
    catalog.follow(lambda entry: methods.append(entry.name), kind="selfsup")
    catalog.follow(lambda entry: everything.append(entry.name))
    assert methods == [entry.name for entry in catalog.entries("selfsup")]
    assert {"DINO", "DoRA"} <= {*methods}
    assert everything == [entry.name for entry in catalog.entries()]

    for name, kind in (("Later", "selfsup"), ("Other", "open")):
        mixplug.register(name, kind=kind)(type(name, (), {}))
    assert methods == ["DINO", "DoRA", "Later"] and everything[-2:] == ["Later", "Other"]


def test_hosts_follow_from_the_kind(table: dict[str, catalog.Entry]) -> None:
    for kind, hosts in (("selfsup", ("mm", "torch")), ("mixer", ("timm", "mmpretrain", "torch"))):
        mixplug.register(f"Some {kind}", kind=kind)(type(kind, (), {}))
        assert catalog.find(f"Some {kind}").hosts == hosts


def test_the_same_object_may_register_again(table: dict[str, catalog.Entry]) -> None:
    """As when its module is reloaded."""
    mixplug.register("MultiMix", alias="multimix", reference="thesis 5.3.2")(MultiMix)
    assert mixplug.build("MultiMix") == MultiMix()
    assert [e.name for e in mixplug.entries()].count("MultiMix") == 1


def test_plugins_of_other_packages_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    loaded: list[str] = []

    class Point:
        def load(self) -> None:
            loaded.append("plugin")

    def entry_points(group: str) -> list[Point]:
        asked.append(group)
        return [Point()]

    monkeypatch.setattr(catalog, "entry_points", entry_points)
    monkeypatch.setattr(catalog, "_loaded", [])
    mixplug.entries(), mixplug.entries(), mixplug.build("MultiMix")
    assert asked == ["mixplug.plugins"] and loaded == ["plugin"]


def test_a_broken_plugin_is_reported_and_does_not_take_the_catalog_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Point:
        name, value = "theirs", "their.module"

        def load(self) -> None:
            raise ZeroDivisionError("a fault of its own")

    monkeypatch.setattr(catalog, "entry_points", lambda group: [Point()])
    monkeypatch.setattr(catalog, "_loaded", [])
    message = (
        r"The plugin 'theirs' \(their\.module\) could not be loaded: ZeroDivisionError\('a fault"
    )
    with pytest.warns(UserWarning, match=message):
        assert mixplug.build("MultiMix") == MultiMix()


def test_an_attribute_that_the_package_does_not_have() -> None:
    message = r"module 'mixplug' has no attribute 'alignmixx'\. .*Did you mean 'AlignMixup'\?"
    with pytest.raises(AttributeError, match=message):
        _ = mixplug.alignmixx
    assert not hasattr(mixplug, "__nothing__")


def test_what_is_built_must_be_of_its_kind() -> None:
    with pytest.raises(ValueError, match="is not a mixer: it gives a ReLU"):
        mixplug.build("torch.nn.ReLU", kind="mixer")
