"""The library that draws interactive charts, as one script that a page can hold: nothing is loaded from outside."""

from __future__ import annotations

from functools import cache


@cache
def vega_lite_version(major: int) -> str:
    """The newest Vega-Lite of a major version."""
    import vl_convert

    versions = [tuple(map(int, version.split("."))) for version in vl_convert.get_vegalite_versions()]
    newest = max(version for version in versions if version[0] == major)
    return ".".join(map(str, newest))


@cache
def vega_bundle(major: int, script: str) -> str:
    """Vega, the newest Vega-Lite of a major version and vega-embed, then `script`, as the inside of a script tag.

    `script` may use `vega`, `vegaLite` and `vegaEmbed`; the page sees of them what it hands out itself.
    """
    import vl_convert

    bundle = vl_convert.javascript_bundle(script, vl_version=vega_lite_version(major))
    return str(bundle).replace("</script", "<\\/script")
