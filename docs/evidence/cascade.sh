#!/usr/bin/env bash
# A cascade 16 -> 32 of CIFAR-10, from image files to FID, and the search over s: docs/evidence.md.
#
#   bash docs/evidence/cascade.sh train.zip test.zip [JUDGE [SEED]]
#
# JUDGE: features, the classifier that is trained here (the default), or inception. SEED of both stages,
# 0 by default. Everything is written into the current directory; the same line typed again continues.
set -euo pipefail
judge=${3:-features}
seed=${4:-0}
cdm prepare "$1" --val "$2" -o data.h5 --resolution 16 --resolution 32
cdm train features --preset classifier --steps 3000
cdm train base --preset cifar-base16 --steps 12000 --seed "$seed"
cdm train sr --preset cifar-sr16-32 --steps 10000 --seed "$seed"
cdm sample base --num 50000 --keep-s 251,501,751,1001,1251,1501 -o lowres.h5
cdm sweep-s lowres.h5 --s 0,251,501,751,1001,1251,1501 --num 10000 --ground-truth --features "$judge"
cdm upsample lowres.h5 --s 1001 -o samples.h5
cdm eval fid,is,nn samples.h5 --features "$judge" -o cascade.csv
cdm eval accuracy samples.h5 --features features -o accuracy.csv
cdm grid lowres.h5 samples.h5 --per-class 16 -o pairs.png
