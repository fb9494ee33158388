/*
 * hub.h - where a model is on this machine, and how it gets here.
 *
 * Look-up: a folder or .gguf as given; a hub id "org/name" (or "name") in <models_dir>/org/name or
 * <models_dir>/name, then in the Hugging Face cache. No network in look-up.
 */
#ifndef LLMSCHED_MODEL_HUB_H
#define LLMSCHED_MODEL_HUB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/log.h"
#include "base/status.h"

/* The environment, handed in: only the command line reads getenv. NULL: not set. */
struct hub_env {
    const char *hf_endpoint;   /* HF_ENDPOINT; default https://huggingface.co */
    const char *hf_token;      /* HF_TOKEN */
    const char *hf_token_path; /* HF_TOKEN_PATH */
    const char *hf_hub_cache;  /* HF_HUB_CACHE, else HUGGINGFACE_HUB_CACHE */
    const char *hf_home;       /* HF_HOME */
    const char *xdg_cache_home;
    const char *home;
    bool offline;           /* HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE */
    bool no_implicit_token; /* HF_HUB_DISABLE_IMPLICIT_TOKEN: send none at all */
    const char *models_dir; /* "models" */
    uint32_t retry_base_ms; /* first pause between tries, doubled each time; 0: 500 */
};

/* The folder or file to open. NOT_FOUND names both remedies (pull, make model) and the places
 * looked at. Owner of *path: the caller (mem_free). */
enum status hub_locate(const char *model, const struct hub_env *env, char **path,
                       struct error *err) MUST_USE;

/* Downloads what a model needs (safetensors or gguf, json, txt, model, jinja) into the cache layout
 * and gives the snapshot folder. Resumes, verifies, keeps whole files on interruption (*stop != 0).
 * Takes files of the top folder only: model.safetensors or its shards, else one gguf. revision
 * NULL: "main". progress counts bytes over all files. A token is never sent to another host than
 * the endpoint's, nor over plain http except to this machine. Errors: USAGE (id, endpoint, token),
 * UNREACHABLE, NOT_FOUND (also: no access), BAD_DATA (checksum, hostile names), UNSUPPORTED (no
 * weights that we read), IO, INTERRUPTED. Owner of *path: the caller. */
enum status hub_pull(const char *id, const char *revision, const struct hub_env *env,
                     const struct progress *progress, const volatile int *stop, char **path,
                     struct error *err) MUST_USE;

#endif
