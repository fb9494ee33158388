/* selftest_text.c - what `selftest client` prints. See selftest_client.h. */
#include <inttypes.h>

#include "bench/selftest_client.h"

bool selftest_goals_met(const struct selftest_result *r)
{
    return !r->is_void && r->ttft.p99 <= SELFTEST_GOAL_TTFT_S &&
           r->itl.p99 <= SELFTEST_GOAL_ITL_S && r->nagle_frac <= SELFTEST_MAX_NAGLE;
}

static void print_error(struct strbuf *out, const char *what, const struct selftest_error *e)
{
    strbuf_printf(out, "%-22s %10.4f %10.4f %10.4f %10.4f %+10.4f\n", what, 1e3 * e->p50,
                  1e3 * e->p95, 1e3 * e->p99, 1e3 * e->max, 1e3 * e->bias);
}

static void print_goal(struct strbuf *out, const char *what, double value_s, double goal_s)
{
    strbuf_printf(out, "goal: %s error p99 <= %.1f ms: %s (%.4f ms)\n", what, 1e3 * goal_s,
                  value_s <= goal_s ? "met" : "not met", 1e3 * value_s);
}

void selftest_print_text(const struct selftest_result *r, struct strbuf *out)
{
    strbuf_printf(out,
                  "SELF-TEST OF THE CLIENT: %u streams of %u tokens, %u tokens/s each, against a "
                  "server with a timetable\n",
                  r->streams, r->tokens_each, r->tokens_per_s);
    if (r->client_core >= 0) {
        strbuf_printf(out, "client on core %d%s, server on core %d\n", r->client_core,
                      r->is_real_time
                          ? " at real-time priority"
                          : " (no right to real-time priority: other programs delay it)",
                      r->server_core);
    } else {
        strbuf_puts(out, "client and server share the cores (not pinned)\n");
    }
    strbuf_printf(out, "\n%-22s %10s %10s %10s %10s %10s\n", "milliseconds", "p50", "p95", "p99",
                  "max", "mean");
    print_error(out, "TTFT, client's error", &r->ttft);
    print_error(out, "ITL, client's error", &r->itl);
    print_error(out, "write to read", &r->delay);
    print_error(out, "server behind its due", &r->late);
    strbuf_puts(out, "(quantiles of absolute values; mean with its sign)\n\n");
    strbuf_printf(out,
                  "client: %.2f us of CPU an event, %.0f %% of a core; %" PRIu64
                  " events in %.1f s; send lag p99 %.3f ms\n",
                  r->cpu_us_per_event, 100.0 * r->cpu_s / r->wall_s, r->events, r->wall_s,
                  1e3 * r->send_lag_p99_s);
    strbuf_printf(out,
                  "40 ms steps (Nagle meeting a delayed ACK): %.4f %% of the intervals; %" PRIu64
                  " streams had two events in one read\n",
                  100.0 * r->nagle_frac, r->coalesced_streams);
    print_goal(out, "TTFT", r->ttft.p99, SELFTEST_GOAL_TTFT_S);
    print_goal(out, "ITL", r->itl.p99, SELFTEST_GOAL_ITL_S);
    if (r->failed > 0) {
        strbuf_printf(out, "VOID: %u streams failed; %s\n", r->failed, r->first_failure);
    } else if (r->is_void) {
        strbuf_printf(out,
                      "VOID: the server was late by %.3f ms at p99 (limit %.1f ms): the machine is "
                      "too busy, or the load too high; free a core, or lower --streams\n",
                      1e3 * r->late.p99, 1e3 * SELFTEST_MAX_LATE_S);
    }
}

/* JSON has no NaN. */
static void put_number(struct strbuf *out, const char *name, double value)
{
    if (value - value == 0.0) {
        strbuf_printf(out, "\"%s\": %.9g", name, value);
    } else {
        strbuf_printf(out, "\"%s\": null", name);
    }
}

static void put_error(struct strbuf *out, const char *name, const struct selftest_error *e)
{
    strbuf_printf(out, "  \"%s\": {", name);
    put_number(out, "p50_s", e->p50);
    strbuf_puts(out, ", ");
    put_number(out, "p95_s", e->p95);
    strbuf_puts(out, ", ");
    put_number(out, "p99_s", e->p99);
    strbuf_puts(out, ", ");
    put_number(out, "max_s", e->max);
    strbuf_puts(out, ", ");
    put_number(out, "mean_s", e->bias);
    strbuf_puts(out, "},\n");
}

void selftest_print_json(const struct selftest_result *r, struct strbuf *out)
{
    strbuf_printf(out,
                  "{\n  \"streams\": %u,\n  \"tokens_each\": %u,\n  \"tokens_per_s\": %u,\n"
                  "  \"client_core\": %d,\n  \"server_core\": %d,\n  \"real_time\": %s,\n  "
                  "\"events\": %" PRIu64 ",\n  \"coalesced_streams\": %" PRIu64
                  ",\n  \"failed_streams\": %u,\n",
                  r->streams, r->tokens_each, r->tokens_per_s, r->client_core, r->server_core,
                  r->is_real_time ? "true" : "false", r->events, r->coalesced_streams, r->failed);
    put_error(out, "ttft_error", &r->ttft);
    put_error(out, "itl_error", &r->itl);
    put_error(out, "write_to_read", &r->delay);
    put_error(out, "server_late", &r->late);
    static const char comma[] = ",\n";
    strbuf_puts(out, "  ");
    put_number(out, "nagle_frac", r->nagle_frac);
    strbuf_printf(out, "%s  ", comma);
    put_number(out, "wall_s", r->wall_s);
    strbuf_printf(out, "%s  ", comma);
    put_number(out, "cpu_s", r->cpu_s);
    strbuf_printf(out, "%s  ", comma);
    put_number(out, "cpu_us_per_event", r->cpu_us_per_event);
    strbuf_printf(out, "%s  ", comma);
    put_number(out, "send_lag_p99_s", r->send_lag_p99_s);
    strbuf_printf(out, "%s  \"void\": %s,\n  \"goals_met\": %s\n}\n", comma,
                  r->is_void ? "true" : "false", selftest_goals_met(r) ? "true" : "false");
}
