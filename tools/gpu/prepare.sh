# Sourced by every call: paths, rtk's commands, `step`, and the table at the end.
# What one call unpacks below /tmp stays there for the next call on the same machine.
set -u
kit=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)   # the payload's folder
root=${KIT_ROOT:-/tmp}                              # a check without a GPU sets another one
site=$root/site kept=$root/kept runs=$root/runs
export PYTHONUNBUFFERED=1 PYTHONPATH=$site RTK_CACHE_DIR=$root/rtk-cache RTK_DATA_DIR=$root/rtk-data
OUT=${OUT:-$(mktemp -d)}
mkdir -p "$site" "$kept/data" "$runs" "$RTK_CACHE_DIR" "$RTK_DATA_DIR"

# The names in the project that these scripts use. Change them here when they change there.
rtk="python3 -m rtk"
gpu_checks="python3 -m rtk.tools.gpu_checks"
training_gpu_tests=tests/train/test_nan_guard.py
recording_gpu_tests=tests/train/test_recorded_steps.py
trt_gpu_tests=tests/infer/test_trt_backend.py

# The project's root is the package. ONNX Runtime looks for PyTorch's CUDA libraries in a folder next to its own.
link_packages() {
  ln -sfn "$PWD" "$site/rtk"
  local nvidia; nvidia=$(python3 -c 'import nvidia; print(list(nvidia.__path__)[0])') && ln -sfn "$nvidia" "$site/nvidia"
}

# unpack FILE...: unpack one .tar.xz, given in pieces, into $site. With Python, because xz may be missing; with lzma,
# because tarfile's own mode "r|xz" takes minutes for long runs of zeros.
unpack() {
  cat "$@" | python3 -c 'import lzma, sys, tarfile
tarfile.open(fileobj=lzma.open(sys.stdin.buffer), mode="r|").extractall(sys.argv[1], filter="fully_trusted")' "$site"
}

# keep_data: collect the files of CIFAR-10 and Fashion-MNIST in $kept/data over the calls, and unpack them.
keep_data() {
  cp -r "$kit"/cifar10 "$kit"/fashion-mnist "$kept/data/" 2>/dev/null
  cp "$kit/unpack_data.py" "$kept/data/unpack.py"
  python3 "$kept/data/unpack.py" "$RTK_DATA_DIR" && ls "$RTK_DATA_DIR"/*
}

# bench_table LIMIT_S SECONDS: the table into $OUT/bench. It ends by the signal of Ctrl-C: the report then holds what was
# measured until then.
bench_table() {
  timeout -s INT -k 20 "$1" python3 "$kit/bench_with_int8.py" bench --batch "${BATCHES:-1,8,64,256,1024,4096}" \
    --seconds "$2" --precision fp32 --precision fp16 --precision bf16 --precision int8 --report "$OUT/bench"
}

# step NAME LIMIT_S LINES COMMAND...: run the command, show its last lines, keep all lines in $OUT/log.txt. A function
# applies its own limit. (Variables begin with step_, because functions called from here would see other names.)
rows=()
step() {
  local step_name=$1 step_limit=$2 step_lines=$3 step_began=$SECONDS step_code; shift 3
  printf '\n== %s, at %s s\n' "$step_name" "$SECONDS"
  printf '\n== %s: %s\n' "$step_name" "$*" >>"$OUT/log.txt"
  if declare -F "$1" >/dev/null; then "$@" 2>&1; else timeout -k 5 "$step_limit" "$@" 2>&1; fi |
    tee -a "$OUT/log.txt" | tail -n "$step_lines"
  step_code=${PIPESTATUS[0]}
  [ "$step_code" = 124 ] && step_code="124: stopped after $step_limit s"
  rows+=("$(printf '%-12s %5d s   exit code %s' "$step_name" $((SECONDS - step_began)) "$step_code")")
}
table() { printf '\n== steps of %s\n' "$(basename "$0")"; printf '%s\n' "${rows[@]}"; ls -l "$OUT"; }
