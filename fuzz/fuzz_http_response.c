/* Any bytes as an HTTP response, whole and in steps: the same outcome, spans inside, and the body
 * the same. The first byte says whether it answers HEAD. */
#include "net_steps.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum http_outcome parse(struct http_response *r, bool to_head, const uint8_t *data,
                               size_t size, size_t step)
{
    enum http_outcome got = HTTP_MORE;
    http_response_begin(r, to_head);
    for (size_t n = 0; got == HTTP_MORE && n < size;) {
        n = size - n < step ? size : n + step;
        char *copy = malloc(n);
        MUST(copy != NULL);
        memcpy(copy, data, n);
        got = http_response_parse(r, copy, n);
        free(copy);
    }
    return got;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct http_response whole;
    static struct http_response cut;
    if (size == 0) {
        return 0;
    }
    bool to_head = data[0] == 'H';
    data++;
    size--;
    enum http_outcome got = parse(&whole, to_head, data, size, size);
    size_t steps[2] = {1 + size / 64, 1 + (size > 0 ? data[size / 2] : 0)};
    for (int i = 0; i < 2; i++) {
        MUST(parse(&cut, to_head, data, size, steps[i]) == got);
        if (got == HTTP_BAD) {
            MUST(cut.head.bad == whole.head.bad && cut.head.bad_at == whole.head.bad_at);
        } else if (got == HTTP_DONE) {
            MUST(cut.head.bytes == whole.head.bytes && cut.head.framing == whole.head.framing);
            MUST(cut.status == whole.status && cut.head.keep_alive == whole.head.keep_alive);
        }
    }
    if (got != HTTP_DONE) {
        return 0;
    }
    steps_check_head(&whole.head, size);
    steps_check_span(&whole.head, whole.reason);
    MUST(whole.status >= 100 && whole.status <= 599 && whole.is_interim == (whole.status < 200));
    MUST(whole.head.framing != HTTP_UNTIL_CLOSE || !whole.head.keep_alive);
    MUST(!to_head || whole.head.framing == HTTP_NO_BODY);
    steps_compare_body(&whole.head, data + whole.head.bytes, size - whole.head.bytes, 1000);
    return 0;
}
