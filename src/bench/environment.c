/* environment.c - see environment.h. LLMSCHED_VERSION and LLMSCHED_COMMIT come from the build. */
#include "bench/environment.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/strbuf.h"

const char *const llmsched_version = LLMSCHED_VERSION;
const char *const llmsched_commit = LLMSCHED_COMMIT;

/* The value of "key : value" in a /proc text file; false when there is none. */
static bool proc_value(const char *path, const char *key, char *out, size_t out_bytes)
{
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        return false;
    }
    char line[512];
    bool found = false;
    size_t key_len = strlen(key);
    while (!found && fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, key, key_len) == 0) {
            const char *colon = strchr(line, ':');
            if (colon != NULL) {
                colon++;
                colon += strspn(colon, " \t");
                snprintf(out, out_bytes, "%.*s", (int)strcspn(colon, "\n"), colon);
                found = true;
            }
        }
    }
    fclose(f);
    return found;
}

static uint64_t proc_kib(const char *path, const char *key)
{
    char text[64];
    return proc_value(path, key, text, sizeof text) ? strtoull(text, NULL, 10) * 1024 : 0;
}

/* A number in a one-line file; false for "max" or a missing file. */
static bool file_number(const char *path, uint64_t *out)
{
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        return false;
    }
    unsigned long long value;
    bool ok = fscanf(f, "%llu", &value) == 1;
    fclose(f);
    if (ok) {
        *out = value;
    }
    return ok;
}

/* Bytes that one control group (version 2) still allows; UINT64_MAX without a limit. */
static uint64_t cgroup_room(const char *group)
{
    char path[320];
    uint64_t limit;
    uint64_t used;
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", group);
    if (!file_number(path, &limit)) {
        return UINT64_MAX;
    }
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.current", group);
    if (!file_number(path, &used)) {
        return UINT64_MAX;
    }
    return limit > used ? limit - used : 0;
}

uint64_t environment_memory_available(void)
{
    uint64_t available = proc_kib("/proc/meminfo", "MemAvailable");
    if (available == 0) {
        available = UINT64_MAX;
    }
    char group[256] = "";
    if (!proc_value("/proc/self/cgroup", "0:", group, sizeof group)) {
        return available;
    }
    /* "0::/a/b": the limits of /a/b, /a and / all hold. */
    char *path = group + strspn(group, ":");
    for (;;) {
        uint64_t left = cgroup_room(path);
        available = left < available ? left : available;
        char *slash = strrchr(path, '/');
        if (slash == NULL) {
            return available;
        }
        *slash = '\0';
    }
}

void environment_reset_peak_rss(void)
{
    int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t n = write(fd, "5", 1);
        (void)n; /* refused: the peak is then that of the whole process, as documented */
        close(fd);
    }
}

uint64_t environment_peak_rss_bytes(void)
{
    return proc_kib("/proc/self/status", "VmHWM");
}

#if defined(__clang__)
#define COMPILER_TEXT "clang " __clang_version__
#elif defined(__GNUC__)
#define COMPILER_TEXT "gcc " __VERSION__
#else
#define COMPILER_TEXT "unknown"
#endif

void environment_cpu(char *out, size_t size)
{
    if (!proc_value("/proc/cpuinfo", "model name", out, size)) {
        snprintf(out, size, "unknown");
    }
}

enum status environment_read(const char *command_line, struct environment *env, struct error *err)
{
    char cpu[256];
    environment_cpu(cpu, sizeof cpu);
    char kernel[256] = "unknown";
    struct utsname u;
    if (uname(&u) == 0) {
        snprintf(kernel, sizeof kernel, "%s %s %s", u.sysname, u.release, u.machine);
    }
    char started[32] = "";
    time_t now = time(NULL);
    struct tm utc;
    if (gmtime_r(&now, &utc) != NULL) {
        strftime(started, sizeof started, "%Y-%m-%dT%H:%M:%SZ", &utc);
    }
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    struct environment e = {
        .llmsched_version = mem_strdup(llmsched_version),
        .commit = mem_strdup(llmsched_commit),
        .compiler = mem_strdup(COMPILER_TEXT),
        .command_line = mem_strdup(command_line),
        .started_at = mem_strdup(started),
        .cpu = mem_strdup(cpu),
        .isa = mem_strdup(""),
        .kernel = mem_strdup(kernel),
        .cores = cores > 0 ? (uint64_t)cores : 0,
        .memory_bytes = proc_kib("/proc/meminfo", "MemTotal"),
    };
    if (e.llmsched_version == NULL || e.commit == NULL || e.compiler == NULL ||
        e.command_line == NULL || e.started_at == NULL || e.cpu == NULL || e.isa == NULL ||
        e.kernel == NULL) {
        struct results tmp = {.environment = e};
        results_deinit(&tmp);
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for the environment block");
    }
    *env = e;
    return STATUS_OK;
}
