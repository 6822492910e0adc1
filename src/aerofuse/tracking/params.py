"""The `tracking` section: whether and how runs are logged to MLflow."""

from __future__ import annotations

from pydantic import Field

from aerofuse.common.section import Section


class TrackingParams(Section):
    """MLflow; where to is `MLFLOW_TRACKING_URI`, or a local SQLite store where that is not set."""

    enabled: bool
    experiment: str = Field(min_length=1)
    system_metrics: bool = Field(description="log CPU, GPU and memory use of the machine while training")
