#!/bin/sh
# Makes a topic, writes a message to it, reads it back and removes the topic. Prints one JSON line.
# usage: check.sh ADDRESS
set -u
libraries=$(sh /etc/store-check/programs.sh) || exit 1
address=$1
topic=store-check-$POD_NAME
said=/tmp/said
began=$(date +%s)

tool() {
  class=$1
  shift
  java -XX:-UsePerfData -XX:TieredStopAtLevel=1 -Xmx96m -Dlog4j2.configurationFile=/etc/store-check/log4j2.properties -cp "$libraries/*" "$class" "$@" 2>&1
}

finish() { # whether it is well, what to say
  printf '{"store": "kafka", "well": %s, "seconds": %d, "said": "%s"}\n' "$1" "$(($(date +%s) - began))" "$(printf %s "$2" | tr '"\\\n\t' "''  " | cut -c 1-300)"
  [ "$1" = true ]
  exit
}

topics() { tool org.apache.kafka.tools.TopicCommand --bootstrap-server "$address" --topic "$topic" "$@" > "$said"; }

topics --create --partitions 1 || finish false "$address: cannot make a topic: $(grep -m 1 -i -E 'error|exception|warn' "$said")"
echo "$POD_NAME" | tool org.apache.kafka.tools.ConsoleProducer --bootstrap-server "$address" --topic "$topic" --command-property acks=all > "$said" ||
  echo "$POD_NAME" | tool org.apache.kafka.tools.ConsoleProducer --bootstrap-server "$address" --topic "$topic" --producer-property acks=all > "$said" ||
  finish false "$address: cannot write: $(head -n 1 "$said")"
tool org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server "$address" --topic "$topic" --from-beginning --max-messages 1 --timeout-ms 30000 > "$said"
read=$(cat "$said")
topics --delete
case $read in
  *"$POD_NAME"*) finish true "$address: wrote a message and read it back" ;;
  *) finish false "$address: what was written did not come back: $(echo "$read" | head -n 1)" ;;
esac
