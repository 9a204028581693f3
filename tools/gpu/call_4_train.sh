#!/usr/bin/env bash
# Call 4 (payload d, on the machine of call 3): whole trainings, stopped after LIMIT seconds: ALONE one after another,
# whose times count, then NETS in parallel.
#   ALONE, NETS=ARCH:EPOCHS[:SEED],...   choose epochs so that each training finishes; more time on a shared GPU
#   COMPILE=off|on|...     the fastest one in call 3;  LIMIT=290;  DATASET=cifar10
source "$(dirname "$0")/prepare.sh"
alone=${ALONE-resnet20v1:60} nets=${NETS-resnet20v1:160,resnet32v1:160}
limit=${LIMIT:-290} dataset=${DATASET:-cifar10} device=${DEVICE:-cuda} began=$SECONDS

train_one() { # train_one ARCH:EPOCHS[:SEED]
  local arch epochs seed name left=$((limit - SECONDS + began))
  IFS=: read -r arch epochs seed <<<"$1"
  name=$arch-e$epochs-s${seed:-0}
  OMP_NUM_THREADS=3 timeout -k 20 $((left > 5 ? left : 5)) $rtk train "$arch" --epochs "$epochs" --seed "${seed:-0}" \
    --dataset "$dataset" --device "$device" --compile "${COMPILE:-off}" --eval-every "${EVAL_EVERY:-5}" --no-eval \
    --out "$runs/$name" >"$runs/$name.log" 2>&1
}
train() {
  local one
  for one in ${alone//,/ }; do train_one "$one"; done
  for one in ${nets//,/ }; do train_one "$one" & done
  wait
  for one in "$runs"/*.log; do echo "-- $one"; tail -n 5 "$one"; done
  # best.pt is what rtk.tools.add_to_zoo takes; last.pt would be too large to bring back
  (cd "$runs" && tar czf "$OUT/runs.tgz" $(ls -d ./*.log ./*/best.pt ./*/history.jsonl ./*/config.json 2>/dev/null))
}

link_packages
step data 60 3 keep_data
step train 0 60 train
if [ -n "${SPEED:-}" ]; then # SPEED=ARCHS, for what time is left
  step speed "${SPEED_LIMIT:-40}" 30 python3 "$kit/train_speed.py" $SPEED --variants cudagraphs off --seconds 1
fi
table
