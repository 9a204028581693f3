#!/usr/bin/env bash
# Call 2 (payload b, on the machine of call 1; about 250 s): whether TensorRT-RTX runs on this GPU, then the table of
# every backend and precision that runs, with parity over the whole test split, then the tests of the trt backend.
source "$(dirname "$0")/prepare.sh"

install() {
  [ -e "$kept/rtx.tar.xz.0" ] || { echo "this is another machine than call 1's: run call 1 first"; return 1; }
  unpack "$kept/rtx.tar.xz.0" "$kit/rtx.tar.xz.1"
  python3 -c 'import tensorrt_rtx; print("TensorRT-RTX", tensorrt_rtx.__version__)'
}
engine() { # engines have too many files to bring back: only the JSON is copied
  timeout -k 5 80 $gpu_checks /tmp/engine engine
  local code=$?
  cp /tmp/engine/engine.json "$OUT/"
  return $code
}

link_packages
step install 60 3 install
step rtx 90 34 python3 "$kit/tensorrt_rtx_probe.py"
step engine 90 12 engine
step table 260 70 bench_table "${TABLE_LIMIT:-240}" "${TABLE_SECONDS:-60}"
step tests 60 15 python3 -m pytest -q -o addopts= -m gpu $trt_gpu_tests
step opens 50 3 python3 "$kit/open_close.py" trt --limit 30
table
