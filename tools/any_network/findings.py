"""What was found of each network, as rows of a CSV file that a sweep continues."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path

TABLE = Path("reports/any_network.csv")


class Served(StrEnum):
    """How a network is served, best first."""

    EXACT = "exact"
    UNITS_ONLY = "exact, by units only"
    NOT_PLANNED = "exact, not planned"
    NOT_EXACT = "not exact"
    FAILED = "fails"
    NOT_BUILT = "cannot be tried"


@dataclass(frozen=True)
class Finding:
    """One network: see `docs/checkpointing.md`. What is empty does not apply.

    `reason` says what is missing to the best, `differs` which tensors differ under which policy. Bytes are those of
    activations at their peak. `plan_` is the plan at the peak of the library's own switch; ratios are to a step
    without checkpointing, and `time_error` is the standard error of the difference of the two that were measured.
    """

    library: str
    name: str
    file: str
    served: str
    reason: str = ""
    differs: str = ""
    switch_differs: str = ""
    chains: int | str = ""
    units: int | str = ""
    longest: int | str = ""
    parameters: int | str = ""
    image_px: int | str = ""
    baseline_bytes: int | str = ""
    switch_bytes: int | str = ""
    least_bytes: int | str = ""
    plan_bytes: int | str = ""
    timed_px: int | str = ""
    plan_time_predicted: float | str = ""
    plan_time: float | str = ""
    switch_time: float | str = ""
    time_error: float | str = ""
    seconds: float | str = ""


def read_findings(path: Path) -> list[Finding]:
    """Return what a table holds, nothing where it is not there. The last row of a network is the one that counts."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        findings = {(row["library"], row["name"]): Finding(**row) for row in csv.DictReader(file)}
    return list(findings.values())


def append_finding(path: Path, finding: Finding) -> None:
    """Write a row at the end of a table, or the first one with the names of the columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.is_file()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Finding)], lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(asdict(finding))


def write_findings(path: Path, findings: Iterable[Finding]) -> None:
    """Write a table anew, each network once, in the order of libraries and names."""
    path.unlink(missing_ok=True)
    for finding in sorted(findings, key=lambda one: (one.library != "timm", one.library, one.name)):
        append_finding(path, finding)
