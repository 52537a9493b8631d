"""What the pictures show, read from the figures and the pixels rather than from their looks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread

from kits.core.errors import KitsError
from kits.data.index import LABEL_NAME
from kits.data.scans import Scan, find_inputs
from kits.io import read_labels, read_volume, write_labels, write_volume
from kits.reporting.cases import CaseFiles, find_files, write_pictures, write_report
from kits.reporting.scene import COLORS, Scene, save
from kits.reporting.slices import body_window, detail_slices, draw_plane, focus_point, slices_figure
from kits.reporting.surfaces import EDGE_MM, GRID_MM, render, surface_field, surface_figure
from tests.conftest import kidney_pair
from tests.dicoms import write_series

SPACING = (5.0, 1.0, 0.8)


def scene(prediction: bool = True, truth: bool = True) -> Scene:
    labels = np.zeros((16, 60, 90), np.uint8)
    labels[3:13, 20:36, 10:26] = labels[3:13, 20:36, 60:76] = 1
    labels[9:13, 24:32, 64:80] = 2
    hu = np.where(labels > 0, 150, 30).astype(np.int16)
    hu[:, :4], hu[:, 56:] = -1000, -1000
    return Scene(
        "case_00007",
        hu,
        labels * prediction,
        np.roll(labels, 2, axis=2) if truth else None,
        SPACING,
        {"kidney": 0.9, "tumor": 0.8, "composite": 0.85} if truth else {},
    )


def words(figure: Figure) -> str:
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    legend = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return " | ".join([figure.get_suptitle(), *(text.get_text() for text in figure.texts), *legend, *texts])


@pytest.mark.parametrize("truth", [True, False])
def test_the_slices_name_the_case_its_volumes_and_its_scores(truth: bool) -> None:
    text = words(slices_figure(scene(truth=truth)))
    labels = scene().prediction
    assert "case_00007" in text
    assert f"kidney {np.count_nonzero(labels) * 0.004:.1f} mL" in text
    assert ("tumor 0.800" in text) == truth
    assert ("tumor, truth" in text) == truth


@pytest.mark.parametrize("draw", [slices_figure, surface_figure])
@pytest.mark.parametrize("truth", [True, False])
def test_an_empty_prediction_says_so(draw: object, truth: bool, tmp_path: Path) -> None:
    figure = draw(scene(prediction=False, truth=truth))  # type: ignore[operator]
    assert "nothing found" in words(figure)
    save(figure, tmp_path / "empty.png")
    assert imread(tmp_path / "empty.png").ndim == 3


def test_planes_are_to_scale_with_the_right_side_on_the_left() -> None:
    axial, coronal, sagittal = slices_figure(scene()).axes[:3]
    for axes, (width, height) in ((axial, (72, 52)), (coronal, (72, 80)), (sagittal, (52, 80))):
        assert axes.get_aspect() == 1.0  # a millimeter is as long across as down
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        assert right - left == pytest.approx(width, abs=7)  # of the body, found on every fourth voxel
        assert abs(top - bottom) == pytest.approx(height, abs=7)
        assert right > left
    assert axial.get_ylim()[0] > axial.get_ylim()[1]  # rows run to the back, downward
    assert coronal.get_ylim()[0] < coronal.get_ylim()[1]  # slices run to the head, upward


def test_the_planes_cut_the_tumor_first_and_the_truth_where_nothing_was_found() -> None:
    z, y, x = focus_point(scene())
    assert scene().prediction[z, y, x] == 2
    z, y, x = focus_point(scene(prediction=False))
    assert scene().truth[z, y, x] == 2
    assert focus_point(scene(prediction=False, truth=False)) == (8, 30, 45)


def test_the_details_run_from_the_top_down_over_what_is_marked() -> None:
    places = detail_slices(scene())
    assert places == sorted(places, reverse=True)
    assert (min(places), max(places)) == (3, 12)


def test_a_long_scan_is_cut_around_the_kidneys() -> None:
    short = scene(truth=False)
    hu, labels = (np.concatenate([array, *[array * 0] * 20]) for array in (short.hu, short.prediction))
    window = body_window(Scene("long", hu, labels, None, SPACING, {}))
    assert window[0] == slice(0, 84)  # 420 mm of 1680
    assert window[1].start <= 4
    assert window[1].stop >= 56


def test_a_sphere_keeps_its_size_and_place_as_a_surface() -> None:
    z, y, x = np.ogrid[:12, :60, :80]
    center = (5.5, 29.5, 39.5)
    mask = sum(((g - c) * s) ** 2 for g, c, s in zip((z, y, x), center, SPACING, strict=True)) < 20**2
    field = surface_field(mask, SPACING, GRID_MM)
    inside = np.argwhere(field >= 0.5)
    np.testing.assert_allclose((inside.mean(axis=0) + 0.5) * GRID_MM - EDGE_MM, (np.array(center) + 0.5) * SPACING, atol=0.5)
    assert len(inside) * GRID_MM**3 == pytest.approx(mask.sum() * np.prod(SPACING), rel=0.06)


def test_a_tumor_hides_the_kidney_only_from_its_own_side() -> None:
    kidney, tumor = np.zeros((40, 60, 40), np.float32), np.zeros((40, 60, 40), np.float32)
    kidney[5:35, 15:45, 5:35] = tumor[15:25, 5:14, 15:25] = 1  # the tumor lies in front
    front, back = (render({"kidney": kidney, "tumor": tumor}, behind=behind) for behind in (False, True))
    red_front, red_back = (picture[20, 20, 0] - picture[20, 20, 2] for picture in (front, back))
    assert red_front > 0.3
    assert red_back < 0.3 < front[20, 20, 0]
    assert (abs(front[0, 0] - back[0, 0]) < 1e-6).all()  # background


@pytest.mark.parametrize("truth", [True, False])
def test_the_surface_shows_prediction_and_truth_side_by_side(truth: bool, tmp_path: Path) -> None:
    figure = surface_figure(scene(truth=truth))
    assert len(figure.axes) == (4 if truth else 2)
    assert ("truth, from behind" in words(figure)) == truth
    save(figure, tmp_path / "surface.png")
    pixels = imread(tmp_path / "surface.png")[..., :3]
    assert ((pixels[..., 0] - pixels[..., 2]) > 0.3).sum() > 100  # red of the tumor
    assert ((pixels[..., 2] - pixels[..., 0]) > 0.3).sum() > 1000  # blue of the kidneys


def test_a_report_of_a_tree_is_one_page_and_with_png_pictures(kits_tree: Path, tmp_path: Path) -> None:
    truth = read_labels(kits_tree / "case_00000" / "segmentation.nii.gz", allowed=(0, 1, 2))
    write_labels(tmp_path / "predictions" / "case_00000.nii.gz", truth.array, truth.grid)
    jobs = find_files(kits_tree, tmp_path / "predictions", kits_tree, ["case_00000", "case_00001"], label_name=LABEL_NAME)
    page = write_report(jobs, tmp_path / "out", ids={0: 0, 1: 1, 2: 2}, workers=1)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["index.html"]
    assert '"composite":1.0' in page.read_text(encoding="utf-8")
    assert "no prediction" in page.read_text(encoding="utf-8")
    write_pictures(jobs, tmp_path / "pictures", ids={0: 0, 1: 1, 2: 2}, workers=1)
    written = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert written == ["case_00000_slices.png", "case_00000_surface.png"]


def test_a_report_of_one_file_needs_no_truth(kits_tree: Path, tmp_path: Path) -> None:
    volume = read_volume(kits_tree / "case_00001" / "imaging.nii.gz")
    write_volume(tmp_path / "scan.nii.gz", volume.array, volume.grid)
    write_labels(tmp_path / "labels.nii.gz", np.zeros(volume.array.shape, np.uint8), volume.grid)
    jobs = find_files(tmp_path / "scan.nii.gz", tmp_path / "labels.nii.gz", None, None, label_name=LABEL_NAME)
    assert jobs == [CaseFiles(Scan("scan", tmp_path / "scan.nii.gz"), tmp_path / "labels.nii.gz", None, tmp_path)]
    assert "nothing found" in write_report(jobs, tmp_path / "out", ids={0: 0, 1: 1, 2: 2}, workers=1).read_text(encoding="utf-8")


def test_whatever_was_segmented_is_drawn_and_what_was_not_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hu, labels = kidney_pair(0)
    write_series(tmp_path / "in" / "export" / "venous", hu)
    for name in ("b.nrrd", "c.nii", "d.mha"):
        sitk.WriteImage(sitk.GetImageFromArray(hu), tmp_path / "in" / name)
    for name, scan in find_inputs(tmp_path / "in").scans.items():
        if name in ("export_venous", "b"):
            write_labels(tmp_path / "out" / f"{name}.nii.gz", labels, scan.read().grid)
    (tmp_path / "out" / "report.json").write_text('{"cases": {}, "failed": {"c": {"error": "c.nii: too small; give it all"}}}')
    jobs = find_files(tmp_path / "in", tmp_path / "out", None, None, label_name=LABEL_NAME)
    assert [job.name for job in jobs] == ["b", "c", "export_venous"]
    assert "1 of 4 images have no prediction" in capsys.readouterr().out
    page = write_report(jobs, tmp_path / "page", ids={0: 0, 1: 1, 2: 2}, workers=1).read_text(encoding="utf-8")
    assert page.count('<script type="application/json" id="view-') == 2
    assert "c.nii: too small; give it all" in page
    named = find_files(tmp_path / "in", tmp_path / "out", None, ["b", "d"], label_name=LABEL_NAME)
    assert [(job.name, job.prediction is None) for job in named] == [("b", False), ("d", True)]


def test_what_cannot_be_found_is_named(kits_tree: Path, tmp_path: Path) -> None:
    with pytest.raises(KitsError, match=r"prediction=.*no such"):
        find_files(kits_tree, tmp_path / "absent", None, None, label_name=LABEL_NAME)
    with pytest.raises(KitsError, match=r"image=.*no such"):
        find_files(tmp_path / "absent", tmp_path, None, None, label_name=LABEL_NAME)
    with pytest.raises(KitsError, match=r"holds no label map, none of case_00000, case_00001"):
        find_files(kits_tree, tmp_path, None, None, label_name=LABEL_NAME)
    labels = kits_tree / "case_00000" / "segmentation.nii.gz"
    with pytest.raises(KitsError, match="one file for 4 images"):
        find_files(kits_tree, labels, None, None, label_name=LABEL_NAME)
    with pytest.raises(KitsError, match=r"truth=.*no label map"):
        find_files(kits_tree / "case_00000" / "imaging.nii.gz", labels, tmp_path, None, label_name=LABEL_NAME)


def test_a_prediction_of_another_size_is_refused(kits_tree: Path, tmp_path: Path) -> None:
    labels = read_labels(kits_tree / "case_00000" / "segmentation.nii.gz", allowed=(0, 1, 2))
    half = labels.array[:, ::2]
    write_labels(tmp_path / "half.nii.gz", half, replace(labels.grid, size=(20, 32, 64)))
    image, label = (kits_tree / "case_00000" / name for name in ("imaging.nii.gz", "segmentation.nii.gz"))
    jobs = [CaseFiles(Scan("odd", image), tmp_path / "half.nii.gz", None), CaseFiles(Scan("good", image), label, None)]
    with pytest.raises(KitsError, match=r"1 of 2 cases could not be drawn.*not one case; the page of the others is"):
        write_report(jobs, tmp_path / "out", ids={0: 0, 1: 1, 2: 2}, workers=1)
    with pytest.raises(KitsError, match=r"^1 of 1 cases could not be drawn.*; what is known of them is .*index\.html$"):
        write_report(jobs[:1], tmp_path / "alone", ids={0: 0, 1: 1, 2: 2}, workers=1)
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")  # the other case goes on
    assert "not one case" in page
    assert 'id="view-1"' in page


def cystic(prediction: bool) -> Scene:
    """A scene with a cyst at the kidney without a tumor, in the prediction or in the truth alone."""
    plain = scene()
    cysts = plain.prediction.copy()
    cysts[5:11, 8:20, 12:24] = 3
    return replace(plain, prediction=cysts) if prediction else replace(plain, truth=cysts)


def violet(pixels: np.ndarray) -> int:
    """Pixels with clearly less green than red and blue, as only a cyst's colors have."""
    return int((np.minimum(pixels[..., 0], pixels[..., 2]) - pixels[..., 1] > 0.1).sum())


@pytest.mark.parametrize("prediction", [True, False])
def test_a_cyst_has_its_own_color_legend_and_volume(prediction: bool, tmp_path: Path) -> None:
    shown = cystic(prediction)
    for draw in (slices_figure, surface_figure):
        figure = draw(shown)
        text = words(figure)
        assert f"cyst {np.count_nonzero(shown.prediction == 3) * 0.004:.1f} mL" in text
        assert f"kidney {np.count_nonzero(shown.prediction) * 0.004:.1f} mL" in text
        assert ("cyst, truth" in text) == (draw is slices_figure)
        save(figure, tmp_path / "cyst.png")
        save(draw(scene()), tmp_path / "plain.png")
        with_cyst, without = (violet(imread(tmp_path / f"{name}.png")) for name in ("cyst", "plain"))
        assert with_cyst > without + 100
    assert "cyst" not in words(slices_figure(scene()))


def test_the_outline_of_the_kidney_runs_around_its_cyst_and_the_tumor_is_no_cyst() -> None:
    shown = cystic(prediction=True)
    figure = Figure()
    axes = figure.add_subplot()
    draw_plane(axes, replace(shown, truth=None), 0, 8, body_window(shown))
    colors = {to_hex(contour.get_edgecolor()[0]): contour for contour in axes.collections if not contour.filled}
    assert set(colors) == {COLORS["kidney"], COLORS["cyst"]}, "no tumor in this slice"
    top = min(path.vertices[:, 1].min() for path in colors[COLORS["kidney"]].get_paths())
    assert top == pytest.approx(8.0, abs=1.0)  # where the cyst begins, 12 mm in front of the kidney


def test_an_opaque_cyst_shows_through_the_kidney_but_not_through_a_tumor() -> None:
    fields = {name: np.zeros((30, 60, 30), np.float32) for name in ("kidney", "tumor", "cyst")}
    fields["kidney"][3:27, 20:55, 3:27] = fields["cyst"][10:20, 40:50, 10:20] = fields["tumor"][10:20, 5:15, 10:20] = 1
    hidden, shown = (render(fields, behind=behind)[15, 15] for behind in (False, True))
    only = render({**fields, "tumor": fields["tumor"] * 0}, behind=True)[15, 15]
    np.testing.assert_allclose(shown, only)
    assert hidden[0] - hidden[2] > 0.3  # the tumor's red
    kidney = render({**fields, "cyst": fields["cyst"] * 0, "tumor": fields["tumor"] * 0}, behind=True)[15, 15]
    assert shown[0] - kidney[0] > 0.05  # violet through the kidney's blue
