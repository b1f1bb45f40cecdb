#!/usr/bin/env bash
# Sections 4.2 and 4.3 on CIFAR-10: the base stage with and without dropout, and with and without
# mirrored images, two trainings of each, and the FID of their checkpoints: docs/evidence.md.
#
#   bash docs/evidence/dropout_flips.sh train.zip test.zip [JUDGE]
#
# JUDGE: features, the classifier that is trained here (the default), or inception. Everything is
# written into the current directory; the same line typed again continues.
set -euo pipefail
judge=${3:-features}
cdm prepare "$1" --val "$2" -o data.h5 --resolution 16
cdm train features --preset classifier --steps 3000
for seed in 0 1; do
  cdm train "both-$seed" --preset cifar-base16 --steps 3000 --seed "$seed" --set training.keep=3
  cdm train "no-dropout-$seed" --preset cifar-base16 --steps 3000 --seed "$seed" --set training.keep=3 --set model.dropout=0
  cdm train "no-flips-$seed" --preset cifar-base16 --steps 3000 --seed "$seed" --set training.keep=3 --no-flip
  cdm train "neither-$seed" --preset cifar-base16 --steps 3000 --seed "$seed" --set training.keep=3 --set model.dropout=0 --no-flip
  cdm sample "both-$seed" --num 10000 -o "both-$seed.h5"
  for arm in no-dropout no-flips neither; do
    cdm sample "$arm-$seed" --num 10000 -o "$arm-$seed.h5"
    cdm eval fid,is "$arm-$seed.h5" --features "$judge" --against "both-$seed.h5" -o "$arm-$seed.csv"
  done
  for arm in both no-dropout no-flips neither; do
    cdm eval checkpoints "$arm-$seed" --num 2000 --features "$judge" -o "curve-$arm-$seed"
  done
done
