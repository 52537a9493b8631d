"""nnU-Net v2's own predictor with a network of KiTS's size, random weights, no mirroring."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch

from kits.bench.timing import seconds


class NnunetPredictor:
    """One scan, preprocessed, predicted tile by tile and exported by nnU-Net's own code."""

    def __init__(self, config: dict[str, Any], scan: Path) -> None:
        self.options, self.tiles, self.scan = config["nnunet"], config["tiles"], scan
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            os.environ.setdefault(name, config["scratch"])  # it warns without them; nothing is written there
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
        from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        torch.manual_seed(config["seed"])
        self.plans = PlansManager(plans_of(self.options))
        self.configuration = self.plans.get_configuration("3d_fullres")
        self.dataset: dict[str, Any] = {
            "channel_names": {"0": "CT"},
            "labels": {name: value for value, name in enumerate(config["data"]["classes"])},
            "file_ending": ".nii.gz",
        }
        network: torch.nn.Module = get_network_from_plans(
            self.configuration.network_arch_class_name,
            self.configuration.network_arch_init_kwargs,
            self.configuration.network_arch_init_kwargs_req_import,
            1,
            len(config["data"]["classes"]),
            deep_supervision=False,
        ).eval()
        self.parameters = sum(parameter.numel() for parameter in network.parameters())
        self.predictor = nnUNetPredictor(
            tile_step_size=self.options["step"], use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False
        )
        self.predictor.manual_initialization(
            network, self.plans, self.configuration, [network.state_dict()], self.dataset, "nnUNetTrainer", None
        )

    def measure(self, target: Path, *, full: bool) -> float:
        """Measure seconds from file to file; unless `full`, a few tiles stand for the prediction of all."""
        from nnunetv2.inference.export_prediction import export_prediction_from_logits

        began = time.perf_counter()
        preprocessor = self.configuration.preprocessor_class(verbose=False)
        data, _, properties = preprocessor.run_case([str(self.scan)], None, self.plans, self.configuration, self.dataset)
        image = torch.from_numpy(data)
        prepared = time.perf_counter()
        padded = [max(n, least) for n, least in zip(image.shape[1:], self.options["patch"], strict=True)]
        tiles = len(self.predictor._internal_get_sliding_window_slicers(tuple(padded)))
        print(
            f"nnU-Net: {self.parameters / 1e6:.1f} M parameters, {tuple(image.shape[1:])} voxels, {tiles} tiles;"
            f" preprocessing {prepared - began:.1f} s",
            flush=True,
        )
        if full:
            logits = self.predictor.predict_logits_from_preprocessed_data(image)
            predicting = time.perf_counter() - prepared
        else:
            per_tile = self.seconds_a_tile()
            predicting = per_tile * tiles
            logits = torch.zeros((len(self.dataset["labels"]), *image.shape[1:]), dtype=torch.half)
            logits[0] = 1
        ready = time.perf_counter()
        export_prediction_from_logits(
            logits,
            properties,
            self.configuration,
            self.plans,
            self.dataset,
            str(target).removesuffix(".nii.gz"),
            num_threads_torch=torch.get_num_threads(),
        )
        exporting = time.perf_counter() - ready
        total = prepared - began + predicting + exporting
        how = "all tiles run" if full else f"estimated: {self.tiles} tiles run, {per_tile:.1f} s each, times {tiles}"
        print(f"nnU-Net: {total:.0f} s (predicting {predicting:.0f} s, export {exporting:.1f} s; {how})", flush=True)
        return total

    @torch.inference_mode()
    def seconds_a_tile(self) -> float:
        """Time the network alone on a tile, in seconds, the fastest of a few, of which the first warms up."""
        tile = torch.randn(1, 1, *self.options["patch"])
        self.predictor.network.eval()
        return min(seconds(lambda: self.predictor._internal_maybe_mirror_and_predict(tile)) for _ in range(self.tiles + 1))


def plans_of(options: dict[str, Any]) -> dict[str, Any]:
    """Return what nnU-Net's planner would write by default, as far as prediction reads it."""
    stages = len(options["features"])
    resampling: dict[str, Any] = {}
    for kind, is_seg, order in (("data", False, 3), ("seg", True, 1), ("probabilities", False, 1)):
        resampling[f"resampling_fn_{kind}"] = "resample_data_or_seg_to_shape"
        given = {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}
        resampling[f"resampling_fn_{kind}_kwargs"] = given
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": options["patch"],
        "spacing": options["spacing"],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        **resampling,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": options["features"],
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[3, 3, 3]] * stages,
                "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
                "n_conv_per_stage": [2] * stages,
                "n_conv_per_stage_decoder": [2] * (stages - 1),
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": True,
    }
    # Of KiTS' kidneys in HU; any will do for timing.
    intensities = {"mean": 100.0, "std": 75.0, "percentile_00_5": -80.0, "percentile_99_5": 305.0, "median": 105.0}
    return {
        "dataset_name": "KiTS",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": intensities},
        "configurations": {"3d_fullres": configuration},
    }
