"""A configuration that cannot work is refused in one line that names the key and what is allowed, before torch is imported."""

import copy
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from kits.config import choices_of, conf_dir
from kits.config.composing import checked, compose, with_choices
from kits.config.schema import check, parse
from kits.config.schema.augmentation import AnyStep
from kits.config.schema.dataset import SplitOptions
from kits.config.schema.loss import Loss
from kits.config.schema.model import HALVING, HALVING_SCALES, Model, Operator, Plane, halves
from kits.config.schema.optimizer import Optimizer, Scheduler
from kits.config.schema.refusals import models_in, tags_of
from kits.config.schema.trainer_options import Logger, Trainer
from kits.config.schema.training import PHASES, every_phase, phase_at
from kits.core.errors import KitsError

RECIPES = choices_of("experiment")
CHOICES = [
    (path.parent.name, path.stem)
    for path in sorted(conf_dir().glob("*/*.yaml"))
    if path.parent.name not in ("experiment", "measures")
]
HEAVY = ("torch", "timm", "torchvision", "pytorch_lightning", "lightning_fabric", "monai", "SimpleITK", "scipy", "numpy")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What looks like a prepared cache from outside, and a boxes.json."""
    folder = tmp_path_factory.mktemp("cache")
    for name in ("index.json", "boxes.json"):
        (folder / name).write_text("{}")
    return folder


@pytest.fixture(scope="module")
def composed(cache: Path) -> dict[str, tuple[dict, dict]]:
    """By stage the configuration and the choices that it comes from, composed once."""
    found = {}
    for stage in ("coarse", "fine"):
        found[stage] = with_choices("train", [f"stage={stage}", f"data.cache={cache}"])
    return found


def changed(config: dict, changes: dict[str, Any]) -> dict:
    """A copy with these dotted keys set."""
    config = copy.deepcopy(config)
    for key, value in changes.items():
        node = config
        *parents, last = key.split(".")
        for name in parents:
            node = node[name]
        node[last] = value
    return config


SOURCE = {"backbone": "tf_efficientnet_lite0", "weights": None}
WRONG: list[tuple[str, dict[str, Any], list[str]]] = [
    ("coarse", {"trainer.max_epoch": 3}, ["trainer.max_epoch: no such key; did you mean trainer.max_epochs?"]),
    ("coarse", {"sampling.patchs": [1, 2, 3]}, ["sampling.patchs: no such key; did you mean sampling.patch?"]),
    ("coarse", {"extra": 1}, ["extra: no such key"]),
    ("coarse", {"trainer.max_epochs": "many"}, ["trainer.max_epochs=many: give a whole number of 1 or more"]),
    ("coarse", {"trainer.max_epochs": 2.5}, ["trainer.max_epochs=2.5"]),
    ("coarse", {"optimizer.lr": True}, ["optimizer.lr=true: give a number above 0"]),
    ("coarse", {"data.skip_invalid": "yes"}, ["data.skip_invalid=yes: give one of true, false"]),
    ("coarse", {"data.label_name": 3}, ["data.label_name=3: give a text"]),
    ("coarse", {"callbacks.early_stopping": None}, ["callbacks.early_stopping=null"]),
    ("coarse", {"trainer.devices": 2}, ["trainer.devices=2: several devices need a process each; add trainer=ddp"]),
    ("coarse", {"trainer.devices": [0, 1]}, ["trainer.devices=[0,1]", "trainer=ddp"]),
    ("coarse", {"trainer.num_nodes": 2}, ["trainer.num_nodes=2", "trainer=slurm (several)"]),
    ("coarse", {"trainer.strategy": "fsdp"}, ["trainer.strategy=fsdp: give one of auto, ddp"]),
    ("coarse", {"trainer.sync_batchnorm": True, "trainer.accelerator": "cpu"}, ["on GPUs only; set it to false on a CPU"]),
    ("coarse", {"trainer.precision": "fp16"}, ["trainer.precision=fp16", "auto, 32-true, bf16-mixed, 16-mixed"]),
    *(("fine", {"trainer.precision": name}, [f"trainer.precision={name}"]) for name in ("bf16-true", "16-true", "64-true", 32)),
    ("coarse", {"loss.name": "focal"}, ["loss.name=focal", "loss=...", "bias_dice, dice, dice_ce, focal_tversky, own, tversky"]),
    ("coarse", {"optimizer.name": "adamw"}, ["give optimizer=... with one of adam, adamw, own, sgd"]),
    ("coarse", {"scheduler.name": "step"}, ["scheduler.name=step", "constant, cosine, own, plateau, poly"]),
    ("coarse", {"logger.name": "mlflow"}, ["logger.name=mlflow", "csv", "wandb"]),
    ("coarse", {"loss.over": "kidney"}, ["loss.over=kidney: give one of classes, foreground, both"]),
    ("coarse", {"loss.class_weights": [1, 2]}, ["loss.class_weights=[1,2]: give 1"]),
    ("coarse", {"loss.bias": 0.5}, ["loss.bias=0.5: give a number of at least 1"]),
    ("coarse", {"data.window_hu": [300, -100]}, ["data.window_hu=[300,-100]: give two ascending numbers"]),
    ("coarse", {"data.classes": ["background", "tumor"]}, ["data.classes", "background,kidney,tumor,cyst"]),
    ("coarse", {"data.coarse_size": 250}, ["data.coarse_size=250", "multiple of 32", "224 and 256"]),
    ("coarse", {"data.workers": 0}, ["data.workers=0: give a whole number of 1 or more"]),
    ("coarse", {"data.coarse_z_mm": 0}, ["data.coarse_z_mm=0: give a number above 0, or null"]),
    ("coarse", {"sampling.patch": [32, 128, 128]}, ["give sampling.patch=[32,256,256]"]),
    ("coarse", {"sampling.patches_per_epoch": 1}, ["fewer than one step takes, 2 with sampling.batch_size=2 of 1 process"]),
    ("coarse", {"model.classes": 3}, ["model.classes=3", "give 1"]),
    ("coarse", {"model.norm": "batch"}, ["model.norm=batch: give one of none, group"]),
    ("coarse", {"model.depth": 4, "model.strides": [[1, 2, 2]] * 3}, ["model.strides: 3 entries for 4 levels (model.depth)"]),
    ("coarse", {"model.depth": 4, "model.kernels": [[1, 2, 3]] * 4}, ["give odd ones"]),
    ("coarse", {"model.depth": None}, ["model.width, model.depth: give both"]),
    ("coarse", {"model.depth": 4, "model.deep_supervision": 4}, ["model.deep_supervision=4: give 0 to 3"]),
    ("coarse", {"data.roi": "oof"}, ["data.roi=oof: the coarse stage reads no ROIs"]),
    ("coarse", {"data.cache": "nowhere"}, ["data.cache=nowhere: not prepared; run python -m kits.prepare"]),
    ("coarse", {"inference.overlap": 1}, ["inference.overlap=1: give a number of at least 0 and below 1"]),
    ("coarse", {"augmentation": {"a": {"transform": "RandZoom"}}}, ["augmentation.a.transform=RandZoom", "RandFlip"]),
    ("fine", {"data.roi": "gt"}, ["data.roi=gt: give one of gt_jitter, oof"]),
    ("fine", {"data.roi": "oof"}, ["data.boxes: no value given; data.roi=oof needs data.boxes=DIR/boxes.json"]),
    ("fine", {"data.roi": "oof", "data.boxes": "none.json"}, ["data.boxes=none.json: no such file"]),
    ("fine", {"data.boxes": "boxes.json"}, ["data.boxes=boxes.json: is read with data.roi=oof only"]),
    (
        "fine",
        {"model.operator": "p2d"},
        ["model.operator=p2d: give one of p3d, conv3d, zconv, tsm, acs, none, or the name of an installed plug-in"],
    ),
    ("fine", {"model.fusion": "vote"}, ["model.fusion=vote: give one of concat, gate, mean"]),
    ("fine", {"model.classes": 4}, ["model.classes=4: the data set has 3 classes"]),
    ("fine", {"model.widths": [16, 24]}, ["model.widths=[16,24]: 2 widths for 4 scales, model.out_indices=[0,1,2,3]"]),
    ("fine", {"model.out_indices": [0, 1, 2, 5]}, ["model.out_indices=[0,1,2,5]", "scales 0 to 4"]),
    ("fine", {"model.sources": []}, ["model.sources=[]: give at least one {backbone: NAME, weights:"]),
    ("fine", {"model.sources": [{"backbone": "resnet18"}]}, ["model.sources[0].weights: no value given"]),
    ("fine", {"model.sources": [{**SOURCE, "plane": "oblique"}]}, ["model.sources[0].plane=oblique", "axial, coronal, sagittal"]),
    ("fine", {"model.sources": [{**SOURCE, "weights": "a.pth"}]}, ["model.sources[0].weights=a.pth: no such file"]),
    ("fine", {"model.window_hu": [-200, 100]}, ["[-200,100]", "is not inside data.window_hu=[-100,300]"]),
    ("fine", {"model.input": "windows", "model.windows_hu": [[0, 1]]}, ["three windows"]),
    ("fine", {"model.input": "windows", "model.window_hu": [0, 100]}, ["three windows"]),
    ("fine", {"model.input": "rgb"}, ["model.input=rgb: give one of replicate, neighbors, windows"]),
    ("fine", {"model.window_hu": [0, 301]}, ["[0,301] HU: is not inside data.window_hu=[-100,300]"]),
    ("fine", {"model.window_hu": [100, 100]}, ["model.window_hu=[100,100]: give two ascending numbers"]),
    ("fine", {"model.window_hu": [0]}, ["model.window_hu=[0]: give two ascending numbers"]),
    ("fine", {"loss.class_weights": [1, 1, 1]}, ["loss.class_weights=[1,1,1]: give 2 (loss.over=classes)"]),
    ("fine", {"loss.bias": "high", "loss.bia": 1}, ["loss.bia: no such key; did you mean loss.bias?"]),
    (
        "coarse",
        {"trainer.val_check_interval": 1.5},
        ["trainer.val_check_interval=1.5: give a whole number of batches of 1"],
    ),
    ("coarse", {"trainer.check_val_every_n_epoch": 101}, ["no epoch would be validated, trainer.max_epochs=100"]),
    ("coarse", {"trainer.profiler": "fast"}, ["trainer.profiler=fast: give one of simple, advanced, pytorch, or null"]),
    ("coarse", {"trainer.max_time": 3}, ["trainer.max_time=3: give a text DD:HH:MM:SS in quotes"]),
    ("coarse", {"trainer.accumulate_grad_batches": 0}, ["trainer.accumulate_grad_batches=0: give a whole number of 1 or more"]),
    (
        "coarse",
        {"trainer.max_steps": 49, "trainer.devices": [0, 1], "trainer.strategy": "ddp", "trainer.num_nodes": 2},
        ["trainer.max_steps=49: ends before step 50"],
    ),
    ("coarse", {"trainer.max_steps": 0}, ["trainer.max_steps=0: give a whole number of 1 or more, or -1"]),
    ("fine", {"model.checkpointing": True, "model.freeze_statistics": False}, ["model.freeze_statistics=true"]),
    ("fine", {"model.freeze_stages": 5}, ["model.freeze_stages=5: give 0 to 4, or all"]),
    ("fine", {"sampling.patch": [24, 150, 170]}, ["multiples of 16", "[24,144,160] and [24,160,176]"]),
    ("fine", {"sampling.tumor": 0.6, "sampling.kidney": 0.5}, ["sampling.tumor=0.6, sampling.kidney=0.5"]),
    ("fine", {"loss.class_weights": [1]}, ["give 2 (loss.over=classes)"]),
    ("fine", {"training": "both"}, ["training=both: give one of parallel, staged"]),
    ("fine", {"training": "staged", "trainer.max_epochs": 2}, ["trainer.max_epochs=2: too few", "give at least 3"]),
    ("fine", {"training": "staged", "staged_shares": [0.6, 0.5]}, ["together less than 1"]),
    ("fine", {"training": "staged", "staged_shares": [1e-5, 0.1]}, ["staged_shares=[1e-05,0.1]", "0 to leave the phase out"]),
    ("fine", {"scheduler": {"name": "constant"}}, ["scheduler.warmup: no value given; give a number of at least 0"]),
]


@pytest.mark.parametrize(("stage", "changes", "words"), WRONG, ids=[f"{stage}-{'-'.join(c)}" for stage, c, _ in WRONG])
def test_what_cannot_work_is_named(composed: dict, stage: str, changes: dict[str, Any], words: list[str]) -> None:
    config, choices = composed[stage]
    check("train", config, choices)
    with pytest.raises(KitsError) as caught:
        check("train", changed(config, changes), choices)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        (
            "coarse",
            {"trainer.limit_val_batches": 3, "trainer.devices": "auto", "trainer.strategy": "ddp", "trainer.max_steps": 7},
        ),
        ("coarse", {"trainer.devices": 4, "trainer.strategy": "ddp", "trainer.sync_batchnorm": True}),
        ("coarse", {"data.coarse_size": 128, "sampling.patch": [8, 128, 128]}),
        ("fine", {"model.sources": [{**SOURCE, "out_indices": [0, 1, 2, 4]}], "sampling.patch": [8, 96, 64]}),
        ("fine", {"model.sources": [{"backbone": "vit_tiny_patch14", "weights": None}], "sampling.patch": [8, 98, 98]}),
        ("fine", {"training": "staged", "model.fusion": "mean"}),
        ("fine", {"postprocess.components": None, "roi.margin_mm": 7.5, "trainer.gradient_clip_val": None}),
    ],
)
def test_what_can_work_passes(composed: dict, stage: str, changes: dict[str, Any]) -> None:
    config, choices = composed[stage]
    check("train", changed(config, changes), choices)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["split=folds"], ["fold: no value given; split=folds needs one of 0 to 4"]),
        (["split=folds", "fold=5"], ["fold=5", "0 to 4"]),
        (["split=paper", "fold=0"], ["fold=0: split=paper has no folds"]),
        (["scheduler=plateau", "scheduler.patience=5"], ["scheduler.patience=5", "callbacks.early_stopping.patience=5"]),
        (["model=finenet"], ["model=finenet: stage=coarse trains unet3d"]),
        (["~sampling.foreground"], ["sampling.foreground: no value given; give a number"]),
    ],
)
def test_group_choices_that_do_not_go_together_are_named(cache: Path, overrides: list[str], words: list[str]) -> None:
    with pytest.raises(KitsError) as caught:
        checked("train", ["stage=coarse", f"data.cache={cache}", *overrides])
    for word in words:
        assert word in str(caught.value)


# model=own needs a plug-in, see test_plug_ins.py
@pytest.mark.parametrize(("group", "choice"), [pair for pair in CHOICES if pair != ("model", "own")])
def test_every_choice_of_every_group_passes(cache: Path, group: str, choice: str) -> None:
    stage = [] if group == "stage" else [f"stage={'fine' if choice == 'finenet' else 'coarse'}"]
    part = {"loss": "torch.nn.ReLU", "optimizer": "torch.optim.NAdam", "scheduler": "torch.optim.lr_scheduler.StepLR"}.get(group)
    more = {"folds": ["fold=0"], "own": [f"{group}._target_={part}"]}.get(choice, [])
    checked("train", [*stage, f"{group}={choice}", *more, f"data.cache={cache}"])


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_passes(cache: Path, recipe: str) -> None:
    checked("train", [f"experiment={recipe}", f"data.cache={cache}"])


def test_a_misspelt_key_of_a_recipe_is_named(composed: dict) -> None:
    config, choices = composed["coarse"]
    merged = changed(config, {"sampling.patch_per_epoch": 10})
    with pytest.raises(KitsError, match=r"sampling\.patch_per_epoch: no such key; did you mean sampling\.patches_per_epoch"):
        check("train", merged, choices)


def test_debug_changes_only_what_there_is() -> None:
    from kits.config import flat

    usual = flat(compose("train", ["stage=fine"]))
    for name in choices_of("debug"):
        config = compose("train", ["stage=fine", f"debug={name}"])
        extra = {key for key, value in flat(config).items() if value != {}} - set(usual)
        assert not extra
        assert config["debug"] == name
        assert (config["run_dir"] == "runs/fine") == (name == "none"), "a trial run must not write over a real one"


def test_overfit_trains_and_validates_on_one_training_case() -> None:
    from kits.data.prepared import one_case

    split = {"train": ["case_00001", "case_00002"], "validation": ["case_00000"]}
    assert one_case(split, "first") == {"train": ["case_00001"], "validation": ["case_00001"]}
    assert one_case(split, "case_00002")["validation"] == ["case_00002"]
    with pytest.raises(KitsError, match=r"data\.overfit=case_00000: no training case"):
        one_case(split, "case_00000")


def names(schema: Any, key: str = "") -> tuple[str, ...]:
    """The names that a schema allows: of the models of a group, or of a key."""
    tag = "kind" if schema is SplitOptions else "transform" if schema is AnyStep else "name"
    return tuple(
        get_args(schema.model_fields[key].annotation) if key else (n for m in models_in(schema) for n in tags_of(m, tag))
    )


def test_the_allowed_names_are_those_of_the_code_and_of_conf() -> None:
    import monai.transforms
    from pytorch_lightning import Trainer as LightningTrainer

    from kits.models import NETWORKS, adaptation, subnetwork
    from kits.training import losses, optimizers
    from kits.training.optimizers import DECAYS

    for allowed, registry in (
        (names(Model), NETWORKS),
        (get_args(Operator), adaptation.OPERATORS),
        (get_args(Plane), subnetwork.PLANES),
        (names(Loss), losses.LOSSES),
        (names(Optimizer), optimizers.OPTIMIZERS),
        (names(Scheduler), (*DECAYS, "plateau")),
    ):
        assert sorted(allowed) == sorted(registry)
    schemas = {
        "loss": Loss,
        "optimizer": Optimizer,
        "scheduler": Scheduler,
        "model": Model,
        "split": SplitOptions,
        "logger": Logger,
    }
    for group, schema in schemas.items():
        own = {"own"} & set(choices_of(group))  # has a target and no name
        assert sorted({*names(schema)} | own) == choices_of(group)
    assert all(hasattr(monai.transforms, name) for name in names(AnyStep))
    assert set(Trainer.model_fields) - {"launcher", "compile"} <= set(inspect.signature(LightningTrainer).parameters)


@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "test_efficientnet", "resnet18", "mobilenetv3_small_050"])
def test_the_known_families_halve_at_each_scale(backbone: str) -> None:
    import timm

    assert halves(backbone)
    assert any(backbone.startswith(family) for family in HALVING)
    features = timm.create_model(backbone, features_only=True, pretrained=False)
    assert features.feature_info.reduction() == [2 ** (k + 1) for k in range(HALVING_SCALES)]
    assert not any(map(halves, ("resnetv2_50", "vit_base_patch14_dinov2", "convnext_tiny", "swin_tiny_patch4_window7_224")))


def test_the_sizes_are_those_of_the_networks() -> None:
    from kits.models import build_network

    coarse, fine = compose("train", ["stage=coarse"])["model"], compose("train", ["stage=fine"])["model"]
    small = {**fine, "sources": [{"backbone": "test_efficientnet", "weights": None}, {**SOURCE, "out_indices": [0, 1, 2, 4]}]}
    for model in (coarse, {**coarse, "depth": 4}):
        assert parse(Model, model).in_plane_multiple == build_network(model, pretrained=False).in_plane_multiple
    assert parse(Model, small).in_plane_multiple == build_network(small, pretrained=False).in_plane_multiple == 32


def test_each_phase_with_a_share_needs_an_epoch() -> None:
    for epochs in range(1, 12):
        for shares in ([0.4, 0.2], [0.1, 0.1], [0.34, 0.33], [0.5, 0.0], [0.0, 0.5], [0.0, 0.0]):
            wanted = {phase for phase, share in zip(PHASES, [*shares, 1], strict=True) if share}
            assert every_phase(epochs, shares) == (wanted <= {phase_at(epoch, epochs, shares) for epoch in range(epochs)})


def test_a_mistake_is_told_before_anything_slow_is_imported(cache: Path) -> None:
    script = (
        "import sys\nfrom kits.train import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    print(end.code)\n"
        f"print(*[name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "stage=fine", "sampling.patch=[24,150,160]", f"data.cache={cache}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr.startswith("kits.train: sampling.patch=[24,150,160]:")
    assert done.stdout.split() == ["1"], "a heavy library is imported before the check"
