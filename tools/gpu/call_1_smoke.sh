#!/usr/bin/env bash
# Call 1 (payload a; about 120 s): what the machine is, rtk's pipeline on real CUDA, and the answers of every backend.
# Beside it, the networks that are trained later are compiled, because that needs the processor and not the GPU.
source "$(dirname "$0")/prepare.sh"

machine() { # the longest part first, because only the last lines are shown
  ls "$site/nvidia" "$site"/nvidia/cu13/lib
  which g++ nvcc ptxas xz zstd
  df -h /tmp; free -g; nproc; lscpu
  nvidia-smi
}
install() {
  unpack "$kit/site.tar.xz"
  cp -r "$kit/cache/." "$RTK_CACHE_DIR/"
  cp "$kit/rtx.tar.xz.0" "$kept/"   # for call 2
  keep_data
  python3 -c 'import onnxruntime, pycuda.driver; print(onnxruntime.__version__, onnxruntime.get_available_providers())'
}
compile_ahead() {
  local one
  for one in ${ARCHS:-resnet20v1 resnet56v1 resnet110v1 resnet56v2}; do
    OUT=$kept TORCHINDUCTOR_COMPILE_THREADS=4 timeout 200 python3 "$kit/train_speed.py" "$one" --seconds 0.1 \
      --variants "on+cudagraphs, code for each size" --out "ahead-$one.json" >"$kept/ahead-$one.log" 2>&1 &
  done
}
compiled() { wait; tail -n 3 "$kept"/ahead-*.log; }

link_packages
step machine 20 22 machine
compile_ahead
step install 60 8 install
step pipeline 60 20 python3 "$kit/pipeline_on_gpu.py"
step smoke 130 12 python3 "$kit/smoke.py" --seconds 0.1
step tests 100 25 python3 -m pytest -q -o addopts= -m gpu $training_gpu_tests $recording_gpu_tests
compiled
step options 70 20 python3 "$kit/onnxruntime_options.py"
table
