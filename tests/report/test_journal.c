/* The journal and benchmark_results.json: round trip, every truncation, bad lines, failing memory.
 */
#include <jansson.h>

#include "sample.h"

static const char fingerprint[] = "schedulers=naive,dynamic sizes=25 runs=2 \"seed\"=42";

/* The journal of all runs of r. */
static void make_journal(const struct results *r, struct strbuf *b)
{
    assert_int_equal(results_head_to_line(r, fingerprint, b, NULL), STATUS_OK);
    for (size_t i = 0; i < r->n_runs; i++) {
        assert_int_equal(results_run_to_line(&r->runs[i], b, NULL), STATUS_OK);
    }
    for (size_t i = 0; i < r->n_servers; i++) {
        assert_int_equal(results_server_to_line(&r->servers[i], b, NULL), STATUS_OK);
    }
}

/* Both as summaries CSV and detailed CSV: equal bytes, equal results. */
static void assert_same_results(const struct results *a, const struct results *b)
{
    char *dir = make_dir();
    const struct results *both[2] = {a, b};
    char *texts[2][2];
    size_t lens[2][2];
    for (int i = 0; i < 2; i++) {
        char *path = fs_join(dir, "x.csv");
        assert_int_equal(results_write_summaries_csv(both[i], path, false, NULL), STATUS_OK);
        texts[i][0] = read_whole(dir, "x.csv", &lens[i][0]);
        assert_int_equal(results_write_detailed_csv(both[i], path, false, NULL), STATUS_OK);
        texts[i][1] = read_whole(dir, "x.csv", &lens[i][1]);
        mem_free(path);
    }
    for (int k = 0; k < 2; k++) {
        assert_int_equal(lens[0][k], lens[1][k]);
        assert_memory_equal(texts[0][k], texts[1][k], lens[0][k]);
        mem_free(texts[0][k]);
        mem_free(texts[1][k]);
    }
    assert_string_equal(a->environment.command_line, b->environment.command_line);
    assert_string_equal(a->model.path, b->model.path);
    assert_int_equal(a->environment.memory_bytes, b->environment.memory_bytes);
    assert_true(a->settings.temperature == b->settings.temperature);
    assert_int_equal(a->settings.runs_planned, b->settings.runs_planned);
    remove_dir(dir);
}

static void test_round_trip(void **state)
{
    (void)state;
    struct results r;
    sample_results(&r, 3, 1, 2);
    r.runs[1].seed = UINT64_MAX; /* beyond JSON's signed integers */
    r.settings.seed = (uint64_t)INT64_MAX + 1;
    struct strbuf b = {0};
    make_journal(&r, &b);
    size_t lines = 0;
    for (size_t i = 0; i < b.len; i++) {
        lines += b.data[i] == '\n';
    }
    assert_int_equal(lines, 1 + r.n_runs);
    struct results back;
    char *print = NULL;
    bool torn = true;
    struct error err = ERROR_INIT;
    if (results_from_journal(b.data, b.len, "j", &back, &print, &torn, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    assert_false(torn);
    assert_false(back.partial);
    assert_string_equal(print, fingerprint);
    assert_int_equal(back.runs[1].seed, UINT64_MAX);
    assert_int_equal(back.settings.seed, (uint64_t)INT64_MAX + 1);
    assert_same_results(&r, &back);
    mem_free(print);
    results_deinit(&back);
    strbuf_deinit(&b);
    results_deinit(&r);
}

/* Rows over HTTP and their servers; the last line about a server counts. */
static void test_servers_round_trip(void **state)
{
    (void)state;
    struct results r;
    sample_with_server(&r, 1);
    struct strbuf b = {0};
    make_journal(&r, &b);
    struct server_facts facts = sample_server("away", SERVER_LOST);
    assert_int_equal(results_server_to_line(&facts, &b, NULL), STATUS_OK);
    server_facts_deinit(&facts);
    struct results back;
    char *print = NULL;
    bool torn = true;
    struct error err = ERROR_INIT;
    if (results_from_journal(b.data, b.len, "j", &back, &print, &torn, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    assert_same_results(&r, &back);
    assert_int_equal(back.n_servers, 2);
    assert_string_equal(results_server(&back, "away")->state, SERVER_LOST);
    assert_true(results_server(&back, "away")->max_model_len == COUNT_UNKNOWN);
    const struct server_facts *vllm = results_server(&back, "vllm");
    assert_int_equal(vllm->max_model_len, 2048);
    assert_string_equal(vllm->refused_fields, "top_k, seed");
    assert_string_equal(vllm->cache_config, "block_size=\"16\"");
    assert_null(results_server(&back, "continuous"));
    mem_free(print);
    results_deinit(&back);
    strbuf_deinit(&b);
    results_deinit(&r);
}

/* Killed at any byte: the whole lines are kept, a torn one is reported. */
static void test_truncation_at_every_byte(void **state)
{
    (void)state;
    struct results r;
    sample_head(&r);
    r.settings.runs_planned = 3;
    for (uint64_t i = 1; i <= 3; i++) {
        struct run run = sample_run("naive", "naive", 2, i, 1.0, true);
        assert_int_equal(results_add(&r, &run, NULL), STATUS_OK);
    }
    struct strbuf b = {0};
    make_journal(&r, &b);
    for (size_t n = 0; n <= b.len; n++) {
        size_t whole = 0;
        size_t end = 0;
        char *exact = malloc(n > 0 ? n : 1); /* so that ASan sees a read beyond the end */
        assert_non_null(exact);
        memcpy(exact, b.data, n);
        for (size_t i = 0; i < n; i++) {
            if (exact[i] == '\n') {
                whole++;
                end = i + 1;
            }
        }
        struct results back;
        char *print = NULL;
        bool torn = false;
        struct error err = ERROR_INIT;
        if (results_from_journal(exact, n, "j", &back, &print, &torn, &err) != STATUS_OK) {
            fail_msg("cut at %zu: %s", n, err.message);
        }
        assert_int_equal(back.n_runs, whole > 0 ? whole - 1 : 0);
        assert_int_equal(torn, n > end);
        assert_true((print == NULL) == (whole == 0));
        assert_int_equal(back.partial, whole > 0 && whole < 4);
        mem_free(print);
        results_deinit(&back);
        free(exact);
    }
    strbuf_deinit(&b);
    results_deinit(&r);
}

/* One change to a good journal, and what the message must say. */
static void expect_error(const char *find, const char *replacement, const char *message)
{
    struct results r;
    sample_head(&r);
    struct run run = sample_run("naive", "naive", 1, 1, 1.0, true);
    assert_int_equal(results_add(&r, &run, NULL), STATUS_OK);
    struct strbuf b = {0};
    make_journal(&r, &b);
    struct strbuf bad = {0};
    char *at = strstr(b.data, find);
    if (at == NULL) {
        fail_msg("no %s in %s", find, b.data);
    }
    strbuf_append(&bad, b.data, (size_t)(at - b.data));
    strbuf_puts(&bad, replacement);
    strbuf_puts(&bad, at + strlen(find));
    struct results back = {.n_runs = 77};
    char *print = (char *)"untouched";
    bool torn = false;
    struct error err = ERROR_INIT;
    enum status s = results_from_journal(bad.data, bad.len, "j.jsonl", &back, &print, &torn, &err);
    assert_int_equal(s, STATUS_BAD_DATA);
    assert_int_equal(back.n_runs, 77);
    assert_string_equal(print, "untouched");
    if (strstr(err.message, message) == NULL) {
        fail_msg("\"%s\" lacks \"%s\"", err.message, message);
    }
    strbuf_deinit(&bad);
    strbuf_deinit(&b);
    results_deinit(&r);
}

static void test_bad_lines(void **state)
{
    (void)state;
    expect_error("{\"kind\":\"head\"", "{\"kind\":\"run\"",
                 "j.jsonl: line 1: \"kind\" must be \"head\"");
    expect_error("{\"kind\":\"head\"", "{\"kind\":7", "line 1: \"kind\" must be \"head\"");
    expect_error("\"schema_version\":1", "\"schema_version\":2",
                 "line 1: \"schema_version\" is not 1");
    expect_error("\"fingerprint\":\"", "\"fingerprint_\":\"", "line 1: \"fingerprint\" is missing");
    expect_error("\"environment\":{", "\"environment\":[],\"x\":{",
                 "line 1: environment: not a JSON");
    expect_error("\"cores\":2", "\"cores\":-2",
                 "line 1: environment: \"cores\" must be a whole number");
    expect_error("\"cores\":2", "\"cores\":2.5", "\"cores\" must be a whole number");
    expect_error("\"top_p\":", "\"top_q\":", "line 1: settings: the key \"top_p\" is missing");
    expect_error("\"ignore_eos\":false", "\"ignore_eos\":\"no\"",
                 "\"ignore_eos\" must be true or false");
    expect_error("\n{\"scheduler\"", "\n\n{\"scheduler\"", "j.jsonl: line 2: ");
    expect_error("\n{\"scheduler\"", "\n[{\"scheduler\"", "line 2: ");
    expect_error("\"scheduler\":\"naive\"", "\"scheduler\":\"naive\",\"scheduler\":\"x\"",
                 "line 2: duplicate object key");
    expect_error("\"scheduler\":\"naive\"", "\"scheduler\":\"\"", "\"scheduler\" must be a text");
    expect_error("\"scheduler\":\"naive\"", "\"scheduler\":\"na\\u0000ive\"", "line 2: ");
    expect_error("\"run_num\":1", "\"run_num\":\"1x\"",
                 "line 2: \"run_num\" must be a whole number");
    expect_error(
        "\"wall_time_s\":", "\"wall_time_s\":null,\"x\":", "\"wall_time_s\" must be a number");
    expect_error("\"mean_batch_size\":3.5", "\"mean_batch_size\":-3.5", "\"mean_batch_size\"");
    expect_error("\"mean_batch_size\":3.5", "\"mean_batch_size\":1e300", "\"mean_batch_size\"");
    expect_error("\"mean_batch_size\":3.5", "\"mean_batch_size\":1e999", "line 2: ");
    expect_error("\"requests\":[", "\"requests\":{},\"x\":[",
                 "\"requests\" is missing or not an array");
    expect_error("\"status\":\"ok\"", "\"status\":\"okay\"",
                 "line 2: requests[0]: \"status\" must be ok");
    expect_error("\"output_hash\":\"0x", "\"output_hash\":\"0X",
                 "\"output_hash\" must be 0x and 16");
    expect_error("\"prompt\":\"", "\"prompt\":\"\xFF", "line 2: ");
    expect_error("\"kind\":\"run\"", "\"kind\":\"head\"", "line 2: \"kind\" must be \"run\"");
}

static void test_double_run(void **state)
{
    (void)state;
    struct results r;
    sample_results(&r, 1, 1, 1);
    struct strbuf b = {0};
    make_journal(&r, &b);
    assert_int_equal(results_run_to_line(&r.runs[0], &b, NULL), STATUS_OK);
    struct results back;
    char *print = NULL;
    bool torn = false;
    struct error err = ERROR_INIT;
    assert_int_equal(results_from_journal(b.data, b.len, "j", &back, &print, &torn, &err),
                     STATUS_BAD_DATA);
    assert_non_null(strstr(err.message, "j: line 3: naive, size 25, run 1 is there twice"));
    strbuf_deinit(&b);
    results_deinit(&r);
}

static void test_results_json(void **state)
{
    (void)state;
    struct results r;
    sample_results(&r, 2, 1, 1);
    r.model.random_weights = true;
    r.partial = true;
    r.runs[1].rows[4].output_hash ^= 1;
    char *dir = make_dir();
    char *path = fs_join(dir, "r.json");
    assert_int_equal(results_write_json(&r, path, NULL), STATUS_OK);
    json_error_t why;
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &why);
    if (root == NULL) {
        fail_msg("line %d: %s", why.line, why.text);
    }
    assert_int_equal(json_integer_value(json_object_get(root, "schema_version")), 1);
    assert_true(json_is_true(json_object_get(root, "partial")));
    json_t *model = json_object_get(root, "model");
    assert_true(json_is_true(json_object_get(model, "random_weights")));
    assert_string_equal(json_string_value(json_object_get(model, "kv_dtype")), r.model.kv_dtype);
    json_t *same = json_object_get(root, "same_text");
    assert_int_equal(json_integer_value(json_object_get(same, "compared")), 25);
    assert_int_equal(json_integer_value(json_object_get(same, "differing")), 1);
    json_t *runs = json_object_get(root, "runs");
    assert_int_equal(json_array_size(runs), 2);
    json_t *run = json_array_get(runs, 0);
    assert_true(json_is_null(json_object_get(run, "tpot_p50_s"))); /* undefined, not 0 */
    assert_true(json_real_value(json_object_get(run, "batch_efficiency")) == 0.8125);
    json_t *requests = json_object_get(run, "requests");
    assert_int_equal(json_array_size(requests), 25);
    const char *prompt = json_string_value(json_object_get(json_array_get(requests, 3), "prompt"));
    assert_string_equal(prompt, HOSTILE_TEXT);
    json_decref(root);
    mem_free(path);
    results_deinit(&r);
    remove_dir(dir);
}

static void *failing_malloc(size_t n)
{
    return mem_alloc(1, n);
}

/* Writing: jansson allocates through base/mem, so that its refusals are met as well. */
static void test_allocation_failures(void **state)
{
    (void)state;
    json_set_alloc_funcs(failing_malloc, mem_free);
    struct results r;
    sample_head(&r);
    r.environment.cpu[0] = '\xFF'; /* replaced on the way */
    for (uint64_t i = 1; i <= 2; i++) {
        struct run run = sample_run("naive", "naive", 2, i, 1.0, true);
        assert_int_equal(results_add(&r, &run, NULL), STATUS_OK);
    }
    struct strbuf b = {0};
    uint64_t n = 1;
    for (;; n++) {
        strbuf_deinit(&b);
        mem_fail_at(n, false);
        enum status s = results_head_to_line(&r, fingerprint, &b, NULL);
        for (size_t i = 0; s == STATUS_OK && i < r.n_runs; i++) {
            s = results_run_to_line(&r.runs[i], &b, NULL);
        }
        mem_fail_at(0, false);
        if (s == STATUS_OK) {
            break;
        }
        assert_int_equal(s, STATUS_NO_MEMORY);
    }
    assert_true(n > 200);
    /* Reading: our own allocations only. jansson 2.14 ignores a refusal while it saves a long
     * string and then writes beyond its buffer, which is not ours to mend. */
    json_set_alloc_funcs(malloc, free);
    for (n = 1;; n++) {
        struct results back;
        char *print = NULL;
        bool torn = false;
        mem_fail_at(n, false);
        enum status s = results_from_journal(b.data, b.len, "j", &back, &print, &torn, NULL);
        mem_fail_at(0, false);
        if (s == STATUS_OK) {
            assert_int_equal(back.n_runs, 2);
            mem_free(print);
            results_deinit(&back);
            break;
        }
        assert_int_equal(s, STATUS_NO_MEMORY);
    }
    assert_true(n > 20);
    strbuf_deinit(&b);
    results_deinit(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_servers_round_trip),
        cmocka_unit_test(test_truncation_at_every_byte),
        cmocka_unit_test(test_bad_lines),
        cmocka_unit_test(test_double_run),
        cmocka_unit_test(test_results_json),
        cmocka_unit_test(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
