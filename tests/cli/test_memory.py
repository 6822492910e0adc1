from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from aerofuse.backbones.backbone import create_backbone
from aerofuse.checkpointing.plan import CheckpointingPlan
from aerofuse.cli.main import main

SMALL = ["--image-size", "64", "--batch-size", "4"]


def test_does_it_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["memory", "convnext_atto", *SMALL, "--gpu-memory", "2GiB", "--show-plan"]) == 0
    printed = capsys.readouterr().out
    assert "no checkpointing" in printed
    assert "least memory" in printed
    assert "It fits into 2.00 GiB without checkpointing" in printed
    assert re.search(r"stages\.2\.blocks\.0 +save all", printed)


def test_a_network_that_takes_no_drop_path(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="takes no drop_path"):
        create_backbone("dla46_c", drop_path=0.1)
    assert main(["memory", "dla46_c", *SMALL]) == 0
    assert "least memory" in capsys.readouterr().out


def test_it_fits_with_a_plan(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shape = ["convnext_atto", "--image-size", "128", "--batch-size", "16"]
    assert main(["memory", *shape]) == 0
    peaks = [float(number) for number in re.findall(r"(\d+(?:\.\d+)?) MiB", capsys.readouterr().out)]
    assert peaks[0] == max(peaks)
    between = f"{(peaks[0] + peaks[-1]) / 2:.0f}MiB"
    picture, saved = tmp_path / "plan.png", tmp_path / "plan.json"
    assert main(["memory", *shape, "--gpu-memory", between, "--picture", str(picture), "--save-plan", str(saved)]) == 0
    assert "with a plan: peak" in capsys.readouterr().out
    with Image.open(picture) as image:
        assert image.format == "PNG"
    assert CheckpointingPlan.load(saved).scope.input_shape == (16, 3, 128, 128)


@pytest.mark.slow
def test_a_hybrid_that_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    models = ["convnext_thin", "swin_thin", "--image-size", "96", "--batch-size", "4"]
    assert main(["memory", *models, "--gpu-memory", "1MB"]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "convnext_thin + swin_thin, 4 x 3 x 96 x 96, float32, AdamW" in printed
    assert "It does not fit into 977 KiB; no batch would" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convnext_bsae"], "unknown backbone 'convnext_bsae'; near names: convnext_base"),
        (["convnext_atto", "swin3d_t"], "swin3d_t takes clips"),
        (["convnext_atto", "vit_tiny_patch16_224", "resnet18"], "3 backbones are given"),
        (["convnext_atto", "--batch-size", "0"], "must be at least 1"),
        (["convnext_atto", "--picture", "plan.png"], "name it with --gpu-memory"),
        (["convnext_atto", "--save-plan", "plan.json"], "name it with --gpu-memory"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["memory", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("aerofuse: ")
    assert message in error
    assert error.count("\n") == 1


def test_a_size_without_a_unit(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["memory", "convnext_atto", "--gpu-memory", "20"])
    assert "--gpu-memory" in capsys.readouterr().err
