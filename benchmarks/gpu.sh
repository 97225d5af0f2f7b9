#!/usr/bin/env bash
# What only a GPU can show, in at most nine minutes on a fresh machine without a network.
#
#   benchmarks/gpu.sh [--only STEP,STEP] [--ops OP,OP] [--dry-run]
#
# Steps, in this order: install, tests, memcheck, bench, train, and only if they are named kernels
# (what memcheck looks at, without it), racecheck and tune (which tiles of the ops' kernels are the
# fastest). A step that fails is recorded and stops nothing; the exit status is 1 if any did. Then
# comes the summary. Under $OUT (build/gpu if unset) lie summary.md and evidence.tar.gz with all
# rows, logs and the tests' XML, brought up to date after every step. Rows are committed by
#   tar -xzf evidence.tar.gz -C benchmarks ./results
#
# PYTHON names the interpreter, BUDGET the seconds for everything, PYSEQ_COMMIT the commit in the
# rows where the checkout has no history, SHARE=I/N which of N shares of the tests that run Triton
# kernels: compiling those of all tests would take 16 cores a quarter of an hour. --dry-run takes
# every step at tiny sizes on the CPU, with Triton's interpreter; for the install it only imports
# what is installed.
set -u -o pipefail
self=$(realpath "$0") || exit 2
absolute() { if [[ $1 == */* ]]; then realpath -s -m "$1"; else echo "$1"; fi; }
python=$(absolute "${PYTHON:-python3}")
# Its own cmake and ninja build what is installed, not older ones of the system.
executable=$("$python" -c 'import sys; print(sys.executable)') || exit 2
PATH="$(dirname "$executable"):$PATH"
out=$(realpath -m "${OUT:-$(dirname "$self")/../build/gpu}")
cd "$(dirname "$self")/.." || exit 2

refuse() { echo "gpu.sh: $1" >&2 && exit 2; }
budget=${BUDGET:-530}
ops=all
steps=install,tests,memcheck,bench,train
named=kernels,racecheck,tune
share=${SHARE:-0/8}
only=
dry=false
while (($#)); do
  case $1 in
    --dry-run) dry=true ;;
    --only) only=${2:?--only needs steps} && shift ;;
    --ops) ops=${2:?--ops needs names} && shift ;;
    *)
      sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$self" >&2
      exit 2
      ;;
  esac
  shift
done

[[ $share =~ ^([0-9]+)/([0-9]+)$ ]] && ((BASH_REMATCH[1] < BASH_REMATCH[2])) ||
  refuse "SHARE is $share; I/N fits, with I from 0 to N - 1"

mkdir -p "$out" || exit 2
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
mkdir "$work/logs"
failed=0
export PATH="$PATH:/usr/local/cuda/bin" PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

every_op="cosine_attention hard_attention patch_embed scale_cross_entropy cosine_decode
  adaptive_attention prepare_keys exponential_smoothing gather_windows"
known=" $(echo $every_op) "
if [ "$ops" != all ]; then every_op=${ops//,/ }; fi
for op in $every_op; do
  [[ $known == *" $op "* ]] || refuse "no op is called $op; known:$known"
done
for name in ${only//,/ }; do
  [[ ,$steps,$named, == *,$name,* ]] || refuse "no step is called $name; known: $steps,$named"
done
device=(--device cuda --rounds 10)
folders=(tests/ops tests/nn tests/data)
kernels=(tests/kernels)
if $dry; then
  export CUDA_VISIBLE_DEVICES="" TRITON_INTERPRET=1 OMP_NUM_THREADS=1
  device=(--device cpu --quick --rounds 1)
  budget=1200 # nothing is stopped for a busy machine's sake
  only=${only:-$steps,kernels,tune}
  share=0/1
  folders=(tests/ops/test_gather_windows.py -k tensor)
  kernels=(tests/kernels/test_gather_windows.py -k equals_indexing)
else
  only=${only:-$steps}
  export PYSEQ_REQUIRE_CUDA=1
  unset TRITON_INTERPRET
  "$python" -c "import sys, torch; sys.exit(not torch.cuda.is_available())" ||
    refuse "no GPU that torch can use; --dry-run needs none"
fi

wanted() { [[ ,$only, == *,$1,* ]]; }

pack() { tar -czf "$out/evidence.tar.gz" -C "$work" .; }

note() { # NAME STATUS SECONDS
  printf '%s\t%s\t%s\n' "$1" "$2" "$3" >>"$work/steps.tsv"
  echo "$1: $2, $3 s"
}

step() { # NAME MOST_SECONDS COMMAND...
  local name=$1 most=$2 began=$SECONDS left=$((budget - SECONDS)) status
  shift 2
  if $dry; then most=$left; fi
  if ((left < 5)); then
    note "$name" "no time left" 0
    failed=1
    return
  fi
  if ((most > left)); then most=$left; fi
  # An interrupt lets pytest write what it has.
  timeout --signal=INT --kill-after=20 "$most" "$@" >"$work/logs/$name.log" 2>&1
  status=$?
  case $status in
    0) note "$name" ok $((SECONDS - began)) ;;
    124 | 137) note "$name" "stopped after $most s" $((SECONDS - began)) ;;
    *) note "$name" "exit status $status" $((SECONDS - began)) ;;
  esac
  if ((status)); then failed=1; fi
  pack
}

each_kernel() { # NAME MOST_SECONDS COMMAND...: every op in a process of its own, side by side
  local name=$1 most=$2
  shift 2
  # Most of the time is importing and compiling.
  # shellcheck disable=SC2016,SC2086
  step "$name" "$most" bash -c 'printf "%s\n" $0 | xargs -P 9 -I {} "$@" {}' \
    "$every_op" "$@" "$python" -m benchmarks.every_kernel
}

sanitize() { # TOOL
  if $dry || ! command -v compute-sanitizer >/dev/null; then
    note "$1" "skipped: no GPU or no compute-sanitizer" 0
    return
  fi
  # Without PyTorch's cache of device memory every tensor has bounds of its own.
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 each_kernel "$1" 80 \
    compute-sanitizer --tool "$1" --error-exitcode 9 --print-limit 5 --report-api-errors no
}

if wanted install; then
  if $dry; then
    step install 60 "$python" -c "import pyseq.nn, pyseq.data, pyseq.ops; print(pyseq.__file__)"
  else
    PYSEQ_REQUIRE_CORE=1 step install 120 "$python" -m pip install -e . --no-build-isolation --no-deps
  fi
fi
if wanted tests; then
  # Files whose imports this machine lacks are named in the summary, not skipped in silence.
  "$python" -m benchmarks.missing_imports tests/ops tests/nn tests/kernels tests/data \
    >"$work/not_collected.txt"
  pytest=("$python" -m pytest -q -p no:cacheprovider -m "not slow" --triton-share "$share"
    --continue-on-collection-errors)
  while IFS=$'\t' read -r file _; do pytest+=(--ignore "$file"); done <"$work/not_collected.txt"
  if ! "$python" -c "import cryptography" 2>/dev/null; then # which AES streams import when they run
    pytest+=(-k "not aes and not keystream")
    printf 'tests of AES streams\tcryptography\n' >>"$work/not_collected.txt"
  fi
  if [[ $share != */1 ]]; then
    printf 'tests of Triton kernels but share %s\tmore time\n' "$share" >>"$work/not_collected.txt"
  fi
  # Most of the time kernels are compiled, on one core each.
  parallel=()
  if ! $dry && "$python" -c "import xdist" 2>/dev/null; then parallel=(-n 12); fi
  if [[ $share == */1 ]]; then most=$budget; else most=220; fi
  step tests "$most" "${pytest[@]}" "${folders[@]}" "${parallel[@]}" --junitxml="$work/tests.xml"
  # One process for each file, which compiles its launches once.
  if ((${#parallel[@]})); then parallel+=(--dist loadfile); fi
  step tests_kernels 60 "${pytest[@]}" "${kernels[@]}" "${parallel[@]}" \
    --junitxml="$work/tests_kernels.xml"
fi
if wanted kernels; then each_kernel kernels 60; fi
if wanted memcheck; then sanitize memcheck; fi
if wanted racecheck; then sanitize racecheck; fi
if wanted bench; then
  for op in $every_op; do
    case $op in
      cosine_attention) most=130 ;;
      hard_attention) most=60 ;;
      *) most=40 ;;
    esac
    # Few kernels are compiled for the peers: not worth the start of a pool of processes.
    TORCHINDUCTOR_COMPILE_THREADS=1 step "bench_$op" "$most" "$python" -m benchmarks.run "$op" \
      "${device[@]}" --results "$work/results"
  done
fi
if wanted train; then
  step bench_training_step 110 "$python" -m benchmarks.run training_step "${device[@]}" \
    --results "$work/results"
fi
if wanted tune; then
  tuned=(--results "$work/results")
  if $dry; then tuned+=(--quick --rounds 1); fi
  # shellcheck disable=SC2206
  if $dry && [ "$ops" = all ]; then tuned+=(patch_embed); else tuned+=($every_op); fi
  step tune "$budget" "$python" -m benchmarks.tune "${tuned[@]}"
fi

"$python" -m benchmarks.gpu_summary "$work" >"$work/summary.md" || failed=1
cp "$work/summary.md" "$out/summary.md"
pack
cat "$out/summary.md"
exit "$failed"
