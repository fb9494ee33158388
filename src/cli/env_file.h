/*
 * env_file.h - the current folder's .env, put into the environment before a subcommand runs.
 */
#ifndef LLMSCHED_CLI_ENV_FILE_H
#define LLMSCHED_CLI_ENV_FILE_H

#include "base/status.h"

/*
 * Sets each variable of ./.env that the environment does not have yet, also not as an empty one.
 * Only names of ours and of the tools we speak to (env_file.c lists the prefixes): a .env lies
 * beside other people's files and must not choose what a child process loads or runs. No ./.env:
 * nothing happens. Thread: before others start. Errors: BAD_DATA with the line, IO, NO_MEMORY.
 */
enum status env_file_apply(struct error *err) MUST_USE;

/* Prints a line per variable that we know: name, whence (environment, .env, -), value; secrets
 * are not shown. */
void env_file_print(void);

#endif
