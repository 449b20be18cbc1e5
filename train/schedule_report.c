/* train/schedule_report.c -- table, picture, JSON and files of one schedule. */
#include "train/schedule_report.h"
#include "pipeline/schedule_csv.h"
#include "pipeline/schedule_draw.h"
#include "train/files.h"
#include "train/terminal.h"
#include <errno.h>
#include <jansson.h>
#include <string.h>

static int num_messages(const struct tv_action_list *list)
{
    int num = 0;
    for (int i = 0; i < list->num_actions; i++)
        num += list->actions[i].peer >= 0;
    return num;
}

/* ---- text ---- */

static void print_stages(const struct tv_schedule_plan *plan, FILE *out)
{
    fprintf(out, "\n%5s %10s %10s %10s %10s %6s %7s %7s %7s\n", "stage", "busy", "warm-up", "wait",
            "drain", "own %", "slots", "inputs", "msgs");
    for (int s = 0; s < plan->schedule.num_stages; s++) {
        const struct tv_stage_timing *t = &plan->timing.stages[s];
        fprintf(out, "%5d %10.5g %10.5g %10.5g %10.5g %6.2f %7d %7d %7d\n", s, t->busy, t->warmup,
                t->wait, t->drain, 100 * t->own_window_bubble, t->peak_slots, t->peak_slots_input,
                num_messages(&plan->schedule.stages[s]));
    }
    fputs("own %: wait / (busy + wait). slots: most chunks of micro-batches held at once,\n"
          "until the end of W or B; inputs: until the end of I or B.\n\n",
          out);
}

static tv_status_t print_text(const struct tv_schedule_options *options,
                              const struct tv_schedule_plan *plan,
                              const struct tv_sleep_walk *measured, FILE *out)
{
    const struct tv_schedule *s = &plan->schedule;
    const double *costs = options->costs;
    fprintf(out, "%s: pp %d, vpp %d, %d micro-batches\n", s->name, s->num_stages, s->num_chunks,
            s->num_micro);
    fprintf(out, "costs: F %.5g, I %.5g, W %.5g, message %.5g\n", costs[0], costs[1], costs[2],
            options->send_cost);
    fprintf(out, "makespan %.6g, bubble %.2f %%\n", plan->timing.makespan,
            100 * plan->timing.bubble_fraction);
    if (measured != NULL)
        fprintf(out,
                "measured: bubble %.2f %% (predicted %.2f %%)\n"
                "          makespan %.5g s (predicted %.5g s)\n",
                100 * measured->bubble_fraction, 100 * plan->timing.bubble_fraction,
                measured->makespan_seconds, plan->timing.makespan * options->run_ms / 1000);
    print_stages(plan, out);
    return tv_schedule_draw_text(s, &plan->timing, tv_terminal_columns(options->width, out),
                                 tv_terminal_is_coloured(out), out);
}

/* ---- JSON ---- */

/* One array per field of the stages. */
static void add_stages(json_t *root, const struct tv_schedule_plan *plan)
{
    static const char *const names[] = {"busy", "warmup", "wait", "drain", "own_window_bubble"};
    enum { NUM_REALS = sizeof(names) / sizeof(names[0]) };
    json_t *reals[NUM_REALS], *slots = json_array(), *inputs = json_array(),
                              *messages = json_array();
    for (int f = 0; f < NUM_REALS; f++)
        reals[f] = json_array();
    for (int s = 0; s < plan->schedule.num_stages; s++) {
        const struct tv_stage_timing *t = &plan->timing.stages[s];
        const double values[NUM_REALS] = {t->busy, t->warmup, t->wait, t->drain,
                                          t->own_window_bubble};
        for (int f = 0; f < NUM_REALS; f++)
            json_array_append_new(reals[f], json_real(values[f]));
        json_array_append_new(slots, json_integer(t->peak_slots));
        json_array_append_new(inputs, json_integer(t->peak_slots_input));
        json_array_append_new(messages, json_integer(num_messages(&plan->schedule.stages[s])));
    }
    for (int f = 0; f < NUM_REALS; f++)
        json_object_set_new(root, names[f], reals[f]);
    json_object_set_new(root, "peak_slots", slots);
    json_object_set_new(root, "peak_slots_input", inputs);
    json_object_set_new(root, "messages", messages);
}

static tv_status_t print_json(const struct tv_schedule_options *options,
                              const struct tv_schedule_plan *plan,
                              const struct tv_sleep_walk *measured, FILE *out)
{
    const struct tv_schedule *s = &plan->schedule;
    json_t *root = json_pack(
        "{s:s, s:i, s:i, s:i, s:[f, f, f], s:f, s:f, s:f}", "schedule", s->name, "pp",
        s->num_stages, "vpp", s->num_chunks, "micro_batches", s->num_micro, "costs",
        options->costs[0], options->costs[1], options->costs[2], "send_cost", options->send_cost,
        "makespan", plan->timing.makespan, "bubble_fraction", plan->timing.bubble_fraction);
    if (root == NULL)
        return TV_ERR(TV_NO_MEMORY, "--json");
    add_stages(root, plan);
    if (measured != NULL) {
        json_object_set_new(root, "measured_bubble_fraction", json_real(measured->bubble_fraction));
        json_object_set_new(root, "measured_makespan_seconds",
                            json_real(measured->makespan_seconds));
        json_object_set_new(root, "milliseconds_per_cost", json_real(options->run_ms));
    }
    const int failed = json_dumpf(root, out, JSON_COMPACT | JSON_REAL_PRECISION(17)) != 0 ||
                       fputc('\n', out) == EOF;
    json_decref(root);
    return failed ? TV_ERR(TV_IO, "--json: standard output cannot be written") : TV_OK;
}

/* ---- files ---- */

static tv_status_t write_svg(const char *path, const struct tv_schedule_plan *plan)
{
    FILE *file = NULL;
    TV_TRY(tv_text_file_open("svg", path, &file));
    return tv_text_file_close("svg", path, file,
                              tv_schedule_draw_svg(&plan->schedule, &plan->timing, file));
}

static tv_status_t write_csv(const char *path, const char *form,
                             const struct tv_schedule_plan *plan)
{
    FILE *file = NULL;
    const int has_messages = strcmp(form, "compute_comms") == 0;
    TV_TRY(tv_text_file_open("csv", path, &file));
    return tv_text_file_close(
        "csv", path, file,
        tv_schedule_write_csv(&plan->schedule,
                              has_messages ? TV_CSV_COMPUTE_COMMS : TV_CSV_COMPUTE_ONLY, file));
}

tv_status_t tv_schedule_report(const struct tv_schedule_options *options,
                               const struct tv_schedule_plan *plan,
                               const struct tv_sleep_walk *measured, FILE *out)
{
    const double ms_per_unit = options->run_ms > 0 ? options->run_ms : 1;
    if (options->svg != NULL)
        TV_TRY(write_svg(options->svg, plan));
    if (options->csv != NULL)
        TV_TRY(write_csv(options->csv, options->csv_form, plan));
    if (options->trace != NULL)
        TV_TRY(tv_schedule_write_trace(plan, ms_per_unit / 1000, options->trace));
    TV_TRY(options->is_json ? print_json(options, plan, measured, out)
                            : print_text(options, plan, measured, out));
    if (fflush(out) != 0 || ferror(out))
        return TV_ERR(TV_IO, "standard output cannot be written: %s", strerror(errno));
    return TV_OK;
}
