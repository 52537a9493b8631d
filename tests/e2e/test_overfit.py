"""Every inter-slice operator and every fusion can learn one case by heart: nothing in the network stands in the way."""

from pathlib import Path

import numpy as np
import pytest
import torch

from kits.config.composing import compose
from kits.config.schema import parse
from kits.config.schema.loss import Loss
from kits.config.schema.phantoms import Phantom
from kits.io import read_labels, read_volume
from kits.metrics import score_case
from kits.models import build_network
from kits.painter.trees import write_dataset
from kits.training.losses import build_loss, parallel_loss
from kits.volume import crop
from kits.volume.hu import PAD_HU, normalise
from kits.volume.rois import find_rois

CASE = "case_00110"
STEPS = 400


@pytest.fixture(scope="module")
def roi(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    """HU and labels (z, y, x) around the kidney that has the tumor, of a real label map with painted HU."""
    folder = tmp_path_factory.mktemp("overfit")
    (folder / "labels").mkdir()
    (folder / "labels" / CASE).symlink_to(shared_data / "kits19" / CASE)
    options = compose("phantom", [f"output={folder}/painted", f"labels={folder}/labels", "thin_mm=[5,2.5]"])
    write_dataset(parse(Phantom, options))
    case = folder / "painted" / CASE
    image, labels = read_volume(case / "imaging.nii.gz"), read_labels(case / "segmentation.nii.gz", allowed=(0, 1, 2))
    boxes = find_rois(labels.array > 0, count=2, min_voxels=0)
    box = max(boxes, key=lambda found: int((labels.array[found.slices] == 2).sum())).grow_mm(10, image.spacing, image.array.shape)
    depth, height, width = box.shape
    shape = (depth, -(-height // 16) * 16, -(-width // 16) * 16)
    return crop(image.array, box.start, shape, PAD_HU), crop(labels.array, box.start, shape, 0)


# Each operator with the default fusion, and each fusion with the default operator.
OPERATORS = ("p3d", "conv3d", "zconv", "tsm", "acs", "none")
CHOICES = [*((operator, "concat") for operator in OPERATORS), ("p3d", "gate"), ("p3d", "mean")]


@pytest.mark.slow
@pytest.mark.parametrize(("operator", "fusion"), CHOICES)
def test_one_real_label_map_is_learned_by_heart(operator: str, fusion: str, roi: tuple[np.ndarray, np.ndarray]) -> None:
    hu, truth = roi
    config = compose("train", ["stage=fine", f"model.operator={operator}", f"model.fusion={fusion}"])
    config["model"]["sources"] = config["model"]["sources"][:2]
    torch.manual_seed(0)
    network = build_network(config["model"], pretrained=True).train()
    loss = build_loss(parse(Loss, config["loss"]))
    image = torch.from_numpy(normalise(hu, config["data"]["window_hu"]))[None, None]
    label = torch.from_numpy(truth.copy())[None]
    optimizer = torch.optim.Adam(network.parameters(), config["optimizer"]["lr"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        fused, sources = network.training_logits(image)
        parallel_loss(loss, fused, sources, label, config["parallel_weight"])["total"].backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config["trainer"]["gradient_clip_val"])
        optimizer.step()
        schedule.step()
    with torch.inference_mode():
        found = network.eval()(image)[0].argmax(0).to(torch.uint8).numpy()
    scores = score_case(found, truth)
    print(f"{operator} {fusion}: kidney {scores['kidney']:.4f}, tumor {scores['tumor']:.4f}")
    assert scores["kidney"] >= 0.98
    assert scores["tumor"] >= 0.95
