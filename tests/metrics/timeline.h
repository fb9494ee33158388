/* timeline.h - hand-written events for a recorder, times in milliseconds. */
#ifndef TESTS_METRICS_TIMELINE_H
#define TESTS_METRICS_TIMELINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/monotime.h"
#include "base/request.h"
#include "metrics/recorder.h"

#define TIMELINE_BASE_NS (5 * NS_PER_S) /* clocks do not start at 0 */

static inline uint64_t at_ms(uint64_t ms)
{
    return TIMELINE_BASE_NS + ms * NS_PER_MS;
}

static inline void make_requests(struct request *requests, uint32_t n, uint32_t prompt,
                                 uint32_t max_new)
{
    for (uint32_t i = 0; i < n; i++) {
        requests[i] = (struct request){.id = i, .prompt_tokens = prompt, .max_new_tokens = max_new};
    }
}

static inline void send(struct recorder *r, uint64_t ms, uint64_t id, enum event_kind kind,
                        uint32_t n, uint32_t reason)
{
    static const int32_t ids[64] = {11, 22, 33, 44, 55, 66, 77, 88};
    struct event_sink sink = recorder_sink(r);
    sink.event(sink.self, &(struct event){.time_ns = at_ms(ms),
                                          .request_id = id,
                                          .kind = kind,
                                          .n = n,
                                          .reason = reason,
                                          .tokens = kind == EVENT_DELIVER ? ids : NULL});
}

static inline void step(struct recorder *r, uint64_t begin_ms, uint64_t end_ms,
                        struct step_record s)
{
    struct event_sink sink = recorder_sink(r);
    s.begin_ns = at_ms(begin_ms);
    s.end_ns = at_ms(end_ms);
    sink.step(sink.self, &s);
}

static inline void gap(struct recorder *r, uint64_t begin_ms, uint64_t end_ms, bool fill)
{
    struct event_sink sink = recorder_sink(r);
    sink.gap(sink.self, &(struct gap_record){
                            .begin_ns = at_ms(begin_ms), .end_ns = at_ms(end_ms), .fill = fill});
}

#endif
