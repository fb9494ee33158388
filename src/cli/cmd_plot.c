/* cmd_plot.c - `llmsched plot`: charts and the text report from CSV files. */
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "bench/bench.h"
#include "cli/common.h"
#include "report/plot.h"
#include "report/text.h"

static enum status draw(const struct results *r, const char *folder, struct error *err)
{
    enum status s = fs_make_dirs(folder, err);
    if (s != STATUS_OK) {
        return s;
    }
    struct strbuf text = {0};
    text_report(r, &text);
    char *path = fs_join(folder, BENCH_REPORT_NAME);
    s = path == NULL || text.failed
            ? error_set(err, STATUS_NO_MEMORY, -1, "no memory for the report")
            : fs_write_atomic(path, text.data, text.len, err);
    mem_free(path);
    strbuf_deinit(&text);
    return s == STATUS_OK ? plot_all(r, folder, err) : s;
}

static int run(int argc, char **argv)
{
    const char *summaries = BENCH_SUMMARIES_NAME;
    const char *metrics = NULL;
    const char *folder = ".";
    const struct option_spec specs[] = {
        {.name = "--summaries",
         .kind = OPTION_TEXT,
         .target = &summaries,
         .value = "FILE",
         .help = "a row per run (default: " BENCH_SUMMARIES_NAME ")"},
        {.name = "--metrics",
         .kind = OPTION_TEXT,
         .target = &metrics,
         .value = "FILE",
         .help = "a row per request, for the box plots (default: " BENCH_METRICS_NAME
                 " where it exists)"},
        {.name = "--output-dir",
         .letter = 'o',
         .kind = OPTION_TEXT,
         .target = &folder,
         .value = "DIR",
         .help = "made if missing (default: .)"},
    };
    struct error err = ERROR_INIT;
    bool help;
    enum status s = options_parse(specs, COUNT_OF(specs), argc, argv, NULL, &help, &err);
    if (s == STATUS_OK && help) {
        options_print_help(&command_plot, specs, COUNT_OF(specs));
        return 0;
    }
    struct results results = {0};
    if (s == STATUS_OK) {
        if (metrics == NULL && fs_is_file(BENCH_METRICS_NAME)) {
            metrics = BENCH_METRICS_NAME;
        }
        if (metrics == NULL) {
            log_warn("no " BENCH_METRICS_NAME " here: latency_distribution.png is not drawn");
        }
        s = results_read_csv(summaries, metrics, &results, &err);
    }
    if (s == STATUS_OK) {
        s = draw(&results, folder, &err);
    }
    results_deinit(&results);
    if (s != STATUS_OK) {
        return fail(s, &err);
    }
    log_info("charts and " BENCH_REPORT_NAME " in %s", folder);
    return 0;
}

const struct command command_plot = {
    .name = "plot",
    .summary = "Draw charts and the text report from result files.",
    .usage = "[OPTIONS]",
    .examples = "  llmsched plot\n"
                "  llmsched plot --summaries a/benchmark_summaries.csv "
                "--metrics a/benchmark_detailed_metrics.csv -o a\n",
    .run = run,
};
