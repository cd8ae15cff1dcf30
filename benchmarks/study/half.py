"""Write the pictures that train the first fold of `significance`, on which its rates are chosen.

python benchmarks/study/half.py ../shared/data/cats_vs_dogs runs/study/half.parquet
"""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mrl_search.images.decode import content_hash
from mrl_search.images.sources import open_source
from mrl_search.training.config import DataConfig
from mrl_search.training.split import split_rows

source, out = open_source(sys.argv[1]), Path(sys.argv[2])
pictures = [source.read(row) for row in range(len(source.paths))]
hashes = [content_hash(picture) for picture in pictures]
rows, _ = split_rows(source.labels, hashes, DataConfig(validation=0.5, split_seed=0))
out.parent.mkdir(parents=True, exist_ok=True)
images = [{"bytes": pictures[row], "path": source.paths[row]} for row in rows]
pq.write_table(pa.table({"image": images, "label": [source.labels[row] for row in rows]}), out)
