#!/bin/sh
# Exits 0 while the server of this pod takes connections.
. /etc/postgres/programs.sh
exec pg_isready --quiet --host=/tmp --username=postgres --timeout=2
