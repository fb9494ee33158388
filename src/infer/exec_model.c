/* exec_model.c - see exec_model.h. */
#include "infer/exec_model.h"

enum status exec_model_create(const struct exec_model_options *options, struct exec_model **out,
                              struct error *err)
{
    (void)options;
    (void)out;
    return error_set(err, STATUS_UNSUPPORTED, -1, "the model executor is not yet built");
}

void exec_model_destroy(struct exec_model *m)
{
    (void)m;
}

struct executor *exec_model_executor(struct exec_model *m)
{
    (void)m;
    return NULL;
}

const char *exec_model_last_error(const struct exec_model *m)
{
    (void)m;
    return "";
}

enum status exec_model_logits(struct exec_model *m, const int32_t *tokens, uint32_t n,
                              float *logits, struct error *err)
{
    (void)m, (void)tokens, (void)n, (void)logits;
    return error_set(err, STATUS_UNSUPPORTED, -1, "the model executor is not yet built");
}

void exec_model_timing_get(const struct exec_model *m, struct exec_model_timing *out)
{
    (void)m;
    *out = (struct exec_model_timing){0};
}

void exec_model_timing_reset(struct exec_model *m)
{
    (void)m;
}

enum status exec_model_estimate(const struct exec_model_options *options,
                                struct exec_model_memory *out, struct error *err)
{
    (void)options, (void)out;
    return error_set(err, STATUS_UNSUPPORTED, -1, "the model executor is not yet built");
}

const char *exec_model_isa(const struct exec_model *m)
{
    (void)m;
    return "";
}

uint32_t exec_model_threads(const struct exec_model *m)
{
    (void)m;
    return 0;
}
