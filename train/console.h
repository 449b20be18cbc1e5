/* train/console.h -- what a person sees while a run goes on: a live line on a terminal, plain lines elsewhere. */
#ifndef TV_TRAIN_CONSOLE_H
#define TV_TRAIN_CONSOLE_H
#include "train/profile.h"
#include "train/trainer.h"
#include <stdio.h>

TV_BEGIN_C
struct tv_console {
    FILE *out;
    int is_terminal;
    int64_t log_interval, last_step;
    double started_at, shown_at; /* monotonic seconds */
    int64_t num_samples;         /* read so far */
    int64_t first_step;
};
void tv_console_open(struct tv_console *console, const struct tv_run *run, FILE *out);
void tv_console_start(struct tv_console *console, const struct tv_run *run,
                      const struct tv_trainer *trainer);
void tv_console_step(struct tv_console *console, const struct tv_step_report *report);
void tv_console_eval(struct tv_console *console, int64_t step, const struct tv_eval_report *report);
void tv_console_save(struct tv_console *console, int64_t step, const char *path);
/* The last lines: speed, where the time went, where the files are. */
void tv_console_finish(struct tv_console *console, const struct tv_run *run,
                       const struct tv_step_report *last, const struct tv_pipeline_report *report);
/* What a profile says of each stage, seconds [P], before and after. uniform may be NULL. */
void tv_console_profile(FILE *out, const struct tv_run *run, const double *uniform,
                        const double *chosen);
TV_END_C
#endif
