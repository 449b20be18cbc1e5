/* train/map_report.h -- what `trivet map` prints and draws. */
#ifndef TV_TRAIN_MAP_REPORT_H
#define TV_TRAIN_MAP_REPORT_H
#include "train/map_plan.h"

TV_BEGIN_C
/* Machines, mesh, traffic, costs, placement, a row per node, and warnings, within `columns` (at
 * least 60 are used). Long lists are cut in the middle. is_coloured: coordinates by stage. */
void tv_map_print_text(const struct tv_map_plan *plan, int columns, int is_coloured, FILE *out);
/* The parts of it that say what the machines are, and the row per node. */
void tv_map_print_machines(const struct tv_map_plan *plan, int columns, FILE *out);
void tv_map_draw_nodes(const struct tv_map_plan *plan, int columns, int is_coloured, FILE *out);

/* One object: placement, cost, split_tensor_groups, unused, warnings. Rows are written as they are
 * met, so that a hundred thousand take no memory. */
void tv_map_print_json(const struct tv_map_plan *plan, FILE *out);

/* A self-contained picture: nodes by leaf switch, devices coloured by stage, tensor groups outlined,
 * and what each axis puts on the uplinks. Errors: TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_map_draw_svg(const struct tv_map_plan *plan, FILE *out);
TV_END_C
#endif
