from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from aerofuse.backbones import weights
from aerofuse.backbones.backbone import THIN_BACKBONES, create_backbone
from aerofuse.backbones.weights import BUNDLED_FOLDER, BackboneParams, WeightParams, prepare_weights
from aerofuse.common.files import load_weights, save_weights

THIN = BackboneParams(cnn="convnext_thin", transformer="swin_thin", drop_path=0.0)


def test_bundled_weights_are_those_of_the_repository(tmp_path: Path) -> None:
    records = prepare_weights(THIN, WeightParams(source="bundled"), 96, tmp_path)
    for branch, name in (("cnn", "convnext_thin"), ("transformer", "swin_thin")):
        written = load_weights(tmp_path / f"{branch}.safetensors")
        bundled = load_weights(BUNDLED_FOLDER / f"{name}.safetensors")
        assert written.keys() == bundled.keys()
        for key, value in written.items():
            assert torch.equal(value, bundled[key].to(value.dtype))
        create_backbone(name, image_size_px=96).model.load_state_dict(written, strict=True)
        assert json.loads((tmp_path / "record.json").read_text())[branch]["sha256"] == records[branch].sha256  # type: ignore[index]


def test_bundled_weights_are_small() -> None:
    for name in THIN_BACKBONES:
        assert (BUNDLED_FOLDER / f"{name}.safetensors").stat().st_size <= 5_000_000


def test_backbones_without_bundled_weights_are_named(tmp_path: Path) -> None:
    backbones = BackboneParams(cnn="convnext_atto", transformer="swin_thin", drop_path=0.0)
    message = r"'convnext_atto'.*bundled are convnext_thin, swin_thin.*package, hub or file"
    with pytest.raises(FileNotFoundError, match=message):
        prepare_weights(backbones, WeightParams(source="bundled"), 96, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_changed_bundled_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in BUNDLED_FOLDER.glob("*_thin.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    damaged = tmp_path / "swin_thin.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    monkeypatch.setattr(weights, "BUNDLED_FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"swin_thin\.safetensors is damaged.*git checkout"):
        prepare_weights(THIN, WeightParams(source="bundled"), 96, tmp_path / "out")


def _file_params(tmp_path: Path) -> WeightParams:
    for branch, name in (("cnn", "convnext_thin"), ("transformer", "swin_thin")):
        save_weights(tmp_path / f"{branch}.st", create_backbone(name, image_size_px=96).model.state_dict())
    return WeightParams(
        source="file", cnn_file=str(tmp_path / "cnn.st"), transformer_file=str(tmp_path / "transformer.st")
    )


def test_weights_from_files(tmp_path: Path) -> None:
    params = _file_params(tmp_path)
    prepare_weights(THIN, params, 96, tmp_path / "out")
    assert (tmp_path / "out" / "cnn.safetensors").read_bytes() == (tmp_path / "cnn.st").read_bytes()


def test_the_backbones_may_have_different_sources(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"source `file` needs transformer_file: paths"):
        WeightParams(source="bundled", transformer_source="file")
    with pytest.raises(ValueError, match="allow_random"):
        WeightParams(source="bundled", cnn_source="none")
    params = WeightParams(source="none", cnn_source="bundled", allow_random=True)
    records = prepare_weights(THIN, params, 96, tmp_path)
    assert {branch: record.source for branch, record in records.items()} == {"cnn": "bundled", "transformer": "none"}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    params = _file_params(tmp_path)
    (tmp_path / "transformer.st").unlink()
    with pytest.raises(FileNotFoundError, match=r"transformer\.st"):
        prepare_weights(THIN, params, 96, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    params = _file_params(tmp_path)
    path = tmp_path / "cnn.st"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"cnn\.st \(5000 bytes\) is not a whole safetensors file"):
        prepare_weights(THIN, params, 96, tmp_path / "out")


def test_a_file_of_another_backbone_is_refused_with_the_differences(tmp_path: Path) -> None:
    params = _file_params(tmp_path)
    (tmp_path / "cnn.st").write_bytes((tmp_path / "transformer.st").read_bytes())
    with pytest.raises(ValueError, match=r"(?s)cnn\.st .*does not fit ConvNeXt.*missing: .*unexpected: "):
        prepare_weights(THIN, params, 96, tmp_path / "out")


def test_without_network_the_hub_says_how_to_use_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    backbones = BackboneParams(cnn="convnext_small", transformer="swin_small_patch4_window7_224", drop_path=0.0)
    with pytest.raises(ConnectionError, match=r"(?s)timm/convnext_small.*weights\.source to file"):
        prepare_weights(backbones, WeightParams(source="hub"), 224, tmp_path)


def test_the_hub_has_no_weights_for_the_thin_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no weights on the hub for 'convnext_thin'"):
        prepare_weights(THIN, WeightParams(source="hub"), 96, tmp_path)


def test_random_weights_only_when_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow_random"):
        WeightParams(source="none")
    records = prepare_weights(THIN, WeightParams(source="none", allow_random=True), 96, tmp_path)
    assert records["cnn"].location == "random initialisation"
