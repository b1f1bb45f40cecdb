#!/usr/bin/env bash
# Table 1b and Figures 5, 9, 10 on CIFAR-10: a classifier trained on as many samples of a cascade as there
# are real images, beside one trained on the real ones, class by class: docs/evidence.md.
#
#   bash docs/evidence/cas.sh train.zip test.zip [JUDGE]
#
# JUDGE of FID and IS: features, the classifier that is trained here (the default), or inception.
# Everything is written into the current directory; the same line typed again continues.
set -euo pipefail
judge=${3:-features}
cdm prepare "$1" --val "$2" -o data.h5 --resolution 16 --resolution 32
cdm train features --preset classifier --steps 3000
cdm train base --preset cifar-base16 --steps 9000
cdm train sr --preset cifar-sr16-32 --steps 8000
cdm sample base --like data.h5 -o lowres.h5
cdm upsample lowres.h5 --model sr --s 501 -o samples.h5
cdm eval fid,is samples.h5 --features "$judge" -o samples.csv
cdm eval accuracy samples.h5 --features features -o accuracy.csv
cdm eval cas samples.h5 --net resnet18 --epochs 60 -o cas
cdm report cas -o cas.html
