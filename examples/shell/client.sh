#!/bin/sh
# Publish a photo and print its result as JSON: client.sh HOST PORT NODE DEVICE PHOTO
set -eu
host=$1 port=$2 node=$3 device=$4 photo=$5
results=$(mktemp)
trap 'kill "$listener" 2>/dev/null; rm -f "$results"' EXIT

mosquitto_sub -h "$host" -p "$port" -q 1 -t "gleaner/v1/result/$node/$device" >"$results" &
listener=$!
# Repeated until an answer is there: the edge answers a photo that it has seen before without classifying it again.
while ! grep -v '"status":"deferred"' "$results" | grep -m 1 .; do
    mosquitto_pub -h "$host" -p "$port" -q 1 -t "gleaner/v1/photo/$node/$device" -f "$photo"
    sleep 1
done
