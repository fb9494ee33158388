/* test_selftest.c - stamps of a self-test, and what is said of a result. */
#include "test.h"

#include <math.h>

#include "bench/selftest_client.h"

#define HEAD "request_id,token,due_ns,written_ns\n"

static void test_stamps(void **state)
{
    (void)state;
    struct error err = ERROR_INIT;
    uint64_t due[4];
    uint64_t written[4];
    const char *text = HEAD "1,0,30,31\n0,0,10,11\n0,1,20,22\n1,1,40,18446744073709551615\n";
    assert_ok(selftest_parse_stamps(text, strlen(text), 2, 2, due, written, &err));
    assert_int_equal(due[0], 10);
    assert_int_equal(written[1], 22);
    assert_int_equal(due[2], 30);
    assert_int_equal(written[3], UINT64_MAX);
}

static void test_bad_stamps(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *why;
    } rows[] = {
        {"", "line 1"},
        {"request,token,due_ns,written_ns\n", "line 1"},
        {HEAD, "0 tokens, 2 were asked for"},
        {HEAD "0,0,1,2\n", "1 tokens"},
        {HEAD "0,0,1,2\n0,0,1,2\n", "line 3: token 0 of request 0"},
        {HEAD "0,2,1,2\n", "line 2: token 2"},
        {HEAD "1,0,1,2\n", "of request 1"},
        {HEAD "0,0,1\n", "line 2 is not"},
        {HEAD "0,0,1,\n", "line 2 is not"},
        {HEAD "0,0,1,0\n", "line 2 is not"}, /* never written */
        {HEAD "0,0,-1,2\n", "line 2 is not"},
        {HEAD "0,0,1,2", "line 2 is not"}, /* torn */
        {HEAD "0,0,1,18446744073709551616\n", "line 2 is not"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct error err = ERROR_INIT;
        uint64_t due[2];
        uint64_t written[2];
        size_t len = strlen(rows[i].text);
        char *exact = malloc(len + 1); /* the sanitizer sees a read behind the end */
        assert_non_null(exact);
        memcpy(exact, rows[i].text, len);
        assert_status(selftest_parse_stamps(exact, len, 1, 2, due, written, &err), STATUS_BAD_DATA);
        assert_contains(err.message, rows[i].why);
        free(exact);
    }
}

static struct selftest_result good(void)
{
    return (struct selftest_result){.streams = 1, .ttft = {.p99 = 0.002}, .itl = {.p99 = 0.0005}};
}

static void test_verdict(void **state)
{
    (void)state;
    struct selftest_result r = good();
    assert_true(selftest_goals_met(&r));
    r.ttft.p99 = 0.0021;
    assert_false(selftest_goals_met(&r));
    r = good();
    r.itl.p99 = (double)NAN;
    assert_false(selftest_goals_met(&r));
    r = good();
    r.nagle_frac = 0.01;
    assert_false(selftest_goals_met(&r));
    r = good();
    r.is_void = true;
    assert_false(selftest_goals_met(&r));
    struct strbuf text = {0};
    r.late.p99 = 0.001;
    selftest_print_text(&r, &text);
    assert_contains(strbuf_text(&text), "VOID: the server was late by 1.000 ms");
    strbuf_deinit(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stamps),
        cmocka_unit_test(test_bad_stamps),
        cmocka_unit_test(test_verdict),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
