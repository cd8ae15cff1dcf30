"""`mrl-search export-model`: write a model as ONNX, so that queries need no torch."""

from pathlib import Path
from typing import Annotated

import typer

from mrl_search.cli.options import Offline, Yes, access_of, argument, option
from mrl_search.cli.render import note
from mrl_search.files import expanded, refuse_existing

__all__ = ["export_model"]

MODEL_HELP = "bundled, general, a run folder, timm:NAME or torchvision:NAME."
OUT_HELP = "New file. Default: the place where query finds it, in the cache of the user."


def export_model(
    model: Annotated[str, argument("MODEL", MODEL_HELP)],
    out: Annotated[Path | None, option("--out FILE.onnx", OUT_HELP)] = None,
    offline: Offline = False,
    yes: Yes = False,
) -> None:
    """Write MODEL as ONNX, so that queries need no torch.

    The vectors are compared with those of torch first. The file also opens as --model onnx:FILE.
    """
    from mrl_search.encoders.export import export_encoder
    from mrl_search.encoders.registry import load_encoder

    if out:
        out = expanded(out).resolve()
        refuse_existing(out)
    made = export_encoder(load_encoder(model, access_of("cpu", offline, yes)), out)
    note(
        f"opset {made.opset}, {made.nbytes / 1e6:,.1f} MB; values up to {made.largest:.2g} differ"
        f" from torch's by at most {made.difference:.1e}"
    )
    typer.echo(made.file)
    if not out:
        note("query now uses it for every index of this model")
