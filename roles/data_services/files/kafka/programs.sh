#!/bin/sh
# Prints the folder of Kafka's libraries, in the official image and in others.
for folder in "${KAFKA_HOME:-/opt/kafka}/libs" /opt/kafka/libs /opt/kafka/lib /opt/kafka /usr/share/kafka/libs /usr/share/kafka; do
  if ls "$folder"/kafka-clients-*.jar > /dev/null 2>&1; then
    echo "$folder"
    exit 0
  fi
done
echo "no Kafka in this image: looked under \$KAFKA_HOME, /opt/kafka and /usr/share/kafka" >&2
exit 1
