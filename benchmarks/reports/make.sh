#!/usr/bin/env bash
# Measures and reports both data sets, from the root of a clone:  benchmarks/reports/make.sh PHOTOGRAPHS ANIMALS
# PHOTOGRAPHS is the data set of 22,998 cats and dogs, ANIMALS that of 59 classes; both are embedded by the bundled model.
# Everything that was begun is gone on with: indexes in indexes/, records in benchmarks/reports/.
set -euo pipefail
photographs=$1 animals=$2
here=benchmarks/reports

for name in photographs animals; do
  [ -d "indexes/$name" ] || mrl-search build-index "${!name}" --out "indexes/$name"
  mrl-search bench "indexes/$name" --instance --out "$here/$name.jsonl"
  mrl-search report "$here/$name.jsonl" --out "$here/$name"
done
python $here/readme.py
