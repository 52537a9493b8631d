"""The two stages against one-stage peers: same cases, same CPU time of training, same scores.

Peers are nnU-Net's PlainConvUNet (Isensee et al. 2021; package dynamic-network-architectures) and MONAI's SegResNet (Myronenko,
arXiv 1810.11654), each read by a sliding window over the whole scan. Time is CPU time on one thread, so that a busy machine
shortens nobody's training.
"""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from kits.config.schema.benches import PeersBench
from kits.data.cache import cache_settings
from kits.data.cached_case import CachedCase
from kits.data.prepared import read_index, read_subsets
from kits.io import read_volume, write_json, write_labels
from kits.models.memory import keep_freed_memory
from kits.training.losses import build_loss, deep_supervision
from kits.volume import crop
from kits.volume.hu import PAD_HU, normalise
from kits.workflows.step import run_process


def measure(options: PeersBench) -> dict[str, float]:
    """Train the two stages and every peer for as long, for each seed, and score them.

    Predictions, scores and `peers.json` go to `output`. With `budget`, so many CPU seconds, only the peers are trained, and what
    `peers.json` says of the others stays.
    """
    torch.set_num_threads(1)
    keep_freed_memory()
    output = Path(options.output)
    kept = output / "peers.json"
    record: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    for seed in options.seeds:
        budget = options.budget or two_stages(options, output / f"two_stage{seed}", seed, record)
        for name in options.peers:
            one_stage(options, name, output / f"{name}{seed}", seed, budget, record)
        write_json(kept, record)
    print(f"measured: {kept}; scores of each: {output}/*/scores")
    return {}


def run(command: str) -> float:
    """Run `python -m kits.COMMAND`; its CPU seconds."""
    name, *arguments = shlex.split(command)
    before = os.times()
    run_process(name, arguments)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def two_stages(options: PeersBench, folder: Path, seed: int, record: dict[str, Any]) -> float:
    """Train, predict and score both stages as anyone would; the CPU seconds that both trainings took."""
    cache, root = options.data.cache, options.data.root
    training = 0.0
    for stage in ("coarse", "fine"):
        given = f"experiment={options.recipes[stage]} data.cache={cache} seed={seed} run_dir={folder}/{stage} overwrite=true"
        training += run(f"train {given}")
    checkpoints = f"coarse={folder}/coarse/best.ckpt fine={folder}/fine/best.ckpt"
    split = f"{cache}/splits.json"
    took = run(f"predict {checkpoints} input={root} split_file={split} output={folder}/predictions device=cpu")
    cases = score(options, folder)
    record[folder.name] = {"training": training, "predicting_a_case": took / cases}
    return training


def score(options: PeersBench, folder: Path) -> int:
    """Score the predictions of a folder; how many validation cases there are."""
    split = Path(options.data.cache) / "splits.json"
    run(f"evaluate prediction={folder}/predictions truth={options.data.root} output={folder}/scores split_file={split}")
    return len((folder / "scores" / "cases.csv").read_text(encoding="utf-8").splitlines()) - 1


def one_stage(options: PeersBench, name: str, folder: Path, seed: int, budget: float, record: dict[str, Any]) -> None:
    """Train a peer for so many CPU seconds, predict the validation cases with it and score them."""
    torch.manual_seed(seed)
    data, cache = options.data, Path(options.data.cache)
    records = read_index(cache, cache_settings(data))["cases"]
    split = read_subsets(cache, records, data.split, None)
    training, validation = ([CachedCase(cache, records[case]) for case in split[part]] for part in ("train", "validation"))
    network, logits_of = PEERS[name](len(data.classes))
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
    chosen = dict(options.optimizers[name])
    optimizer = kinds[chosen.pop("name")](network.parameters(), **chosen)
    steps = train(network, logits_of, ScanPatches(training, options, seed), options, optimizer, budget)
    network.eval()
    began = time.process_time()
    for case in validation:
        volume = read_volume(Path(str(data.root)) / case.id / "imaging.nii.gz")
        labels = predict(network, logits_of, volume.array, options)
        write_labels(folder / "predictions" / f"{case.id}.nii.gz", labels, volume.grid)
    took = (time.process_time() - began) / len(validation)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    record[folder.name] = {"training": budget, "steps": steps, "predicting_a_case": took, "parameters": parameters}
    score(options, folder)


class ScanPatches:
    """Random patches of whole scans, a share of them around foreground, which nnU-Net oversamples too."""

    def __init__(self, cases: Sequence[CachedCase], options: PeersBench, seed: int) -> None:
        self.cases, self.window = cases, options.data.window_hu
        self.patch, self.foreground = options.patch, options.foreground
        self.rng = np.random.default_rng(seed)
        self.points = [np.argwhere(np.asarray(case.label) > 0) for case in cases]

    def draw(self) -> tuple[Tensor, Tensor]:
        """Draw an image (1, 1, D, H, W) in [-1, 1] and its label (1, D, H, W), half of them flipped in x."""
        number = int(self.rng.integers(len(self.cases)))
        case, points = self.cases[number], self.points[number]
        if self.rng.random() < self.foreground:
            label = np.asarray(case.label)
            wanted = self.rng.integers(1, 3)  # kidney and tumor alike
            chosen = points[label[tuple(points.T)] == wanted]
            middle = self.rng.choice(chosen if len(chosen) else points)
        else:
            middle = self.rng.integers(case.shape)
        (z, y, x), shape = (int(centre) for centre in middle), self.patch
        start = (z - shape[0] // 2, y - shape[1] // 2, x - shape[2] // 2)
        image = normalise(crop(case.image, start, shape, PAD_HU), self.window)
        label = crop(case.label, start, shape, 0)
        flip = slice(None, None, -1 if self.rng.random() < 0.5 else 1)
        return (
            torch.from_numpy(image[..., flip].copy())[None, None],
            torch.from_numpy(label[..., flip].copy())[None],
        )


def train(
    network: nn.Module,
    pyramid_of: Callable[[Tensor], list[Tensor]],
    patches: ScanPatches,
    options: PeersBench,
    optimizer: torch.optim.Optimizer,
    budget: float,
) -> int:
    """Train until so many CPU seconds are spent, at a rate that falls to 0 with them; the steps taken."""
    loss = build_loss(options.loss)
    highest = optimizer.param_groups[0]["lr"]
    began, steps = time.process_time(), 0
    while (spent := (time.process_time() - began) / budget) < 1:
        for group in optimizer.param_groups:
            group["lr"] = highest * (1 - spent) ** 0.9
        image, label = patches.draw()
        optimizer.zero_grad()
        deep_supervision(loss, pyramid_of(image), label)["total"].backward()
        nn.utils.clip_grad_norm_(network.parameters(), options.clip)
        optimizer.step()
        steps += 1
    return steps


@torch.inference_mode()
def predict(network: nn.Module, pyramid_of: Callable[[Tensor], list[Tensor]], hu: np.ndarray, options: PeersBench) -> np.ndarray:
    """Predict uint8 labels (z, y, x) by Gaussian-weighted windows that repeat half of each other."""
    from monai.inferers import sliding_window_inference

    image = torch.from_numpy(normalise(hu, options.data.window_hu))[None, None]
    logits = sliding_window_inference(
        image, options.patch, 1, lambda part: pyramid_of(part)[0], overlap=0.5, mode="gaussian", padding_mode="replicate"
    )
    assert isinstance(logits, Tensor)
    return logits[0].argmax(0).to(torch.uint8).numpy()


def plain_conv_unet(classes: int) -> tuple[nn.Module, Callable[[Tensor], list[Tensor]]]:
    """Build nnU-Net's deeply supervised network of five levels, 16 to 256 channels, slices pooled last."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    kernels = [(1, 3, 3), *[(3, 3, 3)] * 4]
    strides = [(1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2)]
    network = PlainConvUNet(
        1,
        5,
        (16, 32, 64, 128, 256),
        nn.Conv3d,
        kernels,
        strides,
        2,
        classes,
        2,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )

    def pyramid(image: Tensor) -> list[Tensor]:
        found = network(image)
        return list(found[:-1])  # the coarsest has no weight in nnU-Net

    return network, pyramid


def seg_res_net(classes: int) -> tuple[nn.Module, Callable[[Tensor], list[Tensor]]]:
    """Return MONAI's SegResNet as its documentation builds it, 16 channels at first."""
    from monai.networks.nets import SegResNet

    network = SegResNet(spatial_dims=3, init_filters=16, in_channels=1, out_channels=classes, dropout_prob=None)

    def pyramid(image: Tensor) -> list[Tensor]:
        # Three halvings in every direction: thin stacks of slices are padded to a multiple of eight.
        lacking = -image.shape[2] % 8
        logits = network(functional.pad(image, (0, 0, 0, 0, 0, lacking), mode="replicate") if lacking else image)
        return [logits[:, :, : image.shape[2]]]

    return network, pyramid


PEERS: dict[str, Callable[[int], tuple[nn.Module, Callable[[Tensor], list[Tensor]]]]] = {
    "plain_conv_unet": plain_conv_unet,
    "seg_res_net": seg_res_net,
}
