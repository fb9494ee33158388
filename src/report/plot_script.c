/*
 * plot_script.c - gnuplot scripts for the four charts.
 *
 * A chart is a title, panels side by side, a legend of our own below them (gnuplot's would cover
 * data or be cut) and two lines of caption, placed in pixels of a fixed canvas, 1000 wide.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "plot_int.h"
#include "text_int.h"

#define WIDTH          1000
#define TITLE_HEIGHT   46
#define PANEL_TOP      30 /* the panel's title */
#define PANEL_BOTTOM   72 /* tics and label of the x axis */
#define PANEL_LEFT     80 /* tics and label of the y axis */
#define PANEL_RIGHT    14
#define YLABEL_LEFT    14
#define YLABEL_TAG     1000 /* the legend and the captions have lower numbers */
#define NOTE_TAG       1001
#define LEGEND_ROW     24
#define CAPTION_HEIGHT 60

/* Okabe and Ito 2008: told apart with all common kinds of colour vision. Yellow last: it is faint
 * on white. */
static const char *const palette[] = {"#0072B2", "#E69F00", "#009E73", "#D55E00",
                                      "#CC79A7", "#56B4E9", "#000000", "#F0E442"};
#define PALETTE_COLOURS (sizeof palette / sizeof palette[0])
/* Filled point shapes; with more schedulers than colours the shape tells them apart. */
static const int shapes[] = {7, 5, 9, 11, 13};
#define SHAPES (sizeof shapes / sizeof shapes[0])

struct panel {
    enum plot_metric metric;
    const char *title;
    const char *ylabel;
};

struct chart {
    const char *name;
    const char *title;
    int columns;
    int n_panels;
    int panel_height; /* with its title and axes */
    struct panel panels[4];
};

static const struct chart charts[CHARTS] = {
    [CHART_THROUGHPUT] = {"throughput_comparison",
                          "Throughput by number of requests",
                          2,
                          2,
                          390,
                          {{PLOT_REQUESTS, "Requests per second", "requests/s"},
                           {PLOT_TOKENS, "Output tokens per second", "tokens/s"}}},
    [CHART_LATENCY] = {"latency_comparison",
                       "Latency by number of requests",
                       2,
                       4,
                       350,
                       {{PLOT_P50, "P50 latency", "seconds"},
                        {PLOT_P95, "P95 latency", "seconds"},
                        {PLOT_P99, "P99 latency", "seconds"},
                        {PLOT_AVG, "Average latency", "seconds"}}},
    [CHART_DISTRIBUTION] = {"latency_distribution",
                            "Distribution of request latency",
                            1,
                            1,
                            450,
                            {{PLOT_METRICS, "", "latency (seconds)"}}},
    [CHART_BARS] = {"scheduler_comparison_bars",
                    "Schedulers compared",
                    2,
                    4,
                    350,
                    {{PLOT_REQUESTS, "Requests per second", "requests/s"},
                     {PLOT_P95, "P95 latency", "seconds"},
                     {PLOT_TTFT, "Median time to first token", "seconds"},
                     {PLOT_USEFUL, "Useful compute", "% of wall time"}}},
};

const char *plot_chart_name(enum plot_chart chart)
{
    return charts[chart].name;
}

static bool is_harmless(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
           c >= 0x80 || (c != '\0' && strchr(" ._-+=:,()[]/<>*&!?|~^", c) != NULL);
}

void plot_text(struct strbuf *out, const char *name, size_t max_characters)
{
    struct strbuf label = {0};
    text_label(&label, name, max_characters);
    strbuf_putc(out, '\'');
    for (size_t i = 0; i < label.len; i++) {
        strbuf_putc(out, is_harmless((unsigned char)label.data[i]) ? label.data[i] : '_');
    }
    strbuf_putc(out, '\'');
    out->failed = out->failed || label.failed;
    strbuf_deinit(&label);
}

/* Pixels of a label at the legend's size, on the safe side; East Asian ones are twice as wide. */
static int label_pixels(const char *name)
{
    struct strbuf label = {0};
    text_label(&label, name, PLOT_LABEL_CHARACTERS);
    int pixels = 0;
    for (size_t i = 0; i < label.len;) {
        size_t len = utf8_sequence(label.data + i, label.len - i);
        pixels += utf8_decode(label.data + i, len) >= 0x1100 ? 17 : 9;
        i += len;
    }
    strbuf_deinit(&label);
    return pixels;
}

struct layout {
    int columns;
    int rows;
    int panel_height;
    int height;
    int legend_columns;
    int legend_rows;
};

static struct layout lay_out(const struct matrix *m, const struct chart *chart)
{
    int widest = 1;
    for (size_t s = 0; s < m->n_schedulers; s++) {
        int pixels = label_pixels(m->schedulers[s]);
        widest = pixels > widest ? pixels : widest;
    }
    struct layout l = {.columns = chart->columns,
                       .rows = chart->n_panels / chart->columns,
                       .panel_height = chart->panel_height};
    l.legend_columns = (WIDTH - PANEL_LEFT - PANEL_RIGHT) / (widest + 40);
    l.legend_columns = l.legend_columns < 1 ? 1 : l.legend_columns;
    int n = (int)m->n_schedulers;
    l.legend_columns = l.legend_columns > n ? (n > 0 ? n : 1) : l.legend_columns;
    l.legend_rows = (n + l.legend_columns - 1) / l.legend_columns;
    l.height = TITLE_HEIGHT + l.rows * l.panel_height + l.legend_rows * LEGEND_ROW + CAPTION_HEIGHT;
    return l;
}

/* Pixels from the left and the top as gnuplot's screen fractions. */
static void put_point(struct strbuf *out, const struct layout *l, int x, int y)
{
    strbuf_printf(out, "screen %.5f, screen %.5f", (double)x / WIDTH, 1.0 - (double)y / l->height);
}

static void put_label(struct strbuf *out, const struct layout *l, int x, int y, const char *style)
{
    strbuf_puts(out, " at ");
    put_point(out, l, x, y);
    strbuf_printf(out, " %s\n", style);
}

static void put_legend(const struct matrix *m, const struct layout *l, struct strbuf *out)
{
    int pitch = (WIDTH - PANEL_LEFT - PANEL_RIGHT) / l->legend_columns;
    int top = TITLE_HEIGHT + l->rows * l->panel_height;
    for (size_t s = 0; s < m->n_schedulers; s++) {
        int x = PANEL_LEFT + (int)(s % (size_t)l->legend_columns) * pitch;
        int y = top + (int)(s / (size_t)l->legend_columns) * LEGEND_ROW + LEGEND_ROW / 2;
        strbuf_puts(out, "set object rectangle from ");
        put_point(out, l, x, y - 7);
        strbuf_puts(out, " to ");
        put_point(out, l, x + 14, y + 7);
        strbuf_printf(out, " fillcolor rgb '%s' fillstyle solid noborder\n",
                      palette[s % PALETTE_COLOURS]);
        if (s >= PALETTE_COLOURS) {
            strbuf_puts(out, "set label '' at ");
            put_point(out, l, x + 7, y);
            strbuf_printf(out, " point pointtype %d pointsize 0.8 linecolor rgb '#ffffff' front\n",
                          shapes[s / PALETTE_COLOURS % SHAPES]);
        }
        strbuf_puts(out, "set label ");
        plot_text(out, m->schedulers[s], PLOT_LABEL_CHARACTERS);
        put_label(out, l, x + 22, y, "left");
    }
}

static void put_range(struct strbuf *out, const char *name, uint64_t low, uint64_t high)
{
    strbuf_printf(out, low == high ? ", %s %llu" : ", %s %llu to %llu", name,
                  (unsigned long long)low, (unsigned long long)high);
}

/* model; n; seeds. All of it harmless text by plot_text. */
static void put_source_line(const struct matrix *m, const struct layout *l, enum plot_chart chart,
                            const struct plot_extent *extent, struct strbuf *out)
{
    const struct results *r = m->results;
    struct strbuf line = {0};
    strbuf_puts(&line, "model ");
    text_label(&line, r->model.name[0] != '\0' ? r->model.name : "unknown", 48);
    if (r->model.random_weights) {
        strbuf_puts(&line, " (random weights)");
    }
    size_t fewest;
    size_t most;
    matrix_run_counts(m, &fewest, &most);
    put_range(&line, "runs: n =", fewest, most);
    if (chart == CHART_DISTRIBUTION && extent->most_rows > 0) {
        put_range(&line, "requests in a box: n =", extent->fewest_rows, extent->most_rows);
    }
    uint64_t low = UINT64_MAX;
    uint64_t high = 0;
    for (size_t i = 0; i < r->n_runs; i++) {
        low = r->runs[i].seed < low ? r->runs[i].seed : low;
        high = r->runs[i].seed > high ? r->runs[i].seed : high;
    }
    put_range(&line, low == high ? "seed" : "seeds", low, high);
    if (r->partial) {
        strbuf_puts(&line, ", PARTIAL: runs are missing");
    }
    strbuf_puts(out, "set label ");
    plot_text(out, strbuf_text(&line), 400);
    put_label(out, l, PANEL_LEFT, l->height - CAPTION_HEIGHT + 16,
              "left font 'Sans,9' textcolor rgb '#404040'");
    out->failed = out->failed || line.failed;
    strbuf_deinit(&line);
}

/* Highest value of the axis of a panel; true in *cut when an error bar ends beyond it. */
static double axis_top(const struct plot_extent *extent, enum plot_metric metric, bool *cut)
{
    double mean = extent->max_mean[metric];
    double top = extent->max_end[metric];
    /* Two runs can have an interval of ten times the mean: it must not flatten everything else. */
    *cut = top > 2.0 * mean;
    top = *cut ? 2.0 * mean : top;
    return top > 0.0 ? top * 1.08 : 1.0;
}

static bool has_servers(const struct matrix *m)
{
    for (size_t s = 0; s < m->n_schedulers; s++) {
        if (matrix_is_remote(m, s)) {
            return true;
        }
    }
    return false;
}

/* In the middle of a panel in which nothing is known; an empty one would look like zeros. */
static void put_note(const struct plot_extent *extent, enum plot_metric metric, struct strbuf *out)
{
    if (extent->known[metric] == 0) {
        strbuf_printf(out,
                      "set label %d 'not known' at graph 0.5, graph 0.5 center textcolor rgb "
                      "'#808080'\n",
                      NOTE_TAG);
    } else {
        strbuf_printf(out, "unset label %d\n", NOTE_TAG);
    }
}

static void put_caption(const struct matrix *m, const struct layout *l, enum plot_chart chart,
                        const struct plot_extent *extent, struct strbuf *out)
{
    put_source_line(m, l, chart, extent, out);
    bool any_cut = false;
    for (int p = 0; p < charts[chart].n_panels && chart != CHART_DISTRIBUTION; p++) {
        bool cut;
        axis_top(extent, charts[chart].panels[p].metric, &cut);
        any_cut = any_cut || cut;
    }
    size_t fewest;
    size_t most;
    matrix_run_counts(m, &fewest, &most);
    strbuf_puts(out, "set label '");
    if (chart == CHART_DISTRIBUTION) {
        strbuf_puts(out,
                    "box: quartiles and median of the successful requests of all runs; whiskers: "
                    "furthest within 1.5 box heights; dots: beyond");
    } else if (most < 2) {
        strbuf_puts(out, "one run: no error bars");
    } else {
        strbuf_puts(out, "means over runs; error bars: 95 % interval of the mean (Student t)");
        strbuf_puts(out, any_cut ? ", cut off at the axis where wider" : "");
    }
    if (chart == CHART_BARS && has_servers(m)) {
        strbuf_puts(out, "; useful compute of servers is not visible");
    }
    strbuf_puts(out, "'");
    put_label(out, l, PANEL_LEFT, l->height - CAPTION_HEIGHT + 36,
              "left font 'Sans,9' textcolor rgb '#404040'");
}

static void put_head(const struct chart *chart, const struct layout *l, struct strbuf *out)
{
    strbuf_printf(
        out,
        "# Made by llmsched. To restyle: edit, then run gnuplot %s.gp in this folder.\n"
        "if (!exists('out')) out = '../%s.png'\n"
        "set terminal pngcairo noenhanced size %d,%d font 'Sans,11' background '#ffffff'\n"
        "set encoding utf8\n"
        "set output out\n"
        "set datafile separator \"\\t\"\n"
        "set datafile missing 'NaN'\n"
        "set multiplot\n"
        "unset key\n"
        "set border 3 linecolor rgb '#404040'\n"
        "set tics nomirror out\n"
        "set grid ytics linetype 1 linewidth 0.5 linecolor rgb '#dddddd'\n"
        "set style fill solid 0.9 noborder\n",
        chart->name, chart->name, WIDTH, l->height);
    strbuf_printf(out, "set label '%s'", chart->title);
    put_label(out, l, WIDTH / 2, TITLE_HEIGHT / 2, "center font 'Sans,15'");
}

/* Sizes as categories 0, 1, ...: 25, 50 and 100 stand equally far apart. */
static void put_x_axis(const struct matrix *m, struct strbuf *out)
{
    size_t stride = (m->n_sizes + 11) / 12;
    strbuf_printf(
        out, "set xrange [-0.5:%.1f]\nset xlabel 'requests in a run' offset 0,0.4\nset xtics (",
        (double)m->n_sizes - 0.5);
    for (size_t k = 0; k < m->n_sizes; k += stride) {
        strbuf_printf(out, "%s'%llu' %zu", k > 0 ? ", " : "", (unsigned long long)m->sizes[k], k);
    }
    strbuf_puts(out, ")\n");
}

static void put_panel_place(const struct layout *l, int index, const struct panel *panel,
                            double top, struct strbuf *out)
{
    int width = WIDTH / l->columns;
    int x = index % l->columns * width;
    int y = TITLE_HEIGHT + index / l->columns * l->panel_height;
    strbuf_printf(out,
                  "set lmargin at screen %.5f\nset rmargin at screen %.5f\n"
                  "set tmargin at screen %.5f\nset bmargin at screen %.5f\n",
                  (double)(x + PANEL_LEFT) / WIDTH, (double)(x + width - PANEL_RIGHT) / WIDTH,
                  1.0 - (double)(y + PANEL_TOP) / l->height,
                  1.0 - (double)(y + l->panel_height - PANEL_BOTTOM) / l->height);
    strbuf_printf(out, "set title '%s' offset 0,-0.3\nset yrange [0:%.6g]\n", panel->title, top);
    /* At a fixed place: gnuplot's own moves with the width of the numbers, and off the canvas. */
    strbuf_printf(out, "set label %d '%s'", YLABEL_TAG, panel->ylabel);
    put_label(out, l, x + YLABEL_LEFT, (2 * y + PANEL_TOP + l->panel_height - PANEL_BOTTOM) / 2,
              "center rotate by 90");
}

/* Distance of a scheduler's marks from the middle of its category. */
static double offset_of(const struct matrix *m, size_t s, double pitch)
{
    return ((double)s - (double)(m->n_schedulers - 1) / 2.0) * pitch;
}

static int column_of(enum plot_metric metric)
{
    return 4 + 2 * (int)metric;
}

static void put_lines(const struct matrix *m, enum plot_metric metric, struct strbuf *out)
{
    int c = column_of(metric);
    double pitch = 0.3 / (double)(m->n_schedulers > 4 ? m->n_schedulers : 4);
    for (size_t s = 0; s < m->n_schedulers; s++) {
        const char *colour = palette[s % PALETTE_COLOURS];
        int shape = shapes[s / PALETTE_COLOURS % SHAPES];
        double d = offset_of(m, s, pitch);
        strbuf_printf(out,
                      "%s'figures.dat' index %zu using ($1%+.5f):%d with linespoints linewidth 2 "
                      "pointtype %d pointsize 1.1 linecolor rgb '%s'",
                      s == 0 ? "plot " : ", \\\n     ", s, d, c, shape, colour);
        strbuf_printf(out,
                      ", \\\n     'figures.dat' index %zu using ($1%+.5f):%d:%d with yerrorbars "
                      "linewidth 1.3 pointtype %d pointsize 1.1 linecolor rgb '%s'",
                      s, d, c, c + 1, shape, colour);
    }
    strbuf_putc(out, '\n');
}

static void put_bars(const struct matrix *m, enum plot_metric metric, struct strbuf *out)
{
    int c = column_of(metric);
    double pitch = 0.8 / (double)m->n_schedulers;
    pitch = pitch > 0.25 ? 0.25 : pitch;
    /* Error bars are arrows with flat heads: those of gnuplot punch a hole into the bar. Where they
     * would end below 0 they start there, as an arrow with both ends outside is not drawn. */
    strbuf_printf(out, "set boxwidth %.5f absolute\nlow(mean,half) = mean > half ? mean-half : 0\n",
                  pitch * 0.88);
    for (size_t s = 0; s < m->n_schedulers; s++) {
        double d = offset_of(m, s, pitch);
        strbuf_printf(out,
                      "%s'figures.dat' index %zu using ($1%+.5f):%d with boxes linecolor rgb '%s'",
                      s == 0 ? "plot " : ", \\\n     ", s, d, c, palette[s % PALETTE_COLOURS]);
        strbuf_printf(out,
                      ", \\\n     'figures.dat' index %zu using ($1%+.5f):(low($%d,$%d)):(0):"
                      "($%d+$%d-low($%d,$%d)) with vectors heads size graph 0.012,90 linewidth 1.3 "
                      "linecolor rgb '#202020'",
                      s, d, c, c + 1, c, c + 1, c, c + 1);
    }
    strbuf_putc(out, '\n');
}

static void put_box_plots(const struct matrix *m, struct strbuf *out)
{
    double pitch = 0.84 / (double)m->n_schedulers;
    pitch = pitch > 0.22 ? 0.22 : pitch;
    strbuf_printf(out, "set boxwidth %.5f absolute\nset style fill solid 0.55 border\n",
                  pitch * 0.75);
    for (size_t s = 0; s < m->n_schedulers; s++) {
        const char *colour = palette[s % PALETTE_COLOURS];
        double d = offset_of(m, s, pitch);
        strbuf_printf(
            out,
            "%s'boxes.dat' index %zu using ($1%+.5f):3:2:6:5 with candlesticks whiskerbars "
            "0.5 linewidth 1.3 linecolor rgb '%s'",
            s == 0 ? "plot " : ", \\\n     ", s, d, colour);
        strbuf_printf(out,
                      ", \\\n     'boxes.dat' index %zu using ($1%+.5f):4:4:4:4 with candlesticks "
                      "linewidth 2 linecolor rgb '#202020'",
                      s, d);
        strbuf_printf(
            out,
            ", \\\n     'outliers.dat' index %zu using ($1%+.5f):2 with points pointtype 6 "
            "pointsize 0.5 linecolor rgb '%s'",
            s, d, colour);
    }
    strbuf_putc(out, '\n');
}

void plot_script(const struct matrix *m, enum plot_chart chart, const struct plot_extent *extent,
                 struct strbuf *out)
{
    const struct chart *c = &charts[chart];
    struct layout l = lay_out(m, c);
    put_head(c, &l, out);
    put_legend(m, &l, out);
    put_caption(m, &l, chart, extent, out);
    put_x_axis(m, out);
    for (int p = 0; p < c->n_panels; p++) {
        const struct panel *panel = &c->panels[p];
        bool cut;
        double latency_top = extent->max_latency > 0.0 ? extent->max_latency * 1.06 : 1.0;
        double top =
            chart == CHART_DISTRIBUTION ? latency_top : axis_top(extent, panel->metric, &cut);
        top = panel->metric == PLOT_USEFUL ? 100.0 : top;
        put_panel_place(&l, p, panel, top, out);
        if (chart != CHART_DISTRIBUTION) {
            put_note(extent, panel->metric, out);
        }
        if (chart == CHART_DISTRIBUTION) {
            put_box_plots(m, out);
        } else if (chart == CHART_BARS) {
            put_bars(m, panel->metric, out);
        } else {
            put_lines(m, panel->metric, out);
        }
        if (p == 0) {
            /* Once drawn they stay: a second time would make their edges fat. */
            strbuf_puts(out, "unset label\nunset object\n");
        }
    }
    strbuf_puts(out, "unset multiplot\nset output\n");
}
