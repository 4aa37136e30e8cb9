#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything that needs a GPU, by the interpreter that has a CUDA torch (GPU_PYTHON); nothing is installed.
# usage: tools/gpu_check.sh [build|test|sanitize|bench|all]   logs and JSON under OUT (out/gpu)
set -euo pipefail
cd "$(dirname "$0")/.."
step=${1:-all}
python=${GPU_PYTHON:-python3}
out=${OUT:-out/gpu}
limit=${STEP_LIMIT_S:-450} # with a build before it, one step has to end within nine minutes
mkdir -p "$out"
export PYTHONPATH="$PWD" PYTHONUNBUFFERED=1 REQUIRE_CUDA=1

say() { echo "gpu-check: $*"; }
fail() { echo "gpu-check: $*" >&2; exit 1; }

# The end of what a command prints to the screen, all of it to a file.
logged() {
  local file=$1 status=0
  shift
  timeout --signal=INT --kill-after=20 "$limit" "$@" >"$out/$file" 2>&1 || status=$?
  tail -n 40 "$out/$file"
  if [ "$status" = 124 ] || [ "$status" = 137 ]; then say "not done within ${limit} s; see $out/$file"; fi
  return "$status"
}

requirements() {
  command -v "$python" >/dev/null || { echo "gpu-check: no $python; set GPU_PYTHON" >&2; exit 2; }
  "$python" - <<'PYTHON' || exit 2
import importlib.util, sys
missing = [n for n in ("torch", "numpy", "yaml", "tqdm", "pytest", "hypothesis") if not importlib.util.find_spec(n)]
if missing:
    sys.exit(f"gpu-check: {sys.executable} lacks {', '.join(missing)}; pip install them or set GPU_PYTHON")
import torch
if not torch.cuda.is_available():
    sys.exit("gpu-check: torch sees no GPU")
print(f"gpu-check: {torch.cuda.get_device_name(0)}, torch {torch.__version__}, Python {sys.version.split()[0]}")
PYTHON
}

build() {
  say "build"
  FORCE_CUDA=1 logged build.log "$python" setup.py -q build_ext --inplace || return
  "$python" tools/check_abi.py || [ $? = 2 ] # no nm is no reason to stop
}

tests() {
  say "tests, CPU and CUDA, none skipped for want of a GPU"
  logged test.log "$python" -m pytest -q -p no:cacheprovider --show-capture=no tests/ops tests/benchmarks
}

sanitize() {
  local tool=${COMPUTE_SANITIZER:-$(command -v compute-sanitizer || echo "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer")}
  [ -x "$tool" ] || { say "sanitize: no compute-sanitizer here; step left out"; return 0; }
  local said
  said=$(timeout 120 "$tool" --tool memcheck "$python" -c 'import torch; torch.ones(8, device="cuda").sum().item()' 2>&1) ||
    if grep -qiE "not supported|error 999|LibraryNotLoaded" <<<"$said"; then
      say "sanitize: compute-sanitizer does not support this device here; step left out"
      grep -iE -m 2 "not supported|error" <<<"$said" || true
      return 0
    fi
  local status=0 name
  limit=$((limit / 2))
  for name in memcheck racecheck; do
    say "sanitize: $name"
    # Every tensor its own allocation: inside torch's pool a write past the end hits the neighbour unseen.
    # torch.compile's kernels are not ours, and few examples of the property tests have to do at this pace.
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 LIBRA_EXAMPLES=3 logged "$name.log" "$tool" --tool "$name" \
      --error-exitcode 9 --report-api-errors no --target-processes all \
      "$python" -m pytest -q -x -p no:cacheprovider --show-capture=no tests/ops \
      -k "cuda and not compiles and not _compile and not gradcheck ${SANITIZE_TESTS:+and ($SANITIZE_TESTS)}" || status=$?
  done
  limit=$((limit * 2))
  return "$status"
}

bench() {
  say "benchmark"
  logged benchmark.log "$python" tools/benchmark_ops.py --device cuda --minutes $((limit / 60 - 1)) \
    --json "$out/benchmark_cuda.json"
}

requirements
case $step in
  build) build ;;
  test) build && tests ;;
  sanitize) build && sanitize ;;
  bench) build && bench ;;
  all)
    build || fail "build failed"
    status=0
    for each in tests sanitize bench; do $each || { say "$each failed"; status=1; }; done
    exit $status
    ;;
  *) echo "gpu-check: STEP=$step: build, test, sanitize, bench or all" >&2; exit 2 ;;
esac
