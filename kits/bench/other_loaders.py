"""MONAI's PersistentDataset and TorchIO's Queue, as their documentation recommends them.

Both get more than the documentation asks for: MONAI's cache is cropped to the body and holds labels as bytes and the places of
foreground and background, which halves the time of a volume; TorchIO has no cache, and reads images that were oriented, windowed
and written without compression before the timing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kits.data.index import Case

KEYS = ["image", "label"]
# TorchIO's example takes ten patches of a volume once it is loaded. The queue holds those of four volumes.
PER_VOLUME, QUEUE = 10, 40


def monai_batches(cases: list[Case], data: dict[str, Any], options: dict[str, Any], cache: Path) -> Iterator[Any]:
    """Yield MONAI's batches without end, each from one volume that is read once for it (`num_samples`)."""
    import torch
    from monai import transforms as m
    from monai.data import DataLoader, PersistentDataset

    low, high = data["window_hu"]
    patch = tuple(options["sampling"]["patch"])
    fixed = [
        m.LoadImaged(KEYS),
        m.EnsureChannelFirstd(KEYS),
        m.Orientationd(KEYS, axcodes="SPL", labels=None),
        m.ScaleIntensityRanged("image", low, high, -1.0, 1.0, clip=True),
        m.CropForegroundd(KEYS, source_key="image", select_fn=lambda image: image > -1, allow_smaller=True),
        m.EnsureTyped("image", dtype=torch.float32),
        m.EnsureTyped("label", dtype=torch.uint8),
        m.FgBgToIndicesd("label", image_key="image", image_threshold=-1),
    ]
    inside, outside = "label_fg_indices", "label_bg_indices"
    count = options["batch_size"]
    cropping = [
        m.RandCropByPosNegLabeld(
            KEYS, "label", patch, pos=1, neg=1, num_samples=count, fg_indices_key=inside, bg_indices_key=outside
        ),
        m.DeleteItemsd([inside, outside]),
    ]
    varying = [monai_step(name, step, high - low, patch) for name, step in data["augmentation"].items()]
    files = [{"image": str(case.image), "label": str(case.label)} for case in cases]
    written = PersistentDataset(files, m.Compose(fixed), cache)
    for position in range(len(files)):
        written[position]
    # Repeated, so that the end of an epoch of six volumes is no pause.
    volumes = PersistentDataset(files * 200, m.Compose([*fixed, *cropping, *varying]), cache)
    loader = DataLoader(volumes, batch_size=1, shuffle=True, num_workers=options["workers"], persistent_workers=True)
    while True:
        yield from loader


def monai_step(name: str, step: dict[str, Any], width: float, patch: tuple[int, ...]) -> Any:
    """Build MONAI's dictionary transform of one entry; HU of ours are halves of the window here."""
    from monai import transforms as m

    transform = step["transform"]
    arguments = {key: value for key, value in step.items() if key != "transform"}
    if transform == "RandAffine":
        return m.RandAffined(KEYS, mode=["bilinear", "nearest"], padding_mode="border", **arguments)
    if transform == "RandSmoothDeform":
        arguments |= {"spatial_size": patch, "field_mode": "trilinear", "grid_mode": ["bilinear", "nearest"]}
        return m.RandSmoothDeformd(KEYS, **arguments)
    if transform == "RandGaussianSmooth":  # within the slices, as ours: here x is the first axis in space
        arguments |= {"sigma_x": (1e-3, 1e-3), "sigma_y": step["sigma_x"], "sigma_z": step["sigma_y"]}
    for argument in ("offsets", "std"):
        if argument in arguments:
            arguments[argument] = arguments[argument] / (width / 2)
    return getattr(m, f"{transform}d")(KEYS if transform == "RandFlip" else "image", **arguments)


def torchio_batches(cases: list[Case], data: dict[str, Any], options: dict[str, Any], folder: Path) -> Iterator[Any]:
    """Yield TorchIO's batches without end: processes load and vary volumes, patches are cut from them."""
    import torchio as t

    folder.mkdir(parents=True, exist_ok=True)
    low, high = data["window_hu"]
    subjects = []
    for case in cases:
        paths = {key: folder / f"{case.id}_{key}.nii" for key in KEYS}
        if not paths["label"].is_file():
            subject = t.Subject(image=t.ScalarImage(case.image), label=t.LabelMap(case.label))
            subject = t.Compose([t.ToCanonical(), t.Clamp(low, high), t.RescaleIntensity((-1, 1), in_min_max=(low, high))])(
                subject
            )
            subject.image.save(paths["image"])
            subject.label.save(paths["label"])
        subjects.append(t.Subject(image=t.ScalarImage(paths["image"]), label=t.LabelMap(paths["label"])))
    steps = [torchio_step(step, high - low) for step in data["augmentation"].values()]
    volumes = t.SubjectsDataset(subjects * 200, transform=t.Compose(steps) if steps else None)
    depth, height, width = options["sampling"]["patch"]
    sampler = t.LabelSampler((width, height, depth), "label", {0: 0.2, 1: 0.3, 2: 0.5})
    queue = t.Queue(volumes, QUEUE, PER_VOLUME, sampler, num_workers=options["workers"])
    loader = t.SubjectsLoader(queue, batch_size=options["batch_size"], num_workers=0)
    while True:
        yield from loader


def torchio_step(step: dict[str, Any], width: float) -> Any:
    """Build TorchIO's equivalent of one entry: axes x, y, z, degrees, and halves of the window for HU."""
    import torchio as t

    kind, p = step["transform"], step["prob"]
    if kind == "RandFlip":
        return t.RandomFlip(axes=0, flip_probability=p)
    if kind == "RandAffine":
        z, y, x = step["scale_range"]
        about_z, about_y, about_x = np.degrees(step["rotate_range"]).tolist()
        degrees = (-about_x, about_x, -about_y, about_y, -about_z, about_z)
        return t.RandomAffine(scales=(1 - x, 1 + x, 1 - y, 1 + y, 1 - z, 1 + z), degrees=degrees, p=p)
    if kind == "RandSmoothDeform":
        return t.RandomElasticDeformation(num_control_points=7, max_displacement=(4, 4, 2), p=p)
    if kind == "RandGaussianSmooth":
        return t.RandomBlur(std=(*step["sigma_x"], *step["sigma_y"], 0, 0), p=p)
    if kind == "RandSimulateLowResolution":
        return t.RandomAnisotropy(axes=(0, 1), downsampling=(1, 1 / step["zoom_range"][0]), p=p)
    if kind == "RandGaussianNoise":
        return t.RandomNoise(std=(0, step["std"] / (width / 2)), p=p)
    if kind == "RandAdjustContrast":
        return t.RandomGamma(log_gamma=tuple(np.log(step["gamma"]).tolist()), p=p)
    factors, offsets = step.get("factors", 0), step.get("offsets", 0) / (width / 2)
    return t.Lambda(Intensity(factors, offsets), types_to_apply=[t.INTENSITY], p=p)


class Intensity:
    """A random scale or shift of all intensities: TorchIO has none of its own."""

    def __init__(self, factors: float, offsets: float) -> None:
        self.factors, self.offsets = factors, offsets

    def __call__(self, image: Any) -> Any:
        """Return the tensor times 1 +- `factors`, plus or minus `offsets`."""
        import torch

        change = torch.rand(2) * 2 - 1
        return image * (1 + self.factors * change[0]) + self.offsets * change[1]
