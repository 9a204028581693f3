#!/usr/bin/env bash
# Call 5 (payload a without TensorRT-RTX; about 110 s): the table again, without int8 on the CPU and on fewer batches.
source "$(dirname "$0")/prepare.sh"

install() {
  unpack "$kit/site.tar.xz"
  cp -r "$kit/cache/." "$RTK_CACHE_DIR/"
  keep_data
}
bench() { # the signal of Ctrl-C: the report then holds what was measured until then
  timeout -s INT -k 20 "${TABLE_LIMIT:-110}" python3 "$kit/bench_with_int8.py" bench \
    --batch "${BATCHES:-1,64,1024,4096}" --seconds "${TABLE_SECONDS:-40}" \
    --precision fp32 --precision fp16 --precision bf16 --precision int8 --report "$OUT/bench"
}

link_packages
step install 60 3 install
step table 130 60 bench
table
