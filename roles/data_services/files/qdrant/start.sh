#!/bin/sh
# Runs Qdrant, or the stand-in of our own image, with its data under /data.
# usage: start.sh qdrant | start.sh sandbox
set -eu
key=/run/secrets/sophia/qdrant_api_key
if [ "$1" = sandbox ]; then
  set -- sandbox qdrant --host 0.0.0.0 --port 6333 --storage /data/qdrant
  [ ! -s "$key" ] || set -- "$@" --api-key-file "$key"
  exec sophia "$@"
fi
# Qdrant takes its key from a file of settings or from the environment; this environment is the process' own.
[ ! -s "$key" ] || { QDRANT__SERVICE__API_KEY=$(cat "$key"); export QDRANT__SERVICE__API_KEY; }
cd /qdrant
exec ./qdrant --config-path /etc/qdrant/settings.yaml
