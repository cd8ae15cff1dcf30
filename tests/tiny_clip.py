"""A tiny model of open_clip with random weights, registered for a test and saved as a file."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mrl_search.encoders.weights import import_library

NAME = "tiny-clip"
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16,
    },
    "text_cfg": {
        "context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1,
    },
}  # fmt: skip


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Registers the model `tiny-clip`, and gives a file with its weights."""
    library: Any = import_library("open_clip", "models")
    folder = tmp_path_factory.mktemp("clip")
    (folder / f"{NAME}.json").write_text(json.dumps(CONFIG))
    paths, configs = library.factory._MODEL_CONFIG_PATHS, library.factory._MODEL_CONFIGS
    before = list(paths)
    library.add_model_config(folder / f"{NAME}.json")
    torch.manual_seed(3)
    joint = library.create_model(NAME)
    with torch.no_grad():
        joint.logit_scale.fill_(3.0)
    torch.save(joint.state_dict(), folder / "weights.pt")
    yield folder / "weights.pt"
    paths[:] = before
    library.factory._MODEL_CONFIGS = configs
