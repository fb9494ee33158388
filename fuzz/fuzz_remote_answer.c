/* Any bytes as the answer to a request of the client, whole and in steps: one end, the same fault,
 * tokens and text, instants in order. The first byte says how it ends and in which steps. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "net/remote_reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static struct remote_scratch scratch;
static struct remote_reader reader;

/* Each piece in memory of exactly its size, at instants 1, 2, ... */
static void read_answer(struct remote_answer *a, const uint8_t *in, size_t n, size_t step)
{
    *a = (struct remote_answer){0};
    remote_reader_begin(&reader, a, 3);
    uint64_t now = 1;
    for (size_t at = 0; at < n && reader.phase < READER_COMPLETE; now++) {
        size_t piece = n - at < step ? n - at : step;
        char *copy = malloc(piece + 1);
        MUST(copy != NULL);
        memcpy(copy + 1, in + at, piece); /* + 1: also not aligned */
        remote_reader_feed(&reader, copy + 1, piece, now);
        free(copy);
        at += piece;
    }
    if (reader.phase < READER_COMPLETE) {
        remote_reader_close(&reader, now, "closed");
    }
    MUST(reader.phase >= READER_COMPLETE && !reader.no_memory);
}

static void check(const struct remote_answer *a)
{
    size_t name = strlen(remote_fault_name(a->fault));
    MUST(a->end_ns != TIME_NEVER && a->fault < REMOTE_FAULT_COUNT);
    MUST((a->fault == REMOTE_FAULT_NONE) == (a->error[0] == '\0'));
    MUST(memcmp(a->error, remote_fault_name(a->fault), name) == 0);
    MUST(memchr(a->error, '\0', sizeof a->error) != NULL);
    MUST(a->n_events == a->events_capacity && (a->n_events == 0) == (a->first_ns == TIME_NEVER));
    MUST(a->fault != REMOTE_FAULT_NONE || (a->http_status == 200 && a->finish != SCAN_FINISH_NONE));
    uint64_t before = a->head_ns;
    for (uint32_t i = 0; i < a->n_events; i++) {
        MUST(a->events[i].time_ns >= before);
        before = a->events[i].time_ns;
    }
    if (a->n_events > 0) {
        MUST(a->events[0].time_ns == a->first_ns && before == a->last_ns);
        MUST(a->last_ns <= a->end_ns && a->longest_gap_ns <= a->last_ns - a->first_ns);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (reader.buf == NULL) {
        MUST(remote_scratch_init(&scratch, NULL) == STATUS_OK);
        MUST(remote_reader_init(&reader, &scratch, true, NULL) == STATUS_OK);
    }
    if (size == 0) {
        return 0;
    }
    size_t steps[2] = {1 + size / 64, 1U + data[0]};
    data++;
    size--;
    struct remote_answer whole;
    read_answer(&whole, data, size, size + 1);
    check(&whole);
    for (int i = 0; i < 2; i++) {
        struct remote_answer cut;
        read_answer(&cut, data, size, steps[i]);
        check(&cut);
        MUST(cut.fault == whole.fault && strcmp(cut.error, whole.error) == 0);
        MUST(cut.http_status == whole.http_status && cut.finish == whole.finish);
        MUST(cut.n_events == whole.n_events && cut.output_tokens == whole.output_tokens);
        MUST(cut.prompt_tokens == whole.prompt_tokens && cut.cached_tokens == whole.cached_tokens);
        MUST(cut.token_source == whole.token_source && cut.text.len == whole.text.len);
        MUST(whole.text.len == 0 || memcmp(cut.text.data, whole.text.data, whole.text.len) == 0);
        remote_answer_deinit(&cut);
    }
    remote_answer_deinit(&whole);
    return 0;
}
