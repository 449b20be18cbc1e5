/* pipeline/schedule_csv.h -- schedules in the CSV form of torch.distributed.pipelining.
 *
 * One row per stage, one cell per action: position, kind, micro-batch, with nothing between:
 * "2F0", "5I3", "1RECV_F3". A forward and a backward that may overlap share a cell:
 * "(0F0;7B2)OVERLAP_F_B". An empty cell is no action. The row that a position is in defines the
 * placement; neither P, v nor m is stored. See docs/pipeline.md. */
#ifndef TV_PIPELINE_SCHEDULE_CSV_H
#define TV_PIPELINE_SCHEDULE_CSV_H
#include "pipeline/schedule.h"
#include <stddef.h>
#include <stdio.h>

TV_BEGIN_C
typedef enum {
    TV_CSV_COMPUTE_ONLY,  /* what PyTorch loads by default */
    TV_CSV_COMPUTE_COMMS, /* every message is listed too: what PyTorch dumps by default */
} tv_csv_form_t;

/* Reads either form. Without any message the messages are added (lowered); listed ones are kept as
 * they are, and proved. torch 2.5 spelled I as B and B as BW: a file with BW, or with W but no I,
 * is read so. UNSHARD, RESHARD and REDUCE_GRAD are skipped, with a line in the log: a trainer does
 * them when it must. m is 1 + the largest micro-batch. The result is checked, and not is_ordered.
 * `name` stands in messages; its part behind the last '/' becomes the schedule's name. text need
 * not end in a NUL. Errors: TV_BAD_FILE with row and cell, from 1, and what was found;
 * TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_schedule_parse_csv(const char *text, size_t bytes, const char *name,
                                                struct tv_schedule *schedule_out);

/* Lines end in CR LF. Of a pair, messages received between its halves are listed before the cell,
 * sent ones behind it. Errors: TV_IO. */
TV_MUST_CHECK tv_status_t tv_schedule_write_csv(const struct tv_schedule *schedule,
                                                tv_csv_form_t form, FILE *out);
TV_END_C
#endif
