#!/usr/bin/env bash
# The README's transcript on CIFAR-10, timed, and the FID of bilinear enlarging beside it.
#
#   benchmarks/cifar_cascade.sh train.zip test.zip DIR [base steps] [sr steps] [classifier steps]
#
# With several GPUs the stages train at the same time, one on each, and samples are shared by all.
# The same line typed again continues.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
train=$(realpath "$1") test=$(realpath "$2")
mkdir -p "$3" && cd "$3"
base=${4:-15000} sr=${5:-15000} classifier=${6:-5000}
timed() {
    local start=$SECONDS
    "$@"
    echo "[$((SECONDS - start)) s] $*"
}
count=$(python3 -c 'import torch; print(max(1, torch.cuda.device_count()))')
share=()
[ "$count" = 1 ] || share=(--gpus "$count")
on() { # a device of its own for each of three trainings, as far as there are devices
    local device=$(($1 % count))
    shift
    if [ "$count" = 1 ]; then timed "$@"; else CUDA_VISIBLE_DEVICES=$device timed "$@"; fi
}

(cd "$here" && python3 -c 'from machine import machine; print(machine())')
timed cdm prepare "$train" --val "$test" -o data.h5 --resolution 16 --resolution 32
on 0 cdm train base --preset cifar-base16 --steps "$base" &
[ "$count" = 1 ] && wait
on 1 cdm train sr --preset cifar-sr16-32 --steps "$sr" &
[ "$count" = 1 ] && wait
on 2 cdm train features --preset classifier --steps "$classifier"
wait
timed cdm sample base --classes 0-9 --num 10000 --keep-s 251,501 -o lowres.h5 "${share[@]}"
timed cdm upsample --s 501 -o samples.h5 "${share[@]}"
timed cdm grid samples.h5 -o grid.png --per-class 10
timed cdm sweep-s --s 0,251,501,1001 --num 2000 --features features "${share[@]}"
timed cdm eval fid,accuracy --features features --json
python3 "$here/enlarged.py" lowres.h5 32 -o enlarged.h5
timed cdm eval fid,accuracy enlarged.h5 --features features --json
