/* text_remote.c - what the texts say of rows over HTTP: their servers, their client, their limits.
 */
#include <math.h>
#include <string.h>

#include "text_int.h"

static void put_fraction(struct strbuf *out, double v, const char *words)
{
    if (isnan(v)) {
        strbuf_printf(out, "  - %s", words);
    } else {
        strbuf_printf(out, "  %.1f %% %s", v * 100.0, words);
    }
}

static void put_ms(struct strbuf *out, const char *name, double seconds)
{
    if (isnan(seconds)) {
        strbuf_printf(out, "  %s -", name);
    } else {
        strbuf_printf(out, "  %s %.3f ms", name, seconds * 1e3);
    }
}

void text_remote_lines(const struct run *run, struct strbuf *out)
{
    const struct remote_figures *f = &run->remote;
    strbuf_printf(out, "  %-13s  lag", "client");
    put_ms(out, "P50", f->client_lag_p50_s);
    put_ms(out, "P99", f->client_lag_p99_s);
    put_fraction(out, f->client_cpu_frac, "of a core");
    strbuf_putc(out, '\n');
    strbuf_printf(out, "  %-13s", "tokens");
    if (!isnan(f->tokens_per_event)) {
        strbuf_printf(out, "  %.2f per event%s", f->tokens_per_event,
                      f->tokens_per_event > REMOTE_CHUNKED ? " (chunked)" : "");
    }
    strbuf_puts(out, "  counted by ");
    text_label(out, f->token_source[0] != '\0' ? f->token_source : "nobody", 40);
    if (f->server_prompt_tokens != COUNT_UNKNOWN) {
        strbuf_printf(out, "  prompts %llu", (unsigned long long)f->server_prompt_tokens);
        if (!isnan(f->cached_prompt_frac)) {
            put_fraction(out, f->cached_prompt_frac, "of them cached");
        }
    }
    strbuf_putc(out, '\n');
    if (f->errors[0] != '\0') {
        strbuf_printf(out, "  %-13s  ", "errors");
        text_label(out, f->errors, 200);
        strbuf_putc(out, '\n');
    }
    if (run->invalid[0] != '\0') {
        strbuf_printf(out, "  %-13s  ", "INVALID");
        text_label(out, run->invalid, 200);
        strbuf_putc(out, '\n');
    }
}

static bool is_away(const struct server_facts *facts)
{
    return strcmp(facts->state, SERVER_OK) != 0;
}

void text_unreachable(const struct matrix *m, struct strbuf *out)
{
    for (size_t i = 0; i < m->results->n_servers; i++) {
        const struct server_facts *facts = &m->results->servers[i];
        if (strcmp(facts->state, SERVER_UNREACHABLE) == 0) {
            text_label_cell(out, facts->scheduler);
            strbuf_puts(out, "  unreachable\n");
        }
    }
}

static void begin_warning(struct strbuf *out, const char *label)
{
    strbuf_puts(out, "warning: ");
    text_label(out, label, LABEL_COLUMNS);
    strbuf_puts(out, ": ");
}

static void server_warnings(const struct server_facts *facts, struct strbuf *out)
{
    if (is_away(facts)) {
        begin_warning(out, facts->scheduler);
        strbuf_printf(out, "%s: ",
                      strcmp(facts->state, SERVER_LOST) == 0 ? "lost, runs are missing"
                                                             : "unreachable, not measured");
        text_label(out, facts->why, 400);
        strbuf_putc(out, '\n');
    }
    if (facts->refused_fields[0] != '\0') {
        begin_warning(out, facts->scheduler);
        strbuf_puts(out, "sent without ");
        text_label(out, facts->refused_fields, 100);
        strbuf_puts(out, ", which the server refuses\n");
    }
}

static void run_warnings(const struct run *run, bool first_of_row, struct strbuf *out)
{
    if (run->invalid[0] != '\0') {
        strbuf_puts(out, "INVALID: ");
        text_label(out, run->scheduler, LABEL_COLUMNS);
        strbuf_printf(out, ", %llu requests, run %llu: ", (unsigned long long)run->request_size,
                      (unsigned long long)run->run_num);
        text_label(out, run->invalid, 200);
        strbuf_putc(out, '\n');
    }
    if (!first_of_row) {
        return;
    }
    if (run->incomparable[0] != '\0') {
        begin_warning(out, run->scheduler);
        text_label(out, run->incomparable, 200);
        strbuf_puts(out, ": no ratios\n");
    }
    if (run->remote.tokens_per_event > REMOTE_CHUNKED) {
        begin_warning(out, run->scheduler);
        strbuf_printf(
            out,
            "chunked: %.2f tokens per event (several in one, or tokens without text): gaps "
            "between events do not compare with those of others\n",
            run->remote.tokens_per_event);
    }
    if (strcmp(run->remote.token_source, "events") == 0) {
        begin_warning(out, run->scheduler);
        strbuf_puts(out, "the server counts no tokens: its events are counted, a lower bound\n");
    }
}

void text_remote_warnings(const struct matrix *m, struct strbuf *out)
{
    for (size_t i = 0; i < m->results->n_servers; i++) {
        server_warnings(&m->results->servers[i], out);
    }
    for (size_t i = 0; i < m->results->n_runs; i++) {
        const struct run *run = &m->results->runs[i];
        bool first = true;
        for (size_t k = 0; k < i; k++) {
            first = first && strcmp(m->results->runs[k].scheduler, run->scheduler) != 0;
        }
        if (run_is_remote(run)) {
            run_warnings(run, first, out);
        }
    }
}

void text_equal_prefix(const struct matrix *m, struct strbuf *out)
{
    if (m->results->settings.temperature != 0.0) {
        return; /* sampled, or (from CSV) not known */
    }
    for (size_t s = 0; s < m->n_schedulers; s++) {
        struct prefix_verdict v;
        if (!matrix_is_remote(m, s)) {
            continue;
        }
        results_equal_prefix(m->results, m->schedulers[s], &v);
        if (v.characters == 0) {
            continue;
        }
        strbuf_puts(out, "text of ");
        text_label(out, m->schedulers[s], LABEL_COLUMNS);
        strbuf_printf(out,
                      " at temperature 0: the first %.1f %% of characters equal those in process; "
                      "%llu of %llu texts are identical\n",
                      100.0 * (double)v.equal_characters / (double)v.characters,
                      (unsigned long long)v.identical, (unsigned long long)v.compared);
    }
}

static void put_line(struct strbuf *out, const char *name, const char *text)
{
    if (text[0] != '\0') {
        strbuf_printf(out, "  %-14s", name);
        text_label(out, text, 1000);
        strbuf_putc(out, '\n');
    }
}

void text_servers(const struct matrix *m, struct strbuf *out)
{
    const struct results *r = m->results;
    if (r->n_servers > 0) {
        strbuf_puts(out, "\nSERVERS\n");
    }
    for (size_t i = 0; i < r->n_servers; i++) {
        const struct server_facts *facts = &r->servers[i];
        text_label(out, facts->scheduler, LABEL_COLUMNS);
        strbuf_putc(out, '\n');
        put_line(out, "endpoint", facts->endpoint);
        put_line(out, "state", facts->state);
        put_line(out, "why", facts->why);
        put_line(out, "model", facts->model);
        put_line(out, "version", facts->version);
        put_line(out, "arithmetic", facts->dtype);
        if (facts->max_model_len != COUNT_UNKNOWN) {
            strbuf_printf(out, "  %-14s%llu\n", "max-model-len",
                          (unsigned long long)facts->max_model_len);
        }
        put_line(out, "cache", facts->cache_config);
        put_line(out, "not sent", facts->refused_fields);
    }
}

void text_remote_limits(const struct matrix *m, struct strbuf *out)
{
    bool any = false;
    for (size_t s = 0; s < m->n_schedulers; s++) {
        any = any || matrix_is_remote(m, s);
    }
    if (!any) {
        return;
    }
    strbuf_puts(out, "- Rows over HTTP carry the cost of HTTP, of the network and of this client; "
                     "rows in process do not.\n");
    for (size_t i = 0; i < m->results->n_servers; i++) {
        const struct server_facts *facts = &m->results->servers[i];
        if (!is_away(facts) && facts->dtype[0] == '\0') {
            strbuf_puts(out, "- ");
            text_label(out, facts->scheduler, LABEL_COLUMNS);
            strbuf_puts(out, " does not say the type of its arithmetic: it may be another than "
                             "that of the others.\n");
        }
    }
}
