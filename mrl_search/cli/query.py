"""`mrl-search query`: find the pictures of an index that are most like one's own."""

from pathlib import Path
from typing import Annotated

import typer

from mrl_search.cli.options import Dims, IndexFolder, Json, K, PlanText, open_index, plan_of
from mrl_search.errors import DataError

__all__ = ["query"]


def query(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE…", help="Pictures to search with.")],
    index: IndexFolder = None,
    dims: Dims = None,
    plan: PlanText = None,
    k: K = 10,
    sheet: Annotated[Path | None, typer.Option("--sheet", metavar="PNG", help="Also save the pictures of the hits, side by side.")] = None,
    as_json: Json = False,
) -> None:
    """Find the pictures of an index that are most like IMAGE."""
    opened = open_index(index)
    chosen = plan_of(opened, dims, plan, k)
    from mrl_search.cli.render import json_line, note, show_skipped, show_table
    from mrl_search.models.encoder import load_encoder
    from mrl_search.workflow import search_images

    answers = search_images(opened, load_encoder(opened.manifest.model), images, chosen)
    labels, paths = opened.embeddings.labels, opened.embeddings.paths
    found = [[hit for hit in hits if hit.id >= 0][:k] for hits in answers.hits]
    for path, hits in zip(answers.paths, found, strict=True):
        if as_json:
            lines = [{"rank": h.rank, "id": h.id, "score": round(h.score, 6), "label": labels[h.id], "path": paths[h.id]} for h in hits]
            json_line({"image": path, "plan": str(chosen), "ms": round(answers.search_ms / len(found), 3), "hits": lines})
        else:
            rows = [(str(h.rank), f"{h.score:.4f}", labels[h.id] or "", paths[h.id]) for h in hits]
            show_table(("rank", "score", "label", "path"), rows, f"{path}  ·  plan {chosen}")
    if sheet and found:
        from mrl_search.sheet import Row, Tile, save_sheet

        tiles = [
            Row(
                Path(path).name,
                [Tile(path, "query", "query"), *(Tile(paths[h.id], f"{h.rank}  {h.score:.2f}  {labels[h.id] or ''}") for h in hits)],
            )
            for path, hits in zip(answers.paths, found, strict=True)
        ]
        save_sheet(tiles, sheet, f"{opened.folder.name}, plan {chosen}")
    if found and not as_json:
        embedding, searching = answers.embed_ms / len(found), answers.search_ms / len(found)
        note(f"{len(opened):,} pictures in {opened.folder}; embedded in {embedding:.0f} ms, searched in {searching:.1f} ms")
    if sheet and found:
        note(f"pictures of the hits: {sheet}")
    show_skipped(answers.skipped)
    if not found:
        raise DataError("None of the images could be read.", "Name pictures in JPEG, PNG, WebP, GIF, BMP or TIFF.")
