"""Is a network that the recipe `finetune` trained better on the animals than the frozen one?

    python benchmarks/encoders/finetune.py RUN DATA OUT [ROWS]

RUN is the run folder, DATA is tiny_animals_32. The validation part searches the training part, by
the vectors of RUN and by those of `general` along its axes `labels`; and it is classified by linear
heads on each prefix: those of RUN, and logistic regression on the prefixes of `general`, both of
the pictures that trained RUN. Appends a record a prefix to OUT, with the pairs that one method
alone gets right. ROWS keeps the vectors of `general` for the next time.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from axes import parts, rows_of
from numpy.typing import NDArray

from mrl_search.axes import FITTED, VIEWED, fit_axes
from mrl_search.encoders.registry import load_encoder
from mrl_search.metrics import mcnemar_exact
from mrl_search.progress import silent
from mrl_search.provenance import maker
from mrl_search.training.config import DataConfig
from mrl_search.training.corpus_axes import Sample, changed_views
from mrl_search.training.parts import split_rows
from mrl_search.vectors import default_dims, l2_normalize

K, EVERYTHING = 20, 10**9
DECAY, STEPS = 1e-4, 100  # of the logistic regression


def frozen(data: str, cache: Path | None) -> dict[str, NDArray[Any]]:
    """Vectors of `general` for both parts, with labels and hashes, and changed views."""
    if cache and cache.is_file():
        with np.load(cache) as kept:
            return dict(kept)
    encoder = load_encoder("general")
    train, held_out = parts(data, EVERYTHING, EVERYTHING)
    rows, labels, hashes = rows_of(train, encoder)
    queries, truth, _ = rows_of(held_out, encoder)
    at, views = changed_views(encoder, train, range(VIEWED), silent)
    found = {
        "rows": rows.astype(np.float16), "labels": labels.astype(str),
        "hashes": hashes.astype(str), "q": queries.astype(np.float16), "ql": truth.astype(str),
        "at": at, "views": views.astype(np.float16),
    }  # fmt: skip
    if cache:
        np.savez(cache, **found)
    return found


def neighbours(
    corpus: NDArray[Any], labels: NDArray[Any], queries: NDArray[Any], truth: NDArray[Any]
) -> NDArray[np.bool_]:
    """Whether most of the 20 nearest of each query have its label."""
    names, numbers = np.unique(labels, return_inverse=True)
    right = []
    for i in range(0, len(queries), 256):
        scores = queries[i : i + 256] @ corpus.T
        near = numbers[np.argpartition(-scores, K, axis=1)[:, :K]]
        votes = np.stack([(near == c).sum(1) for c in range(len(names))], 1)
        right.append(names[votes.argmax(1)] == truth[i : i + 256])
    return np.concatenate(right)


def head(
    rows: NDArray[Any], labels: NDArray[Any], queries: NDArray[Any], truth: NDArray[Any]
) -> NDArray[np.bool_]:
    """Whether logistic regression on the rows gives each query its label."""
    names, numbers = np.unique(labels, return_inverse=True)
    spread = rows.std(0) + 1e-6 * rows.std()
    x, y = torch.from_numpy(rows / spread).float(), torch.from_numpy(numbers)
    weight = torch.zeros(len(names), x.shape[1], requires_grad=True)
    bias = torch.zeros(len(names), requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        value = F.cross_entropy(x @ weight.T + bias, y) + DECAY * weight.square().sum()
        value.backward()
        return value

    solver.step(loss)
    logits = torch.from_numpy(queries / spread).float() @ weight.T + bias
    return names[logits.argmax(1).numpy()] == truth


def main(run: str, data: str, out: Path, cache: Path | None = None) -> None:
    kept = frozen(data, cache)
    labels, truth = kept["labels"], kept["ql"]
    raw, asked, views = (kept[name].astype(np.float32) for name in ("rows", "q", "views"))
    dim = load_encoder("general").dims[-1]
    raw, asked, views = raw[:, :dim], asked[:, :dim], views[:, :, :dim]
    sample = Sample(raw[:FITTED], labels[:FITTED].astype(object), kept["at"], views)
    transform = fit_axes("labels", sample)
    before, before_asked = transform(raw), transform(asked)
    encoder = load_encoder(run)
    train, held_out = parts(data, EVERYTHING, EVERYTHING)
    after, after_labels, hashes = rows_of(train, encoder)
    after_asked, after_truth, _ = rows_of(held_out, encoder)
    same = (after_truth.astype(str) == truth).all() and (hashes.astype(str) == kept["hashes"]).all()
    if not same:
        sys.exit("The kept vectors are of other pictures: remove the file.")
    order = np.argsort([int(path.rpartition("/")[2]) for path in train.paths])
    config = DataConfig(**encoder.training["recipe"]["data"])
    positions, _ = split_rows(list(after_labels[order]), list(hashes[order]), config)
    trained = order[positions]
    about = {
        "fingerprint": encoder.fingerprint, "size": encoder.preprocessing.size,
        "recipe": encoder.training["recipe"], "train": len(after), "trained": len(trained),
        "n": len(truth), **maker(),
    }  # fmt: skip
    classes = np.array(encoder.heads.classes)
    for d in default_dims(encoder.dims[-1]):
        record: dict[str, Any] = {**about, "dims": d}
        own = neighbours(
            l2_normalize(after[:, :d]), labels, l2_normalize(after_asked[:, :d]), truth
        )
        theirs = neighbours(
            l2_normalize(before[:, :d]), labels, l2_normalize(before_asked[:, :d]), truth
        )
        weight, bias = encoder.heads.weights[d]
        own_head = classes[(after_asked[:, :d] @ weight.T + bias).argmax(1)] == truth
        theirs_head = head(before[trained, :d], labels[trained], before_asked[:, :d], truth)
        for key, a, b in (("nn20", own, theirs), ("head", own_head, theirs_head)):
            better, worse = int((a & ~b).sum()), int((b & ~a).sum())
            record[key] = {
                "finetuned": round(float(a.mean()), 5), "frozen": round(float(b.mean()), 5),
                "better": better, "worse": worse, "p": float(f"{mcnemar_exact(a, b):.2g}"),
            }  # fmt: skip
        with out.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(d, record["nn20"], record["head"], flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *map(Path, sys.argv[4:]))
