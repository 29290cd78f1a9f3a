#!/usr/bin/env bash
# Everything that needs a GPU: benchmarks/gpu.sh first|build|test|ops|models [name...]|rivals [name...]|sanitize|all
#
# Needs python3 with torch and pytest, nvcc and, for sanitize, compute-sanitizer; nothing is fetched. Every part ends
# within eight minutes: pieces that did not get their turn are named, and the next run goes on with them. Pieces done
# for the same sources are not done again, unless AGAIN=1. Results are JSON files in $OUT if set, else in
# benchmarks/results/<device>/; a short table comes last. PYTHON is the interpreter, python3 when unset.
# `first` is for a first visit of nine minutes: it builds nothing, takes what `make gpu-kit` left in build/gpu/lib and
# build/gpu/triton where they are, and begins with what tells most.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
WORK=$PWD/build/gpu
LIMIT=${LIMIT:-$([ "${1:-}" = first ] && echo 540 || echo 420)}
IMPLS=(torch triton cuda graph triton+graph cuda+graph)
NAMES=(v1 v2 v3 cosyvoice2 vocos encodec-24k-decode)
SHAPES=(1x1 1x10 32x10)
PATIENCE=${PATIENCE:-1} # how many times as long the pieces of a first visit may take
START=$SECONDS
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
unset PYTHONSAFEPATH # the drivers import their neighbours
mkdir -p "$WORK/results" "$WORK/done" "$WORK/logs"

capability=$("$PYTHON" - <<'PY'
import sys
try:
    import torch
except ImportError as error:
    sys.exit(f"{sys.executable} has no torch ({error}); set PYTHON")
if not torch.cuda.is_available():
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
    sys.exit(f"no GPU is visible: torch {torch.__version__}, {built}, sees no CUDA device")
print("%d.%d" % torch.cuda.get_device_capability())
PY
) || exit 3
[ "$capability" = 9.0 ] && capability=9.0a # Hopper's own instructions

left() { echo $((LIMIT - (SECONDS - START))); }

# A fingerprint of the sources in these folders.
sources() {
  find "$@" -type f \( -name '*.py' -o -name '*.c*' -o -name '*.h' -o -name '*.sh' \) \
    -not -path '*/__pycache__/*' -print0 | sort -z | xargs -0 cat | sha256sum | cut -c1-16
}
REVISION=$(sources csrc fastvoc kernels benchmarks setup.py)

# piece NAME SECONDS COMMAND...: runs a piece that is not done yet, if so much time is left.
piece() {
  local name=$1 wanted=$2 log="$WORK/logs/$1.log" status
  shift 2
  if [ -z "${AGAIN:-}" ] && [ "$(cat "$WORK/done/$name" 2>/dev/null)" = "$REVISION" ]; then
    echo "== $name: done before"
    return 0
  fi
  if [ "$(left)" -lt "$wanted" ]; then
    LEFT+=("$name")
    return 0
  fi
  echo "== $name"
  OUT="$WORK/results" timeout "$(left)" "$@" 2>&1 | tee "$log"
  status=${PIPESTATUS[0]}
  if [ "$status" = 0 ]; then
    echo "$REVISION" >"$WORK/done/$name"
  elif [ "$status" = 124 ]; then
    LEFT+=("$name")
  else
    FAILED+=("$name")
  fi
}

package() { [ -f "$WORK/lib/fastvoc/_C_cuda.so" ] || build_part; export PYTHONPATH="$WORK/lib"; }

build_part() {
  FASTVOC_BUILD=cuda TORCH_CUDA_ARCH_LIST=$capability MAX_JOBS=${MAX_JOBS:-$(nproc)} \
    timeout "$(left)" "$PYTHON" -W ignore setup.py -q build --build-lib "$WORK/lib" --build-temp "$WORK/temp" \
    >"$WORK/logs/build.log" 2>&1
  local status=$?
  [ $status = 124 ] && echo "build: out of time; what is compiled is kept, the next run goes on"
  grep "^fastvoc:" "$WORK/logs/build.log"
  [ $status = 0 ] || { tail -60 "$WORK/logs/build.log"; return $status; }
  PYTHONPATH="$WORK/lib" "$PYTHON" - "$WORK/results/build.json" <<'PY'
import json, sys
from pathlib import Path
import torch
import fastvoc
from fastvoc.runtime import library as _library
from importlib.metadata import PackageNotFoundError, version
def of(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None
facts = json.loads((Path(fastvoc.__file__).parent / "_build_info.json").read_text())
row = {
    "device": torch.cuda.get_device_name(), "torch": torch.__version__, "triton": of("triton"),
    "cuda": _library.cuda_problem() or "loaded", "cpu": _library.cpu_problem() or "loaded",
    "nvcc": facts["libraries"]["cuda"].get("nvcc"), "archs": facts["libraries"]["cuda"].get("archs"),
}
Path(sys.argv[1]).write_text(json.dumps(row, indent=1) + "\n")
sys.exit(row["cuda"] != "loaded")
PY
}

# Each worker compiles Triton's kernels for itself; with one process most tests would not get their turn.
workers() { "$PYTHON" -c 'import xdist' 2>/dev/null && SIDE=(-n "${WORKERS:-8}" --dist load); }

test_part() {
  package
  local REVISION=$REVISION-$(sources tests)
  local file name
  workers
  for file in $(grep -lR --include='test_*.py' 'mark\.gpu' tests/gpu | sort); do
    name=test-$(basename "$file" .py | sed s/^test_//)
    piece "$name" 20 env FASTVOC_REQUIRE=cuda "$PYTHON" -P -m pytest -q -p no:cacheprovider -W default -m gpu \
      "${SIDE[@]}" --junitxml="$WORK/results/$name.xml" "$file"
  done
}

ops_part() {
  package
  local dtype
  for dtype in bf16 fp32; do
    piece "ops-$dtype" 60 "$PYTHON" benchmarks/ops.py --device cuda --impl torch triton cuda --dtype $dtype \
      --models "${NAMES[@]}" --budget 0.1 --most 170 --write "ops-$dtype"
  done
}

models_part() {
  package
  local name impl
  # A process each: a fault of one leaves the others their device. The numbers put them in order, the first first.
  for name in "${@:-${NAMES[@]}}"; do
    local -i at=0
    for impl in "${IMPLS[@]}"; do
      at+=1
      piece "models-$name-$at-$impl" 30 "$PYTHON" benchmarks/models.py --device cuda --models "$name" --dtype bf16 \
        --shapes "${SHAPES[@]}" --impl "$impl" --budget 0.5 --write "models-$name-$at-$impl"
    done
  done
}

rivals_part() {
  package
  local name
  for name in "${@:-${NAMES[@]}}"; do
    piece "rivals-$name" 100 "$PYTHON" benchmarks/models.py --device cuda --models "$name" --dtype bf16 --rivals \
      --shapes "${SHAPES[@]}" --impl graph --budget 2 --write "rivals-$name"
  done
}

sanitize_part() {
  package
  command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is not on the PATH" >&2; FAILED+=(sanitize); return; }
  local tool
  for tool in memcheck racecheck; do
    piece "sanitize-$tool" 60 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool $tool --error-exitcode 9 \
      --kernel-name kns=fastvoc "$PYTHON" -P -m pytest -q -p no:cacheprovider -W default -m gpu \
      -k "cuda and not triton" tests/gpu/test_odd_sizes.py
  done
}

# layers NAME SECONDS ARGUMENTS...: every layer of some models by each implementation that is there, all at once.
layers() {
  local name=$1 seconds=$2 impl
  shift 2
  local -a every=(torch triton)
  [ -f "$WORK/lib/fastvoc/_C_cuda.so" ] && every+=(cuda)
  # A process each, so that one that loses its device leaves the others theirs; the piece fails where one does.
  # shellcheck disable=SC2016
  piece "$name" 20 timeout "$((seconds * PATIENCE))" bash -c 'python=$1 name=$2 impls=$3; shift 3; status=0; pids=()
    for impl in $impls; do "$python" benchmarks/contact.py --impl "$impl" --name "$name-$impl" "$@" & pids+=($!); done
    for pid in "${pids[@]}"; do wait "$pid" || status=$?; done; exit $status' layers "$PYTHON" "$name" "${every[*]}" "$@"
}

first_part() {
  local dtype shape name impl tool
  if [ -f "$WORK/lib/fastvoc/_C_cuda.so" ]; then export PYTHONPATH="$WORK/lib"; else export PYTHONPATH="$PWD"; fi
  [ -d "$WORK/triton" ] && export TRITON_CACHE_DIR="$WORK/triton"
  piece first-device 5 timeout 20 bash -c 'nvidia-smi; command -v git gcc nvcc compute-sanitizer; true'
  for dtype in bf16 fp32; do
    layers "first-layers-$dtype" 100 --models v3 v2 vocos cosyvoice2 encodec-24k-decode univnet --dtype "$dtype" --shape 1x0.2
  done
  for shape in 1x1 32x10; do
    layers "first-times-$shape" 60 --models v1 v3 vocos --shape "$shape" --timed
  done
  for name in v1 cosyvoice2 vocos; do
    for impl in graph triton+graph cuda+graph; do
      piece "first-models-$name-$impl" 20 timeout 60 "$PYTHON" benchmarks/models.py --device cuda --models "$name" \
        --dtype bf16 --shapes 1x1 32x10 --impl "$impl" --rivals --only eager+graph --budget 0.5 \
        --write "first-models-$name-$impl"
    done
  done
  workers
  piece first-tests 30 timeout 90 env FASTVOC_REQUIRE=cuda "$PYTHON" -P -m pytest -q -p no:cacheprovider -W default \
    -m gpu -k "hifigan-1 or hift-sample or vocos-same or float64" "${SIDE[@]}" tests/gpu/test_graphs.py \
    tests/gpu/test_models.py
  if [ -f "$WORK/lib/fastvoc/_C_cuda.so" ] && command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
      piece "first-$tool" 20 timeout 60 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool $tool \
        --error-exitcode 9 --kernel-name kns=fastvoc "$PYTHON" benchmarks/contact.py --impl cuda --models v3 \
        --shape 1x0.05 --name "first-$tool"
    done
  fi
  # What other tuned values would bring: every set of the tables that compiles, timed.
  piece first-tuned 40 timeout "$((120 * PATIENCE))" env FASTVOC_AUTOTUNE="$WORK/results/first-tuned.json" "$PYTHON" \
    benchmarks/contact.py --impl triton --models v1 --shape 1x1 --timed --name first-tried
}

# The parts' own results, where they are wanted, and a table of them.
finish() {
  local folder=${OUT:-}
  if [ -z "$folder" ]; then
    folder=benchmarks/results/$("$PYTHON" -c 'import torch; n = torch.cuda.get_device_name().lower()
print("-".join("".join(c if c.isalnum() else " " for c in n).split()))')
  fi
  mkdir -p "$folder"
  # The logs tell why something is missing; only what lies in $OUT outlives a borrowed machine.
  [ -z "${OUT:-}" ] || tar -C "$WORK" -czf "$folder/logs.tar.gz" logs results
  echo
  "$PYTHON" benchmarks/report.py "$WORK/results" "$1" "$folder"
  [ ${#LEFT[@]} = 0 ] || echo "left for the next run: ${LEFT[*]}"
  [ ${#FAILED[@]} = 0 ] || { echo "failed: ${FAILED[*]}"; exit 1; }
}

part=${1:-}
shift
LEFT=() FAILED=() SIDE=()
case "$part" in
  first) first_part ;;
  build) build_part || FAILED+=(build) ;;
  test) test_part ;;
  ops) ops_part ;;
  models) models_part "$@" ;;
  rivals) rivals_part "$@" ;;
  sanitize) sanitize_part ;;
  all)
    build_part || { FAILED+=(build); finish build; }
    test_part
    models_part
    ops_part
    rivals_part
    sanitize_part
    ;;
  *)
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
finish "$part"
