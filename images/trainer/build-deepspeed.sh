#!/bin/sh
# Builds DeepSpeed's wheel with the kernels that jobs can ask for, so that no pod needs a compiler.
#   build-deepspeed.sh FLAVOUR CONSTRAINTS FOLDER [SOURCE]
# FLAVOUR: cpu or cuda. cuda wants CUDA_HOME and TORCH_CUDA_ARCH_LIST, and no GPU.
# SOURCE: an archive of DeepSpeed's source; without, the index's, of the version in CONSTRAINTS.
# PYTHON: the interpreter whose torch the kernels are built against (default: /opt/alidade/bin/python).
set -eu
flavour=$1 constraints=$2 folder=$3 source=${4:-deepspeed}
here=$(cd "$(dirname "$0")" && pwd)

# Optimizers on the CPU, page-locked memory and NVMe: what deepspeed.config can offload with.
export DS_BUILD_OPS=0 DS_BUILD_CPU_ADAM=1 DS_BUILD_PIN_MEMORY=1 DS_BUILD_AIO=1
export DS_ACCELERATOR="$flavour" DS_ENABLE_NINJA=1
case $flavour in
cpu) ;;
cuda)
    # ZeRO++'s quantized communication, and the optimizer on the GPU.
    export DS_BUILD_QUANTIZER=1 DS_BUILD_FUSED_ADAM=1
    : "${CUDA_HOME:?names the CUDA toolkit}" "${TORCH_CUDA_ARCH_LIST:?names the compute capabilities}"
    # The driver's library is the node's; here its stub is linked with.
    export LIBRARY_PATH="$CUDA_HOME/lib64/stubs${LIBRARY_PATH:+:$LIBRARY_PATH}"
    ;;
*)
    echo "build-deepspeed.sh: FLAVOUR is '$flavour'; give cpu or cuda." >&2
    exit 2
    ;;
esac
# DeepSpeed compiles for the machine it is built on; the nodes may have older processors.
export CXX="$here/portable-g++.sh" LDFLAGS="-Wl,-s${LDFLAGS:+ $LDFLAGS}"
"${PYTHON:-/opt/alidade/bin/python}" -m pip wheel --no-deps --no-build-isolation --no-binary deepspeed \
    --constraint "$constraints" --wheel-dir "$folder" "$source"
# DeepSpeed leaves out what it cannot build, and says so only in a log.
set -- cpu_adam pin_memory async_io
if [ "$flavour" = cuda ]; then set -- "$@" quantizer fused_adam; fi
"${PYTHON:-/opt/alidade/bin/python}" - "$folder" "$@" <<'END'
import pathlib, sys, zipfile

(wheel,) = pathlib.Path(sys.argv[1]).glob("deepspeed-*.whl")
names = zipfile.ZipFile(wheel).namelist()
missing = [kernel for kernel in sys.argv[2:] if not any(f"/{kernel}_op." in name for name in names)]
if missing:
    sys.exit(f"build-deepspeed.sh: {wheel.name} lacks {', '.join(missing)}; pip's log (--verbose) says why.")
END
