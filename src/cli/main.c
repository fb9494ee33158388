/*
 * main.c - picks the subcommand. Only this folder prints to stdout, reads the environment and
 * exits.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench/environment.h"
#include "cli/common.h"
#include "cli/env_file.h"

static const struct command *const commands[] = {
    &command_bench,    &command_bench_engine, &command_plot, &command_generate, &command_serve,
    &command_selftest, &command_tokenize,     &command_info, &command_pull,
};

static void print_usage(FILE *to)
{
    fprintf(to, "llmsched: compare LLM request schedulers on a real model\n\n"
                "Usage: llmsched COMMAND [OPTIONS]\n\n"
                "Examples:\n"
                "  llmsched bench --quick                    a first comparison in seconds\n"
                "  llmsched bench --sizes 25 50 100 --runs 3 the main job: CSV, JSON, charts\n"
                "  llmsched info schedulers                  policies and their parameters\n\n"
                "Commands:\n");
    for (size_t i = 0; i < COUNT_OF(commands); i++) {
        fprintf(to, "  %-12s %s\n", commands[i]->name, commands[i]->summary);
    }
    fprintf(
        to,
        "\n`llmsched COMMAND --help` shows its options. Exit codes: 0 ok, 1 internal, 2 usage,\n"
        "3 bad model or data, 4 endpoint unreachable, 5 threshold failed, 6 measurement invalid,\n"
        "130/143 interrupted with partial results saved.\n");
}

static int unknown_command(const char *word)
{
    const char *names[COUNT_OF(commands)];
    for (size_t i = 0; i < COUNT_OF(commands); i++) {
        names[i] = commands[i]->name;
    }
    const char *near = options_nearest(word, names, COUNT_OF(commands));
    if (near != NULL) {
        fprintf(stderr, "llmsched: unknown command \"%s\"; did you mean %s?\n", word, near);
    } else {
        fprintf(stderr, "llmsched: unknown command \"%s\"; llmsched --help lists them\n", word);
    }
    return status_exit_code(STATUS_USAGE);
}

/* A closed standard stream would be the next file that is opened, and a message would land in it.
 * Its place is taken by one that cannot be written, so that a lost output is still an error. */
static void reserve_standard_streams(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY) != fd) {
            _exit(status_exit_code(STATUS_IO));
        }
    }
}

int main(int argc, char **argv)
{
    reserve_standard_streams();
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is an error of the write, reported as such */
    if (argc < 2) {
        print_usage(stderr);
        return status_exit_code(STATUS_USAGE);
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_usage(stdout);
        return finish_stdout(0);
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("llmsched %s (%s)\n", llmsched_version, llmsched_commit);
        return finish_stdout(0);
    }
    for (size_t i = 0; i < COUNT_OF(commands); i++) {
        if (strcmp(argv[1], commands[i]->name) == 0) {
            struct error err = ERROR_INIT;
            enum status s = env_file_apply(&err);
            if (s != STATUS_OK) {
                return fail(s, &err);
            }
            return finish_stdout(commands[i]->run(argc - 1, argv + 1));
        }
    }
    return unknown_command(argv[1]);
}
