/* The two CSVs: round trip, hostile text, errors with line and column, locale, failing memory. */
#include <locale.h>
#include <sys/wait.h>

#include "report/results_int.h"
#include "sample.h"

static char *write_both(const struct results *r, bool csv_safe)
{
    char *dir = make_dir();
    char *a = fs_join(dir, "s.csv");
    char *b = fs_join(dir, "m.csv");
    assert_int_equal(results_write_summaries_csv(r, a, csv_safe, NULL), STATUS_OK);
    assert_int_equal(results_write_detailed_csv(r, b, csv_safe, NULL), STATUS_OK);
    mem_free(a);
    mem_free(b);
    return dir;
}

static enum status read_both(const char *dir, bool rows, struct results *out, struct error *err)
{
    char a[256];
    char b[256];
    snprintf(a, sizeof a, "%s/s.csv", dir);
    snprintf(b, sizeof b, "%s/m.csv", dir);
    return results_read_csv(a, rows ? b : NULL, out, err);
}

static void put_file(const char *dir, const char *name, const char *text, size_t n)
{
    char *path = fs_join(dir, name);
    FILE *f = fopen(path, "wb"); /* no fsync: these are many */
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    mem_free(path);
}

static bool same_real(double a, double b)
{
    return a == b || (isnan(a) && isnan(b));
}

/* Every figure of the table, so that a column added later is compared too. */
static void assert_same_figures(const struct run *a, const struct run *b)
{
    for (const char *const *name = results_figure_names(); *name != NULL; name++) {
        double x = 0.0;
        double y = 0.0;
        assert_true(results_figure(a, *name, &x) && results_figure(b, *name, &y));
        if (!same_real(x, y)) {
            fail_msg("%s: %.17g became %.17g", *name, x, y);
        }
    }
}

static void assert_same_rows(const struct run *a, const struct run *b)
{
    assert_int_equal(a->n_rows, b->n_rows);
    for (size_t i = 0; i < a->n_rows; i++) {
        const struct request_row *x = &a->rows[i];
        const struct request_row *y = &b->rows[i];
        assert_int_equal(x->request_id, y->request_id);
        assert_int_equal(x->status, y->status);
        assert_true(same_real(x->arrival_s, y->arrival_s) && same_real(x->queue_s, y->queue_s));
        assert_true(same_real(x->ttft_s, y->ttft_s) && same_real(x->tpot_s, y->tpot_s));
        assert_true(same_real(x->latency_s, y->latency_s));
        assert_true(same_real(x->tokens_per_sec, y->tokens_per_sec));
        assert_int_equal(x->input_tokens, y->input_tokens);
        assert_int_equal(x->output_tokens, y->output_tokens);
        assert_int_equal(x->batch_size, y->batch_size);
        assert_int_equal(x->preemptions, y->preemptions);
        assert_int_equal(x->output_hash, y->output_hash);
        assert_string_equal(x->prompt, y->prompt);
        assert_string_equal(x->generated_text, y->generated_text);
        assert_string_equal(x->error, y->error);
    }
}

static void test_round_trip(void **state)
{
    (void)state;
    struct results r;
    sample_results(&r, 3, 2, 2);
    r.model.random_weights = true;
    r.runs[2].rows[1].status = RECORD_REJECTED;
    r.runs[2].rows[1].latency_s = (double)NAN;
    mem_free(r.runs[2].rows[1].error);
    r.runs[2].rows[1].error = copy("queue full");
    char *dir = write_both(&r, false);
    struct results back;
    struct error err = ERROR_INIT;
    if (read_both(dir, true, &back, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    assert_int_equal(back.n_runs, r.n_runs);
    for (size_t i = 0; i < r.n_runs; i++) {
        assert_string_equal(back.runs[i].scheduler, r.runs[i].scheduler);
        assert_string_equal(back.runs[i].policy, r.runs[i].policy);
        assert_string_equal(back.runs[i].params, r.runs[i].params);
        assert_same_figures(&r.runs[i], &back.runs[i]);
        assert_same_rows(&r.runs[i], &back.runs[i]);
    }
    assert_string_equal(back.model.name, r.model.name);
    assert_string_equal(back.model.kv_dtype, r.model.kv_dtype);
    assert_string_equal(back.environment.cpu, r.environment.cpu);
    assert_true(back.model.random_weights);
    assert_false(back.partial);
    assert_int_equal(back.settings.max_concurrent, 10);
    results_deinit(&back);
    results_deinit(&r);
    remove_dir(dir);
}

static void test_form(void **state)
{
    (void)state;
    struct results r;
    sample_results(&r, 1, 1, 1);
    r.runs[0].summary.throughput_req_per_sec = 7.5;
    char *dir = write_both(&r, false);
    size_t len;
    char *text = read_whole(dir, "s.csv", &len);
    static const char head[] =
        "scheduler,request_size,run_num,total_requests,successful_requests,failed_requests,"
        "wall_time_s,throughput_req_per_sec,throughput_tokens_per_sec,latency_p50_s,latency_p95_s,"
        "latency_p99_s,latency_avg_s,latency_min_s,latency_max_s,ttft_p50_s,";
    assert_memory_equal(text, head, sizeof head - 1);
    assert_non_null(strstr(text, ",schema_version\r\nnaive,25,1,25,25,0,"));
    assert_non_null(strstr(text, ",7.5,"));
    assert_non_null(strstr(text, ",,,,,,")); /* TPOT of a static batch */
    assert_non_null(strstr(text, "\"Test CPU \"\"9000\"\", x2\""));
    assert_null(strstr(text, "nan"));
    assert_memory_equal(text + len - 4, ",1\r\n", 4);
    mem_free(text);
    text = read_whole(dir, "m.csv", &len);
    static const char rows[] = "scheduler,request_size,run_num,request_id,status,arrival_s,queue_s,"
                               "ttft_s,tpot_s,latency_s,input_tokens,output_tokens,tokens_per_sec,"
                               "batch_size,preemptions,output_hash,prompt,generated_text,error,"
                               "http_status,longest_gap_s,model,"
                               "random_weights,schema_version\r\nnaive,25,1,0,ok,0,";
    assert_memory_equal(text, rows, sizeof rows - 1);
    mem_free(text);
    results_deinit(&r);
    remove_dir(dir);
}

/* What a server does not show is an empty cell, and unknown again when read. */
static void test_unknown_is_empty(void **state)
{
    (void)state;
    struct results r;
    sample_with_server(&r, 0);
    char *dir = write_both(&r, false);
    char *summaries = fs_join(dir, "s.csv");
    char *metrics = fs_join(dir, "m.csv");
    size_t len;
    char *text = read_whole(dir, "s.csv", &len);
    /* efficiency, rows, padding, recomputed; tokens; peak, preemptions, steps, split, ... */
    assert_non_null(strstr(text, ",25,,,,,,500,,,,,,,,,,,,,vllm,"));
    mem_free(text);
    text = read_whole(dir, "m.csv", &len);
    assert_non_null(strstr(text, ",,,,Tell me a story,answer 0,,200,0.06,"));
    mem_free(text);
    struct results back;
    struct error err = ERROR_INIT;
    if (results_read_csv(summaries, metrics, &back, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    const struct run *run = &back.runs[0];
    double v = 0.0;
    assert_true(run_is_remote(run) && run->summary.steps == COUNT_UNKNOWN);
    assert_true(results_figure(run, "preemptions", &v) && isnan(v));
    assert_true(run->rows[3].batch_size == COUNT_UNKNOWN && run->rows[3].http_status == 200);
    assert_true(isnan(back.settings.temperature));
    assert_true(run->remote.cached_prompt_frac == 0.25 && run->remote.server_prompt_tokens == 425);
    results_deinit(&back);
    mem_free(summaries);
    mem_free(metrics);
    results_deinit(&r);
    remove_dir(dir);
}

static void test_formula_guard(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *cell;
    } cases[] = {{"=1+1", ",'=1+1,"},     {"+1", ",'+1,"},   {"-1", ",'-1,"},
                 {"@x", ",'@x,"},         {"\tx", ",'\tx,"}, {"\rx", ",\"'\rx\","},
                 {"=1,2", ",\"'=1,2\","}, {"a=1", ",a=1,"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct results r;
        sample_head(&r);
        struct run run = sample_run("naive", "naive", 1, 1, 1.0, true);
        mem_free(run.rows[0].prompt);
        run.rows[0].prompt = copy(cases[i].text);
        assert_int_equal(results_add(&r, &run, NULL), STATUS_OK);
        char *dir = write_both(&r, true);
        size_t len;
        char *text = read_whole(dir, "m.csv", &len);
        if (strstr(text, cases[i].cell) == NULL) {
            fail_msg("no %s in %s", cases[i].cell, text);
        }
        mem_free(text);
        remove_dir(dir);
        dir = write_both(&r, false);
        text = read_whole(dir, "m.csv", &len);
        assert_true(cases[i].text[0] == 'a' || strstr(text, cases[i].cell) == NULL);
        mem_free(text);
        remove_dir(dir);
        results_deinit(&r);
    }
}

static void test_invalid_utf8_is_replaced(void **state)
{
    (void)state;
    struct results r;
    sample_head(&r);
    struct run run = sample_run("naive", "naive", 1, 1, 1.0, true);
    mem_free(run.rows[0].prompt);
    run.rows[0].prompt = copy("a\xFF\xC3z");
    assert_int_equal(results_add(&r, &run, NULL), STATUS_OK);
    char *dir = write_both(&r, false);
    struct results back;
    assert_int_equal(read_both(dir, true, &back, NULL), STATUS_OK);
    assert_string_equal(back.runs[0].rows[0].prompt, "a\xEF\xBF\xBD\xEF\xBF\xBDz");
    results_deinit(&back);
    results_deinit(&r);
    remove_dir(dir);
}

#define MINIMAL_HEAD                                                                               \
    "scheduler,request_size,run_num,total_requests,successful_requests,failed_requests,"           \
    "wall_time_s,throughput_req_per_sec,throughput_tokens_per_sec,latency_p50_s,latency_p95_s,"    \
    "latency_p99_s,latency_avg_s,latency_min_s,latency_max_s"
#define ROW_HEAD                                                                                   \
    "scheduler,request_size,run_num,request_id,status,arrival_s,queue_s,ttft_s,latency_s,"         \
    "input_tokens,output_tokens,tokens_per_sec,batch_size,preemptions,prompt,generated_text,error"

/* What people and spreadsheets make of our files. */
static void test_lenient_forms(void **state)
{
    (void)state;
    static const char *const files[] = {
        MINIMAL_HEAD "\nnaive,25,1,25,25,0,3.5,7.1,142,1,2,3,1.1,0.2,3.5\n",
        "\xEF\xBB\xBF" MINIMAL_HEAD "\r\nnaive,25,1,25,25,0,3.5,7.1,142,1,2,3,1.1,0.2,3.5",
        MINIMAL_HEAD "\r\"naive\",\"25\",1,25,25.0,0,3.5,7.1,1.42e2,1,2,3,1.1,0.2,3.5\r\r",
        MINIMAL_HEAD ",extra\n\nnaive,25,1,25,25,0,3.5,7.1,142,1,2,3,1.1,0.2,3.5,\"x\ny\"\n\n",
        "latency_max_s,latency_min_s,latency_avg_s,latency_p99_s,latency_p95_s,latency_p50_s,"
        "throughput_tokens_per_sec,throughput_req_per_sec,wall_time_s,failed_requests,"
        "successful_requests,total_requests,run_num,request_size,scheduler\n"
        "3.5,0.2,1.1,3,2,1,142,7.1,3.5,0,25,25,1,25,naive\n"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char *dir = make_dir();
        put_file(dir, "s.csv", files[i], strlen(files[i]));
        struct results r;
        struct error err = ERROR_INIT;
        if (read_both(dir, false, &r, &err) != STATUS_OK) {
            fail_msg("file %zu: %s", i, err.message);
        }
        assert_int_equal(r.n_runs, 1);
        assert_string_equal(r.runs[0].scheduler, "naive");
        assert_int_equal(r.runs[0].summary.successful_requests, 25);
        assert_true(r.runs[0].summary.throughput_tokens_per_sec == 142.0);
        assert_true(r.runs[0].summary.latency.max_s == 3.5);
        assert_true(isnan(r.runs[0].summary.ttft.p50_s)); /* a column that is not there */
        results_deinit(&r);
        remove_dir(dir);
    }
}

#define GOOD     "naive,25,1,25,25,0,3.5,7.1,142,1,2,3,1.1,0.2,3.5\n"
#define GOOD_ROW "naive,25,1,0,ok,0,0,1,1,16,20,20,4,0,p,g,\n"

static void test_errors_name_line_and_column(void **state)
{
    (void)state;
    static const struct {
        const char *summaries;
        const char *metrics;
        const char *message;
    } cases[] = {
        {"", NULL, "s.csv: empty"},
        {"\n\n", NULL, "s.csv: empty"},
        {MINIMAL_HEAD "\n", NULL, "a header, but no run below it"},
        {"scheduler,request_size\n", NULL, "line 1: missing column: run_num, total_requests, "},
        {MINIMAL_HEAD ",run_num\n" GOOD, NULL, "line 1: two columns are called \"run_num\""},
        {MINIMAL_HEAD "\n" GOOD "naive,25\n", NULL, "line 3: 2 cells, but the header names 15"},
        {MINIMAL_HEAD "\nnaive,25,1,25,25,0,3.5,fast,142,1,2,3,1.1,0.2,3.5\n", NULL,
         "line 2, column \"throughput_req_per_sec\": \"fast\" is not a number"},
        {MINIMAL_HEAD "\nnaive,25,1,25,25,0,3.5,,142,1,2,3,1.1,0.2,3.5\n", NULL,
         "line 2, column \"throughput_req_per_sec\": \"\" is not a number"},
        {MINIMAL_HEAD "\nnaive,25,1,25,25,0,3.5,nan,142,1,2,3,1.1,0.2,3.5\n", NULL,
         "column \"throughput_req_per_sec\": \"nan\""},
        {MINIMAL_HEAD "\nnaive,25,1,25,25,0,3.5,1e999,142,1,2,3,1.1,0.2,3.5\n", NULL, "\"1e999\""},
        {MINIMAL_HEAD "\nnaive,25,1,25,25,0,3.5,-1,142,1,2,3,1.1,0.2,3.5\n", NULL, "\"-1\""},
        {MINIMAL_HEAD "\nnaive,2.5,1,25,25,0,3.5,7,142,1,2,3,1.1,0.2,3.5\n", NULL,
         "column \"request_size\": \"2.5\" is not a whole number"},
        {MINIMAL_HEAD "\nnaive,18446744073709551616,1,25,25,0,3.5,7,142,1,2,3,1.1,0.2,3.5\n", NULL,
         "column \"request_size\""},
        {MINIMAL_HEAD "\n,25,1,25,25,0,3.5,7,142,1,2,3,1.1,0.2,3.5\n", NULL,
         "column \"scheduler\""},
        {MINIMAL_HEAD "\n" GOOD GOOD, NULL, "line 3: naive, size 25, run 1 is there twice"},
        {MINIMAL_HEAD ",model\nnaive,25,1,25,25,0,3.5,7,142,1,2,3,1,0.2,3.5,a\n"
                      "naive,25,2,25,25,0,3.5,7,142,1,2,3,1,0.2,3.5,b\n",
         NULL, "line 3, column \"model\": \"b\" after \"a\""},
        {MINIMAL_HEAD ",schema_version\nnaive,25,1,25,25,0,3.5,7,142,1,2,3,1,0.2,3.5,2\n", NULL,
         "line 2, column \"schema_version\": \"2\", but this program reads version 1"},
        {MINIMAL_HEAD "\n\"naive,25\n", NULL, "line 2: the quote that opens here never closes"},
        {MINIMAL_HEAD "\n\"naive\"x,25\n", NULL, "line 2: text after a closing quote"},
        {MINIMAL_HEAD "\nna\"ive,25\n", NULL, "line 2: a quote inside a cell that is not quoted"},
        {MINIMAL_HEAD "\n" GOOD, "", "m.csv: empty"},
        {MINIMAL_HEAD "\n" GOOD, "scheduler\n", "m.csv: line 1: missing column: request_size"},
        {MINIMAL_HEAD "\n" GOOD, ROW_HEAD "\nnaive,25,2,0,ok,0,0,1,1,16,20,20,4,0,p,g,\n",
         "m.csv: line 2: the summaries have no run 2 of naive, size 25"},
        {MINIMAL_HEAD "\n" GOOD, ROW_HEAD "\n" GOOD_ROW GOOD_ROW, "request 0 of naive"},
        {MINIMAL_HEAD "\n" GOOD,
         ROW_HEAD "\n" GOOD_ROW "naive,25,1,\"1\",fine,0,0,1,1,16,20,20,4,0,\"two\nlines\",g,\n"
                  "naive,25,1,2,ok,0,0,1,1,16,20,20,4,0,p,g,\n",
         "m.csv: line 3, column \"status\": \"fine\" is not ok, failed, rejected"},
        {MINIMAL_HEAD "\n" GOOD,
         ROW_HEAD "\nnaive,25,1,1,ok,0,0,1,1,16,20,20,4,0,\"two\nlines\",g,\n"
                  "naive,25,1,2,ok,0,0,1,x,16,20,20,4,0,p,g,\n",
         "m.csv: line 4, column \"latency_s\": \"x\""}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *dir = make_dir();
        put_file(dir, "s.csv", cases[i].summaries, strlen(cases[i].summaries));
        bool rows = cases[i].metrics != NULL;
        if (rows) {
            put_file(dir, "m.csv", cases[i].metrics, strlen(cases[i].metrics));
        }
        struct results r = {.n_runs = 77};
        struct error err = ERROR_INIT;
        assert_int_equal(read_both(dir, rows, &r, &err), STATUS_BAD_DATA);
        assert_int_equal(r.n_runs, 77); /* untouched */
        if (strstr(err.message, cases[i].message) == NULL) {
            fail_msg("case %zu: \"%s\" lacks \"%s\"", i, err.message, cases[i].message);
        }
        remove_dir(dir);
    }
    struct results r;
    assert_int_equal(results_read_csv("/nonexistent/x.csv", NULL, &r, NULL), STATUS_NOT_FOUND);
}

static void test_nul_byte(void **state)
{
    (void)state;
    static const char text[] = MINIMAL_HEAD "\nna\0ive,25\n";
    char *dir = make_dir();
    put_file(dir, "s.csv", text, sizeof text - 1);
    struct results r;
    struct error err = ERROR_INIT;
    assert_int_equal(read_both(dir, false, &r, &err), STATUS_BAD_DATA);
    assert_non_null(strstr(err.message, "NUL"));
    assert_int_equal(err.position, strlen(MINIMAL_HEAD) + 3);
    remove_dir(dir);
}

/* Cut at every byte: an error or fewer runs, never a crash. Runs under ASan too. */
static void test_truncation(void **state)
{
    (void)state;
    struct results r;
    sample_results(&r, 2, 1, 1);
    char *dir = write_both(&r, false);
    size_t len;
    char *text = read_whole(dir, "s.csv", &len);
    size_t good = 0;
    for (size_t n = 1; n < len; n++) {
        char *exact = malloc(n); /* so that ASan sees a read beyond the end */
        assert_non_null(exact);
        memcpy(exact, text, n);
        struct results back;
        if (results_parse_csv(exact, n, NULL, 0, "s.csv", NULL, &back, NULL) == STATUS_OK) {
            good++;
            results_deinit(&back);
        }
        free(exact);
    }
    assert_true(good > 0 && good < len / 2);
    mem_free(text);
    results_deinit(&r);
    remove_dir(dir);
}

/* Writes and reads under a locale with a decimal comma, which the test makes for itself. */
static void test_locale(void **state)
{
    (void)state;
    static const char source[] =
        "LC_NUMERIC\ndecimal_point \",\"\nthousands_sep \"\"\ngrouping -1\n"
        "END LC_NUMERIC\n";
    char *locales = make_dir();
    char command[512];
    put_file(locales, "source", source, sizeof source - 1);
    snprintf(command, sizeof command, "localedef -c -i '%s/source' '%s/comma' >/dev/null 2>&1",
             locales, locales);
    int made = system(command);
    (void)made; /* it warns of missing categories by its exit status; the probe below decides */
    setenv("LOCPATH", locales, 1);
    char probe[16] = "";
    if (setlocale(LC_NUMERIC, "comma") != NULL) {
        snprintf(probe, sizeof probe, "%.1f", 0.5);
    }
    if (strcmp(probe, "0,5") != 0) {
        print_message("[  SKIPPED ] localedef could not make a locale with a decimal comma\n");
        remove_dir(locales);
        skip();
    }
    struct results r;
    sample_results(&r, 2, 1, 2);
    char *dir = write_both(&r, false);
    struct results back;
    struct error err = ERROR_INIT;
    enum status s = read_both(dir, true, &back, &err);
    size_t len;
    char *text = read_whole(dir, "s.csv", &len);
    setlocale(LC_NUMERIC, "C");
    if (s != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    assert_same_figures(&r.runs[0], &back.runs[0]);
    assert_non_null(strstr(text, ",0.8125,"));
    mem_free(text);
    results_deinit(&back);
    results_deinit(&r);
    remove_dir(locales);
    remove_dir(dir);
}

static void test_allocation_failures(void **state)
{
    (void)state;
    struct results r;
    sample_results(&r, 2, 1, 1);
    char *dir = write_both(&r, false);
    uint64_t n = 1;
    for (;; n++) {
        struct results back;
        mem_fail_at(n, false);
        enum status s = read_both(dir, true, &back, NULL);
        mem_fail_at(0, false);
        if (s == STATUS_OK) {
            results_deinit(&back);
            break;
        }
        assert_int_equal(s, STATUS_NO_MEMORY);
    }
    assert_true(n > 100);
    char *path = fs_join(dir, "w.csv");
    for (n = 1;; n++) {
        mem_fail_at(n, false);
        enum status s = results_write_detailed_csv(&r, path, false, NULL);
        mem_fail_at(0, false);
        if (s == STATUS_OK) {
            break;
        }
        assert_int_equal(s, STATUS_NO_MEMORY);
        assert_false(fs_is_file(path));
    }
    assert_true(n > 3);
    mem_free(path);
    results_deinit(&r);
    remove_dir(dir);
}

/* A text of 0 to 40 characters from all that could matter to a CSV reader. */
static char *random_text(struct rng *rng)
{
    static const char *const pieces[] = {"\"",
                                         ",",
                                         "\n",
                                         "\r",
                                         "\r\n",
                                         "'",
                                         "=",
                                         "+",
                                         "-",
                                         "@",
                                         "\t",
                                         " ",
                                         "\\",
                                         ";",
                                         "a",
                                         "7",
                                         "NA",
                                         "nan",
                                         "\xC2\x85",
                                         "\xE2\x80\xA8",
                                         "\xE2\x80\xA9",
                                         "\xF0\x9F\x98\x80",
                                         "\xC3\xA9",
                                         "\x01",
                                         "\x1A",
                                         "\x7F",
                                         "\xEF\xBB\xBF",
                                         "\v",
                                         "\f",
                                         "\x1C"};
    struct strbuf b = {0};
    strbuf_puts(&b, "");
    for (uint64_t n = rng_below(rng, 41); n > 0; n--) {
        strbuf_puts(&b, pieces[rng_below(rng, sizeof pieces / sizeof pieces[0])]);
    }
    char *text = copy(strbuf_text(&b));
    strbuf_deinit(&b);
    return text;
}

/* Python's csv module and pandas read what we meant, compared cell by cell with the journal. */
static void test_python_reads_the_same(void **state)
{
    (void)state;
    struct results r;
    sample_results(&r, 3, 2, 2);
    struct rng rng = rng_stream(11, 1);
    struct strbuf journal = {0};
    assert_int_equal(results_head_to_line(&r, "f", &journal, NULL), STATUS_OK);
    for (size_t i = 0; i < r.n_runs; i++) {
        for (size_t k = 0; k < r.runs[i].n_rows; k++) {
            mem_free(r.runs[i].rows[k].prompt);
            mem_free(r.runs[i].rows[k].generated_text);
            r.runs[i].rows[k].prompt = random_text(&rng);
            r.runs[i].rows[k].generated_text = random_text(&rng);
        }
        assert_int_equal(results_run_to_line(&r.runs[i], &journal, NULL), STATUS_OK);
    }
    char *dir = write_both(&r, false);
    put_file(dir, "j.jsonl", journal.data, journal.len);
    char command[768];
    snprintf(command, sizeof command,
             "/usr/bin/python3 " SOURCE_DIR
             "/tests/report/check_csv.py %s/s.csv %s/m.csv %s/j.jsonl",
             dir, dir, dir);
    int status = system(command);
    strbuf_deinit(&journal);
    results_deinit(&r);
    remove_dir(dir);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        print_message("[  SKIPPED ] no pandas: apt-get install python3-pandas\n");
        skip();
    }
    assert_int_equal(status, 0);
}

/* Each column of both files stands in docs/METRICS.md as `name`. */
static void test_columns_are_documented(void **state)
{
    (void)state;
    struct results r;
    sample_results(&r, 1, 1, 1);
    char *dir = write_both(&r, false);
    size_t len;
    char *docs = read_whole(SOURCE_DIR "/docs", "METRICS.md", &len);
    static const char *const files[] = {"s.csv", "m.csv"};
    for (size_t i = 0; i < 2; i++) {
        char *text = read_whole(dir, files[i], &len);
        text[strcspn(text, "\r")] = '\0';
        char *rest = text;
        for (char *name; (name = strsep(&rest, ",")) != NULL;) {
            char quoted[80];
            snprintf(quoted, sizeof quoted, "`%s`", name);
            if (strstr(docs, quoted) == NULL) {
                fail_msg("docs/METRICS.md says nothing of the column %s", quoted);
            }
        }
        mem_free(text);
    }
    mem_free(docs);
    results_deinit(&r);
    remove_dir(dir);
}

static void test_unwritable(void **state)
{
    (void)state;
    struct results r;
    sample_results(&r, 1, 1, 1);
    struct error err = ERROR_INIT;
    assert_int_equal(results_write_summaries_csv(&r, "/nonexistent/s.csv", false, &err), STATUS_IO);
    assert_non_null(strstr(err.message, "/nonexistent/s.csv"));
    results_deinit(&r);
}

static void test_figures_by_name(void **state)
{
    (void)state;
    struct run run = sample_run("naive", "naive", 25, 1, 1.0, true);
    double v = 0.0;
    assert_true(results_figure(&run, "request_size", &v) && v == 25.0);
    assert_true(results_figure(&run, "batch_efficiency", &v) && v == 0.8125);
    assert_true(results_figure(&run, "tpot_p50_s", &v) && isnan(v));
    assert_false(results_figure(&run, "scheduler", &v));
    assert_false(results_figure(&run, "no_such_column", &v));
    size_t n = 0;
    while (results_figure_names()[n] != NULL) {
        n++;
    }
    assert_true(n > 45);
    run_deinit(&run);
}

static void test_add_refuses_doubles(void **state)
{
    (void)state;
    struct results r;
    sample_results(&r, 1, 1, 1);
    struct run again = sample_run("naive", "naive", 25, 1, 1.0, true);
    assert_int_equal(results_add(&r, &again, NULL), STATUS_BAD_DATA);
    assert_non_null(again.rows); /* still the caller's */
    again.run_num = 2;
    again.rows[3].request_id = 24; /* out of order, and twice */
    assert_int_equal(results_add(&r, &again, NULL), STATUS_BAD_DATA);
    run_deinit(&again);
    assert_int_equal(r.n_runs, 1);
    results_deinit(&r);
}

static void test_row_from_record(void **state)
{
    (void)state;
    const int32_t ids[3] = {5, 6, 7};
    struct record rec = {.arrival_ns = 2000000000,
                         .scheduled_ns = 2100000000,
                         .first_deliver_ns = 2500000000,
                         .last_deliver_ns = 3000000000,
                         .end_ns = 3000000000,
                         .input_tokens = 9,
                         .output_tokens = 3,
                         .first_tokens = 1,
                         .batch_size = 4,
                         .preemptions = 2,
                         .status = RECORD_OK,
                         .tokens = ids};
    struct request_row row = {.request_id = 8};
    request_row_from_record(&rec, 1500000000, &row);
    assert_int_equal(row.request_id, 8);
    assert_true(fabs(row.arrival_s - 0.5) <= 1e-12 && fabs(row.queue_s - 0.1) <= 1e-12);
    assert_true(fabs(row.ttft_s - 0.5) <= 1e-12 && fabs(row.latency_s - 1.0) <= 1e-12);
    assert_true(fabs(row.tpot_s - 0.25) <= 1e-12 && fabs(row.tokens_per_sec - 3.0) <= 1e-12);
    assert_int_equal(row.output_hash, results_hash(ids, sizeof ids));
    assert_int_not_equal(row.output_hash, results_hash(ids, sizeof ids - 4));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_form),
        cmocka_unit_test(test_unknown_is_empty),
        cmocka_unit_test(test_formula_guard),
        cmocka_unit_test(test_invalid_utf8_is_replaced),
        cmocka_unit_test(test_lenient_forms),
        cmocka_unit_test(test_errors_name_line_and_column),
        cmocka_unit_test(test_nul_byte),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_locale),
        cmocka_unit_test(test_allocation_failures),
        cmocka_unit_test(test_python_reads_the_same),
        cmocka_unit_test(test_columns_are_documented),
        cmocka_unit_test(test_unwritable),
        cmocka_unit_test(test_figures_by_name),
        cmocka_unit_test(test_add_refuses_doubles),
        cmocka_unit_test(test_row_from_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
