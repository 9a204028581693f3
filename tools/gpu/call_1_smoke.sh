#!/usr/bin/env bash
# Call 1 (payload a; about 150 s): what the machine is, rtk's pipeline on real CUDA, the answers and first rates of every
# backend, and the time of a training step by compiler setting.
source "$(dirname "$0")/prepare.sh"

machine() { # the longest part first, because only the last lines are shown
  python3 -m pip list 2>/dev/null
  ls "$site/nvidia" "$site"/nvidia/cu13/lib
  which g++ nvcc ptxas xz zstd
  df -h /tmp; free -g; nproc
  nvidia-smi
}
install() {
  unpack "$kit/site.tar.xz"
  cp -r "$kit/cache/." "$RTK_CACHE_DIR/"
  cp "$kit/rtx.tar.xz.0" "$kept/"   # for call 2
  keep_data
  python3 -c 'import onnxruntime, pycuda.driver; print(onnxruntime.__version__, onnxruntime.get_available_providers())'
}

link_packages
step machine 30 22 machine
step install 60 8 install
step pipeline 60 20 python3 "$kit/pipeline_on_gpu.py"
step smoke 130 12 python3 "$kit/smoke.py"
step tests 60 15 python3 -m pytest -q -o addopts= -m gpu $training_gpu_tests
step speed 150 8 python3 "$kit/train_speed.py" ${ARCHS:-resnet20v1}
table
