/* Charts: drawn by the real gnuplot; hostile names, missing gnuplot, failing memory. */
#include <sys/stat.h>
#include <unistd.h>

#include "report/plot.h"
#include "report/plot_int.h"
#include "sample.h"

static const char *const pngs[] = {"throughput_comparison.png", "latency_comparison.png",
                                   "latency_distribution.png", "scheduler_comparison_bars.png"};
static const char *const sources[] = {"plot-data/throughput_comparison.gp",
                                      "plot-data/latency_comparison.gp",
                                      "plot-data/latency_distribution.gp",
                                      "plot-data/scheduler_comparison_bars.gp",
                                      "plot-data/figures.dat",
                                      "plot-data/boxes.dat",
                                      "plot-data/outliers.dat"};
#define N_SOURCES (sizeof sources / sizeof sources[0])

static void need_gnuplot(void)
{
    if (system("gnuplot --version >/dev/null 2>&1") != 0) {
        print_message("[  SKIPPED ] gnuplot is not installed: apt-get install gnuplot-nox\n");
        skip();
    }
}

static void draw(const struct results *r, const char *dir)
{
    struct error err = ERROR_INIT;
    if (plot_all(r, dir, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
}

static uint32_t big_endian(const char *p)
{
    const unsigned char *b = (const unsigned char *)p;
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

/* Signature, IHDR with a width of 1000 and a plausible height, IEND at the end. */
static void assert_is_chart(const char *dir, const char *name)
{
    size_t len;
    char *png = read_whole(dir, name, &len);
    assert_true(len > 4000);
    assert_memory_equal(png, "\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 16);
    assert_int_equal(big_endian(png + 16), 1000);
    uint32_t height = big_endian(png + 20);
    assert_true(height >= 400 && height <= 1400);
    assert_memory_equal(png + len - 8, "IEND", 4);
    mem_free(png);
}

static void test_shapes_of_data(void **state)
{
    (void)state;
    need_gnuplot();
    static const struct {
        size_t schedulers;
        size_t sizes;
        uint64_t runs;
    } cases[] = {{1, 1, 1}, {3, 3, 3}, {6, 1, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct results r;
        sample_results(&r, cases[i].schedulers, cases[i].sizes, cases[i].runs);
        char *dir = make_dir();
        char *below = fs_join(dir, "made/by plot"); /* folders are made; names may hold blanks */
        draw(&r, below);
        for (size_t k = 0; k < CHARTS; k++) {
            assert_is_chart(below, pngs[k]);
        }
        mem_free(below);
        results_deinit(&r);
        remove_dir(dir);
    }
}

/* The same results give the same bytes, scripts and data. */
static void test_deterministic(void **state)
{
    (void)state;
    need_gnuplot();
    struct results r;
    sample_results(&r, 3, 2, 2);
    char *a = make_dir();
    char *b = make_dir();
    draw(&r, a);
    draw(&r, b);
    for (size_t i = 0; i < N_SOURCES; i++) {
        size_t n;
        size_t m;
        char *x = read_whole(a, sources[i], &n);
        char *y = read_whole(b, sources[i], &m);
        assert_int_equal(n, m);
        assert_memory_equal(x, y, n);
        mem_free(x);
        mem_free(y);
    }
    results_deinit(&r);
    remove_dir(a);
    remove_dir(b);
}

/* The scripts stand on their own: run in their folder they draw the chart again. */
static void test_scripts_can_be_run_again(void **state)
{
    (void)state;
    need_gnuplot();
    struct results r;
    sample_results(&r, 2, 2, 2);
    char *dir = make_dir();
    draw(&r, dir);
    char command[512];
    snprintf(
        command, sizeof command,
        "cd '%s' && rm *.png && cd plot-data && for f in *.gp; do gnuplot \"$f\" || exit 1; done",
        dir);
    assert_int_equal(system(command), 0);
    for (size_t k = 0; k < CHARTS; k++) {
        assert_is_chart(dir, pngs[k]);
    }
    results_deinit(&r);
    remove_dir(dir);
}

static const char *const hostile[] = {
    "`touch trap1`'\"; system('touch trap2')",
    "'\n!touch trap3\n",
    "\\\"; system(\"touch trap4\"); \"",
    "$(touch trap5) %d %s %n @out #comment {/Symbol a}_x^y",
    "\xFF\xFE\x1b[31m \xE2\x80\xAE rtl \xF0\x9F\x98\x80",
    "a very long label that goes on and on, far beyond any legend that could hold it"};
#define N_HOSTILE (sizeof hostile / sizeof hostile[0])

static void test_hostile_names(void **state)
{
    (void)state;
    need_gnuplot();
    struct results r;
    sample_head(&r);
    mem_free(r.model.name);
    r.model.name = copy("'; system(\"touch trap6\") # `touch trap7`\n!touch trap8");
    for (size_t i = 0; i < N_HOSTILE; i++) {
        struct run run = sample_run(hostile[i], hostile[i], 25, 1, 1.0 + (double)i, false);
        assert_int_equal(results_add(&r, &run, NULL), STATUS_OK);
    }
    char *dir = make_dir();
    char *here = getcwd(NULL, 0);
    assert_int_equal(chdir(dir), 0); /* so that a trap in the caller's folder shows, too */
    draw(&r, dir);
    assert_int_equal(chdir(here), 0);
    free(here);
    char command[256];
    snprintf(command, sizeof command, "find '%s' -name 'trap*' | grep -q .", dir);
    assert_int_not_equal(system(command), 0);
    for (size_t k = 0; k < CHARTS; k++) {
        assert_is_chart(dir, pngs[k]);
        size_t len;
        char *script = read_whole(dir, sources[k], &len);
        if (strpbrk(script, "`@") != NULL || strstr(script, "system") == NULL ||
            strstr(script, "system(_") == NULL) {
            fail_msg("%s is not clean, or lost the label:\n%s", sources[k], script);
        }
        mem_free(script);
    }
    results_deinit(&r);
    remove_dir(dir);
}

/* Every ASCII character: in single quotes, and only what is harmless there. */
static void test_quoting_of_every_character(void **state)
{
    (void)state;
    for (int c = 1; c < 128; c++) {
        char name[2] = {(char)c, '\0'};
        struct strbuf b = {0};
        plot_text(&b, name, 10);
        assert_int_equal(b.len, 3);
        assert_true(b.data[0] == '\'' && b.data[2] == '\'');
        if (strchr("'\"`\\$@#%{};\n\r\t", b.data[1]) != NULL || (unsigned char)b.data[1] < 0x20) {
            fail_msg("character %d came out as %d", c, b.data[1]);
        }
        strbuf_deinit(&b);
    }
    struct strbuf b = {0};
    plot_text(&b, "na\xC3\xAFve", 10);
    assert_string_equal(b.data, "'na\xC3\xAFve'");
    strbuf_deinit(&b);
}

static void test_no_rows_no_distribution(void **state)
{
    (void)state;
    need_gnuplot();
    struct results r;
    sample_results(&r, 2, 1, 1);
    char *dir = make_dir();
    draw(&r, dir);
    assert_is_chart(dir, pngs[CHART_DISTRIBUTION]);
    for (size_t i = 0; i < r.n_runs; i++) {
        for (size_t k = 0; k < r.runs[i].n_rows; k++) {
            r.runs[i].rows[k].status = RECORD_FAILED;
        }
    }
    draw(&r, dir);
    char *path = fs_join(dir, pngs[CHART_DISTRIBUTION]);
    assert_false(fs_is_file(path));
    mem_free(path);
    assert_is_chart(dir, pngs[CHART_BARS]);
    results_deinit(&r);
    remove_dir(dir);
}

/* Nothing but undefined figures and an interval ten times the mean still draw. */
static void test_degenerate_figures(void **state)
{
    (void)state;
    need_gnuplot();
    struct results r;
    sample_results(&r, 2, 1, 2);
    for (size_t i = 0; i < r.n_runs; i++) {
        struct run_summary *s = &r.runs[i].summary;
        s->latency = s->ttft = sample_figures((double)NAN);
        s->throughput_tokens_per_sec = 0.0;
        s->useful_s = (double)NAN;
    }
    r.runs[0].summary.throughput_req_per_sec = 1.0;
    r.runs[2].summary.throughput_req_per_sec = 50.0;
    char *dir = make_dir();
    draw(&r, dir);
    for (size_t k = 0; k < CHARTS; k++) {
        assert_is_chart(dir, pngs[k]);
    }
    results_deinit(&r);
    remove_dir(dir);
}

/* Servers, alone or beside others: what is not known is a note, or no bar, and never a zero. */
static void test_servers(void **state)
{
    (void)state;
    need_gnuplot();
    for (size_t n_local = 0; n_local < 3; n_local += 2) {
        struct results r;
        sample_with_server(&r, n_local);
        char *dir = make_dir();
        draw(&r, dir);
        for (size_t k = 0; k < CHARTS; k++) {
            assert_is_chart(dir, pngs[k]);
        }
        char *folder = fs_join(dir, "plot-data");
        size_t len;
        char *script = read_whole(folder, "scheduler_comparison_bars.gp", &len);
        assert_int_equal(strstr(script, "'not known'") != NULL, n_local == 0);
        assert_non_null(strstr(script, "; useful compute of servers is not visible'"));
        mem_free(script);
        mem_free(folder);
        results_deinit(&r);
        remove_dir(dir);
    }
}

/* Shares of the wall time are taken in each run, so that runs of different length do not differ. */
static void test_shares_are_taken_per_run(void **state)
{
    (void)state;
    struct results r;
    sample_results(&r, 1, 1, 3); /* half of each run is useful */
    r.runs[0].summary.wall_time_s *= 4.0;
    r.runs[0].summary.useful_s *= 4.0;
    struct matrix m;
    assert_true(matrix_init(&m, &r));
    struct strbuf b = {0};
    struct plot_extent extent = {0};
    plot_figures(&m, &b, &extent);
    assert_true(fabs(extent.max_mean[PLOT_USEFUL] - 50.0) <= 1e-9);
    assert_true(fabs(extent.max_end[PLOT_USEFUL] - 50.0) <= 1e-9);
    strbuf_deinit(&b);
    matrix_deinit(&m);
    results_deinit(&r);
}

static void test_limits(void **state)
{
    (void)state;
    struct results r;
    sample_head(&r);
    struct error err = ERROR_INIT;
    char *dir = make_dir();
    assert_int_equal(plot_all(&r, dir, &err), STATUS_BAD_DATA); /* no runs */
    for (int i = 0; i <= PLOT_MAX_SCHEDULERS; i++) {
        char label[16];
        snprintf(label, sizeof label, "s%d", i);
        struct run run = sample_run(label, "naive", 2, 1, 1.0, true);
        assert_int_equal(results_add(&r, &run, NULL), STATUS_OK);
    }
    assert_int_equal(plot_all(&r, dir, &err), STATUS_BAD_DATA);
    assert_non_null(strstr(err.message, "25 schedulers"));
    need_gnuplot();
    run_deinit(&r.runs[--r.n_runs]);
    draw(&r, dir); /* as many as there may be */
    assert_is_chart(dir, pngs[CHART_BARS]);
    results_deinit(&r);
    remove_dir(dir);
}

static void test_missing_gnuplot(void **state)
{
    (void)state;
    struct results r;
    sample_results(&r, 1, 1, 1);
    char *dir = make_dir();
    char *path = copy(getenv("PATH"));
    setenv("PATH", "/nonexistent", 1);
    struct error err = ERROR_INIT;
    enum status s = plot_all(&r, dir, &err);
    setenv("PATH", path, 1);
    assert_int_equal(s, STATUS_NOT_FOUND);
    assert_non_null(strstr(err.message, "apt-get install gnuplot-nox"));
    mem_free(path);
    results_deinit(&r);
    remove_dir(dir);
}

static void test_folder_that_cannot_be(void **state)
{
    (void)state;
    struct results r;
    sample_results(&r, 1, 1, 1);
    struct error err = ERROR_INIT;
    assert_int_equal(plot_all(&r, "/dev/null/charts", &err), STATUS_IO);
    assert_non_null(strstr(err.message, "/dev/null"));
    results_deinit(&r);
}

/* Without gnuplot's time: texts of all scripts and data, then plot_all up to the process. */
static void test_allocation_failures(void **state)
{
    (void)state;
    struct results r;
    sample_results(&r, 3, 2, 2);
    struct matrix m;
    assert_true(matrix_init(&m, &r));
    uint64_t n = 1;
    for (bool done = false; !done; n++) {
        struct strbuf texts[2 + CHARTS] = {{0}};
        struct strbuf figures = {0};
        struct plot_extent extent = {0};
        mem_fail_at(n, false);
        plot_figures(&m, &figures, &extent);
        plot_boxes(&m, &texts[0], &texts[1], &extent);
        done = !figures.failed;
        for (enum plot_chart c = CHART_THROUGHPUT; c < CHARTS; c++) {
            plot_script(&m, c, &extent, &texts[2 + c]);
        }
        mem_fail_at(0, false);
        for (size_t i = 0; i < 2 + CHARTS; i++) {
            done = done && !texts[i].failed;
            strbuf_deinit(&texts[i]);
        }
        strbuf_deinit(&figures);
    }
    assert_true(n > 30);
    matrix_deinit(&m);
    char *dir = make_dir();
    char *path = copy(getenv("PATH"));
    setenv("PATH", "/nonexistent", 1);
    enum status s = STATUS_NO_MEMORY;
    for (n = 1; s == STATUS_NO_MEMORY; n++) {
        mem_fail_at(n, false);
        s = plot_all(&r, dir, NULL);
        mem_fail_at(0, false);
    }
    setenv("PATH", path, 1);
    assert_int_equal(s, STATUS_NOT_FOUND);
    mem_free(path);
    results_deinit(&r);
    remove_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes_of_data),
        cmocka_unit_test(test_deterministic),
        cmocka_unit_test(test_scripts_can_be_run_again),
        cmocka_unit_test(test_hostile_names),
        cmocka_unit_test(test_quoting_of_every_character),
        cmocka_unit_test(test_no_rows_no_distribution),
        cmocka_unit_test(test_degenerate_figures),
        cmocka_unit_test(test_servers),
        cmocka_unit_test(test_shares_are_taken_per_run),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_missing_gnuplot),
        cmocka_unit_test(test_folder_that_cannot_be),
        cmocka_unit_test(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
