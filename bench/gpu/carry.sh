#!/bin/sh
# Gathers, as wheels for a machine that reaches no package index, what the GPU benchmarks need there beside PyTorch,
# transformers and peft: what the trainer imports, and TRL for the comparison. Versions are those of constraints.txt.
#   bench/gpu/carry.sh [-NAME...] [NAME...]
# NAME is carried as well, -NAME is not, where that machine has it already: -pyarrow -pandas saves 64 of 73 MB.
# TARGET: its Python (default: 3.12). WHEELS: the folder (default: .bench/gpu-wheels). PYTHON: an interpreter with torch
# and setuptools, with which DeepSpeed is built (default: .venv/bin/python).
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python} target=${TARGET:-3.12} wheels=${WHEELS:-.bench/gpu-wheels}
names="deepspeed hjson msgpack ninja einops py-cpuinfo prometheus_client pyarrow
    pydantic pydantic_core annotated-types typing-inspection httpx2 httpcore2 truststore
    trl==1.16.0 datasets dill multiprocess pandas python-dateutil six xxhash requests urllib3 charset-normalizer certifi"
for name in "$@"; do
    case $name in
    -*) names=$(printf '%s\n' $names | grep -vix -e "${name#-}") ;;
    *) names="$names $name" ;;
    esac
done
mkdir -p "$wheels"
if printf '%s\n' $names | grep -qx deepspeed; then
    # A source distribution; without its kernels it is Python alone, and the same for every Python.
    names=$(printf '%s\n' $names | grep -vx deepspeed)
    DS_BUILD_OPS=0 "$python" -m pip wheel --quiet --no-deps --no-build-isolation --constraint constraints.txt \
        --wheel-dir "$wheels" deepspeed
fi
platforms=
for libc in 2_28 2_27 2_24 2_17 2_12 2_5; do platforms="$platforms --platform manylinux_${libc}_x86_64"; done
# shellcheck disable=SC2086 # words are meant
"$python" -m pip download --quiet --no-deps --only-binary=:all: --implementation cp --python-version "$target" \
    $platforms --platform manylinux2014_x86_64 --constraint constraints.txt --dest "$wheels" $names
du -sh "$wheels"
# TRL's data library writes modules into its hashes unless their folder has this name.
echo "There: python3 -m pip install --no-index --no-deps --target carried/site-packages $wheels/*.whl"
