#!/bin/sh
# Writes the standby's password file from the Secret. libpq takes none that others may read, which a mounted Secret is.
set -eu
umask 077
password=$(sed 's/[:\\]/\\&/g' /run/secrets/sophia/postgres_replication_password)
printf '*:*:*:replicator:%s\n' "$password" > /tmp/passfile.new
mv /tmp/passfile.new /tmp/passfile
