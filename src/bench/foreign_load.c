/* foreign_load.c - see foreign_load.h. */
#include "bench/foreign_load.h"

#include <math.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/monotime.h"

/* Seconds in which any core was busy or stolen; NaN where /proc/stat is missing, strange or empty
 * (as some sandboxes show it). */
static double busy_seconds(void)
{
    FILE *f = fopen("/proc/stat", "re");
    if (f == NULL) {
        return (double)NAN;
    }
    /* user nice system idle iowait irq softirq steal */
    unsigned long long t[8] = {0};
    int n = fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &t[0], &t[1], &t[2], &t[3],
                   &t[4], &t[5], &t[6], &t[7]);
    fclose(f);
    long ticks = sysconf(_SC_CLK_TCK);
    unsigned long long busy = t[0] + t[1] + t[2] + t[5] + t[6] + t[7];
    return n == 8 && ticks > 0 && busy > 0 ? (double)busy / (double)ticks : (double)NAN;
}

static double own_seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

void foreign_load_begin(struct foreign_load *load)
{
    *load = (struct foreign_load){
        .busy_s = busy_seconds(), .own_s = own_seconds(), .begin_ns = monotime_now_ns()};
}

double foreign_load_end(const struct foreign_load *load)
{
    double wall_s = monotime_seconds(monotime_now_ns() - load->begin_ns);
    double own_s = own_seconds() - load->own_s;
    double busy_s = busy_seconds() - load->busy_s;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (isnan(busy_s) || cores < 1 || wall_s <= 0.0) {
        return (double)NAN;
    }
    return fmin(fmax((busy_s - own_s) / (wall_s * (double)cores), 0.0), 1.0);
}
