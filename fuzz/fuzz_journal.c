/* fuzz_journal.c - a journal as a crash, a full disk or a stranger may leave it. What is read must
 * be written back as a journal that reads the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "report/results.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void write_back(const struct results *r, const char *fingerprint, struct strbuf *out)
{
    if (results_head_to_line(r, fingerprint, out, NULL) != STATUS_OK) {
        abort();
    }
    for (size_t i = 0; i < r->n_runs; i++) {
        if (results_run_to_line(&r->runs[i], out, NULL) != STATUS_OK) {
            abort();
        }
    }
}

static void check_round_trip(const struct results *r, const char *fingerprint)
{
    struct strbuf first = {0};
    struct strbuf second = {0};
    write_back(r, fingerprint, &first);
    struct results again;
    char *print = NULL;
    bool torn = false;
    if (results_from_journal(first.data, first.len, "j", &again, &print, &torn, NULL) !=
        STATUS_OK) {
        abort();
    }
    write_back(&again, print, &second);
    if (torn || first.len != second.len || memcmp(first.data, second.data, first.len) != 0) {
        abort();
    }
    mem_free(print);
    results_deinit(&again);
    strbuf_deinit(&first);
    strbuf_deinit(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct results r;
    char *fingerprint = NULL;
    bool torn = false;
    struct error err = ERROR_INIT;
    enum status s =
        results_from_journal((const char *)data, size, "j", &r, &fingerprint, &torn, &err);
    if (s == STATUS_OK) {
        if (fingerprint != NULL) {
            check_round_trip(&r, fingerprint);
        }
        mem_free(fingerprint);
        results_deinit(&r);
    } else if (err.message[0] == '\0') {
        abort();
    }
    return 0;
}
