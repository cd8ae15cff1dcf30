#!/usr/bin/env bash
# Measures and reports both data sets, from the root of a clone:  benchmarks/reports/make.sh PHOTOGRAPHS ANIMALS
# PHOTOGRAPHS is the data set of 22,998 cats and dogs, embedded by the bundled model; ANIMALS that of 59 classes, embedded by a model that
# is trained on it here, in runs/animals. Everything that was begun is gone on with; whole records stay in indexes/.
# What is written to benchmarks/reports/ leaves out the records that hold small copies of the pictures: those are for research use.
set -euo pipefail
photographs=$1 animals=$2
here=benchmarks/reports

[ -f runs/animals/model.json ] || mrl-search train "$animals" --recipe tiny-animals --out runs/animals
for name in photographs animals; do
  model=bundled
  [ $name = photographs ] || model=runs/animals
  [ -d "indexes/$name" ] || mrl-search build-index "${!name}" --model $model --out "indexes/$name"
  mrl-search tune "indexes/$name"
  mrl-search bench "indexes/$name" --instance --out "indexes/$name.jsonl"
  lies=$(cd "$(dirname "${!name}")" && pwd)  # nobody needs to know where
  grep -vE '"kind":"(ladder|mislabels)"' "indexes/$name.jsonl" | sed "s#$lies/##g" > "$here/$name.jsonl"
  mrl-search report "$here/$name.jsonl" --out "$here/$name"
done
python $here/readme.py
