/* pipeline/schedule_draw_svg.c -- a schedule as an SVG file that needs nothing else. */
#include "pipeline/schedule_draw_internal.h"
#include "pipeline/schedule_internal.h"
#include <math.h>

/* Pixels. */
enum {
    BOX_MOST = 30, /* width of the shortest action */
    PLOT_MOST = 1600,
    PLOT_LEAST = 560, /* so that title and legend fit */
    ROW = 24,
    BOX_HEIGHT = 20,
    LEFT = 64,
    TOP = 36,
    BELOW = 64, /* axis and legend */
    DIGIT = 7
};

struct svg {
    const struct tv_schedule *schedule;
    const struct tv_schedule_timing *timing;
    double scale; /* pixels per unit of time */
    double width, bottom;
    FILE *out;
};

static const char style[] =
    "<style>text{font:11px sans-serif;fill:#222}.n{text-anchor:middle}.s{text-anchor:end}"
    ".t{font-size:14px}.F{fill:#8ab4e8}.B{fill:#86c98a}.I{fill:#7fd0c8}.W{fill:#f2cd5d}"
    ".r{fill:#f3f3f3}line{stroke:#888}</style>\n";

/* The name may be a file's: what XML gives a meaning, and what is not plain, becomes '_'. */
static void print_name(const struct svg *g)
{
    for (const char *c = g->schedule->name; *c != '\0'; c++) {
        const int is_plain =
            *c >= ' ' && *c <= '~' && *c != '<' && *c != '>' && *c != '&' && *c != '"';
        fputc(is_plain ? *c : '_', g->out);
    }
}

/* Chunk c of v is drawn lighter the later it is in the model. */
static double opacity(const struct tv_schedule *schedule, int chunk)
{
    return 1 - 0.6 * chunk / schedule->num_chunks;
}

static void print_head(const struct svg *g)
{
    const struct tv_schedule *s = g->schedule;
    const double height = g->bottom + BELOW;
    fprintf(g->out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
            "viewBox=\"0 0 %.0f %.0f\">\n%s",
            g->width, height, g->width, height, style);
    fprintf(g->out, "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n");
    fprintf(g->out, "<text class=\"t\" x=\"%d\" y=\"22\">", LEFT);
    print_name(g);
    fprintf(g->out, "  P=%d  v=%d  m=%d  bubble %.2f %%</text>\n", s->num_stages, s->num_chunks,
            s->num_micro, 100 * g->timing->bubble_fraction);
}

static void print_box(const struct svg *g, const struct tv_action *a, struct tv_action_time span)
{
    const double x = span.start * g->scale, width = (span.end - span.start) * g->scale;
    fprintf(g->out, "<rect class=\"%s\" x=\"%.6g\" width=\"%.6g\" height=\"%d\"",
            tv_action_kind_name(a->kind), x, fmax(0, width - (width > 2 ? 1 : 0)), BOX_HEIGHT);
    if (a->chunk > 0)
        fprintf(g->out, " opacity=\"%.2g\"", opacity(g->schedule, a->chunk));
    fputs("/>\n", g->out);
    if (width >= DIGIT * tv_draw_num_digits(a->micro) + 3)
        fprintf(g->out, "<text class=\"n\" x=\"%.6g\" y=\"14\">%d</text>\n", x + width / 2,
                a->micro);
}

static void print_stage(const struct svg *g, int stage)
{
    const struct tv_action_list *list = &g->schedule->stages[stage];
    fprintf(g->out, "<g transform=\"translate(%d %d)\">\n", LEFT, TOP + stage * ROW);
    fprintf(g->out, "<text class=\"s\" x=\"-8\" y=\"14\">stage %d</text>\n", stage);
    fprintf(g->out, "<rect class=\"r\" width=\"%.6g\" height=\"%d\"/>\n",
            g->timing->makespan * g->scale, BOX_HEIGHT);
    for (int i = 0; i < list->num_actions; i++) {
        if (tv_action_is_compute(list->actions[i].kind))
            print_box(g, &list->actions[i], tv_draw_span(g->schedule, g->timing, stage, i));
    }
    fputs("</g>\n", g->out);
}

/* 1, 2 or 5 times a power of ten: at most ten steps to the makespan. */
static double tick_step(double makespan)
{
    const double tenth = makespan / 10, power = pow(10, floor(log10(tenth)));
    const double factor = tenth / power;
    return power * (factor <= 1 ? 1 : factor <= 2 ? 2 : factor <= 5 ? 5 : 10);
}

static void print_axis(const struct svg *g)
{
    const double makespan = g->timing->makespan;
    fprintf(g->out, "<g transform=\"translate(%d %.0f)\">\n", LEFT, g->bottom);
    fprintf(g->out, "<line x2=\"%.6g\"/>\n", makespan * g->scale);
    const int num_ticks = makespan > 0 ? (int)(makespan / tick_step(makespan)) + 1 : 1;
    for (int k = 0; k < num_ticks; k++) {
        const double time = k > 0 ? k * tick_step(makespan) : 0;
        fprintf(g->out,
                "<line x1=\"%.6g\" x2=\"%.6g\" y2=\"4\"/><text class=\"n\" x=\"%.6g\" "
                "y=\"16\">%.6g</text>\n",
                time * g->scale, time * g->scale, time * g->scale, time);
    }
    fputs("</g>\n", g->out);
}

static void print_legend(const struct svg *g)
{
    static const char *const meanings[] = {
        [TV_ACT_FORWARD] = "forward",
        [TV_ACT_BACKWARD] = "backward",
        [TV_ACT_BACKWARD_INPUT] = "input gradient",
        [TV_ACT_BACKWARD_WEIGHT] = "weight gradient",
    };
    int x = LEFT;
    const double y = g->bottom + 36;
    for (tv_action_kind_t kind = TV_ACT_FORWARD; kind <= TV_ACT_BACKWARD_WEIGHT; kind++) {
        if (!tv_draw_has_kind(g->schedule, kind))
            continue;
        fprintf(g->out,
                "<rect class=\"%s\" x=\"%d\" y=\"%.0f\" width=\"14\" height=\"14\"/>"
                "<text x=\"%d\" y=\"%.0f\">%s</text>\n",
                tv_action_kind_name(kind), x, y, x + 18, y + 11, meanings[kind]);
        x += 120;
    }
    if (g->schedule->num_chunks > 1)
        fprintf(g->out, "<text x=\"%d\" y=\"%.0f\">later chunks lighter</text>\n", x, y + 11);
}

tv_status_t tv_schedule_draw_svg(const struct tv_schedule *schedule,
                                 const struct tv_schedule_timing *timing, FILE *out)
{
    const double shortest = tv_draw_shortest(schedule, timing);
    struct svg g = {.schedule = schedule, .timing = timing, .out = out};
    if (timing->makespan > 0)
        g.scale = fmin(BOX_MOST / shortest, PLOT_MOST / timing->makespan);
    g.width = LEFT + fmax(PLOT_LEAST, timing->makespan * g.scale) + 24;
    g.bottom = TOP + schedule->num_stages * ROW;
    print_head(&g);
    for (int s = 0; s < schedule->num_stages; s++)
        print_stage(&g, s);
    print_axis(&g);
    print_legend(&g);
    fputs("</svg>\n", out);
    return ferror(out) ? TV_ERR(TV_IO, "schedule %s: the picture cannot be written", schedule->name)
                       : TV_OK;
}
