// Publish a photo and print its result: node client.js HOST PORT NODE DEVICE PHOTO
const fs = require("node:fs");
const mqtt = require("mqtt");

const [host, port, node, device, photo] = process.argv.slice(2);
const client = mqtt.connect(`mqtt://${host}:${port}`);

client.on("connect", async () => {
  await client.subscribeAsync(`gleaner/v1/result/${node}/${device}`, { qos: 1 });
  await client.publishAsync(`gleaner/v1/photo/${node}/${device}`, fs.readFileSync(photo), { qos: 1 });
});

client.on("message", (topic, payload) => {
  const result = JSON.parse(payload.toString());
  if (result.status === "deferred") return; // the final result follows
  console.log(result.label ?? result.code, result.confidence);
  process.exitCode = result.status === "ok" ? 0 : 1;
  client.end();
});
