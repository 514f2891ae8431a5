/* Publish a photo and print its result: client HOST PORT NODE DEVICE PHOTO */
#include <mosquitto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char photo_topic[160], result_topic[160];
static unsigned char *image;
static long image_size;
static int failed = 1;

static void on_connect(struct mosquitto *client, void *unused, int code) {
    (void)unused;
    if (code == 0)
        mosquitto_subscribe(client, NULL, result_topic, 1);
    else
        mosquitto_disconnect(client);
}

static void on_subscribe(struct mosquitto *client, void *unused, int id, int count, const int *granted) {
    (void)unused, (void)id, (void)count, (void)granted;
    mosquitto_publish(client, NULL, photo_topic, (int)image_size, image, 1, false);
}

static void on_message(struct mosquitto *client, void *unused, const struct mosquitto_message *message) {
    char text[65536];
    size_t size = (size_t)message->payloadlen < sizeof text ? (size_t)message->payloadlen : sizeof text - 1;
    (void)unused;
    memcpy(text, message->payload, size);
    text[size] = '\0';
    if (strstr(text, "\"status\":\"deferred\"")) /* the final result follows */
        return;
    puts(text); /* JSON, on one line */
    failed = strstr(text, "\"status\":\"ok\"") == NULL;
    mosquitto_disconnect(client);
}

int main(int argc, char **argv) {
    FILE *file = argc == 6 ? fopen(argv[5], "rb") : NULL;
    struct mosquitto *client;
    if (file == NULL) {
        fprintf(stderr, "usage: client HOST PORT NODE DEVICE PHOTO\n");
        return 2;
    }
    fseek(file, 0, SEEK_END);
    image_size = ftell(file);
    rewind(file);
    image = malloc((size_t)image_size);
    if (image == NULL || fread(image, 1, (size_t)image_size, file) != (size_t)image_size)
        return 1;
    fclose(file);
    snprintf(photo_topic, sizeof photo_topic, "gleaner/v1/photo/%s/%s", argv[3], argv[4]);
    snprintf(result_topic, sizeof result_topic, "gleaner/v1/result/%s/%s", argv[3], argv[4]);
    mosquitto_lib_init();
    client = mosquitto_new(NULL, true, NULL);
    mosquitto_connect_callback_set(client, on_connect);
    mosquitto_subscribe_callback_set(client, on_subscribe);
    mosquitto_message_callback_set(client, on_message);
    if (mosquitto_connect(client, argv[1], atoi(argv[2]), 30) == MOSQ_ERR_SUCCESS)
        mosquitto_loop_forever(client, -1, 1);
    mosquitto_destroy(client);
    mosquitto_lib_cleanup();
    free(image);
    return failed;
}
