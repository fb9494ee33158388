/* plot_process.c - runs gnuplot: no shell, no start-up files of the user, its complaints caught. */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "plot_int.h"

extern char **environ;

/* The child: in folder, without input, its standard error into the pipe. 0 or an errno. */
static int spawn_in(const char *folder, char *const argv[], int error_pipe, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    int failure = posix_spawn_file_actions_init(&actions);
    if (failure != 0) {
        return failure;
    }
    failure = posix_spawn_file_actions_addchdir_np(&actions, folder);
    failure = failure != 0 ? failure
                           : posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null",
                                                              O_RDONLY, 0);
    failure = failure != 0 ? failure
                           : posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null",
                                                              O_WRONLY, 0);
    failure = failure != 0 ? failure
                           : posix_spawn_file_actions_adddup2(&actions, error_pipe, STDERR_FILENO);
    posix_spawnattr_t attributes;
    failure = failure != 0 ? failure : posix_spawnattr_init(&attributes);
    if (failure == 0) {
        /* A group of its own: Ctrl-C is for us, who then finish the chart that is being drawn. */
        failure = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
        failure = failure != 0 ? failure
                               : posix_spawnp(pid, argv[0], &actions, &attributes, argv, environ);
        posix_spawnattr_destroy(&attributes);
    }
    posix_spawn_file_actions_destroy(&actions);
    return failure;
}

/* Reads to the end; keeps the first size - 1 bytes. */
static void drain(int fd, char *text, size_t size)
{
    size_t n = 0;
    char rest[512];
    for (;;) {
        bool full = n + 1 >= size;
        ssize_t got = full ? read(fd, rest, sizeof rest) : read(fd, text + n, size - 1 - n);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            break;
        }
        n += full ? 0 : (size_t)got;
    }
    text[n] = '\0';
}

enum status plot_run_gnuplot(const char *folder, const char *name, struct error *err)
{
    char out[96];
    char script[96];
    snprintf(out, sizeof out, "out='%s.png.tmp'", name);
    snprintf(script, sizeof script, "%s.gp", name);
    char program[] = "gnuplot";
    char no_start_up[] = "-d";
    char evaluate[] = "-e";
    char *const argv[] = {program, no_start_up, evaluate, out, script, NULL};
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) {
        return error_set(err, STATUS_IO, -1, "cannot run gnuplot: %s", strerror(errno));
    }
    pid_t pid = -1;
    int failure = spawn_in(folder, argv, fds[1], &pid);
    close(fds[1]);
    char complaint[300] = "";
    if (failure == 0) {
        drain(fds[0], complaint, sizeof complaint);
    }
    close(fds[0]);
    if (failure == ENOENT) {
        return error_set(
            err, STATUS_NOT_FOUND, -1,
            "gnuplot is not installed: apt-get install gnuplot-nox, then llmsched plot");
    }
    if (failure != 0) {
        return error_set(err, STATUS_IO, -1, "cannot run gnuplot: %s", strerror(failure));
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        return error_set(err, STATUS_IO, -1, "gnuplot failed on %s/%s: %s", folder, script,
                         complaint[0] != '\0' ? complaint : "no message");
    }
    return STATUS_OK;
}
