// ESP32-CAM (AI Thinker): publish a JPEG every ten seconds and print the results.
// Libraries: "esp32" by Espressif (boards), "PubSubClient" by Nick O'Leary.
#include <PubSubClient.h>
#include <WiFi.h>
#include "esp_camera.h"

const char *WIFI_NAME = "my network";
const char *WIFI_PASSWORD = "my password";
const char *BROKER = "192.168.1.10";
const char *PHOTO_TOPIC = "gleaner/v1/photo/edge-1/esp32-1";
const char *RESULT_TOPIC = "gleaner/v1/result/edge-1/esp32-1";
const unsigned long INTERVAL_MS = 10000;

WiFiClient network;
PubSubClient mqtt(network);

void onResult(char *topic, byte *payload, unsigned int size) {
  Serial.write(payload, size);  // JSON: status, label, confidence
  Serial.println();
}

void startCamera() {
  camera_config_t config = {};
  config.pin_pwdn = 32;
  config.pin_reset = -1;
  config.pin_xclk = 0;
  config.pin_sccb_sda = 26;
  config.pin_sccb_scl = 27;
  config.pin_d7 = 35;
  config.pin_d6 = 34;
  config.pin_d5 = 39;
  config.pin_d4 = 36;
  config.pin_d3 = 21;
  config.pin_d2 = 19;
  config.pin_d1 = 18;
  config.pin_d0 = 5;
  config.pin_vsync = 25;
  config.pin_href = 23;
  config.pin_pclk = 22;
  config.xclk_freq_hz = 20000000;
  config.pixel_format = PIXFORMAT_JPEG;
  config.frame_size = FRAMESIZE_VGA;
  config.jpeg_quality = 10;
  config.fb_count = 1;
  while (esp_camera_init(&config) != ESP_OK) delay(1000);
}

void connect() {
  while (!mqtt.connect("gleaner-esp32-1")) delay(2000);
  mqtt.subscribe(RESULT_TOPIC, 1);
}

void setup() {
  Serial.begin(115200);
  startCamera();
  WiFi.begin(WIFI_NAME, WIFI_PASSWORD);
  while (WiFi.status() != WL_CONNECTED) delay(500);
  mqtt.setServer(BROKER, 1883);
  mqtt.setBufferSize(4096);  // for results; photos are written in pieces below
  mqtt.setCallback(onResult);
}

void loop() {
  static unsigned long last = 0;
  if (!mqtt.connected()) connect();
  mqtt.loop();
  if (last != 0 && millis() - last < INTERVAL_MS) return;
  last = millis();
  camera_fb_t *photo = esp_camera_fb_get();
  if (photo == nullptr) return;
  mqtt.beginPublish(PHOTO_TOPIC, photo->len, false);
  for (size_t sent = 0; sent < photo->len; sent += 1024)
    mqtt.write(photo->buf + sent, min<size_t>(1024, photo->len - sent));
  mqtt.endPublish();
  esp_camera_fb_return(photo);
}
