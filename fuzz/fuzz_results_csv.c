/*
 * fuzz_results_csv.c - the two CSVs as anyone may hand them to `llmsched plot`, and all that is
 * made of what they say: reports, scripts and data of charts. A line "===" parts summaries from
 * metrics.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "report/plot_int.h"
#include "report/results_int.h"
#include "report/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const struct results *r)
{
    struct strbuf out = {0};
    for (size_t i = 0; i < r->n_runs; i++) {
        text_run_block(&r->runs[i], &out);
    }
    text_comparison(r, &out);
    text_report(r, &out);
    struct matrix m;
    if (matrix_init(&m, r)) {
        struct plot_extent extent = {0};
        struct strbuf outliers = {0};
        plot_figures(&m, &out, &extent);
        plot_boxes(&m, &out, &outliers, &extent);
        strbuf_deinit(&outliers);
        for (enum plot_chart c = CHART_THROUGHPUT; c < CHARTS; c++) {
            plot_script(&m, c, &extent, &out);
        }
        matrix_deinit(&m);
    }
    if (memchr(strbuf_text(&out), 0x1b, out.len) != NULL) {
        abort(); /* an escape sequence got through to a terminal */
    }
    strbuf_deinit(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char separator[] = "\n===\n";
    const char *text = (const char *)data;
    const char *at = size > 0 ? memmem(text, size, separator, sizeof separator - 1) : NULL;
    size_t n = at != NULL ? (size_t)(at - text) + 1 : size;
    const char *metrics = at != NULL ? at + sizeof separator - 1 : NULL;
    size_t metrics_len = at != NULL ? size - (size_t)(metrics - text) : 0;
    struct results r;
    struct error err = ERROR_INIT;
    if (results_parse_csv(text, n, metrics, metrics_len, "s.csv", "m.csv", &r, &err) == STATUS_OK) {
        use(&r);
        results_deinit(&r);
    } else if (err.message[0] == '\0') {
        abort(); /* an error without words */
    }
    return 0;
}
