/* plot.c - see plot.h. */
#include "report/plot.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "number_int.h"
#include "plot_int.h"

static enum status write_file(const char *folder, const char *name, const struct strbuf *text,
                              struct error *err)
{
    char *path = text->failed ? NULL : fs_join(folder, name);
    if (path == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for %s", name);
    }
    enum status s = fs_write_atomic(path, strbuf_text(text), text->len, err);
    mem_free(path);
    return s;
}

/* figures.dat, boxes.dat, outliers.dat. */
static enum status write_data(const struct matrix *m, const char *folder,
                              struct plot_extent *extent, struct error *err)
{
    struct strbuf figures = {0};
    struct strbuf boxes = {0};
    struct strbuf outliers = {0};
    plot_figures(m, &figures, extent);
    plot_boxes(m, &boxes, &outliers, extent);
    enum status s = write_file(folder, "figures.dat", &figures, err);
    s = s != STATUS_OK ? s : write_file(folder, "boxes.dat", &boxes, err);
    s = s != STATUS_OK ? s : write_file(folder, "outliers.dat", &outliers, err);
    strbuf_deinit(&figures);
    strbuf_deinit(&boxes);
    strbuf_deinit(&outliers);
    return s;
}

/* <folder>/<name>.png.tmp -> <dir>/<name>.png, so that a chart is whole or not there. */
static enum status put_in_place(const char *dir, const char *folder, const char *name,
                                struct error *err)
{
    char file[64];
    snprintf(file, sizeof file, "%s.png.tmp", name);
    char *from = fs_join(folder, file);
    snprintf(file, sizeof file, "%s.png", name);
    char *to = fs_join(dir, file);
    enum status s = STATUS_OK;
    if (from == NULL || to == NULL) {
        s = error_set(err, STATUS_NO_MEMORY, -1, "no memory for %s", name);
    } else if (rename(from, to) != 0) {
        s = error_set(err, STATUS_IO, -1, "%s: gnuplot left no picture to put there: %s", to,
                      strerror(errno));
    }
    mem_free(from);
    mem_free(to);
    return s;
}

static enum status draw(const struct matrix *m, enum plot_chart chart,
                        const struct plot_extent *extent, const char *dir, const char *folder,
                        struct error *err)
{
    const char *name = plot_chart_name(chart);
    char file[64];
    snprintf(file, sizeof file, "%s.gp", name);
    struct strbuf script = {0};
    plot_script(m, chart, extent, &script);
    enum status s = write_file(folder, file, &script, err);
    s = s != STATUS_OK ? s : plot_run_gnuplot(folder, name, err);
    s = s != STATUS_OK ? s : put_in_place(dir, folder, name, err);
    strbuf_deinit(&script);
    return s;
}

/* A chart that cannot be drawn must not stay there from other data. */
static enum status remove_stale(const char *dir, enum plot_chart chart, struct error *err)
{
    char file[64];
    snprintf(file, sizeof file, "%s.png", plot_chart_name(chart));
    char *path = fs_join(dir, file);
    enum status s = STATUS_OK;
    if (path == NULL) {
        s = error_set(err, STATUS_NO_MEMORY, -1, "no memory for %s", file);
    } else if (unlink(path) != 0 && errno != ENOENT) {
        s = error_set(err, STATUS_IO, -1, "%s: cannot remove the older chart: %s", path,
                      strerror(errno));
    }
    mem_free(path);
    return s;
}

static enum status draw_all(const struct matrix *m, const char *dir, const char *folder,
                            struct error *err)
{
    struct plot_extent extent = {0};
    enum status s = write_data(m, folder, &extent, err);
    for (enum plot_chart chart = CHART_THROUGHPUT; s == STATUS_OK && chart < CHARTS; chart++) {
        bool empty = chart == CHART_DISTRIBUTION && extent.most_rows == 0;
        s = empty ? remove_stale(dir, chart, err) : draw(m, chart, &extent, dir, folder, err);
    }
    return s;
}

enum status plot_all(const struct results *r, const char *dir, struct error *err)
{
    struct matrix m;
    if (!matrix_init(&m, r)) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory to draw %zu runs", r->n_runs);
    }
    char *folder = fs_join(dir, "plot-data");
    locale_t saved = number_locale_begin();
    enum status s;
    if (folder == NULL) {
        s = error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory", dir);
    } else if (m.n_schedulers == 0) {
        s = error_set(err, STATUS_BAD_DATA, -1, "no runs to draw");
    } else if (m.n_schedulers > PLOT_MAX_SCHEDULERS || m.n_sizes > PLOT_MAX_SIZES) {
        s = error_set(err, STATUS_BAD_DATA, -1,
                      "%zu schedulers and %zu sizes: charts hold at most %d and %d; draw a part",
                      m.n_schedulers, m.n_sizes, PLOT_MAX_SCHEDULERS, PLOT_MAX_SIZES);
    } else {
        s = fs_make_dirs(folder, err);
        s = s != STATUS_OK ? s : draw_all(&m, dir, folder, err);
    }
    number_locale_end(saved);
    mem_free(folder);
    matrix_deinit(&m);
    return s;
}
