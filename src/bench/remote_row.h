/*
 * remote_row.h - a row of the matrix that is a server over HTTP: who answers there, which fields it
 * takes, and its requests as bodies.
 */
#ifndef LLMSCHED_BENCH_REMOTE_ROW_H
#define LLMSCHED_BENCH_REMOTE_ROW_H

#include <stdbool.h>
#include <stdint.h>

#include "base/request.h"
#include "base/status.h"
#include "base/strbuf.h"
#include "net/remote.h"

/* Fields that some servers refuse; what is left without them is a request all the same. */
enum call_field {
    CALL_TOP_K = 1,
    CALL_SEED = 2,
    CALL_IGNORE_EOS = 4,
    CALL_STREAM_OPTIONS = 8,
    CALL_TOKEN_IDS = 16,
};

struct remote_row {
    struct remote_config config; /* connections: set by each cell */
    struct remote_identity identity;
    unsigned refused; /* of enum call_field */
    bool is_known;    /* identity is */
    bool is_away;     /* did not answer before the first run: not measured */
    bool is_ours;     /* serves the model whose tokenizer is at hand */
    char incomparable[256];
};

/* Names of the fields in `fields`, as "top_k, seed". */
void remote_fields_print(unsigned fields, struct strbuf *out);

/* The fields whose names stand in a message. */
unsigned remote_fields_named(const char *message);

/* The body of a request: prompt as text, everything that the server does not refuse. `seed` is the
 * request's sample key in 63 bits. */
void remote_body(const struct remote_row *row, const struct request *request, const char *prompt,
                 size_t len, struct strbuf *out);

/* Is it the same model? By the last part of the name, a suffix .gguf and case aside. */
bool remote_same_model(const char *a, const char *b);

/* The value of dtype="..." among the labels of cache_config, as we name it (f32, bf16, f16, or as
 * the server says); false: not said. */
bool remote_dtype(const char *cache_config, char *out, size_t size);

#endif
