/* Any bytes as the body of a request (the first byte chooses the endpoint): a clean 4xx with few,
 * short, well-formed messages, or a request within its ranges; answered as JSON either way. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "net/api_request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define N_VOCAB 1000

static void require(bool good)
{
    if (!good) {
        abort();
    }
}

static void check_ids(const int32_t *ids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        require(ids[i] >= 0 && ids[i] < N_VOCAB);
    }
}

static void check_text(struct api_text t)
{
    require(t.data[t.len] == '\0' && strlen(t.data) == t.len && utf8_is_valid(t.data, t.len));
}

static void check_lists(const struct api_request *r)
{
    check_ids(r->tokens, r->n_tokens);
    check_ids(r->stop_ids, r->n_stop_ids);
    require(r->n_prompts <= API_MAX_PROMPTS && r->n_messages <= API_MAX_MESSAGES);
    for (uint32_t i = 0; i < r->n_prompts; i++) {
        check_ids(r->prompts[i].ids, r->prompts[i].n_ids);
        if (r->prompts[i].text.data != NULL) {
            check_text(r->prompts[i].text);
        } else {
            require(r->prompts[i].n_ids > 0);
        }
    }
    for (uint32_t i = 0; i < r->n_messages; i++) {
        check_text(r->messages[i].content);
    }
    for (uint32_t i = 0; i < r->n_stops; i++) {
        check_text(r->stops[i]);
        require(r->stops[i].len >= 1 && r->stops[i].len <= API_MAX_STOP_BYTES);
    }
    for (uint32_t i = 0; i < r->n_logit_bias; i++) {
        require(r->logit_bias[i].bias >= -100.0F && r->logit_bias[i].bias <= 100.0F);
        require(i == 0 || r->logit_bias[i].id > r->logit_bias[i - 1].id);
    }
    for (uint32_t i = 0; i < r->n_unknown && i < API_MAX_UNKNOWN; i++) {
        check_text(r->unknown[i]);
    }
}

static void check_numbers(const struct api_request *r)
{
    require(r->n >= 1 && r->n <= API_MAX_N && r->n * r->n_prompts <= API_MAX_CHOICES);
    require(r->max_tokens >= API_REST_OF_CONTEXT && r->max_tokens <= INT32_MAX);
    require(r->min_tokens >= 0 && (r->max_tokens < 0 || r->min_tokens <= r->max_tokens));
    require(r->temperature >= 0.0 && r->temperature <= 2.0 && r->top_p > 0.0 && r->top_p <= 1.0);
    require(r->top_k >= 0 && r->min_p >= 0.0 && r->min_p <= 1.0 && r->repetition_penalty > 0.0);
    require(r->top_logprobs >= 0 && r->top_logprobs <= API_MAX_LOGPROBS);
    require(r->stream || !r->include_usage);
}

static void check_errors(const struct api_errors *errors)
{
    require(errors->count >= 1 && errors->count <= API_MAX_ERRORS);
    require(errors->total >= errors->count);
    struct strbuf b = {0};
    api_write_errors(&b, errors);
    require(!b.failed && b.len < (size_t)16 << 10);
    json_t *root = json_loadb(b.data, b.len, JSON_REJECT_DUPLICATES, NULL);
    require(root != NULL);
    json_decref(root);
    strbuf_deinit(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    static const struct api_limits limits = {.n_vocab = N_VOCAB};
    enum api_endpoint endpoint = (enum api_endpoint)(data[0] % 4);
    struct api_request r;
    struct api_errors errors;
    enum status s =
        api_request_parse(endpoint, (const char *)data + 1, size - 1, &limits, &r, &errors);
    if (s != STATUS_OK) {
        require(s == STATUS_BAD_DATA);
        check_errors(&errors);
        return 0;
    }
    require(errors.total == 0 && r.endpoint == endpoint);
    check_lists(&r);
    if (endpoint == API_COMPLETIONS || endpoint == API_CHAT) {
        check_numbers(&r);
    }
    api_request_deinit(&r);
    return 0;
}
