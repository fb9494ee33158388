/* Answers that a real vLLM gave (tests/data/vllm, recorded by tests/vllm/record.py), through head,
 * body, events and scanner: cut in two at every byte, byte by byte, and ended at every byte. What
 * must be found is what Python's http.client and json find in the same bytes. */
#include "net/net_test.h"

#include <jansson.h>

#include "base/fs.h"
#include "base/mem.h"
#include "net/event_scan.h"
#include "net/remote_reader.h"
#include "net/sse.h"

#define TEXT_BYTES  1024U
#define N_IDS       64U
#define N_CHOICES   4U
#define EVENT_BYTES 8192U

struct found_choice {
    char text[TEXT_BYTES];
    size_t text_len;
    int32_t ids[N_IDS];
    size_t n_ids;
    bool has_ids;
    uint32_t content_events;
    enum scan_finish finish;
    uint32_t finishes;
};

/* What a client makes of an answer. */
struct found {
    uint64_t status;
    uint64_t events;
    uint64_t prompt_tokens, completion_tokens, total_tokens; /* SCAN_NO_COUNT: not said */
    int64_t error_code;
    char error_message[TEXT_BYTES];
    char error_type[64];
    struct found_choice choices[N_CHOICES];
    bool done;
};

static void found_init(struct found *f)
{
    memset(f, 0, sizeof *f);
    f->prompt_tokens = f->completion_tokens = f->total_tokens = SCAN_NO_COUNT;
}

static void put_text(char *out, size_t cap, const struct scan_text *t)
{
    assert_true(t->len < cap);
    if (t->len > 0) {
        memcpy(out, t->at, t->len);
    }
}

static void found_event(struct found *f, const char *json, size_t n)
{
    static char text_room[4096];
    static int32_t id_room[256];
    static const struct scan_buffers buffers = {text_room, sizeof text_room, id_room, 256};
    struct event_scan ev;
    enum scan_bad bad = event_scan(json, n, &buffers, &ev);
    if (bad != SCAN_OK) {
        fail_msg("%s at %zu of %.*s", scan_bad_text(bad), ev.bad_at, (int)n, json);
    }
    f->events++;
    for (uint32_t i = 0; i < ev.n_choices; i++) {
        const struct scan_choice *c = &ev.choices[i];
        assert_in_range(c->index, 0, N_CHOICES - 1);
        struct found_choice *mine = &f->choices[c->index];
        if (c->text.len > 0) {
            assert_true(mine->text_len + c->text.len < TEXT_BYTES);
            memcpy(mine->text + mine->text_len, c->text.at, c->text.len);
            mine->text_len += c->text.len;
            mine->content_events++;
        }
        if (c->has_token_ids) {
            assert_true(mine->n_ids + c->n_token_ids <= N_IDS);
            memcpy(mine->ids + mine->n_ids, c->token_ids, c->n_token_ids * sizeof *c->token_ids);
            mine->n_ids += c->n_token_ids;
            mine->has_ids = true;
        }
        if (c->finish != SCAN_FINISH_NONE) {
            mine->finish = c->finish;
            mine->finishes++;
        }
    }
    if (ev.has_usage) {
        f->prompt_tokens = ev.usage.prompt_tokens;
        f->completion_tokens = ev.usage.completion_tokens;
        f->total_tokens = ev.usage.total_tokens;
    }
    if (ev.has_error) {
        put_text(f->error_message, sizeof f->error_message, &ev.error.message);
        put_text(f->error_type, sizeof f->error_type, &ev.error.type);
        f->error_code = ev.error.code;
    }
}

/* Reads an answer as its bytes come. */
struct reader {
    struct found found;
    struct http_response response;
    struct http_body body;
    struct sse sse;
    char in[65536]; /* the head, until it is whole */
    size_t in_len;
    char whole[65536]; /* a body that is no stream */
    size_t whole_len;
    char event[EVENT_BYTES];
    bool in_body, is_stream, ended;
};

static void reader_begin(struct reader *r)
{
    found_init(&r->found);
    http_response_begin(&r->response, false);
    sse_init(&r->sse, r->event, sizeof r->event);
    r->in_len = r->whole_len = 0;
    r->in_body = r->is_stream = r->ended = false;
}

static void reader_body_piece(struct reader *r, const char *data, size_t n)
{
    if (!r->is_stream) {
        assert_true(r->whole_len + n <= sizeof r->whole);
        memcpy(r->whole + r->whole_len, data, n);
        r->whole_len += n;
        return;
    }
    for (;;) {
        size_t used;
        struct sse_event ev;
        enum sse_outcome got = sse_next(&r->sse, data, n, &used, &ev);
        assert_int_not_equal(got, SSE_BAD);
        data += used;
        n -= used;
        if (got == SSE_MORE) {
            return;
        }
        assert_false(r->found.done);
        if (event_is_done(ev.data, ev.data_len)) {
            r->found.done = true;
        } else {
            found_event(&r->found, ev.data, ev.data_len);
        }
    }
}

static void reader_body(struct reader *r, const char *in, size_t n)
{
    for (;;) {
        size_t used;
        const char *data;
        size_t len;
        enum http_body_outcome got = http_body_next(&r->body, in, n, &used, &data, &len);
        assert_int_not_equal(got, HTTP_BODY_BAD);
        in += used;
        n -= used;
        if (got == HTTP_BODY_DATA) {
            reader_body_piece(r, data, len);
            continue;
        }
        if (got == HTTP_BODY_DONE) {
            assert_int_equal(n, 0); /* the answer's last byte */
            r->ended = true;
            if (!r->is_stream) {
                found_event(&r->found, r->whole, r->whole_len);
            }
        }
        return;
    }
}

static void reader_feed(struct reader *r, const char *in, size_t n)
{
    if (r->in_body) {
        reader_body(r, in, n);
        return;
    }
    assert_true(r->in_len + n <= sizeof r->in);
    memcpy(r->in + r->in_len, in, n);
    r->in_len += n;
    enum http_outcome got = http_response_parse(&r->response, r->in, r->in_len);
    assert_int_not_equal(got, HTTP_BAD);
    if (got == HTTP_MORE) {
        return;
    }
    const struct http_head *head = &r->response.head;
    const struct http_header *type = http_header_find(head, r->in, "content-type");
    r->in_body = true;
    r->is_stream = type != NULL && type->value.len >= 17 &&
                   memcmp(r->in + type->value.at, "text/event-stream", 17) == 0;
    r->found.status = r->response.status;
    http_body_begin(&r->body, head, UINT64_MAX);
    reader_body(r, r->in + head->bytes, r->in_len - head->bytes);
}

/* ---- the table ---- */

#define N_CASES_MAX 64U
static struct recorded {
    char name[64];
    char *bytes;
    size_t n;
    struct found expected;
} cases[N_CASES_MAX];
static size_t n_cases;

static uint64_t count_of(json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);
    assert_true(json_is_integer(value));
    return (uint64_t)json_integer_value(value);
}

static void text_of(json_t *object, const char *key, char *out, size_t cap)
{
    json_t *value = json_object_get(object, key);
    assert_true(json_is_string(value) && json_string_length(value) < cap);
    memcpy(out, json_string_value(value), json_string_length(value));
}

static enum scan_finish finish_of(json_t *value)
{
    if (json_is_null(value)) {
        return SCAN_FINISH_NONE;
    }
    const char *name = json_string_value(value);
    if (strcmp(name, "stop") == 0) {
        return SCAN_FINISH_STOP;
    }
    assert_string_equal(name, "length");
    return SCAN_FINISH_LENGTH;
}

static void expect_choice(struct found *f, json_t *choice)
{
    uint64_t index = count_of(choice, "index");
    assert_in_range(index, 0, N_CHOICES - 1);
    struct found_choice *c = &f->choices[index];
    text_of(choice, "text", c->text, sizeof c->text);
    c->text_len = json_string_length(json_object_get(choice, "text"));
    c->content_events = (uint32_t)count_of(choice, "content_events");
    c->finishes = (uint32_t)count_of(choice, "finish_reasons");
    c->finish = finish_of(json_object_get(choice, "finish_reason"));
    json_t *ids = json_object_get(choice, "token_ids");
    c->has_ids = json_is_array(ids);
    c->n_ids = json_array_size(ids);
    assert_true(c->n_ids <= N_IDS);
    for (size_t i = 0; i < c->n_ids; i++) {
        c->ids[i] = (int32_t)json_integer_value(json_array_get(ids, i));
    }
}

static void expect(struct found *f, json_t *from)
{
    found_init(f);
    f->status = count_of(from, "status");
    f->events = count_of(from, "events");
    f->done = json_is_true(json_object_get(from, "done"));
    json_t *usage = json_object_get(from, "usage");
    if (usage != NULL) {
        f->prompt_tokens = count_of(usage, "prompt_tokens");
        f->completion_tokens = count_of(usage, "completion_tokens");
        f->total_tokens = count_of(usage, "total_tokens");
    }
    json_t *error = json_object_get(from, "error");
    if (error != NULL) {
        text_of(error, "message", f->error_message, sizeof f->error_message);
        text_of(error, "type", f->error_type, sizeof f->error_type);
        f->error_code = (int64_t)count_of(error, "code");
    }
    json_t *choices = json_object_get(from, "choices");
    for (size_t i = 0; i < json_array_size(choices); i++) {
        expect_choice(f, json_array_get(choices, i));
    }
}

static int load(void **state)
{
    (void)state;
    json_error_t fault;
    json_t *root = json_load_file(TEST_DATA_DIR "/vllm/expected.json", 0, &fault);
    if (root == NULL) {
        fail_msg("expected.json: %s", fault.text);
    }
    const char *name;
    json_t *from;
    json_object_foreach(json_object_get(root, "cases"), name, from)
    {
        assert_true(n_cases < N_CASES_MAX);
        struct recorded *c = &cases[n_cases++];
        snprintf(c->name, sizeof c->name, "%s", name);
        char path[512];
        snprintf(path, sizeof path, "%s/vllm/%s.http", TEST_DATA_DIR, name);
        struct error err = ERROR_INIT;
        if (fs_read_file(path, 65536, &c->bytes, &c->n, &err) != STATUS_OK) {
            fail_msg("%s", err.message);
        }
        assert_int_equal(c->n, count_of(from, "bytes"));
        expect(&c->expected, from);
    }
    json_decref(root);
    assert_true(n_cases >= 20);
    return 0;
}

static int unload(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_cases; i++) {
        mem_free(cases[i].bytes);
    }
    return 0;
}

static struct reader reader;

static bool same_choice(const struct found_choice *a, const struct found_choice *b)
{
    return a->text_len == b->text_len && memcmp(a->text, b->text, a->text_len) == 0 &&
           a->has_ids == b->has_ids && a->n_ids == b->n_ids &&
           memcmp(a->ids, b->ids, a->n_ids * sizeof *a->ids) == 0 &&
           a->content_events == b->content_events && a->finish == b->finish &&
           a->finishes == b->finishes;
}

static bool same_found(const struct found *a, const struct found *b)
{
    for (size_t i = 0; i < N_CHOICES; i++) {
        if (!same_choice(&a->choices[i], &b->choices[i])) {
            return false;
        }
    }
    return a->status == b->status && a->events == b->events && a->done == b->done &&
           a->prompt_tokens == b->prompt_tokens && a->completion_tokens == b->completion_tokens &&
           a->total_tokens == b->total_tokens && a->error_code == b->error_code &&
           strcmp(a->error_message, b->error_message) == 0 &&
           strcmp(a->error_type, b->error_type) == 0;
}

/* Says which part differs, with both operands. */
static void must_be_found(const struct recorded *c, size_t cut)
{
    const struct found *got = &reader.found;
    const struct found *want = &c->expected;
    if (reader.ended && same_found(got, want)) {
        return;
    }
    print_error("%s cut at %zu: ended %d, status %d for %d, %d events for %d, completion tokens %d "
                "for %d, error \"%s\" for \"%s\"\n",
                c->name, cut, reader.ended, (int)got->status, (int)want->status, (int)got->events,
                (int)want->events, (int)got->completion_tokens, (int)want->completion_tokens,
                got->error_message, want->error_message);
    for (size_t i = 0; i < N_CHOICES; i++) {
        const struct found_choice *g = &got->choices[i];
        const struct found_choice *w = &want->choices[i];
        print_error("choice %zu: \"%s\" for \"%s\", %u content events for %u, %zu ids for %zu, "
                    "finish %d for %d\n",
                    i, g->text, w->text, g->content_events, w->content_events, g->n_ids, w->n_ids,
                    (int)g->finish, (int)w->finish);
    }
    fail();
}

static void test_every_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_cases; i++) {
        const struct recorded *c = &cases[i];
        for (size_t cut = 0; cut <= c->n; cut++) {
            reader_begin(&reader);
            reader_feed(&reader, guarded(c->bytes, cut), cut);
            /* What came so far is never taken for the whole. */
            assert_int_equal(reader.ended, cut == c->n);
            if (cut < c->n) {
                reader_feed(&reader, guarded(c->bytes + cut, c->n - cut), c->n - cut);
            }
            must_be_found(c, cut);
        }
    }
}

static void test_small_pieces(void **state)
{
    (void)state;
    static const size_t steps[] = {1, 2, 3, 7, 64};
    for (size_t i = 0; i < n_cases; i++) {
        const struct recorded *c = &cases[i];
        for (size_t k = 0; k < sizeof steps / sizeof steps[0]; k++) {
            reader_begin(&reader);
            for (size_t at = 0; at < c->n; at += steps[k]) {
                size_t n = c->n - at < steps[k] ? c->n - at : steps[k];
                reader_feed(&reader, guarded(c->bytes + at, n), n);
            }
            must_be_found(c, steps[k]);
        }
    }
}

/* What the measuring client must make of it; it asks for one choice. */
static void must_be_answer(const struct recorded *c, const struct remote_answer *a, size_t cut)
{
    const struct found *want = &c->expected;
    const struct found_choice *choice = &want->choices[0];
    bool refused = want->status != 200;
    uint64_t tokens = want->completion_tokens != SCAN_NO_COUNT ? want->completion_tokens
                      : choice->has_ids                        ? choice->n_ids
                                                               : choice->content_events;
    uint32_t events = choice->content_events;
    if (choice->has_ids) {
        events = (uint32_t)choice->n_ids; /* vLLM sends one token an event */
    }
    char message[TEXT_BYTES]; /* its first line; control bytes are shown otherwise */
    snprintf(message, sizeof message, "%.*s", (int)strcspn(want->error_message, "\n"),
             want->error_message);
    bool good = refused ? a->fault == REMOTE_FAULT_STATUS && strstr(a->error, message) != NULL
                        : a->fault == REMOTE_FAULT_NONE && a->finish == choice->finish &&
                              a->output_tokens == tokens && a->n_events == events &&
                              a->text.len == choice->text_len &&
                              memcmp(strbuf_text(&a->text), choice->text, choice->text_len) == 0;
    if (!good || a->http_status != want->status || a->end_ns == UINT64_MAX) {
        fail_msg("%s cut at %zu: status %d, fault \"%s\" (%s), %d tokens for %d, %d events for %d, "
                 "\"%s\" for \"%s\"",
                 c->name, cut, a->http_status, remote_fault_name(a->fault), a->error,
                 (int)a->output_tokens, (int)tokens, (int)a->n_events, (int)events,
                 strbuf_text(&a->text), choice->text);
    }
}

static void test_client(void **state)
{
    (void)state;
    struct error err = ERROR_INIT;
    struct remote_scratch scratch;
    struct remote_reader r;
    assert_ok(remote_scratch_init(&scratch, &err));
    assert_ok(remote_reader_init(&r, &scratch, true, &err));
    size_t n_read = 0;
    for (size_t i = 0; i < n_cases; i++) {
        const struct recorded *c = &cases[i];
        bool has_choice = c->expected.choices[0].finishes > 0;
        if (c->expected.choices[1].finishes > 0 || (c->expected.status == 200 && !has_choice)) {
            continue;
        }
        n_read++;
        for (size_t cut = 1; cut < c->n; cut++) {
            struct remote_answer a = {0};
            remote_reader_begin(&r, &a, 0);
            remote_reader_feed(&r, guarded(c->bytes, cut), cut, 1000);
            if (r.phase < READER_COMPLETE) {
                remote_reader_feed(&r, guarded(c->bytes + cut, c->n - cut), c->n - cut, 2000);
            }
            assert_int_equal(r.phase, READER_COMPLETE);
            must_be_answer(c, &a, cut);
            remote_answer_deinit(&a);
        }
    }
    assert_true(n_read >= 15);
    remote_reader_deinit(&r);
    remote_scratch_deinit(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_small_pieces),
        cmocka_unit_test(test_client),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
