/*
 * bench_chat.c - chat templates as a filter, for test_chat_oracle.py and for measuring. A case is
 * a line of JSON on stdin:
 *
 *   {"template": TEXT, "bos": TEXT, "eos": TEXT   or   "model": PATH,
 *    "generate": BOOL, "messages": [[ROLE, TEXT], ...], "times": N}
 *
 * and so is the answer: {"name", "text", "ns"} or {"status", "error"}; ns is the time of one
 * rendering, over N of them.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "model/chat_template.h"

#define MAX_MESSAGES 1024

static const char *text_of(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text != NULL ? text : "";
}

static size_t read_messages(const json_t *list, struct chat_message *out)
{
    static const char *const roles[] = {"system", "user", "assistant"};
    size_t n = json_array_size(list);
    for (size_t i = 0; i < n && i < MAX_MESSAGES; i++) {
        const json_t *m = json_array_get(list, i);
        const char *role = json_string_value(json_array_get(m, 0));
        const json_t *text = json_array_get(m, 1);
        out[i] =
            (struct chat_message){CHAT_SYSTEM, json_string_value(text), json_string_length(text)};
        while (role != NULL && out[i].role < CHAT_ASSISTANT &&
               strcmp(roles[out[i].role], role) != 0) {
            out[i].role++;
        }
    }
    return n < MAX_MESSAGES ? n : MAX_MESSAGES;
}

static enum status answer(const json_t *o, json_t *reply, struct error *err)
{
    static struct chat_message messages[MAX_MESSAGES];
    const json_t *text = json_object_get(o, "template");
    size_t n = read_messages(json_object_get(o, "messages"), messages);
    bool generate = json_is_true(json_object_get(o, "generate"));
    json_int_t times = json_integer_value(json_object_get(o, "times"));
    struct chat_template *t = NULL;
    struct strbuf out = {0};
    enum status st =
        text != NULL ? chat_template_from_text(json_string_value(text), json_string_length(text),
                                               text_of(o, "bos"), text_of(o, "eos"), &t, err)
                     : chat_template_open(text_of(o, "model"), &t, err);
    uint64_t begin = monotime_now_ns();
    for (json_int_t i = 0; i < (times > 1 ? times : 1) && st == STATUS_OK; i++) {
        strbuf_clear(&out);
        st = chat_template_render(t, messages, n, generate, &out, err);
    }
    uint64_t end = monotime_now_ns();
    if (st == STATUS_OK) {
        json_object_set_new(reply, "name", json_string(chat_template_name(t)));
        json_object_set_new(reply, "text", json_stringn(strbuf_text(&out), out.len));
        json_object_set_new(reply, "ns",
                            json_integer((json_int_t)(end - begin) / (times > 1 ? times : 1)));
    }
    strbuf_deinit(&out);
    chat_template_close(t);
    return st;
}

int main(void)
{
    char *line = NULL;
    size_t capacity = 0;
    int bad = 0;
    while (bad == 0 && getline(&line, &capacity, stdin) > 0) {
        json_t *o = json_loads(line, JSON_ALLOW_NUL, NULL);
        json_t *reply = json_object();
        struct error err = ERROR_INIT;
        bad = o == NULL;
        enum status st = bad ? STATUS_OK : answer(o, reply, &err);
        if (st != STATUS_OK) {
            json_object_set_new(reply, "status", json_string(status_name(st)));
            json_object_set_new(reply, "error", json_string(err.message));
        }
        json_dumpf(reply, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(o);
        json_decref(reply);
    }
    free(line);
    return bad;
}
