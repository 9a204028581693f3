#!/usr/bin/env bash
# Call 3 (payload c, or e for Fashion-MNIST; about 10 s): training images that do not fit into call 4.
source "$(dirname "$0")/prepare.sh"

step data 60 12 keep_data
table
