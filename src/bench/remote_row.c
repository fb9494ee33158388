/* remote_row.c - see remote_row.h. */
#include "bench/remote_row.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct {
    enum call_field field;
    const char *name;
} fields[] = {
    {CALL_TOP_K, "top_k"},
    {CALL_SEED, "seed"},
    {CALL_IGNORE_EOS, "ignore_eos"},
    {CALL_STREAM_OPTIONS, "stream_options"},
    {CALL_TOKEN_IDS, "return_token_ids"},
};
#define N_FIELDS (sizeof fields / sizeof fields[0])

void remote_fields_print(unsigned set, struct strbuf *out)
{
    const char *comma = "";
    for (size_t i = 0; i < N_FIELDS; i++) {
        if ((set & fields[i].field) != 0) {
            strbuf_printf(out, "%s%s", comma, fields[i].name);
            comma = ", ";
        }
    }
}

unsigned remote_fields_named(const char *message)
{
    unsigned found = 0;
    for (size_t i = 0; i < N_FIELDS; i++) {
        if (strstr(message, fields[i].name) != NULL) {
            found |= fields[i].field;
        }
    }
    return found;
}

/* The shortest decimal text that reads back to the same float: a server that parses it as a double
 * gets 0.7, not 0.699999988. */
static void put_float(struct strbuf *out, const char *name, float v)
{
    char text[32];
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)v);
        float back;
        if (sscanf(text, "%f", &back) == 1 && back == v) {
            break;
        }
    }
    strbuf_printf(out, ", \"%s\": %s", name, text);
}

void remote_body(const struct remote_row *row, const struct request *request, const char *prompt,
                 size_t len, struct strbuf *out)
{
    const struct sampling *s = &request->sampling;
    unsigned send = ~row->refused;
    strbuf_puts(out, "{\"model\": ");
    strbuf_json_string(out, row->identity.model, strlen(row->identity.model));
    strbuf_puts(out, ", \"prompt\": ");
    strbuf_json_string(out, prompt, len);
    strbuf_printf(out, ", \"max_tokens\": %" PRIu32, request->max_new_tokens);
    put_float(out, "temperature", s->temperature);
    put_float(out, "top_p", s->top_p);
    if (s->top_k > 0 && (send & CALL_TOP_K) != 0) { /* 0 is off, which some write as -1 */
        strbuf_printf(out, ", \"top_k\": %" PRIu32, s->top_k);
    }
    if ((send & CALL_SEED) != 0) {
        strbuf_printf(out, ", \"seed\": %" PRIu64, request->sample_key & INT64_MAX);
    }
    if (request->ignore_eos && (send & CALL_IGNORE_EOS) != 0) {
        strbuf_puts(out, ", \"ignore_eos\": true");
    }
    strbuf_puts(out, ", \"stream\": true");
    if ((send & CALL_STREAM_OPTIONS) != 0) {
        strbuf_puts(out, ", \"stream_options\": {\"include_usage\": true}");
    }
    /* vLLM sends special tokens, and bytes of an unfinished character, as events without text: only
     * with their ids are they seen, and they are many behind an end that was ignored. */
    if ((send & CALL_TOKEN_IDS) != 0) {
        strbuf_puts(out, ", \"return_token_ids\": true");
    }
    strbuf_putc(out, '}');
}

/* Begin and length of the last part of a path-like name. */
static const char *last_part(const char *name, size_t *len)
{
    size_t n = strlen(name);
    while (n > 0 && name[n - 1] == '/') {
        n--;
    }
    size_t begin = n;
    while (begin > 0 && name[begin - 1] != '/') {
        begin--;
    }
    if (n - begin > 5 && strncasecmp(name + n - 5, ".gguf", 5) == 0) {
        n -= 5;
    }
    *len = n - begin;
    return name + begin;
}

bool remote_same_model(const char *a, const char *b)
{
    size_t n_a;
    size_t n_b;
    const char *of_a = last_part(a, &n_a);
    const char *of_b = last_part(b, &n_b);
    return n_a == n_b && n_a > 0 && strncasecmp(of_a, of_b, n_a) == 0;
}

bool remote_dtype(const char *cache_config, char *out, size_t size)
{
    static const struct {
        const char *theirs, *ours;
    } names[] = {{"float32", "f32"}, {"float16", "f16"}, {"half", "f16"}, {"bfloat16", "bf16"}};
    static const char key[] = "dtype=\"";
    const char *at = cache_config;
    while ((at = strstr(at, key)) != NULL && at > cache_config && at[-1] != ',') {
        at += sizeof key - 1; /* cache_dtype and such */
    }
    if (at == NULL) {
        return false;
    }
    at += sizeof key - 1;
    if (strncmp(at, "torch.", 6) == 0) {
        at += 6;
    }
    snprintf(out, size, "%.*s", (int)strcspn(at, "\""), at);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(out, names[i].theirs) == 0) {
            snprintf(out, size, "%s", names[i].ours);
        }
    }
    return out[0] != '\0' && strcmp(out, "auto") != 0;
}
