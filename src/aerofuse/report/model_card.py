"""The page that goes with a model: what it is for, what it was trained on, how good it is, how it is loaded."""

from __future__ import annotations

from collections.abc import Mapping

from aerofuse.common.markdown import markdown_table
from aerofuse.data.photo import Fit
from aerofuse.inference.package import PackageRecord
from aerofuse.models.files import ModelRecord
from aerofuse.plotting.wording import METRICS, write_list, write_value

# The source of photos in params.yaml: what a reader should know of it.
DATA = {
    "synthetic": "Trained and tested on aircraft that Aerofuse draws itself, in the liveries of invented airlines. On "
    "photos of real aircraft its answers mean nothing.",
    "table": "Trained and tested on photos and labels of the user's own, split so that no airframe and no picture is "
    "on two sides.",
    "fgvc": "Trained and tested on FGVC-Aircraft (Maji and others, 2013, arXiv 1306.5151) in its official splits, the "
    "line at the bottom of its photos cut off (`--banner-px 20`). Its photos may be used for research only.",
}


FITTED: Mapping[Fit, str] = {
    "letterbox": "Photos are scaled as a whole into",
    "crop": "The square in the middle of a photo is scaled to",
    "stretch": "Photos are stretched to",
}


def model_card(record: ModelRecord, package: PackageRecord, source: str) -> str:
    """Return a Markdown page; `source` names the source of the photos, as `data.source` does."""
    architecture = record.architecture
    backbones = " and ".join(name for name in (architecture.cnn, architecture.transformer) if name)
    joined = f", joined by `{architecture.fusion_method}`" if architecture.fusion_method else ""
    side = record.image_size_px
    versions = ", ".join(f"{name} {version}" for name, version in package.versions.items())
    return f"""# Aerofuse: {backbones}

One photo of an aircraft in; out come {_written(architecture.tasks)}.
Features of {backbones}{joined}. Best checkpoint of `{record.stage}`, epoch {record.epoch}. Made with {versions}.

## Use

```
aerofuse predict --model . photo.jpg
```

```python
import aerofuse

prediction = aerofuse.load(".").predict("photo.jpg")
```

Meant for photos with one aircraft in view. It answers for every photo, also for one without an aircraft, and knows
nothing but what is listed below: look at the confidence, and at `unfamiliar`. Not to be used where safety depends on
it.

## Data

{DATA[source]}

{_classes(record)}

{FITTED[record.fit]} {side} x {side} pixels; `model.json` has the preprocessing as values.

## Measured on the test split

{_metrics(package)}

## Calibration

Confidences are scaled by a temperature per head, fitted on the validation split (arXiv 1706.04599). The expected
calibration error is the mean distance between the confidence and the share that is right, on the test split.

{_calibration(record, package)}

## Limits

- Photos unlike those it was trained on (other kinds of pictures, other angles) are answered as surely as others:
  the calibration holds for photos like those of the test split. `unfamiliar` is true for many such photos, but not for
  all, and for about 5 % of photos like those of the validation split.
- `clarity` and `block` are estimates on the scale of the labels that were trained on.

## Licence

{package.licence}.
"""


def _written(tasks: tuple[str, ...]) -> str:
    words = {
        "type": "its **type**",
        "airline": "its **airline**",
        "clarity": "how sharp the photo is (**clarity**, 0 to 1)",
        "block": "how much of the aircraft is hidden (**block**, 0 to 1)",
    }
    return write_list([words[task] for task in tasks])


def _classes(record: ModelRecord) -> str:
    named = record.classes.by_task.items()
    tasks = record.architecture.tasks
    return "\n\n".join(f"{len(names)} {task}s: {', '.join(names)}." for task, names in named if task in tasks)


def _metrics(package: PackageRecord) -> str:
    rows = [
        [name, write_value(package.test[metric], unit), f"{package.test[metric.partition('_')[0] + '_labelled']:.0f}"]
        for metric, (name, unit) in METRICS.items()
        if metric in package.test
    ]
    return markdown_table(["metric", "value", "labelled images"], rows, "lrr")


def _calibration(record: ModelRecord, package: PackageRecord) -> str:
    rows = [
        [
            task,
            f"{record.temperatures[task]:.3f}",
            *(write_value(package.test.get(f"{task}_ece{suffix}"), "%") for suffix in ("_uncalibrated", "")),
        ]
        for task in record.calibrated_tasks
    ]
    return markdown_table(["head", "temperature", "error before", "error after"], rows, "lrrr")
