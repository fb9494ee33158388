/*
 * endpoint.h - the options that say where a server is and how to speak to it, for every command
 * that is a client of one.
 */
#ifndef LLMSCHED_CLI_ENDPOINT_H
#define LLMSCHED_CLI_ENDPOINT_H

#include "base/status.h"
#include "base/strbuf.h"
#include "bench/bench.h"
#include "cli/options.h"

struct endpoint_flags {
    const char *endpoint;
    const char *api_key_file;
    const char *ca_file;
    const char *served_model;
    double request_timeout;
};
#define ENDPOINT_FLAGS_INIT                                                                        \
    {                                                                                              \
        .request_timeout = 300                                                                     \
    }
#define ENDPOINT_OPTIONS(flags)                                                                    \
    {.name = "--endpoint",                                                                         \
     .kind = OPTION_TEXT,                                                                          \
     .target = &(flags).endpoint,                                                                  \
     .value = "URL",                                                                               \
     .help = "the server of vllm rows (default: $VLLM_ENDPOINT, else $VLLM_HOST and $VLLM_PORT, "  \
             "else http://localhost:8000/v1/completions)"},                                        \
        {.name = "--api-key-file",                                                                 \
         .kind = OPTION_TEXT,                                                                      \
         .target = &(flags).api_key_file,                                                          \
         .value = "FILE",                                                                          \
         .help = "one line: the server's API key (default: $OPENAI_API_KEY)"},                     \
        {.name = "--ca-file",                                                                      \
         .kind = OPTION_TEXT,                                                                      \
         .target = &(flags).ca_file,                                                               \
         .value = "FILE",                                                                          \
         .help = "certificates to trust, for https (default: the system's)"},                      \
        {.name = "--served-model",                                                                 \
         .kind = OPTION_TEXT,                                                                      \
         .target = &(flags).served_model,                                                          \
         .value = "ID",                                                                            \
         .help = "model to ask for (default: the first of /v1/models)"},                           \
    {                                                                                              \
        .name = "--request-timeout", .kind = OPTION_REAL, .target = &(flags).request_timeout,      \
        .min = 0.001, .max = 86400, .value = "SECONDS",                                            \
        .help = "a request that takes longer has failed (default: 300)"                            \
    }

/* Texts behind struct remote_options; zero-initialise. */
struct endpoint_store {
    struct strbuf endpoint;
    char *api_key;
};
void endpoint_store_deinit(struct endpoint_store *store);

/* Flag, else environment, else default. *out borrows from flags, store and the environment. Errors:
 * USAGE for a key file without a key, NOT_FOUND, IO. */
enum status endpoint_options_from(const struct endpoint_flags *flags, struct endpoint_store *store,
                                  struct remote_options *out, struct error *err) MUST_USE;

#endif
