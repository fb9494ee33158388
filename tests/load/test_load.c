/* test_load.c - prompt files, workloads and the closed loop. */
#include "test.h"

#include "base/monotime.h"
#include "load/closed_loop.h"
#include "load/open_loop.h"
#include "load/prompts.h"
#include "load/workload.h"

static void test_builtin(void **state)
{
    (void)state;
    struct error err = ERROR_INIT;
    struct prompt_set set;
    assert_ok(prompts_builtin(&set, &err));
    assert_true(set.n >= 100);
    for (size_t i = 0; i < set.n; i++) {
        assert_true(set.items[i].len > 0);
        for (size_t j = 0; j < i; j++) {
            if (strcmp(set.items[i].text, set.items[j].text) == 0) {
                fail_msg("prompts %zu and %zu are the same: %s", i, j, set.items[i].text);
            }
        }
    }
    prompts_deinit(&set);
}

static void test_formats(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t n;
        const char *first;
        const char *last;
        uint32_t last_max_new;
    } rows[] = {
        {"one\ntwo\n", 2, "one", "two", 0},
        {"one\r\n\r\n  \ntwo", 2, "one", "two", 0},
        {"\xEF\xBB\xBFone", 1, "one", "one", 0},
        {"  indented", 1, "  indented", "  indented", 0},
        {"[\"a\", {\"prompt\": \"b\\nc\", \"max_new_tokens\": 7}]", 2, "a", "b\nc", 7},
        {"{\"prompt\": \"a\"}\n\n{\"prompt\": \"b\", \"max_new_tokens\": 3, \"id\": 9}\n", 2, "a",
         "b", 3},
        {"{\"prompt\": \"a\"}\n\"b\"", 2, "a", "b", 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct error err = ERROR_INIT;
        struct prompt_set set;
        assert_ok(prompts_parse(rows[i].text, strlen(rows[i].text), "f", &set, &err));
        assert_int_equal(set.n, rows[i].n);
        assert_string_equal(set.items[0].text, rows[i].first);
        assert_string_equal(set.items[set.n - 1].text, rows[i].last);
        assert_int_equal(set.items[set.n - 1].max_new_tokens, rows[i].last_max_new);
        prompts_deinit(&set);
    }
}

static void test_bad_files(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *part;
    } rows[] = {
        {"", "no prompts"},
        {"\n\n", "no prompts"},
        {"[]", "no prompts"},
        {"[\"a\", 5]", "element 1"},
        {"[\"a\"", "line 1"},
        {"[\"\"]", "empty"},
        {"[\"a\\u0000b\"]", "NUL"},
        {"{\"prompt\": \"a\"}\n{\"prompt\": 5}", "line 2"},
        {"{\"prompt\": \"a\"}\n{\"promt\": \"x\"}", "line 2"},
        {"{\"prompt\": \"a\", \"max_new_tokens\": 0}", "max_new_tokens"},
        {"{\"prompt\": \"a\", \"max_new_tokens\": 1.5}", "max_new_tokens"},
        {"{\"prompt\": \"a\", \"prompt\": \"b\"}", "line 1"},
        {"{\"prompt\": \"a\"} x", "line 1"},
        {"{\"prompt\": \"\xFF\"}", "line 1"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct error err = ERROR_INIT;
        struct prompt_set set;
        assert_status(prompts_parse(rows[i].text, strlen(rows[i].text), "file.x", &set, &err),
                      STATUS_BAD_DATA);
        assert_contains(err.message, rows[i].part);
        assert_contains(err.message, "file.x");
    }
}

static const int32_t ids[] = {1, 2, 3, 4, 5, 6, 7};
static const struct tokenized_prompt prompts[] = {
    {ids, 1, 0}, {ids, 2, 0}, {ids, 3, 9}, {ids, 4, 0}, {ids, 5, 0}};

static void test_workload(void **state)
{
    (void)state;
    struct error err = ERROR_INIT;
    struct workload_config c = {.prompts = prompts,
                                .n_prompts = 5,
                                .size = 23,
                                .kind = WORKLOAD_MIXED,
                                .max_new_tokens = 20,
                                .seed = 3};
    struct workload a, b, other;
    assert_ok(workload_create(&c, &a, &err));
    assert_ok(workload_create(&c, &b, &err));
    c.seed = 4;
    assert_ok(workload_create(&c, &other, &err));
    size_t count[5] = {0};
    size_t same_order = 0, same_length = 0;
    for (uint32_t i = 0; i < 23; i++) {
        assert_int_equal(a.requests[i].id, i);
        assert_memory_equal(&a.requests[i], &b.requests[i], sizeof a.requests[i]);
        assert_int_not_equal(a.requests[i].sample_key, other.requests[i].sample_key);
        if (i < 5) {
            assert_int_equal(a.prompt_idx[i], i); /* the first pass keeps the order */
        }
        count[a.prompt_idx[i]]++;
        same_order += i >= 5 && a.prompt_idx[i] == other.prompt_idx[i];
        same_length += a.requests[i].max_new_tokens == other.requests[i].max_new_tokens;
        if (a.prompt_idx[i] == 2) {
            assert_int_equal(a.requests[i].max_new_tokens, 9); /* the prompt's own limit */
        } else {
            assert_in_range(a.requests[i].max_new_tokens, WORKLOAD_MIXED_MIN, WORKLOAD_MIXED_MAX);
        }
    }
    for (int i = 0; i < 5; i++) { /* 23 = 4 whole passes and 3 more */
        assert_in_range(count[i], 4, 5);
    }
    assert_true(same_order < 18);
    assert_true(same_length < 23);
    workload_deinit(&a);
    workload_deinit(&b);
    workload_deinit(&other);
}

static void test_warmup_is_other(void **state)
{
    (void)state;
    struct error err = ERROR_INIT;
    struct workload_config c = {
        .prompts = prompts, .n_prompts = 5, .size = 5, .max_new_tokens = 20, .seed = 3};
    struct workload run, warm;
    assert_ok(workload_create(&c, &run, &err));
    c.warmup = true;
    assert_ok(workload_create(&c, &warm, &err));
    for (uint32_t i = 0; i < 5; i++) {
        for (uint32_t j = 0; j < 5; j++) {
            assert_int_not_equal(run.requests[i].sample_key, warm.requests[j].sample_key);
        }
    }
    workload_deinit(&run);
    workload_deinit(&warm);
}

static void test_closed_loop(void **state)
{
    (void)state;
    struct request requests[5] = {{.id = 0}, {.id = 1}, {.id = 2}, {.id = 3}, {.id = 4}};
    struct closed_loop loop;
    closed_loop_init(&loop, requests, 5, 2);
    struct source s = closed_loop_source(&loop);
    uint64_t at;
    assert_ptr_equal(s.next(s.self, 100, &at), &requests[0]);
    assert_ptr_equal(s.next(s.self, 100, &at), &requests[1]);
    assert_null(s.next(s.self, 100, &at));
    assert_int_equal(at, TIME_NEVER);
    assert_int_equal(requests[1].arrival_ns, 100);
    s.on_done(s.self, &requests[1], 250);
    const struct request *third = s.next(s.self, 300, &at);
    assert_ptr_equal(third, &requests[2]);
    assert_int_equal(third->arrival_ns,
                     250); /* when the place became free, not when it was asked */
    assert_null(s.next(s.self, 300, &at));
    s.on_done(s.self, &requests[0], 350);
    s.on_done(s.self, &requests[2], 400); /* two ends before the next is asked for */
    assert_int_equal(s.next(s.self, 450, &at)->arrival_ns, 350);
    assert_int_equal(s.next(s.self, 450, &at)->arrival_ns, 400);
    s.on_done(s.self, &requests[3], 500);
    assert_null(s.next(s.self, 500, &at)); /* none left */
    assert_int_equal(at, TIME_NEVER);
}

static void test_open_loop(void **state)
{
    (void)state;
    struct request requests[3] = {
        {.id = 0, .arrival_ns = 100}, {.id = 1, .arrival_ns = 100}, {.id = 2, .arrival_ns = 250}};
    struct open_loop loop;
    open_loop_init(&loop, requests, 3);
    struct source s = open_loop_source(&loop);
    uint64_t at;
    assert_null(s.next(s.self, 99, &at));
    assert_int_equal(at, 100);
    assert_ptr_equal(s.next(s.self, 120, &at), &requests[0]); /* late, but as planned */
    assert_int_equal(requests[0].arrival_ns, 100);
    assert_ptr_equal(s.next(s.self, 120, &at), &requests[1]);
    assert_null(s.next(s.self, 120, &at)); /* whatever has ended */
    assert_int_equal(at, 250);
    s.on_done(s.self, &requests[1], 130);
    assert_null(s.next(s.self, 249, &at));
    assert_ptr_equal(s.next(s.self, 250, &at), &requests[2]);
    assert_null(s.next(s.self, 250, &at));
    assert_int_equal(at, TIME_NEVER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_builtin),         cmocka_unit_test(test_formats),
        cmocka_unit_test(test_bad_files),       cmocka_unit_test(test_workload),
        cmocka_unit_test(test_warmup_is_other), cmocka_unit_test(test_closed_loop),
        cmocka_unit_test(test_open_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
