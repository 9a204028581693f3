#!/usr/bin/env bash
# Call 2 (payload b, on the machine of call 1; about 250 s): whether TensorRT-RTX runs on this GPU, the tests of the trt
# backend, then the table of every backend and precision that runs, with parity over the whole test split.
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

bench() { # where int8 cannot be exported, which shows at once, the table is made again without it
  local precisions began=$SECONDS code
  for precisions in "fp32 fp16 bf16 int8" "fp32 fp16 bf16"; do
    timeout -k 5 230 $rtk bench --batch "${BATCHES:-1,8,64,256,1024,4096}" --seconds "${TABLE_SECONDS:-60}" \
      $(printf -- '--precision %s ' $precisions) --report "$OUT/bench"
    code=$?
    [ $code = 0 ] || [ $((SECONDS - began)) -gt 60 ] && return $code
  done
  return $code
}

link_packages
step install 60 3 install
step rtx 90 30 python3 "$kit/tensorrt_rtx_probe.py"
step engine 90 15 engine
step tests 60 15 python3 -m pytest -q -o addopts= -m gpu $trt_gpu_tests
step table 230 70 bench
table
