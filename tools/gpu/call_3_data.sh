#!/usr/bin/env bash
# Call 3 (payload c, or e for Fashion-MNIST; about 10 s, with SPEED=1 about 110 s): training images that do not fit into
# call 4. With SPEED=1 also the time of a training step by compiler setting.
source "$(dirname "$0")/prepare.sh"

link_packages
step data 60 12 keep_data
if [ "${SPEED:-0}" = 1 ]; then
  step speed "${LIMIT:-120}" 30 python3 "$kit/train_speed.py" resnet20v1 --seconds 1
  step deeper "${LIMIT:-120}" 30 python3 "$kit/train_speed.py" resnet56v1 resnet110v1 resnet56v2 --seconds 1 \
    --variants off cudagraphs "on+cudagraphs, code for each size" --out train_speed_deeper.json
fi
table
