#!/usr/bin/env bash
# Call 4 (payload d, on the machine of call 3): whole trainings in parallel, stopped after LIMIT seconds.
#   NETS=ARCH:EPOCHS,...   choose epochs so that each training finishes: epochs * epoch_s of call 1, more on a shared GPU
#   COMPILE=off|on|...     the fastest one in call 1;  LIMIT=290;  DATASET=cifar10
source "$(dirname "$0")/prepare.sh"
nets=${NETS:-resnet20v1:100,resnet56v1:70,resnet110v1:45}
limit=${LIMIT:-290} dataset=${DATASET:-cifar10} device=${DEVICE:-cuda}

train() {
  local one
  for one in ${nets//,/ }; do
    OMP_NUM_THREADS=4 timeout -k 20 "$limit" $rtk train "${one%:*}" --epochs "${one#*:}" --dataset "$dataset" \
      --device "$device" --compile "${COMPILE:-off}" --eval-every 5 --out "$runs/${one%:*}" >"$runs/${one%:*}.log" 2>&1 &
  done
  wait
  for one in ${nets//,/ }; do echo "-- $one"; tail -4 "$runs/${one%:*}.log"; done
  # best.pt is what rtk.tools.add_to_zoo takes; last.pt would be too large to bring back
  (cd "$runs" && tar czf "$OUT/runs.tgz" $(ls -d ./*.log ./*/best.pt ./*/history.jsonl ./*/config.json 2>/dev/null))
}

link_packages
step data 60 3 keep_data
step train 0 40 train
table
