"""What an index folder may hold: what its generations name, whole, and nothing else."""

from pathlib import Path

from mrl_search.store.intact import check_file, verify
from mrl_search.store.manifest import (
    MANIFEST,
    Manifest,
    generation_file,
    kept_generations,
    read_manifest,
)
from mrl_search.synced import WALKED


def check_folder(folder: Path) -> Manifest:
    """Check every file of every generation, and that there are no other files; the newest."""
    newest = verify(folder)
    named = {folder / MANIFEST, *folder.glob(WALKED)}
    manifests = [read_manifest(folder, number) for number in kept_generations(folder)]
    if newest.format == 1:
        manifests.append(newest)
    for manifest in manifests:
        for name in manifest.files:
            named.add(check_file(folder, manifest, name, thorough=True))
    named |= {generation_file(folder, number) for number in kept_generations(folder)}
    there = {path for path in folder.rglob("*") if not path.is_dir()}
    assert not there - named, f"orphans: {sorted(there - named)}"
    assert not named - there, f"missing: {sorted(named - there)}"
    assert all(any(path.iterdir()) for path in folder.glob("parts/*")), "an empty part"
    return newest
