"""Exported networks give what their checkpoints give, and no file can bring more than numbers and plain settings."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import kits
from kits.config.composing import checked
from kits.core.errors import KitsError
from kits.inference.exporting import export_networks
from kits.inference.onnx_export import TOLERANCE
from kits.inference.onnx_network import load_exported, load_member
from kits.models.checkpoint import load_network
from kits.models.settings import DIGEST, METADATA, settings_of, to_plain
from tests.conftest import kidney_pair, write_case
from tests.predicting import run, write_checkpoint

# A depth of levels that needs slices to be repeated, and a depth module with a loop and a shift.
OVERRIDES = {"coarse": [], "fine": ["model.operator=tsm", "model.gate=true", "model.slices_at_once=2"]}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of each stage, and its export beside it, by the command: tracing takes seconds, so it is done once."""
    from kits import export

    folder = tmp_path_factory.mktemp("exported")
    found = {stage: write_checkpoint(folder / f"{stage}.ckpt", stage, *overrides) for stage, overrides in OVERRIDES.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["kits.export", *(f"{stage}={path}" for stage, path in found.items()), f"output={folder}"])
        export.main()
    assert sorted(path.name for path in folder.iterdir()) == ["coarse.ckpt", "coarse.onnx", "fine.ckpt", "fine.onnx"]
    return found | {f"{stage}.onnx": folder / f"{stage}.onnx" for stage in OVERRIDES}


@pytest.mark.parametrize("stage", ["coarse", "fine"])
@pytest.mark.parametrize("size", [(1, 1, 1, 1), (1, 6, 2, 5), (3, 7, 4, 1)])
def test_logits_are_those_of_torch_at_any_size(files: dict[str, Path], stage: str, size: tuple[int, ...]) -> None:
    network, settings = load_network(files[stage], stage, "cpu")
    exported, told = load_member(files[f"{stage}.onnx"], stage, "cpu")
    batch, slices, rows, columns = size
    volume = torch.rand(batch, 1, slices, rows * network.in_plane_multiple, columns * network.in_plane_multiple) * 2 - 1
    with torch.no_grad():
        expected = network(volume)
    np.testing.assert_allclose(exported(volume), expected, atol=TOLERANCE, rtol=0)
    assert expected.abs().max() > 100 * TOLERANCE
    assert told == settings.model_copy(update={"model": None})


def test_files_that_are_older_than_a_key_mean_what_was_done_without_it(files: dict[str, Path], tmp_path: Path) -> None:
    for stage, group, key, meant in (
        ("coarse", "roi", "rank", "size"),
        ("coarse", "data", "labels", None),
        ("fine", "inference", "tumor_confidence", None),
    ):
        content = torch.load(files[stage], weights_only=True)
        del content["hyper_parameters"][group][key]
        torch.save(content, tmp_path / "older.ckpt")
        _, settings = load_network(tmp_path / "older.ckpt", stage, "cpu")
        assert getattr(getattr(settings, group), key) == meant


def test_a_wrong_network_is_refused_before_the_other_is_traced(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = checked("export", [f"coarse={files['coarse']}", f"fine={files['coarse']}", f"output={tmp_path / 'out'}"])
    with pytest.raises(KitsError, match=r"coarse\.ckpt: a checkpoint of the coarse stage, given as fine=; are the two swapped\?"):
        export_networks(options)
    assert not capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_the_command_segments_a_case_alike(files: dict[str, Path], tmp_path: Path) -> None:
    scan = write_case(tmp_path, "case_00000", *kidney_pair(0)) / "imaging.nii.gz"
    for name, ending, backend in (("torch", "", "torch"), ("onnx", ".onnx", "onnx")):
        pair = [f"{stage}={files[f'{stage}{ending}']}" for stage in OVERRIDES]
        run(*pair, f"backend={backend}", f"input={scan}", f"output={tmp_path / f'{name}.nii.gz'}", "mirror=true")
    assert (tmp_path / "onnx.nii.gz").read_bytes() == (tmp_path / "torch.nii.gz").read_bytes()
    assert json.loads((tmp_path / "onnx.json").read_text(encoding="utf-8"))["volumes_ml"]["kidney"] > 0


def test_an_ensemble_may_mix_both_kinds_and_sources_disagree_alike(files: dict[str, Path], tmp_path: Path) -> None:
    volume = kits.read(write_case(tmp_path, "case_00000", *kidney_pair(0)) / "imaging.nii.gz")
    options: dict[str, Any] = {"device": "cpu", "outputs": ("probabilities", "uncertainty", "sources")}
    other = write_checkpoint(tmp_path / "other.ckpt", "fine", seed=1)
    for rest in ([], [other]):
        ours = kits.load(files["coarse"], [files["fine"], *rest], **options).segment(volume)
        theirs = kits.load(files["coarse.onnx"], [files["fine.onnx"], *rest], **options).segment(volume)
        assert ours.labels.any()
        np.testing.assert_array_equal(theirs.labels, ours.labels)
        for name in ("entropy", "mutual_information"):
            difference = theirs.uncertainty[name].whole().astype(int) - ours.uncertainty[name].whole()
            assert abs(difference).max() <= 1
        assert len(theirs.sources) == len(ours.sources) == 1 + len(rest)


def changed(path: Path, to: Path, change: Callable[[onnx.ModelProto, dict[str, Any]], None]) -> Path:
    """A copy of an exported file with something else in it."""
    model = onnx.load(path)
    entry = next(one for one in model.metadata_props if one.key == METADATA)
    config = json.loads(entry.value)
    change(model, config)
    entry.value = json.dumps(config)
    to.write_bytes(model.SerializeToString())
    return to


def set_key(group: str, key: str, value: Any) -> Callable[[onnx.ModelProto, dict[str, Any]], None]:
    def change(model: onnx.ModelProto, config: dict[str, Any]) -> None:
        (config[group] if group else config)[key] = value

    return change


def outside(model: onnx.ModelProto, config: dict[str, Any]) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")


def foreign_operator(model: onnx.ModelProto, config: dict[str, Any]) -> None:
    model.graph.node[0].domain = "com.somebody"


def elsewhere(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """The tensor, its numbers in a file that somebody else chose."""
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")
    return tensor


def numbers() -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.ones(3, np.float32), "numbers")


def in_attribute(model: onnx.ModelProto, config: dict[str, Any]) -> None:
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["c"], value=elsewhere(numbers())))


def in_subgraph(model: onnx.ModelProto, config: dict[str, Any]) -> None:
    inner = onnx.helper.make_graph([], "inner", [], [], initializer=[elsewhere(numbers())])
    model.graph.node.append(onnx.helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner))


def in_function(model: onnx.ModelProto, config: dict[str, Any]) -> None:
    node = onnx.helper.make_node("Constant", [], ["c"], value=elsewhere(numbers()))
    model.functions.append(onnx.helper.make_function("", "f", [], ["c"], [node], [onnx.helper.make_opsetid("", 17)]))


def sparse(model: onnx.ModelProto, config: dict[str, Any]) -> None:
    model.graph.sparse_initializer.add().values.CopyFrom(elsewhere(numbers()))


def unknown_field(model: onnx.ModelProto, config: dict[str, Any]) -> None:
    model.graph.node[0].MergeFromString(bytes([0xFA, 0x3F, 1, 65]))  # field 1023, one byte of text


def other_operator(model: onnx.ModelProto, config: dict[str, Any]) -> None:
    model.graph.node[0].op_type = "ImageDecoder"


def other_weight(model: onnx.ModelProto, config: dict[str, Any]) -> None:
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    largest.raw_data = bytes([largest.raw_data[0] ^ 1]) + largest.raw_data[1:]


CHANGES: Mapping[str, tuple[Callable[[onnx.ModelProto, dict[str, Any]], None], str]] = {
    "target": (set_key("roi", "_target_", "os.system"), "roi._target_: no such key"),
    "callable": (set_key("", "callbacks", {"name": "os.system"}), "callbacks: no such key"),
    "value": (set_key("data", "window_hu", "os.system"), "data.window_hu=os.system: give two"),
    "lacking": (lambda _, config: config["roi"].pop("margin_mm"), "roi.margin_mm: no value given"),
    "format": (set_key("", "kits_format", 99), "written in format 99"),
    "stage": (set_key("", "stage", ["coarse"]), "cannot be read"),
    "outside": (outside, "in other files"),
    "attribute": (in_attribute, "in other files"),
    "subgraph": (in_subgraph, "AttributeProto.g, which no export has"),
    "function": (in_function, "ModelProto.functions, which no export has"),
    "sparse": (sparse, "GraphProto.sparse_initializer, which no export has"),
    "training": (lambda model, _: model.training_info.add(), "ModelProto.training_info, which no export has"),
    "tensor notes": (lambda model, _: model.graph.initializer[0].metadata_props.add(key="a"), "TensorProto.metadata_props"),
    "metadata": (lambda model, _: model.metadata_props.add(key="other", value="x"), "metadata besides its configuration"),
    "unknown": (unknown_field, "NodeProto.fields that nobody knows"),
    "other operator": (other_operator, "the operator ImageDecoder"),
    "weight": (other_weight, "its SHA-256 is not the one that was written"),
    "no digest": (lambda _, config: config.pop(DIGEST), "its SHA-256 is not the one that was written"),
    "format of text": (set_key("", "kits_format", "\x1b[2J\n"), "cannot be read"),
    "group": (set_key("", "network", [1]), "damaged or edited"),
    "multiple": (set_key("network", "in_plane_multiple", 10**9), "network.in_plane_multiple=1000000000"),
    "operator": (foreign_operator, "com.somebody"),
    "rewired": (lambda model, _: model.graph.output.pop(), "its graph goes from volume to $"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_edited_file_is_refused(files: dict[str, Path], tmp_path: Path, name: str) -> None:
    change, words = CHANGES[name]
    path = changed(files["coarse.onnx"], tmp_path / "edited.onnx", change)
    with pytest.raises(KitsError, match=words.removesuffix("$")) as caught:
        load_exported(path, "coarse")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_names_of_classes_that_the_graph_does_not_give_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    path = changed(files["fine.onnx"], tmp_path / "edited.onnx", set_key("data", "classes", ["background", "kidney"]))
    with pytest.raises(
        KitsError, match=r"edited\.onnx: damaged or edited \(its configuration: data\.classes=\[background,kidney\]: give "
    ):
        load_exported(path, "fine")


@pytest.mark.parametrize("count", [60, pytest.param(800, marks=pytest.mark.slow)])
def test_no_random_damage_is_read(files: dict[str, Path], tmp_path: Path, count: int) -> None:
    path = tmp_path / "damaged.onnx"
    for seed in range(count):
        rng = np.random.default_rng(seed)
        stage = ("coarse", "fine")[seed % 2]
        content = bytearray(files[f"{stage}.onnx"].read_bytes())
        place = int(rng.integers(len(content) if seed % 3 else 3000))
        kind = seed % 4
        if kind == 0:
            content[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            content[place : place + 40] = rng.bytes(40)
        elif kind == 2:
            content[place:place] = rng.bytes(int(rng.integers(1, 9)))
        else:
            del content[place : place + int(rng.integers(1, 9))]
        path.write_bytes(content)
        with pytest.raises(KitsError) as caught:
            load_exported(path, stage)
        assert str(caught.value).isprintable()


def test_what_is_no_exported_network_is_refused_in_one_line(files: dict[str, Path], tmp_path: Path) -> None:
    whole = files["fine.onnx"].read_bytes()
    for name, content in {"text": b"no network" * 9, "empty": b"", "cut": whole[: len(whole) // 2]}.items():
        (tmp_path / f"{name}.onnx").write_bytes(content)
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value], [value])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "other.onnx")
    coarse = files["coarse.onnx"]
    for fine, options, words in (
        (tmp_path / "missing.onnx", {}, "no such file"),
        (tmp_path / "text.onnx", {}, "not an ONNX file"),
        (tmp_path / "empty.onnx", {}, "not an ONNX file"),
        (tmp_path / "cut.onnx", {}, "truncated"),
        (tmp_path / "other.onnx", {}, "another program"),
        (coarse, {}, "swapped"),
        (files["fine.onnx"], {"precision": "bf16"}, "precision=bf16: exported networks"),
        (files["fine.onnx"], {"slices_at_once": 2}, "slices_at_once: "),
        (files["fine.onnx"], {"device": "cuda"}, "device=cuda: exported networks"),
    ):
        with pytest.raises(KitsError, match=words) as caught:
            kits.load(coarse, fine, **{"device": "cpu", **options})
        assert "\n" not in str(caught.value)


def test_a_backend_refuses_files_of_the_other(files: dict[str, Path], tmp_path: Path) -> None:
    scan = write_case(tmp_path, "case_00000", *kidney_pair(0)) / "imaging.nii.gz"
    pair = [f"coarse={files['coarse']}", f"fine={files['fine.onnx']}", f"input={scan}", f"output={tmp_path / 'x.nii.gz'}"]
    with pytest.raises(KitsError, match=r"backend=onnx: .*coarse.ckpt is no .onnx file"):
        run(*pair, "backend=onnx")
    with pytest.raises(KitsError, match=r"backend=torch: .*fine.onnx is an exported network"):
        run(*pair, "backend=torch")


def test_without_onnxruntime_the_extra_is_named(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(KitsError, match=r"onnxruntime is not installed; pip install 'kits\[export\]'"):
        load_exported(files["coarse.onnx"], "coarse")


def test_wrong_sizes_and_failures_of_memory_are_told(files: dict[str, Path]) -> None:
    network, _ = load_exported(files["fine.onnx"], "fine")
    with pytest.raises(KitsError, match="is not a multiple of"):
        network(torch.zeros(1, 1, 2, 7, 8))

    def fail(*arguments: Any) -> None:
        raise Exception("Failed to allocate memory for requested buffer of size 1")

    network.session = SimpleNamespace(run=fail)
    with pytest.raises(MemoryError):
        network(torch.zeros(1, 1, 2, 8, 8))


def test_nothing_of_the_training_machine_is_in_a_file(files: dict[str, Path]) -> None:
    config = torch.load(files["fine"], weights_only=True)["hyper_parameters"]
    config["data"]["root"] = "/home/somebody"
    network, settings = load_network(files["fine"], "fine", "cpu")
    assert settings.model is not None
    kept = settings_of(files["fine"], config, settings.model, network)
    assert kept == settings
    assert "somebody" not in str(to_plain(kept, model=True))
    assert str(Path(kits.__file__).parent).encode() not in files["fine.onnx"].read_bytes()


def test_own_label_ids_and_a_parents_cases_stay_with_an_exported_network(files: dict[str, Path]) -> None:
    network, settings = load_network(files["fine"], "fine", "cpu")
    config = torch.load(files["fine"], weights_only=True)["hyper_parameters"]
    ids = {"kidney": [2], "tumor": [1]}
    parent = {"trained_on": ["case_00007"], "path": "/home/somebody/best.ckpt", "sha256": "0", "new": []}
    own = {**config, "data": {**config["data"], "labels": ids}, "parent": parent}
    assert settings.model is not None
    kept = to_plain(settings_of(files["fine"], own, settings.model, network), model=False)
    assert kept["data"]["labels"] == ids
    assert kept["parent"] == {"trained_on": ["case_00007"]}
    assert "model" not in kept


@pytest.fixture(scope="module")
def plain_files(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both stages as .safetensors files, written by the command."""
    from kits import export

    folder = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as patch:
        given = [f"{stage}={files[stage]}" for stage in ("coarse", "fine")]
        patch.setattr("sys.argv", ["kits.export", *given, f"output={folder}", "format=safetensors"])
        export.main()
    return folder


@pytest.mark.parametrize("stage", ["coarse", "fine"])
def test_a_plain_file_is_the_checkpoints_network_in_half_precision(files: dict[str, Path], plain_files: Path, stage: str) -> None:
    path = plain_files / f"{stage}.safetensors"
    network, settings = load_member(path, stage, "cpu")
    original, trained = load_member(files[stage], stage, "cpu")
    for name, tensor in original.state_dict().items():
        halved = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(network.state_dict()[name], halved), name
    assert settings == trained
    assert path.stat().st_size < 0.6 * files[stage].stat().st_size


def test_plain_files_segment_as_checkpoints_do(plain_files: Path, tmp_path: Path) -> None:
    scan = write_case(tmp_path, "case_00000", *kidney_pair(0)) / "imaging.nii.gz"
    pair = [f"{stage}={plain_files / stage}.safetensors" for stage in OVERRIDES]
    run(*pair, f"input={scan}", f"output={tmp_path / 'labels.nii.gz'}", "device=cpu")
    assert kits.read(tmp_path / "labels.nii.gz").array.shape == kits.read(scan).array.shape


def test_a_plain_file_with_any_flipped_bit_or_of_the_other_stage_is_one_line(plain_files: Path, tmp_path: Path) -> None:
    content = (plain_files / "coarse.safetensors").read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "edited.safetensors"
    for place in [*rng.integers(len(content), size=40), 0, 8, 9, len(content) - 1]:
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        with pytest.raises(KitsError, match=r"edited\.safetensors") as refused:
            load_member(path, "coarse", "cpu")
        assert "\n" not in str(refused.value)
    with pytest.raises(KitsError, match="are the two swapped"):
        load_member(plain_files / "fine.safetensors", "coarse", "cpu")
