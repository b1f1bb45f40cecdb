#!/usr/bin/env bash
# The README's transcript on CIFAR-10, timed, and the FID of bilinear enlarging beside it.
#
#   benchmarks/cifar_cascade.sh train.zip test.zip DIR [base steps] [sr steps] [classifier steps]
#
# With two GPUs the base stage and the super-resolution stage train at the same time.
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
two=$(python3 -c 'import torch; print(torch.cuda.device_count() > 1)')
first() { if [ "$two" = True ]; then CUDA_VISIBLE_DEVICES=0 "$@"; else "$@"; fi; }
second() { if [ "$two" = True ]; then CUDA_VISIBLE_DEVICES=1 "$@"; else "$@"; fi; }

timed cdm prepare "$train" --val "$test" -o data.h5 --resolution 16 --resolution 32
first timed cdm train base --preset cifar-base16 --steps "$base" &
[ "$two" = True ] || wait
second timed cdm train sr --preset cifar-sr16-32 --steps "$sr"
second timed cdm train features --preset classifier --steps "$classifier"
wait
timed cdm sample base --classes 0-9 --num 10000 --keep-s 251,501 -o lowres.h5
timed cdm upsample --s 501 -o samples.h5
timed cdm grid samples.h5 -o grid.png --per-class 10
timed cdm sweep-s --s 0,251,501,1001 --num 2000 --features features
timed cdm eval fid,accuracy --features features --json
python3 "$here/enlarged.py" lowres.h5 32 -o enlarged.h5
timed cdm eval fid,accuracy enlarged.h5 --features features --json
