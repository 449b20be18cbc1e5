/* train/schedule_options.c -- the table of `trivet schedule`, and the two values that have a form
 * of their own. */
#include "train/schedule_options.h"
#include <string.h>

#define AT(field) offsetof(struct tv_schedule_options, field)

static const struct tv_option rows[] = {
    {"Schedule", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"pp", "pipeline-model-parallel-size", TV_OPTION_INT, AT(pp), 1, 4096, NULL,
     "pipeline stages; a FILE says it itself"},
    {"vpp", "num-virtual-stages-per-pipeline-rank", TV_OPTION_INT, AT(vpp), 1, 4096, NULL,
     "chunks of the model per stage; as many as the schedule needs by default"},
    {"micro-batches", NULL, TV_OPTION_INT, AT(num_micro), 1, 1 << 20, NULL,
     "micro-batches of a step; a FILE says it itself"},
    {"schedule", NULL, TV_OPTION_TEXT, AT(schedule), 0, 0, "1f1b",
     "naive, gpipe, 1f1b, interleaved, zb-h1, zb-h2, zb-v, v-half, v-min, dualpipe-v or FILE.csv"},
    {"slot-limit", NULL, TV_OPTION_INT, AT(slot_limit), 0, TV_OPTION_TOP, "0",
     "most slots a stage may hold at once; 0: no limit"},
    {"overlap-pairs", NULL, TV_OPTION_SWITCH, AT(overlaps_pairs), 0, 0, NULL,
     "dualpipe-v: a forward and a backward that overlap are one action"},
    {"Time", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"costs", NULL, TV_OPTION_TEXT, AT(costs_text), 0, 0, "1,1,1",
     "F,B,W: time of a forward, of the input part of a backward, of its weight part"},
    {"send-cost", NULL, TV_OPTION_REAL, AT(send_cost), 0, TV_OPTION_BIG, "0",
     "time of a message between stages, in the unit of --costs"},
    {"run", NULL, TV_OPTION_REAL, AT(run_ms), 0, 1e6, NULL,
     "run it with stages that sleep X milliseconds per unit of cost, and measure"},
    {"local-ranks", NULL, TV_OPTION_INT, AT(local_ranks), 1, 1024, NULL,
     "with --run: N ranks as threads of this process, without a launcher"},
    {"timeout", NULL, TV_OPTION_REAL, AT(timeout_seconds), 0.001, 1e9, "120",
     "with --run: seconds a rank waits for another before it gives up"},
    {"Output", NULL, TV_OPTION_HEADING, 0, 0, 0, NULL, NULL},
    {"compare", NULL, TV_OPTION_SWITCH, AT(is_compare), 0, 0, NULL,
     "a table of all schedules that fit these flags"},
    {"json", NULL, TV_OPTION_SWITCH, AT(is_json), 0, 0, NULL,
     "print one JSON object and nothing else"},
    {"width", NULL, TV_OPTION_INT, AT(width), 0, 100000, "0",
     "columns of the picture; 0: the terminal's, or 80"},
    {"svg", NULL, TV_OPTION_TEXT, AT(svg), 0, 0, NULL, "draw the schedule to FILE"},
    {"trace", NULL, TV_OPTION_TEXT, AT(trace), 0, 0, NULL,
     "write the timed actions to FILE, in Chrome's trace format"},
    {"csv", NULL, TV_OPTION_TEXT, AT(csv), 0, 0, NULL,
     "write the schedule to FILE, as PyTorch reads it"},
    {"csv-form", NULL, TV_OPTION_TEXT, AT(csv_form), 0, 0, "compute_only",
     "compute_only, or compute_comms: with the messages"},
    {"log-level", NULL, TV_OPTION_TEXT, AT(log_level), 0, 0, "info",
     "debug, info, warn, error or off"},
    {"help", NULL, TV_OPTION_SWITCH, AT(wants_help), 0, 0, NULL, "this text"},
};
enum { NUM_ROWS = sizeof(rows) / sizeof(rows[0]) };
_Static_assert(NUM_ROWS <= TV_OPTION_MAX_ROWS, "tv_options_given has a bit for each row");

const struct tv_option_table tv_schedule_option_table = {
    rows, NUM_ROWS, "schedule",
    "Usage: trivet schedule --pp P --micro-batches M [flags]\n"
    "       mpiexec -n P trivet schedule --pp P --micro-batches M --run X [flags]\n"
    "Draws a pipeline schedule, and says how long it takes and what it holds.\n"};

tv_status_t tv_schedule_costs_parse(const char *text, double costs_out[3])
{
    double costs[3];
    TV_TRY(tv_options_three("costs", text, "F,B,W such as 1,1,1", TV_OPTION_BIG, costs));
    if (costs[0] + costs[1] + costs[2] == 0)
        return TV_ERR(TV_INVALID, "--costs %s: one of them must be above 0", text);
    for (int i = 0; i < 3; i++)
        costs_out[i] = costs[i];
    return TV_OK;
}

tv_status_t tv_schedule_options_parse(int argc, char **argv,
                                      struct tv_schedule_options *options_out)
{
    struct tv_schedule_options parsed = {.run_ms = -1};
    TV_TRY(tv_options_parse(&tv_schedule_option_table, argc, argv, &parsed, &parsed.given));
    TV_TRY(tv_schedule_costs_parse(parsed.costs_text, parsed.costs));
    if (strcmp(parsed.csv_form, "compute_only") != 0 &&
        strcmp(parsed.csv_form, "compute_comms") != 0)
        return TV_ERR(TV_INVALID, "--csv-form %s is not one of compute_only, compute_comms",
                      parsed.csv_form);
    *options_out = parsed;
    return TV_OK;
}
