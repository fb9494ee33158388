/*
 * cores.c - how many physical cores this process may use.
 *
 * Kernels saturate a core's multipliers, so a second hyperthread of the same core only gets in the
 * way; and a container's CPU quota stops all threads once it is spent, so more threads than the
 * quota has cores means long pauses. Linux tells both through files; elsewhere the answer is the
 * number of processors online.
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tensor/pool.h"

#if defined(__linux__)
#include <sched.h>

#define MAX_CPUS 8192

/* First line of a small file, without its newline. */
static bool read_line(const char *path, char *line, size_t capacity)
{
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        return false;
    }
    bool ok = fgets(line, (int)capacity, f) != NULL;
    (void)fclose(f);
    line[ok ? strcspn(line, "\n") : 0] = '\0';
    return ok;
}

/* Walks a CPU list such as "0-3,64-67": is a CPU below `cpu` in it that the process may use too? */
static bool has_allowed_sibling_below(const char *list, unsigned cpu, const cpu_set_t *allowed,
                                      size_t set_bytes)
{
    unsigned from;
    int used;
    while (sscanf(list, "%u%n", &from, &used) == 1) {
        list += used;
        unsigned to = from;
        if (sscanf(list, "-%u%n", &to, &used) == 1) {
            list += used;
        }
        for (unsigned c = from; c <= to && c < cpu; c++) {
            if (CPU_ISSET_S(c, set_bytes, allowed)) {
                return true;
            }
        }
        if (*list++ != ',') {
            return false;
        }
    }
    return false;
}

/* Allowed CPUs that are the lowest allowed one of their core. 0: unknown. */
static uint32_t cores_by_affinity(void)
{
    cpu_set_t allowed[MAX_CPUS / CPU_SETSIZE];
    if (sched_getaffinity(0, sizeof allowed, allowed) != 0) {
        return 0;
    }
    uint32_t cores = 0;
    for (unsigned cpu = 0; cpu < MAX_CPUS; cpu++) {
        if (!CPU_ISSET_S(cpu, sizeof allowed, allowed)) {
            continue;
        }
        char path[96];
        char list[256];
        (void)snprintf(path, sizeof path,
                       "/sys/devices/system/cpu/cpu%u/topology/thread_siblings_list", cpu);
        if (!read_line(path, list, sizeof list) ||
            !has_allowed_sibling_below(list, cpu, allowed, sizeof allowed)) {
            cores++;
        }
    }
    return cores;
}

/* Whole cores of the tightest cgroup v2 quota from this process's group up. 0: none readable. */
static uint32_t cores_by_quota(void)
{
    char group[1024];
    char path[1200];
    uint32_t cores = 0;
    if (!read_line("/proc/self/cgroup", group, sizeof group) || strncmp(group, "0::/", 4) != 0) {
        return 0;
    }
    for (;;) {
        char line[64];
        unsigned long long quota;
        unsigned long long period;
        (void)snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", group + 3);
        if (read_line(path, line, sizeof line) && sscanf(line, "%llu %llu", &quota, &period) == 2 &&
            period > 0) {
            uint32_t whole = quota / period < 1 ? 1 : (uint32_t)(quota / period);
            cores = cores == 0 || whole < cores ? whole : cores;
        }
        char *slash = strrchr(group + 3, '/');
        if (slash == NULL) {
            return cores;
        }
        *slash = '\0';
    }
}
#endif

uint32_t pool_default_threads(void)
{
    uint32_t cores = 0;
#if defined(__linux__)
    cores = cores_by_affinity();
    uint32_t quota = cores_by_quota();
    if (quota > 0 && quota < cores) {
        cores = quota;
    }
#endif
    if (cores == 0) {
        long online = sysconf(_SC_NPROCESSORS_ONLN);
        cores = online < 1 ? 1 : (uint32_t)online;
    }
    return cores > POOL_MAX_THREADS ? POOL_MAX_THREADS : cores;
}
