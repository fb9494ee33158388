/* Any bytes as an HTTP request, whole and in steps: the same outcome, spans inside, a status for
 * every refusal, and the body the same. */
#include "net_steps.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum http_outcome parse(struct http_request *r, const uint8_t *data, size_t size,
                               size_t step)
{
    enum http_outcome got = HTTP_MORE;
    http_request_begin(r);
    for (size_t n = 0; got == HTTP_MORE && n < size;) {
        n = size - n < step ? size : n + step;
        char *copy = malloc(n);
        MUST(copy != NULL);
        memcpy(copy, data, n);
        got = http_request_parse(r, copy, n);
        free(copy);
    }
    return got;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct http_request whole;
    static struct http_request cut;
    enum http_outcome got = parse(&whole, data, size, size);
    size_t steps[2] = {1 + size / 64, 1 + (size > 0 ? data[size / 2] : 0)};
    for (int i = 0; i < 2; i++) {
        MUST(parse(&cut, data, size, steps[i]) == got);
        if (got == HTTP_BAD) {
            MUST(cut.head.bad == whole.head.bad && cut.head.bad_at == whole.head.bad_at);
            MUST(http_bad_status(cut.head.bad) >= 400 && cut.head.bad_at <= size);
        } else if (got == HTTP_DONE) {
            MUST(cut.head.bytes == whole.head.bytes && cut.head.framing == whole.head.framing);
            MUST(cut.method == whole.method && cut.head.keep_alive == whole.head.keep_alive);
        }
    }
    if (got != HTTP_DONE) {
        return 0;
    }
    steps_check_head(&whole.head, size);
    steps_check_span(&whole.head, whole.target);
    steps_check_span(&whole.head, whole.path);
    steps_check_span(&whole.head, whole.query);
    MUST(whole.path.len > 0 && whole.target.len <= HTTP_MAX_TARGET_BYTES);
    MUST(whole.head.framing != HTTP_UNTIL_CLOSE);
    MUST(whole.head.minor == 0 ||
         http_header_find(&whole.head, (const char *)data, "host") != NULL);
    steps_compare_body(&whole.head, data + whole.head.bytes, size - whole.head.bytes,
                       HTTP_MAX_BODY_BYTES);
    return 0;
}
