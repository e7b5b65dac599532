#!/bin/sh
# Runs one Kafka node that is broker and controller (KRaft), with its data under /data. CLUSTER_ID and HEAP come from the environment.
set -eu
trap 'exit 143' TERM INT
libraries=$(sh /etc/kafka/programs.sh)

settings=/tmp/server.properties
{
  cat /etc/kafka/server.properties
  echo "node.id=${POD_NAME##*-}"
  echo "advertised.listeners=BROKER://$POD_NAME.kafka-nodes.$POD_NAMESPACE.svc:9092"
} > "$settings"

logging=-Dlog4j2.configurationFile=/etc/kafka/log4j2.properties
java -XX:-UsePerfData -Xmx128m "$logging" -cp "$libraries/*" \
  kafka.tools.StorageTool format --ignore-formatted --cluster-id "$CLUSTER_ID" --config "$settings" >&2
exec java -XX:-UsePerfData -XX:+ExitOnOutOfMemoryError -Xms"$HEAP" -Xmx"$HEAP" "$logging" -cp "$libraries/*" kafka.Kafka "$settings"
