"""The page behind `dvc plots show`, with the drawing library inside it, so that it works offline.

DVC's own page loads vega from a content network and is blank without one. `python -m
tools.dvc_plots_page` writes a template that needs nothing from outside, and tells DVC of it in
`.dvc/config.local`: that file is not committed, so a clone without the template keeps DVC's own page.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import vl_convert

# Below `.dvc`, from where DVC resolves the path. 0.9 MB and made from an installed package: not committed.
TEMPLATE = Path("plots/offline.html")

# DVC's plots call `vegaEmbed`; the bundle alone would keep it to itself.
_GLOBALS = "window.vegaEmbed = vegaEmbed; window.vega = vega; window.vegaLite = vegaLite;"

# DVC fills in `refresh_tag` and `plot_divs`; without `scripts` its own script tags are left out.
_PAGE = """<!DOCTYPE html>
<html>
<head>
    <meta charset="utf-8">
    {refresh_tag}
    <title>Aerofuse: DVC plots</title>
    <script>
    (() => {
    VEGA
    })();
    </script>
    <style>
        body { font-family: sans-serif; }
        table { border-spacing: 15px; }
    </style>
</head>
<body>
    {plot_divs}
</body>
</html>
"""


def offline_template() -> str:
    """Return the page as HTML with DVC's placeholders; `vegaEmbed`, which DVC's plots call, is defined inside."""
    # DVC writes its plots for Vega-Lite 5; the report's charts are of a newer one.
    versions = [version for version in vl_convert.get_vegalite_versions() if version.startswith("5.")]
    newest = max(versions, key=lambda version: tuple(map(int, version.split("."))))
    bundle = str(vl_convert.javascript_bundle(_GLOBALS, vl_version=newest))
    return _PAGE.replace("VEGA", bundle.replace("</script", "<\\/script"))


def install_offline_template(repo: Path) -> Path:
    """Write the template into the DVC repository `repo` and set it there; return where it is.

    Raises `FileNotFoundError` where `repo` has no `.dvc` folder.
    """
    if not (repo / ".dvc").is_dir():
        raise FileNotFoundError(f"{repo} is no DVC repository: it has no folder .dvc")
    path = repo / ".dvc" / TEMPLATE
    path.parent.mkdir(exist_ok=True)
    path.write_text(offline_template(), encoding="utf-8")
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "config", "--local", "plots.html_template", TEMPLATE.as_posix()], cwd=repo, check=True)
    return path


if __name__ == "__main__":
    install_offline_template(Path.cwd())
