/* job.c - see job.h. */
#include "serve/job.h"

#include <assert.h>

#include "base/mem.h"

enum status job_prompt_create(int32_t *ids, uint32_t n_ids, struct job_prompt **out,
                              struct error *err)
{
    assert(n_ids >= 1);
    struct job_prompt *p = mem_alloc(1, sizeof *p);
    if (p == NULL) {
        mem_free(ids);
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a prompt of %u tokens", n_ids);
    }
    *p = (struct job_prompt){.ids = ids, .n_ids = n_ids};
    *out = p;
    return STATUS_OK;
}

void job_prompt_destroy_unused(struct job_prompt *p)
{
    if (p != NULL && p->users == 0) {
        mem_free(p->ids);
        mem_free(p);
    }
}

static bool make_buffers(struct job *j, const struct job_options *o)
{
    size_t rows = (size_t)o->max_new_tokens + (o->prompt_logprobs ? j->prompt->n_ids : 0);
    bool ok = (j->tokens = mem_alloc(o->max_new_tokens, sizeof *j->tokens)) != NULL;
    if (o->want_logprobs) {
        struct logprob_store *l = &j->logprobs;
        *l = (struct logprob_store){.n_top = o->n_top, .prompt = o->prompt_logprobs};
        ok = ok && (l->chosen = mem_alloc(rows, sizeof *l->chosen)) != NULL;
        ok = ok && (o->n_top == 0 || (l->top = mem_alloc(rows * o->n_top, sizeof *l->top)) != NULL);
        j->request.logprobs = l;
    }
    if (o->want_stamps) {
        ok = ok && (j->due_ns = mem_alloc(o->max_new_tokens, sizeof *j->due_ns)) != NULL;
        ok = ok && (j->written_ns = mem_alloc(o->max_new_tokens, sizeof *j->written_ns)) != NULL;
    }
    return ok;
}

enum status job_create(struct job_prompt *prompt, const struct job_options *options,
                       struct job **out, struct error *err)
{
    assert(options->max_new_tokens >= 1);
    struct job *j = mem_alloc(1, sizeof *j);
    if (j != NULL) {
        j->prompt = prompt;
        prompt->users++;
        j->request.prompt = prompt->ids;
        j->request.prompt_tokens = prompt->n_ids;
        j->request.max_new_tokens = options->max_new_tokens;
    }
    if (j == NULL || !make_buffers(j, options)) {
        if (j != NULL) {
            prompt->users--; /* the prompt stays the caller's */
            j->prompt = NULL;
        }
        job_destroy(j);
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a request of %u + %u tokens",
                         prompt->n_ids, options->max_new_tokens);
    }
    *out = j;
    return STATUS_OK;
}

void job_destroy(struct job *job)
{
    if (job == NULL) {
        return;
    }
    if (job->prompt != NULL) {
        assert(job->prompt->users > 0);
        job->prompt->users--;
        job_prompt_destroy_unused(job->prompt);
    }
    mem_free(job->tokens);
    mem_free(job->logprobs.chosen);
    mem_free(job->logprobs.top);
    mem_free(job->due_ns);
    mem_free(job->written_ns);
    mem_free(job);
}
