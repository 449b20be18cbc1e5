/* train/metrics.c -- one line, one object, one flush. */
#include "train/metrics.h"
#include "train/account_report.h"
#include "train/files.h"
#include "train/trainer.h"
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tv_metrics {
    char *path;
    FILE *file;
    int64_t last_step; /* of the last step line, or where the run began */
};

/* A run that was killed may have left a part of a line. */
static void end_last_line(FILE *file)
{
    if (fseek(file, -1, SEEK_END) != 0)
        return; /* empty, or no plain file */
    const int last = fgetc(file);
    fseek(file, 0, SEEK_END);
    if (last != '\n' && last != EOF)
        fputc('\n', file);
}

tv_status_t tv_metrics_open(const char *path, int64_t first_step, struct tv_metrics **metrics_out)
{
    tv_status_t status = TV_OK;
    TV_TRY(tv_folder_make_parent(path));
    struct tv_metrics *metrics = calloc(1, sizeof(*metrics));
    if (metrics == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: %zu bytes", path, sizeof(*metrics));
    metrics->path = strdup(path);
    if (metrics->path == NULL) {
        status = TV_ERR(TV_NO_MEMORY, "%s: its name", path);
        goto fail;
    }
    metrics->last_step = first_step;
    metrics->file = fopen(path, first_step > 0 ? "a+e" : "we");
    if (metrics->file == NULL) {
        status = TV_ERR(TV_INVALID, "%s cannot be written: %s", path, strerror(errno));
        goto fail;
    }
    if (first_step > 0)
        end_last_line(metrics->file);
    *metrics_out = metrics;
    return TV_OK;

fail:
    tv_metrics_close(metrics);
    return status;
}

void tv_metrics_close(struct tv_metrics *metrics)
{
    if (metrics == NULL)
        return;
    if (metrics->file != NULL)
        fclose(metrics->file); /* every line was flushed and checked */
    free(metrics->path);
    free(metrics);
}

struct json_t *tv_metrics_number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

struct json_t *tv_metrics_texts(const struct tv_option_list *list)
{
    if (list->num <= 1)
        return tv_metrics_text(list->num == 1 ? list->words[0] : NULL);
    json_t *texts = json_array();
    for (int i = 0; i < list->num; i++)
        json_array_append_new(texts, tv_metrics_text(list->words[i]));
    return texts;
}

json_t *tv_metrics_text(const char *text)
{
    if (text == NULL)
        return json_null();
    json_t *json = json_string(text);
    char *ascii = json == NULL ? strdup(text) : NULL;
    if (ascii == NULL)
        return json;
    for (char *c = ascii; *c != '\0'; c++)
        *c = (unsigned char)*c < 0x80 ? *c : '?';
    json = json_string(ascii);
    free(ascii);
    return json;
}

tv_status_t tv_metrics_object(struct tv_metrics *metrics, const char *type, struct json_t *fields)
{
    if (metrics == NULL) {
        json_decref(fields);
        return TV_OK;
    }
    json_t *line = json_pack("{s:s}", "type", type);
    const int is_whole = line != NULL && fields != NULL && json_object_update(line, fields) == 0;
    json_decref(fields);
    if (!is_whole) {
        json_decref(line);
        return TV_ERR(TV_NO_MEMORY, "%s: a line of type %s", metrics->path, type);
    }
    const int failed =
        json_dumpf(line, metrics->file, JSON_COMPACT | JSON_REAL_PRECISION(17)) != 0 ||
        fputc('\n', metrics->file) == EOF || fflush(metrics->file) != 0;
    json_decref(line);
    if (failed)
        return TV_ERR(TV_IO, "%s: writing failed: %s", metrics->path, strerror(errno));
    return TV_OK;
}

tv_status_t tv_metrics_step(struct tv_metrics *metrics, const struct tv_step_report *report)
{
    if (metrics != NULL)
        metrics->last_step = report->step;
    json_t *fields = json_pack(
        "{s:I, s:o, s:o, s:o, s:b, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:I}", "step",
        (json_int_t)report->step, "loss", tv_metrics_number(report->loss), "grad_norm",
        tv_metrics_number(report->grad_norm), "lr", tv_metrics_number(report->lr), "skipped",
        report->is_skipped, "counted_tokens", (json_int_t)report->counted_tokens,
        "global_batch_size", (json_int_t)report->global_batch, "consumed_samples",
        (json_int_t)report->consumed_samples, "step_seconds",
        tv_metrics_number(report->step_seconds), "tokens_per_second",
        tv_metrics_number(report->tokens_per_second), "model_flops_per_second",
        tv_metrics_number(report->model_flops_per_second), "bubble_fraction",
        tv_metrics_number(report->bubble_fraction), "idle",
        json_pack("{s:o, s:o, s:o}", "warmup", tv_metrics_number(report->idle_warmup), "wait",
                  tv_metrics_number(report->idle_wait), "drain",
                  tv_metrics_number(report->idle_drain)),
        "peak_memory_bytes", (json_int_t)report->peak_memory_bytes);
    tv_account_step_json(fields, &report->account);
    return tv_metrics_object(metrics, "step", fields);
}

tv_status_t tv_metrics_eval(struct tv_metrics *metrics, int64_t step,
                            const struct tv_eval_report *report)
{
    json_t *fields = json_pack("{s:I, s:o, s:I}", "step", (json_int_t)step, "loss",
                               tv_metrics_number(report->all.loss), "counted_tokens",
                               (json_int_t)report->all.counted_tokens);
    json_t *files = json_array();
    for (int i = 0; i < report->num_files; i++)
        json_array_append_new(
            files, json_pack("{s:o, s:o, s:I}", "file", tv_metrics_text(report->names[i]), "loss",
                             tv_metrics_number(report->files[i].loss), "counted_tokens",
                             (json_int_t)report->files[i].counted_tokens));
    if (report->num_files > 1)
        json_object_set(fields, "files", files);
    json_decref(files);
    return tv_metrics_object(metrics, "eval", fields);
}

tv_status_t tv_metrics_save(struct tv_metrics *metrics, int64_t step, const char *path)
{
    return tv_metrics_object(metrics, "save",
                             json_pack("{s:I, s:s}", "step", (json_int_t)step, "path", path));
}

static json_t *stage_json(int stage, const struct tv_stage_report *s)
{
    return json_pack("{s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:I}", "stage", stage, "compute",
                     tv_metrics_number(s->compute), "warmup", tv_metrics_number(s->warmup), "wait",
                     tv_metrics_number(s->wait), "drain", tv_metrics_number(s->drain), "tensor",
                     tv_metrics_number(s->tensor), "data", tv_metrics_number(s->data), "optimizer",
                     tv_metrics_number(s->optimizer), "peak_memory_bytes",
                     (json_int_t)s->peak_memory_bytes);
}

tv_status_t tv_metrics_pipeline(struct tv_metrics *metrics, const struct tv_pipeline_report *report)
{
    json_t *stages = json_array();
    for (int p = 0; p < report->num_stages; p++)
        json_array_append_new(stages, stage_json(p, &report->stages[p]));
    json_t *fields =
        json_pack("{s:o, s:o, s:o, s:o}", "measured_bubble_fraction",
                  tv_metrics_number(report->measured_bubble), "predicted_bubble_fraction",
                  tv_metrics_number(report->predicted_bubble), "window_seconds",
                  tv_metrics_number(report->window_seconds), "stages", stages);
    if (report->profile_window_seconds > 0)
        json_object_set_new(fields, "profile_window_seconds",
                            tv_metrics_number(report->profile_window_seconds));
    tv_account_report_json(fields, &report->account);
    return tv_metrics_object(metrics, "pipeline", fields);
}

tv_status_t tv_metrics_end(struct tv_metrics *metrics, tv_status_t status)
{
    const char *word = status == TV_OK ? "ok" : status == TV_STOPPED ? "stopped" : "failed";
    return tv_metrics_object(metrics, "end",
                             json_pack("{s:s, s:I}", "status", word, "step",
                                       (json_int_t)(metrics != NULL ? metrics->last_step : 0)));
}
