#!/usr/bin/env bash
# Call 5 (payload a, without call 1 and 2 before it; about 200 s): what changed since the first run on a GPU. Whole steps
# recorded as CUDA graphs, tensor cores for fp16 and bf16 in ONNX Runtime, int8 on the GPU, and the table again.
source "$(dirname "$0")/prepare.sh"

install() {
  unpack "$kit/site.tar.xz"
  cp -r "$kit/cache/." "$RTK_CACHE_DIR/"
  keep_data
}

link_packages
step install 60 3 install
step tests 50 15 python3 -m pytest -q -o addopts= -m gpu $training_gpu_tests $recording_gpu_tests
step speed 30 20 python3 "$kit/train_speed.py" resnet20v1 resnet56v1 resnet110v1 resnet56v2 --seconds 1 --variants cudagraphs
step table 170 60 bench_table "${TABLE_LIMIT:-150}" "${TABLE_SECONDS:-65}"
step options 30 20 python3 "$kit/onnxruntime_options.py" --precisions fp16,bf16 --batches 1024 \
  --seconds 0.1 --out half_options.json
table
