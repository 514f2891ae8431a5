"""Publish a photo and print its result: client.py HOST PORT NODE DEVICE PHOTO."""

import json
import sys
from pathlib import Path

import paho.mqtt.client as mqtt

host, port, node, device, photo = sys.argv[1:]
final = {}


def on_connect(client, userdata, flags, reason, properties):
    client.subscribe(f"gleaner/v1/result/{node}/{device}", qos=1)


def on_subscribe(client, userdata, mid, reasons, properties):
    client.publish(f"gleaner/v1/photo/{node}/{device}", Path(photo).read_bytes(), qos=1)


def on_message(client, userdata, message):
    result = json.loads(message.payload)
    if result["status"] != "deferred":  # the final result follows
        final.update(result)
        client.disconnect()


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
client.connect(host, int(port))
client.loop_forever()
print(final.get("label", final.get("code")), final.get("confidence"))
sys.exit(final["status"] != "ok")
