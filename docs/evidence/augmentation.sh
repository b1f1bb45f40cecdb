#!/usr/bin/env bash
# Table 3a on CIFAR-10: one base stage, three trainings of the super-resolution stage, each judged
# over s on the same 10,000 low-resolution images: docs/evidence.md.
#
#   bash docs/evidence/augmentation.sh train.zip test.zip [JUDGE]
#
# JUDGE: features, the classifier that is trained here (the default), or inception. Everything is
# written into the current directory; the same line typed again continues.
set -euo pipefail
judge=${3:-features}
cdm prepare "$1" --val "$2" -o data.h5 --resolution 16 --resolution 32
cdm train features --preset classifier --steps 3000
cdm train base --preset cifar-base16 --steps 3500
cdm sample base --num 10000 --keep-s 251,501,751,1251,2001,3501 -o lowres.h5
for seed in 0 1 2; do
  cdm train "sr-$seed" --preset cifar-sr16-32 --steps 2000 --seed "$seed"
  cdm sweep-s lowres.h5 --model "sr-$seed" --s 0,251,501,751,1251,2001,3501 --features "$judge" -o "sweep-$seed"
done
cdm sample base --num 10000 --restart-from 2000 -o renoised.h5
cdm eval fid,is renoised.h5 --features "$judge" --against lowres.h5 -o renoised.csv
