#!/bin/sh
# Becomes the program of the Procfile that is named (`program.sh web`), or else the command it is given
# (`program.sh blotter db upgrade`). exec: signals reach the program itself.
set -eu
command=$(sed -n "s/^$1: //p" "$(dirname "$0")/../Procfile")
if [ -z "$command" ]; then
  exec "$@"
fi
if [ "$1" = web ] && [ -n "${METRICS_DIR:-}" ]; then
  # The processes of this web count into one folder; what the last run left there must not be counted again.
  rm -rf "$METRICS_DIR"
  mkdir -p "$METRICS_DIR"
  export PROMETHEUS_MULTIPROC_DIR="$METRICS_DIR"
fi
eval "exec $command"
