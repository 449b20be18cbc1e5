/* train/metrics.h -- the metrics file: one JSON object per line, flushed line by line.
 *
 * Numbers read back exactly (17 digits); what JSON cannot hold (NaN, infinities) is written as
 * null. A NULL metrics is allowed everywhere and writes nothing, so that callers without --metrics
 * need no branch. */
#ifndef TV_TRAIN_METRICS_H
#define TV_TRAIN_METRICS_H
#include "base/status.h"
#include <stdint.h>

TV_BEGIN_C
struct json_t;         /* jansson.h */
struct tv_run;         /* train/run.h */
struct tv_step_report; /* train/trainer.h */
struct tv_eval_report;
struct tv_pipeline_report;
struct tv_metrics; /* opaque */

/* first_step 0, a fresh start, truncates the file; a run that goes on after first_step appends to it. Folders above it
 * are made.
 * Errors: TV_INVALID (cannot be opened), TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_metrics_open(const char *path, int64_t first_step,
                                          struct tv_metrics **metrics_out);
void tv_metrics_close(struct tv_metrics *metrics);

/* All of them: Errors: TV_IO with the path, TV_NO_MEMORY. */

/* {"type": type, ...fields}; takes over the reference to `fields`, an object, also on failure. NULL
 * fields are out of memory, so that a caller may pass what a jansson constructor returned. */
TV_MUST_CHECK tv_status_t tv_metrics_object(struct tv_metrics *metrics, const char *type,
                                            struct json_t *fields);
/* Two lines: the resolved configuration and the placement. */
TV_MUST_CHECK tv_status_t tv_metrics_start(struct tv_metrics *metrics, const struct tv_run *run);
TV_MUST_CHECK tv_status_t tv_metrics_step(struct tv_metrics *metrics,
                                          const struct tv_step_report *report);
/* Of all validation files, and, where there are several, of each. */
TV_MUST_CHECK tv_status_t tv_metrics_eval(struct tv_metrics *metrics, int64_t step,
                                          const struct tv_eval_report *report);
TV_MUST_CHECK tv_status_t tv_metrics_save(struct tv_metrics *metrics, int64_t step,
                                          const char *path);
/* {"type":"pipeline"}: bubbles, and where the time of each stage went. */
TV_MUST_CHECK tv_status_t tv_metrics_pipeline(struct tv_metrics *metrics,
                                              const struct tv_pipeline_report *report);
/* The last line: "ok" for TV_OK, "stopped" for TV_STOPPED, else "failed", with the last step. */
TV_MUST_CHECK tv_status_t tv_metrics_end(struct tv_metrics *metrics, tv_status_t status);
/* Every flag's value with all defaults filled in. */
struct json_t *tv_config_json(const struct tv_run *run);
/* A number for `fields`: null when it is not finite. */
struct json_t *tv_metrics_number(double value);
struct tv_option_list; /* train/options.h */
/* Null for none, a text for one, else an array. */
struct json_t *tv_metrics_texts(const struct tv_option_list *list);
/* A text, as the name of a file: null for NULL; where it is no UTF-8, which JSON is, '?' for each byte beyond ASCII. */
struct json_t *tv_metrics_text(const char *text);
TV_END_C
#endif
