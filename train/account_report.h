/* train/account_report.h -- the accounts as JSON and as tables of at most 80 columns. */
#ifndef TV_TRAIN_ACCOUNT_REPORT_H
#define TV_TRAIN_ACCOUNT_REPORT_H
#include "train/account.h"
#include <stdio.h>

TV_BEGIN_C
struct json_t; /* jansson.h */

/* Add to the object of a step: sent_bytes, largest_sent_bytes, exposed_seconds, memory_bytes. */
void tv_account_step_json(struct json_t *step, const struct tv_mesh_account *account);
/* Add to the object of the pipeline line: sent_bytes by account; memory_bytes of each stage. */
void tv_account_report_json(struct json_t *line, const struct tv_account_report *report);
/* {"pipe": bytes, ...} of a stage's largest rank, or of all ranks. */
struct json_t *tv_sent_json(const int64_t *bytes);

/* Of each stage: {"measured": {kind: bytes, ...}, "predicted": {...}, "of_need": that of the measured}. */
struct json_t *tv_stages_memory_json(const struct tv_account_report *report);
/* The same as a table. */
void tv_stages_memory_print(FILE *out, const struct tv_account_report *report);
/* What was sent, measured beside predicted; then memory. */
void tv_account_report_print(FILE *out, const struct tv_account_report *report);
/* For a dry run, a table of bytes by account: its head, and a row. */
void tv_sent_print_head(FILE *out);
void tv_sent_print_row(FILE *out, const char *name, const int64_t *bytes);
TV_END_C
#endif
