# Sourced by the others: finds Kafka's libraries, in the official image and in others.
libraries=
for folder in "${KAFKA_HOME:-/opt/kafka}/libs" /opt/kafka/libs /opt/kafka/lib /opt/kafka /usr/share/kafka/libs /usr/share/kafka; do
  [ -n "$libraries" ] || ! ls "$folder"/kafka-clients-*.jar > /dev/null 2>&1 || libraries=$folder
done
[ -n "$libraries" ] || { echo "no Kafka in this image: looked under \$KAFKA_HOME, /opt/kafka and /usr/share/kafka" >&2; exit 1; }
