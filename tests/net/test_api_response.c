/* API answers and errors, parsed back: the members, types and order that openai-python reads. */
#include "test.h"

#include <jansson.h>
#include <math.h>

#include "base/mem.h"
#include "net/api_response.h"

#define TEXT(literal)                                                                              \
    (struct api_text)                                                                              \
    {                                                                                              \
        literal, sizeof(literal) - 1                                                               \
    }

static const struct api_head completion_head = {
    API_COMPLETIONS, {"cmpl-1", 6}, 1700000000, {"m", 1}};
static const struct api_head chat_head = {API_CHAT, {"chatcmpl-1", 10}, 1700000000, {"m\"q", 3}};
static const struct api_usage usage = {11, 5, 8};

/* Parses strictly; duplicate keys fail. */
static json_t *parse_json(const char *text, size_t len)
{
    json_error_t e = {.text = ""};
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &e);
    if (root == NULL) {
        fail_msg("%s in: %.*s", e.text, (int)len, text);
    }
    return root;
}

static json_t *parse_event(const char *event)
{
    return parse_json(event == NULL ? "" : event, event == NULL ? 0 : strlen(event));
}

/* The value at a path of keys and indices: "choices.0.text". */
static const json_t *at(const json_t *root, const char *path)
{
    const char *p = path;
    while (*p != '\0') {
        char key[32];
        size_t n = strcspn(p, ".");
        assert_true(n < sizeof key);
        memcpy(key, p, n);
        key[n] = '\0';
        root = json_is_array(root) ? json_array_get(root, (size_t)atoi(key))
                                   : json_object_get(root, key);
        if (root == NULL) {
            fail_msg("nothing at '%s' of '%s'", key, path);
        }
        p += n + (p[n] == '.');
    }
    return root;
}

static void assert_text(const json_t *root, const char *path, const char *expected)
{
    const json_t *value = at(root, path);
    assert_true(json_is_string(value));
    assert_string_equal(json_string_value(value), expected);
}

static void assert_int(const json_t *root, const char *path, long long expected)
{
    const json_t *value = at(root, path);
    assert_true(json_is_integer(value));
    assert_int_equal(json_integer_value(value), expected);
}

static void assert_real(const json_t *root, const char *path, double expected)
{
    const json_t *value = at(root, path);
    assert_true(json_is_number(value));
    assert_true(fabs(json_number_value(value) - expected) <= 1e-9 * fabs(expected));
}

static void assert_usage(const json_t *root)
{
    assert_int(root, "usage.prompt_tokens", 11);
    assert_int(root, "usage.completion_tokens", 5);
    assert_int(root, "usage.total_tokens", 16);
    assert_int(root, "usage.prompt_tokens_details.cached_tokens", 8);
}

static void a_completion_has_its_shape(void **state)
{
    (void)state;
    struct strbuf b = {0};
    struct api_choice choices[] = {
        {.index = 0, .text = TEXT("a \"quoted\"\n\xff text"), .finish = API_FINISH_LENGTH},
        {.index = 1,
         .text = TEXT(""),
         .finish = API_FINISH_STOP,
         .stop_kind = API_STOP_TEXT,
         .stop_text = TEXT("END")},
        {.index = 2,
         .text = TEXT("x"),
         .finish = API_FINISH_STOP,
         .stop_kind = API_STOP_TOKEN,
         .stop_token = 42},
        {.index = 3, .text = TEXT("y"), .finish = API_FINISH_STOP},
    };
    api_write_answer(&b, &completion_head, choices, 4, &usage);
    assert_false(b.failed);
    json_t *root = parse_json(b.data, b.len);
    assert_text(root, "id", "cmpl-1");
    assert_text(root, "object", "text_completion");
    assert_int(root, "created", 1700000000);
    assert_text(root, "model", "m");
    assert_int_equal(json_array_size(at(root, "choices")), 4);
    assert_text(root, "choices.0.text", "a \"quoted\"\n\xEF\xBF\xBD text");
    assert_text(root, "choices.0.finish_reason", "length");
    assert_true(json_is_null(at(root, "choices.0.logprobs")));
    assert_true(json_is_null(at(root, "choices.0.stop_reason")));
    assert_text(root, "choices.1.stop_reason", "END");
    assert_int(root, "choices.2.stop_reason", 42);
    assert_int(root, "choices.3.index", 3);
    assert_true(json_is_null(at(root, "choices.3.stop_reason")));
    assert_usage(root);
    json_decref(root);
    strbuf_deinit(&b);
}

static void a_chat_answer_has_its_shape(void **state)
{
    (void)state;
    struct strbuf b = {0};
    struct api_choice choice = {.text = TEXT("Hello"), .finish = API_FINISH_STOP};
    api_write_answer(&b, &chat_head, &choice, 1, &usage);
    json_t *root = parse_json(b.data, b.len);
    assert_text(root, "object", "chat.completion");
    assert_text(root, "model", "m\"q");
    assert_text(root, "choices.0.message.role", "assistant");
    assert_text(root, "choices.0.message.content", "Hello");
    assert_true(json_is_null(at(root, "choices.0.message.refusal")));
    assert_text(root, "choices.0.finish_reason", "stop");
    assert_usage(root);
    json_decref(root);
    strbuf_deinit(&b);
}

static const struct api_alternative tops[] = {
    {{" a", 2}, -0.25}, {{"\xe2\x82", 2}, -1.5}, {{"\xe2\x82", 2}, -1.75}, {{"\xe2\x81", 2}, -2.0}};

static const struct api_logprob logprobs[] = {
    {.text = {"h\xc3\xa9", 3}},
    {.text = {" b", 2}, .logprob = -3.0, .has_logprob = true, .top = tops, .n_top = 4},
    {.text = {" a", 2}, .logprob = -0.25, .has_logprob = true, .top = tops, .n_top = 1},
    {.text = {"\xe2\x82", 2}, .logprob = -(double)INFINITY, .has_logprob = true},
    {.text = {"\xac", 1}, .logprob = (double)NAN, .has_logprob = true},
};

static void completion_logprobs_have_their_shape(void **state)
{
    (void)state;
    struct strbuf b = {0};
    struct api_choice choice = {.text = TEXT("hé b a€"),
                                .finish = API_FINISH_LENGTH,
                                .has_logprobs = true,
                                .logprobs = logprobs,
                                .n_logprobs = 5,
                                .text_offset = 10};
    api_write_answer(&b, &completion_head, &choice, 1, &usage);
    json_t *root = parse_json(b.data, b.len);
    const json_t *l = at(root, "choices.0.logprobs");
    assert_text(l, "tokens.0", "hé");
    assert_text(l, "tokens.3", "bytes:\\xe2\\x82");
    assert_true(json_is_null(at(l, "token_logprobs.0")));
    assert_true(json_is_null(at(l, "top_logprobs.0")));
    assert_real(l, "token_logprobs.1", -3.0);
    /* 4 alternatives, two of the same text, plus the sampled token */
    assert_int_equal(json_object_size(at(l, "top_logprobs.1")), 4);
    assert_real(l, "top_logprobs.1. b", -3.0);
    assert_real(l, "top_logprobs.1.bytes:\\xe2\\x82", -1.5);
    /* the sampled token is the alternative */
    assert_int_equal(json_object_size(at(l, "top_logprobs.2")), 1);
    /* logprobs=0: the sampled token alone */
    assert_int_equal(json_object_size(at(l, "top_logprobs.3")), 1);
    assert_real(l, "token_logprobs.3", -9999.0);
    assert_real(l, "token_logprobs.4", -9999.0);
    static const int offsets[] = {10, 12, 14, 16, 17};
    for (int i = 0; i < 5; i++) {
        assert_int_equal(json_integer_value(json_array_get(at(l, "text_offset"), (size_t)i)),
                         offsets[i]);
    }
    json_decref(root);
    strbuf_deinit(&b);
}

static void chat_logprobs_have_their_shape(void **state)
{
    (void)state;
    struct strbuf b = {0};
    struct api_choice choice = {.text = TEXT(" b"),
                                .finish = API_FINISH_STOP,
                                .has_logprobs = true,
                                .logprobs = &logprobs[1],
                                .n_logprobs = 3};
    api_write_answer(&b, &chat_head, &choice, 1, &usage);
    json_t *root = parse_json(b.data, b.len);
    const json_t *l = at(root, "choices.0.logprobs.content");
    assert_int_equal(json_array_size(l), 3);
    assert_text(l, "0.token", " b");
    assert_real(l, "0.logprob", -3.0);
    assert_int(l, "0.bytes.1", 'b');
    assert_int_equal(json_array_size(at(l, "0.top_logprobs")), 4);
    assert_text(l, "0.top_logprobs.0.token", " a");
    assert_real(l, "0.top_logprobs.0.logprob", -0.25);
    assert_int(l, "0.top_logprobs.1.bytes.0", 0xe2);
    assert_int_equal(json_array_size(at(l, "2.top_logprobs")), 0);
    json_decref(root);
    strbuf_deinit(&b);
}

/* Splits a stream into its events; each must be "data: X\n\n" on one line. Returns the count. */
static size_t split(struct strbuf *b, const char *events[], size_t max)
{
    size_t n = 0;
    char *p = b->data;
    while (*p != '\0') {
        assert_true(n < max && strncmp(p, "data: ", 6) == 0);
        char *end = strstr(p, "\n\n");
        assert_non_null(end);
        *end = '\0';
        assert_null(strchr(p, '\n'));
        events[n++] = p + 6;
        p = end + 2;
    }
    return n;
}

static struct api_request options(bool include_usage, bool continuous)
{
    return (struct api_request){
        .stream = true, .include_usage = include_usage, .continuous_usage_stats = continuous};
}

static void a_completion_stream_has_its_order(void **state)
{
    (void)state;
    struct strbuf b = {0};
    static struct api_stream s;
    struct api_request r = options(true, false);
    api_stream_init(&s, &completion_head, 2, &r);
    struct api_choice c = {.index = 1, .text = TEXT("b1")};
    api_stream_choice(&b, &s, &c, NULL);
    c = (struct api_choice){.index = 0, .text = TEXT("a1"), .finish = API_FINISH_LENGTH};
    api_stream_choice(&b, &s, &c, NULL);
    c = (struct api_choice){.index = 1, .text = TEXT(""), .finish = API_FINISH_STOP};
    api_stream_choice(&b, &s, &c, NULL);
    api_stream_end(&b, &s, &usage);
    const char *events[8] = {NULL};
    assert_int_equal(split(&b, events, 8), 5);
    static const struct {
        int index;
        const char *text;
        const char *finish;
    } expected[] = {{1, "b1", NULL}, {0, "a1", "length"}, {1, "", "stop"}};
    for (int i = 0; i < 3; i++) {
        json_t *root = parse_event(events[i]);
        assert_text(root, "object", "text_completion");
        assert_int_equal(json_array_size(at(root, "choices")), 1);
        assert_int(root, "choices.0.index", expected[i].index);
        assert_text(root, "choices.0.text", expected[i].text);
        if (expected[i].finish == NULL) {
            assert_true(json_is_null(at(root, "choices.0.finish_reason")));
        } else {
            assert_text(root, "choices.0.finish_reason", expected[i].finish);
        }
        assert_true(json_is_null(at(root, "usage")));
        json_decref(root);
    }
    json_t *last = parse_event(events[3]);
    assert_int_equal(json_array_size(at(last, "choices")), 0);
    assert_text(last, "id", "cmpl-1");
    assert_usage(last);
    json_decref(last);
    assert_string_equal(events[4], "[DONE]");
    strbuf_deinit(&b);
}

/* Where vLLM has them: a completion's prompt in its choice, a chat's beside the choices. */
static void ids_stand_where_asked_for(void **state)
{
    (void)state;
    static const int32_t ids[] = {7, 0, 2147483647};
    static const struct api_head *const heads[] = {&completion_head, &chat_head};
    static const char *const prompts[] = {"choices.0.prompt_token_ids.1", "prompt_token_ids.1"};
    for (int chat = 0; chat < 2; chat++) {
        struct strbuf b = {0};
        static struct api_stream s;
        struct api_request r = options(false, false);
        struct api_choice c = {.text = TEXT(""),
                               .has_token_ids = true,
                               .token_ids = ids,
                               .n_token_ids = 3,
                               .prompt_ids = ids + 1,
                               .n_prompt_ids = 2};
        api_stream_init(&s, heads[chat], 1, &r);
        api_stream_choice(&b, &s, &c, NULL);
        const char *events[8] = {NULL};
        assert_int_equal(split(&b, events, 8), 1 + chat);
        json_t *root = parse_event(events[0]);
        assert_int(root, prompts[chat], 2147483647);
        json_decref(root);
        root = parse_event(events[chat]);
        assert_int(root, "choices.0.token_ids.0", 7);
        assert_int(root, "choices.0.token_ids.2", 2147483647);
        assert_true(chat == 0 || json_object_get(root, "prompt_token_ids") == NULL);
        json_decref(root);
        strbuf_clear(&b);
        c.finish = API_FINISH_LENGTH;
        c.n_token_ids = 0;
        api_write_answer(&b, heads[chat], &c, 1, &usage);
        root = parse_json(b.data, b.len);
        assert_int(root, prompts[chat], 2147483647);
        assert_int_equal(json_array_size(at(root, "choices.0.token_ids")), 0);
        json_decref(root);
        strbuf_clear(&b);
        api_write_answer(&b, heads[chat], &(struct api_choice){.finish = API_FINISH_LENGTH}, 1,
                         &usage);
        assert_null(strstr(b.data, "token_ids"));
        strbuf_deinit(&b);
    }
}

static void a_chat_stream_begins_with_the_role(void **state)
{
    (void)state;
    struct strbuf b = {0};
    static struct api_stream s;
    struct api_request r = options(false, true); /* continuous has no effect alone */
    api_stream_init(&s, &chat_head, 1, &r);
    struct api_choice c = {
        .text = TEXT("Hel"), .has_logprobs = true, .logprobs = &logprobs[1], .n_logprobs = 1};
    api_stream_choice(&b, &s, &c, &usage);
    c = (struct api_choice){.text = TEXT("lo"), .finish = API_FINISH_ABORT};
    api_stream_choice(&b, &s, &c, &usage);
    api_stream_end(&b, &s, &usage);
    const char *events[8] = {NULL};
    assert_int_equal(split(&b, events, 8), 4);
    json_t *root = parse_event(events[0]);
    assert_text(root, "object", "chat.completion.chunk");
    assert_text(root, "choices.0.delta.role", "assistant");
    assert_text(root, "choices.0.delta.content", "");
    assert_true(json_is_null(at(root, "choices.0.finish_reason")));
    assert_null(json_object_get(root, "usage"));
    json_decref(root);
    root = parse_event(events[1]);
    assert_text(root, "choices.0.delta.content", "Hel");
    assert_null(json_object_get(at(root, "choices.0.delta"), "role"));
    assert_text(root, "choices.0.logprobs.content.0.token", " b");
    json_decref(root);
    root = parse_event(events[2]);
    assert_text(root, "choices.0.delta.content", "lo");
    assert_text(root, "choices.0.finish_reason", "abort");
    json_decref(root);
    assert_string_equal(events[3], "[DONE]");
    strbuf_deinit(&b);
}

static void continuous_usage_stands_on_every_chunk(void **state)
{
    (void)state;
    struct strbuf b = {0};
    static struct api_stream s;
    struct api_request r = options(true, true);
    api_stream_init(&s, &completion_head, 1, &r);
    struct api_usage so_far = {11, 1, 8};
    struct api_choice c = {.text = TEXT("x")};
    api_stream_choice(&b, &s, &c, &so_far);
    so_far.completion_tokens = 2;
    c.finish = API_FINISH_STOP;
    api_stream_choice(&b, &s, &c, &so_far);
    api_stream_end(&b, &s, &usage);
    const char *events[8] = {NULL};
    assert_int_equal(split(&b, events, 8), 4);
    for (int i = 0; i < 3; i++) {
        json_t *root = parse_event(events[i]);
        assert_int(root, "usage.completion_tokens", i < 2 ? i + 1 : 5);
        json_decref(root);
    }
    strbuf_deinit(&b);
}

static void an_error_ends_a_stream(void **state)
{
    (void)state;
    struct strbuf b = {0};
    static struct api_stream s;
    struct api_request r = options(true, false);
    api_stream_init(&s, &chat_head, 1, &r);
    struct api_error e;
    api_error_set(&e, 500, NULL, "step %d failed", 3);
    api_write_keep_alive(&b);
    assert_string_equal(b.data, ": keep-alive\n\n");
    strbuf_clear(&b);
    api_stream_error(&b, &s, &e);
    const char *events[4] = {NULL};
    assert_int_equal(split(&b, events, 4), 2);
    json_t *root = parse_event(events[0]);
    assert_text(root, "error.message", "step 3 failed");
    assert_text(root, "error.type", "InternalServerError");
    json_decref(root);
    assert_string_equal(events[1], "[DONE]");
    strbuf_deinit(&b);
}

static void small_answers_have_their_shape(void **state)
{
    (void)state;
    struct strbuf b = {0};
    static const char *const names[] = {"smol", "a\"b"};
    api_write_models(&b, names, 2, 17, 2048);
    json_t *root = parse_json(b.data, b.len);
    assert_text(root, "object", "list");
    assert_text(root, "data.1.id", "a\"b");
    assert_text(root, "data.0.object", "model");
    assert_int(root, "data.0.created", 17);
    assert_text(root, "data.0.owned_by", "llmsched");
    assert_int(root, "data.0.max_model_len", 2048);
    json_decref(root);
    strbuf_clear(&b);
    static const int32_t ids[] = {5, 6};
    static const struct api_text strs[] = {{"a", 1}, {"\xff", 1}};
    api_write_tokenize(&b, ids, 2, strs, 2048);
    root = parse_json(b.data, b.len);
    assert_int(root, "count", 2);
    assert_int(root, "tokens.1", 6);
    assert_text(root, "token_strs.1", "\xEF\xBF\xBD");
    json_decref(root);
    strbuf_clear(&b);
    api_write_tokenize(&b, NULL, 0, NULL, 2048);
    root = parse_json(b.data, b.len);
    assert_true(json_is_null(at(root, "token_strs")));
    assert_int_equal(json_array_size(at(root, "tokens")), 0);
    json_decref(root);
    strbuf_clear(&b);
    api_write_detokenize(&b, "x\ny", 3);
    root = parse_json(b.data, b.len);
    assert_text(root, "prompt", "x\ny");
    json_decref(root);
    strbuf_clear(&b);
    api_write_version(&b, "0.1.0");
    assert_string_equal(b.data, "{\"version\":\"0.1.0\"}");
    strbuf_deinit(&b);
    char id[API_ID_BYTES];
    api_make_id(API_CHAT, 1, UINT64_MAX, id);
    assert_string_equal(id, "chatcmpl-0000000000000001ffffffffffffffff");
    api_make_id(API_COMPLETIONS, 0, 2, id);
    assert_string_equal(id, "cmpl-00000000000000000000000000000002");
}

static void errors_map_to_http(void **state)
{
    (void)state;
    static const struct {
        enum status s;
        int http;
    } statuses[] = {{STATUS_OK, 200},          {STATUS_USAGE, 400},       {STATUS_BAD_DATA, 400},
                    {STATUS_NOT_FOUND, 404},   {STATUS_UNSUPPORTED, 501}, {STATUS_NO_MEMORY, 503},
                    {STATUS_INTERRUPTED, 503}, {STATUS_INTERNAL, 500},    {STATUS_IO, 500}};
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        assert_int_equal(api_http_status(statuses[i].s), statuses[i].http);
    }
    static const int rejects[] = {
        [REJECT_NONE] = 200,      [REJECT_QUEUE_FULL] = 429, [REJECT_TOO_LONG] = 400,
        [REJECT_NO_BLOCKS] = 400, [REJECT_POLICY] = 429,     [REJECT_SHUTDOWN] = 503};
    for (size_t i = 0; i < sizeof rejects / sizeof rejects[0]; i++) {
        assert_int_equal(api_http_status_of_reject((enum reject_reason)i), rejects[i]);
    }
    static const struct {
        int http;
        const char *type;
        bool retry;
    } types[] = {{400, "BadRequestError", false},
                 {401, "AuthenticationError", false},
                 {404, "NotFoundError", false},
                 {405, "MethodNotAllowedError", false},
                 {408, "RequestTimeoutError", false},
                 {413, "RequestTooLargeError", false},
                 {415, "UnsupportedMediaTypeError", false},
                 {422, "UnprocessableEntityError", false},
                 {429, "RateLimitError", true},
                 {431, "HeadersTooLargeError", false},
                 {500, "InternalServerError", false},
                 {501, "NotImplementedError", false},
                 {503, "ServiceUnavailableError", true},
                 {418, "BadRequestError", false},
                 {599, "InternalServerError", false}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        struct strbuf b = {0};
        struct api_error e;
        assert_string_equal(api_error_type(types[i].http), types[i].type);
        assert_int_equal(api_retry_after_s(types[i].http) > 0, types[i].retry);
        api_error_set(&e, types[i].http, i % 2 == 0 ? "top_p" : NULL, NULL);
        api_write_error(&b, &e);
        json_t *root = parse_json(b.data, b.len);
        assert_text(root, "error.type", types[i].type);
        assert_int(root, "error.code", types[i].http);
        assert_true(json_string_length(at(root, "error.message")) > 10);
        assert_int_equal(json_is_null(at(root, "error.param")), i % 2 == 1);
        json_decref(root);
        strbuf_deinit(&b);
    }
}

static void a_long_message_ends_at_a_whole_character(void **state)
{
    (void)state;
    char text[API_MESSAGE_BYTES * 2];
    for (size_t pad = 0; pad < 4; pad++) {
        struct api_error e;
        memset(text, 'x', sizeof text);
        for (size_t i = pad; i + 4 < sizeof text; i += 4) {
            memcpy(text + i, "🎉", 4);
        }
        text[sizeof text - 1] = '\0';
        api_error_set(&e, 400, text, "%s", text);
        size_t n = strlen(e.message);
        assert_true(n >= API_MESSAGE_BYTES - 4 && n < API_MESSAGE_BYTES);
        assert_int_equal((n - pad) % 4, 0);
        assert_int_equal((strlen(e.param) - pad) % 4, 0);
    }
}

static void refused_memory_shows_in_the_buffer(void **state)
{
    (void)state;
    struct api_choice choice = {.text = TEXT("some text"), .finish = API_FINISH_STOP};
    for (uint64_t n = 1; n <= 3; n++) {
        struct strbuf b = {0};
        mem_fail_at(n, false);
        api_write_answer(&b, &chat_head, &choice, 1, &usage);
        mem_fail_at(0, false);
        assert_true(b.failed);
        strbuf_deinit(&b);
    }
}

static void finish_reasons_have_their_names(void **state)
{
    (void)state;
    assert_null(api_finish_name(api_finish_of(FINISH_NONE)));
    assert_string_equal(api_finish_name(api_finish_of(FINISH_STOP)), "stop");
    assert_string_equal(api_finish_name(api_finish_of(FINISH_LENGTH)), "length");
    assert_string_equal(api_finish_name(api_finish_of(FINISH_ERROR)), "error");
    assert_string_equal(api_finish_name(API_FINISH_ABORT), "abort");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_completion_has_its_shape),
        cmocka_unit_test(a_chat_answer_has_its_shape),
        cmocka_unit_test(completion_logprobs_have_their_shape),
        cmocka_unit_test(chat_logprobs_have_their_shape),
        cmocka_unit_test(a_completion_stream_has_its_order),
        cmocka_unit_test(ids_stand_where_asked_for),
        cmocka_unit_test(a_chat_stream_begins_with_the_role),
        cmocka_unit_test(continuous_usage_stands_on_every_chunk),
        cmocka_unit_test(an_error_ends_a_stream),
        cmocka_unit_test(small_answers_have_their_shape),
        cmocka_unit_test(errors_map_to_http),
        cmocka_unit_test(a_long_message_ends_at_a_whole_character),
        cmocka_unit_test(refused_memory_shows_in_the_buffer),
        cmocka_unit_test(finish_reasons_have_their_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
