#!/usr/bin/env bash
# Tables 4a and 4b on CIFAR-10: the super-resolution stage with blur of several widths, and the same without
# labels, with small batches, without mirrored images, one change at a time, two trainings of each:
# docs/evidence.md.
#
#   bash docs/evidence/ablations.sh train.zip test.zip [JUDGE]
#
# JUDGE: features, the classifier that is trained here (the default), or inception. Everything is
# written into the current directory; the same line typed again continues.
set -euo pipefail
judge=${3:-features}
cdm prepare "$1" --val "$2" -o data.h5 --resolution 16 --resolution 32
cdm train features --preset classifier --steps 3000
cdm train base --preset cifar-base16 --steps 3000
cdm sample base --num 5000 -o lowres.h5
for seed in 0 1; do
  cdm train "blur-$seed" --preset cifar-sr16-32 --steps 800 --seed "$seed" --set conditioning.gaussian=false --set conditioning.blur=true
  cdm train "sharp-$seed" --preset cifar-sr16-32 --steps 800 --seed "$seed" --set conditioning.gaussian=false
  cdm train "wider-$seed" --preset cifar-sr16-32 --steps 800 --seed "$seed" --set conditioning.gaussian=false --set conditioning.blur=true --set conditioning.blur_sigma=0.4,0.8
  cdm train "widest-$seed" --preset cifar-sr16-32 --steps 800 --seed "$seed" --set conditioning.gaussian=false --set conditioning.blur=true --set conditioning.blur_sigma=0.4,1.0
  cdm train "no-labels-$seed" --preset cifar-sr16-32 --steps 800 --seed "$seed" --set conditioning.gaussian=false --set conditioning.blur=true --set model.num_classes=0
  cdm train "small-batch-$seed" --preset cifar-sr16-32 --steps 800 --seed "$seed" --set conditioning.gaussian=false --set conditioning.blur=true --batch-size 128
  cdm train "no-flips-$seed" --preset cifar-sr16-32 --steps 800 --seed "$seed" --set conditioning.gaussian=false --set conditioning.blur=true --no-flip
  for arm in blur sharp wider widest no-labels small-batch no-flips; do
    cdm upsample lowres.h5 --model "$arm-$seed" -o "$arm-$seed.h5"
  done
  cdm eval fid,is "sharp-$seed.h5" "wider-$seed.h5" "widest-$seed.h5" "no-labels-$seed.h5" "small-batch-$seed.h5" "no-flips-$seed.h5" --features "$judge" --against "blur-$seed.h5" -o "arms-$seed.csv"
done
