#!/usr/bin/env bash
# Measure and report both data sets, from the root of a clone:
#   benchmarks/reports/make.sh PHOTOGRAPHS ANIMALS
# PHOTOGRAPHS has 22,998 cats and dogs; the bundled model embeds them. ANIMALS has 59 classes; a model
# that is trained on them here, in runs/animals, embeds them. An interrupted run continues.
# The committed records leave out `ladder` and `mislabels`, which hold small copies of the pictures.
set -euo pipefail
photographs=$1 animals=$2
here=benchmarks/reports

[ -f runs/animals/model.json ] || mrl-search train "$animals" --recipe tiny-animals --out runs/animals
for name in photographs animals; do
  model=bundled
  [ $name = photographs ] || model=runs/animals
  [ -d "indexes/$name" ] || mrl-search build-index "${!name}" --model $model --out "indexes/$name"
  mrl-search tune "indexes/$name"
  mrl-search bench "indexes/$name" --queries "${!name}" --split validation --instance \
    --out "indexes/$name.jsonl"
  mrl-search report "indexes/$name.jsonl" --out "indexes/$name-report"
  parent=$(cd "$(dirname "${!name}")" && pwd)  # paths on this machine stay out of the records
  grep -vE '"kind":"(ladder|mislabels)"' "indexes/$name.jsonl" | sed "s#$parent/##g" > "$here/$name.jsonl"
done
python $here/readme.py
