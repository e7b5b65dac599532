#!/bin/sh
# Runs PostgreSQL with its data under /data: as the primary, or as a standby that streams from it.
# usage: start.sh primary | start.sh standby ADDRESS PORT
set -eu
umask 077
# The first process of a container ignores every signal that it has no answer to.
trap 'exit 143' TERM INT
. /etc/postgres/programs.sh

PGDATA=/data/postgres
export PGDATA
fresh=$PGDATA.new
role=$1

make_cluster() {
  say "a first start: making an empty cluster"
  initdb --pgdata="$fresh" --username=postgres --auth-local=peer --auth-host=reject --encoding=UTF8 --locale=C.UTF-8 --data-checksums >&2
}

copy_primary() {
  say "a first start: copying the primary"
  until pg_basebackup --pgdata="$fresh" --dbname="$primary" --slot="$slot" --wal-method=stream --checkpoint=fast --no-password; do
    rm -rf "$fresh"
    sleep 2
  done
}

require_version() {
  have=$(cat "$PGDATA/PG_VERSION")
  runs=$(postgres --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
  [ "$have" = "$runs" ] || { say "the data is of PostgreSQL $have and the image runs $runs: upgrade the data first (pg_upgrade, or dump and restore)"; exit 1; }
}

# SIGTERM would wait until the last client leaves. SIGINT ends the sessions, writes a checkpoint and leaves clean data.
run() {
  postgres -c config_file=/etc/postgres/postgresql.conf -c hba_file=/etc/postgres/pg_hba.conf -c ident_file=/tmp/pg_ident.conf "$@" &
  server=$!
  trap 'kill -INT "$server"' TERM INT
  code=0
  wait "$server" || code=$?
  while kill -0 "$server" 2>/dev/null; do
    code=0
    wait "$server" || code=$?
  done
  exit "$code"
}

if [ "$role" = standby ]; then
  slot=$(echo "$POD_NAME" | tr - _)
  primary="host=$2 port=$3 user=replicator passfile=/tmp/passfile application_name=$POD_NAME"
  sh /etc/postgres/passfile.sh
fi

# What has its final name is whole; what a kill left half made is made again.
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  rm -rf "$fresh"
  if [ "$role" = standby ]; then copy_primary; else make_cluster; fi
  mv "$fresh" "$PGDATA"
fi
require_version

# The volume has one pod and the pod one server, so a lock file can only be a dead one's, whose process number may be taken by now.
rm -f "$PGDATA/postmaster.pid"
# The socket knows the pod's own user as the superuser, whatever the image calls it.
echo "pod $(id -un) postgres" > /tmp/pg_ident.conf

if [ "$role" = standby ]; then
  touch "$PGDATA/standby.signal"
  run -c "primary_conninfo=$primary" -c "primary_slot_name=$slot"
fi
if [ -e "$PGDATA/standby.signal" ]; then
  say "the data is a standby's; this pod is to be the primary"
  exit 1
fi
run
