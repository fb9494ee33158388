/* Any bytes as an event: accepted only where jansson reads it, refused as no JSON only where
 * jansson does not, and everything found lies where it may. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "net/event_scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TEXT_BYTES 64
#define N_IDS      4

static char text_room[TEXT_BYTES];
static int32_t id_room[N_IDS];

static void check_text(struct scan_text t, const char *json, size_t size)
{
    if (t.at == NULL) {
        return;
    }
    bool in_json = t.at >= json && t.at + t.len <= json + size;
    bool in_room = t.at >= text_room && t.at + t.len <= text_room + TEXT_BYTES;
    if (!(in_json || in_room) || !utf8_is_valid(t.at, t.len)) {
        abort();
    }
}

static void check_event(const struct event_scan *ev, const char *json, size_t size)
{
    if (ev->n_choices > EVENT_SCAN_MAX_CHOICES) {
        abort();
    }
    for (uint32_t i = 0; i < ev->n_choices; i++) {
        const struct scan_choice *c = &ev->choices[i];
        check_text(c->text, json, size);
        check_text(c->reasoning, json, size);
        if (c->n_token_ids > 0 &&
            (c->token_ids < id_room || c->token_ids + c->n_token_ids > id_room + N_IDS)) {
            abort();
        }
    }
    check_text(ev->error.message, json, size);
    check_text(ev->error.type, json, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct scan_buffers buffers = {text_room, TEXT_BYTES, id_room, N_IDS};
    static struct event_scan ev;
    char *json = malloc(size + 1);
    if (json == NULL) {
        abort();
    }
    json++; /* its end is the end of the memory, and it is not aligned */
    if (size > 0) {
        memcpy(json, data, size);
    }
    enum scan_bad bad = event_scan(json, size, &buffers, &ev);
    if (bad == SCAN_OK) {
        check_event(&ev, json, size);
    } else if (ev.bad_at > size) {
        abort();
    }
    /* jansson 2.14 reads over a NUL behind a number */
    if (memchr(json, '\0', size) == NULL) {
        json_error_t error;
        json_t *tree = json_loadb(json, size, JSON_ALLOW_NUL | JSON_DECODE_ANY, &error);
        enum json_error_code code = tree == NULL ? json_error_code(&error) : json_error_unknown;
        bool is_odd = code == json_error_numeric_overflow || code == json_error_null_byte_in_key;
        bool is_json = bad != SCAN_SYNTAX && bad != SCAN_STRING;
        if ((bad == SCAN_OK && tree == NULL && !is_odd) || (!is_json && tree != NULL)) {
            abort();
        }
        json_decref(tree);
    }
    free(json - 1);
    return 0;
}
