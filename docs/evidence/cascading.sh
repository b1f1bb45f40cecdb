#!/usr/bin/env bash
# Table 2b on CIFAR-10: a model of 32x32 images without a cascade, and cascades 16 -> 32 of the same
# training cost without conditioning augmentation, trained for one small s, for one large s, and for
# every s, of which a search takes one. Two trainings of each: docs/evidence.md.
#
#   bash docs/evidence/cascading.sh train.zip test.zip [JUDGE]
#
# JUDGE: features, the classifier that is trained here (the default), or inception. Everything is
# written into the current directory; the same line typed again continues.
set -euo pipefail
judge=${3:-features}
cdm prepare "$1" --val "$2" -o data.h5 --resolution 16 --resolution 32
cdm train features --preset classifier --steps 3000
for seed in 0 1; do
  cdm train "base16-$seed" --preset cifar-base16 --steps 2000 --seed "$seed"
  cdm train "sr-none-$seed" --preset cifar-sr16-32 --steps 1000 --seed "$seed" --set conditioning.gaussian=false
  cdm train "sr-s101-$seed" --preset cifar-sr16-32 --steps 1000 --seed "$seed" --set conditioning.s_min=101 --set conditioning.s_max=101
  cdm train "sr-s1001-$seed" --preset cifar-sr16-32 --steps 1000 --seed "$seed" --set conditioning.s_min=1001 --set conditioning.s_max=1001
  cdm train "sr-any-$seed" --preset cifar-sr16-32 --steps 1000 --seed "$seed"
  cdm train "base32-$seed" --preset cifar-base32 --steps 1540 --seed "$seed"
  cdm sample "base32-$seed" --num 5000 -o "single-$seed.h5"
  cdm sample "base16-$seed" --num 5000 -o "lowres-$seed.h5"
  cdm upsample "lowres-$seed.h5" --model "sr-none-$seed" -o "none-$seed.h5"
  cdm upsample "lowres-$seed.h5" --model "sr-s101-$seed" --s 101 -o "s101-$seed.h5"
  cdm upsample "lowres-$seed.h5" --model "sr-s1001-$seed" --s 1001 -o "s1001-$seed.h5"
  cdm sweep-s "lowres-$seed.h5" --model "sr-any-$seed" --s 0,101,251,501,751,1001,1501 --num 2000 --features "$judge" --apply -o "sweep-$seed"
  cdm upsample "lowres-$seed.h5" --model "sr-any-$seed" -o "any-$seed.h5"
  for arm in none s101 s1001 any; do
    cdm eval fid,is "$arm-$seed.h5" --features "$judge" --against "single-$seed.h5" -o "$arm-$seed.csv"
  done
  cdm eval fid,is "s1001-$seed.h5" --features "$judge" --against "none-$seed.h5" -o "augmented-$seed.csv"
  cdm eval fid,is "s1001-$seed.h5" --features "$judge" --against "any-$seed.h5" -o "amortised-$seed.csv"
  cdm eval fid,is "any-$seed.h5" --features "$judge" --against "none-$seed.h5" -o "searched-$seed.csv"
done
