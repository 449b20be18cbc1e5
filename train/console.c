/* train/console.c -- the live line, the plain lines and the summary. */
#include "train/console.h"
#include "base/clock.h"
#include "train/account_report.h"
#include "train/checkpoint_internal.h"
#include "train/place.h"
#include "train/trainer_internal.h"
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

/* 12345678 -> "12.3M" in a buffer of at least 16 bytes. */
static const char *short_number(double value, char *text, size_t bytes)
{
    static const char suffix[] = {' ', 'k', 'M', 'G', 'T', 'P'};
    size_t i = 0;
    while (value >= 1000 && i + 1 < sizeof(suffix)) {
        value /= 1000;
        i++;
    }
    if (i == 0)
        snprintf(text, bytes, "%.3g", value);
    else
        snprintf(text, bytes, "%.3g%c", value, suffix[i]);
    return text;
}

static const char *clock_text(double seconds, char *text, size_t bytes)
{
    const int64_t s = seconds > 0 ? (int64_t)(seconds + 0.5) : 0;
    if (s >= 3600)
        snprintf(text, bytes, "%" PRId64 "h%02d", s / 3600, (int)(s / 60 % 60));
    else
        snprintf(text, bytes, "%d:%02d", (int)(s / 60), (int)(s % 60));
    return text;
}

void tv_console_open(struct tv_console *console, const struct tv_run *run, FILE *out)
{
    *console = (struct tv_console){
        .out = out,
        .is_terminal = isatty(fileno(out)),
        .log_interval = run->options.log_interval,
        .last_step = run->train_iters,
        .first_step = tv_checkpoint_first_step(run),
    };
    setvbuf(out, NULL, _IOLBF, 0);
}

static void print_place(FILE *out, const struct tv_run *run)
{
    const struct tv_run_place *place = run->place;
    if (place == NULL)
        return;
    if (place->placement.num_ranks > 1)
        fprintf(out, "placement: %s, predicted %.3g ms on the wire a step, identity %.3g ms\n",
                run->options.placement, 1e3 * place->chosen.total, 1e3 * place->identity.total);
    for (int tier = 0; tier < TV_NUM_TIERS; tier++) {
        if (place->rates.gbps[tier] > 0)
            fprintf(out, "links, %s: %.3g us, %.3g GB/s\n", tv_tier_name((tv_tier_t)tier),
                    1e6 * place->rates.seconds[tier], place->rates.gbps[tier]);
    }
}

static void print_data(FILE *out, const struct tv_corpus *data)
{
    const int num = tv_corpus_num_sources(data);
    fprintf(out, "data: %" PRId64 " samples; %" PRId64 " token(s) are in none of them\n",
            tv_corpus_num_samples(data), tv_corpus_unused_tokens(data));
    for (int i = 0; i < num && num > 1; i++) {
        const struct tv_corpus_source source = tv_corpus_source_at(data, i);
        fprintf(out, "  %.4g %% from %" PRId64 " samples of %s", 100 * source.share,
                source.num_samples, source.path);
        if (source.num_files > 1)
            fprintf(out, " and %d more", source.num_files - 1);
        fputc('\n', out);
    }
}

void tv_console_start(struct tv_console *console, const struct tv_run *run,
                      const struct tv_trainer *trainer)
{
    char params[16], tokens[16];
    const struct tv_mesh_coord e = run->extent;
    fprintf(console->out, "%s, %s parameters, on pp %d x dp %d x tp %d = %d rank(s), schedule %s\n",
            tv_model_family_name(run->model.family),
            short_number((double)tv_model_num_params(&run->model), params, sizeof(params)),
            e.at[TV_PIPE], e.at[TV_DATA], e.at[TV_TENSOR],
            e.at[TV_PIPE] * e.at[TV_DATA] * e.at[TV_TENSOR], run->schedule.name);
    if (run->zero_stage > 0)
        fprintf(console->out, "ZeRO stage %d over groups of %d of %d replicas\n", run->zero_stage,
                run->zero_group, e.at[TV_DATA]);
    fprintf(console->out,
            "%" PRId64 " steps of %" PRId64 " x %" PRId64
            " tokens (%s), %d micro-batch(es) of %" PRId64 "\n",
            run->train_iters, run->global_batch, run->seq_length,
            short_number((double)run->train_iters * (double)(run->global_batch * run->seq_length),
                         tokens, sizeof(tokens)),
            run->num_micro, run->micro_batch);
    if (run->ramp.increment > 0)
        fprintf(console->out, "at first %" PRId64 " a step, growing over %" PRId64 " samples\n",
                run->ramp.start, run->ramp.samples);
    print_data(console->out, tv_trainer_data(trainer));
    print_place(console->out, run);
    console->started_at = tv_clock_seconds();
}

static void print_step(struct tv_console *console, const struct tv_step_report *r, const char *end)
{
    char speed[16], eta[32];
    const double elapsed = tv_clock_seconds() - console->started_at;
    const double done = (double)(r->step - console->first_step);
    const double left = elapsed / done * (double)(console->last_step - r->step);
    fprintf(console->out,
            "step %" PRId64 "/%" PRId64 "  loss %.4f  norm %.3f  lr %.2e  %s tok/s  ETA %s%s",
            r->step, console->last_step, r->loss, r->grad_norm, r->lr,
            short_number(r->tokens_per_second, speed, sizeof(speed)),
            clock_text(left, eta, sizeof(eta)), end);
}

void tv_console_step(struct tv_console *console, const struct tv_step_report *report)
{
    const double now = tv_clock_seconds();
    console->num_samples += report->global_batch;
    const int is_edge =
        report->step == console->first_step + 1 || report->step == console->last_step;
    if (console->is_terminal) {
        if (!is_edge && now - console->shown_at < 0.1)
            return;
        console->shown_at = now;
        fputs("\r\033[K", console->out);
        print_step(console, report, report->step == console->last_step ? "\n" : "");
        fflush(console->out);
    } else if (is_edge || report->step % console->log_interval == 0) {
        print_step(console, report, "\n");
    }
}

void tv_console_eval(struct tv_console *console, int64_t step, const struct tv_eval_report *report)
{
    const char *clear = console->is_terminal ? "\r\033[K" : "";
    for (int i = 0; i < report->num_files && report->num_files > 1; i++)
        fprintf(console->out,
                "%sstep %" PRId64 ": held-out loss %.4f over %" PRId64 " tokens of %s\n", clear,
                step, report->files[i].loss, report->files[i].counted_tokens, report->names[i]);
    fprintf(console->out, "%sstep %" PRId64 ": held-out loss %.4f over %" PRId64 " tokens\n", clear,
            step, report->all.loss, report->all.counted_tokens);
}

void tv_console_save(struct tv_console *console, int64_t step, const char *path)
{
    fprintf(console->out, "%sstep %" PRId64 ": saved to %s\n",
            console->is_terminal ? "\r\033[K" : "", step, path);
}

/* One row per stage: the shares of its time in percent. */
static void print_stages(FILE *out, const struct tv_pipeline_report *report)
{
    fputs("stage  compute  warm-up  wait  drain  tensor  data  optimizer  peak MiB  (% of time)\n",
          out);
    for (int p = 0; p < report->num_stages; p++) {
        const struct tv_stage_report *s = &report->stages[p];
        fprintf(out, "%5d  %7.1f  %7.1f  %4.1f  %5.1f  %6.1f  %4.1f  %9.1f  %8.1f\n", p,
                100 * s->compute, 100 * s->warmup, 100 * s->wait, 100 * s->drain, 100 * s->tensor,
                100 * s->data, 100 * s->optimizer, (double)s->peak_memory_bytes / 1048576.0);
    }
    if (report->num_stages > 1)
        fprintf(out,
                "pipeline bubble: %.1f %% measured, %.1f %% predicted from the measured times of "
                "actions\n",
                100 * report->measured_bubble, 100 * report->predicted_bubble);
    if (report->num_stages > 1 && report->profile_window_seconds > 0)
        fprintf(out, "pipeline of a step: %.3f ms measured, %.3f ms simulated from the profile\n",
                1e3 * report->window_seconds, 1e3 * report->profile_window_seconds);
}

void tv_console_finish(struct tv_console *console, const struct tv_run *run,
                       const struct tv_step_report *last, const struct tv_pipeline_report *report)
{
    char speed[16], memory[16], flops[16], time[32];
    const double seconds = tv_clock_seconds() - console->started_at;
    const double tokens = (double)(console->num_samples * run->seq_length);
    fprintf(console->out, "%s tok/s in %s, %sFLOP/s of the model, %sB on the largest rank\n",
            short_number(tokens / seconds, speed, sizeof(speed)),
            clock_text(seconds, time, sizeof(time)),
            short_number(tokens / seconds * tv_model_flops_per_token(&run->model, run->seq_length),
                         flops, sizeof(flops)),
            short_number((double)last->peak_memory_bytes, memory, sizeof(memory)));
    print_stages(console->out, report);
    tv_account_report_print(console->out, &report->account);
}

void tv_console_profile(FILE *out, const struct tv_run *run, const double *uniform,
                        const double *chosen)
{
    const struct tv_unit_times *t = run->profile.of;
    fprintf(out, "profile: embedding %.3f ms, layer %.3f ms, head %.3f ms per micro-batch\n",
            1e3 * tv_unit_seconds(t[TV_UNIT_EMBEDDING]), 1e3 * tv_unit_seconds(t[TV_UNIT_LAYER]),
            1e3 * tv_unit_seconds(t[TV_UNIT_HEAD]));
    fputs("stage  uniform ms  profile ms\n", out);
    for (int p = 0; p < run->extent.at[TV_PIPE]; p++) {
        if (uniform != NULL)
            fprintf(out, "%5d  %10.3f  %10.3f\n", p, 1e3 * uniform[p], 1e3 * chosen[p]);
        else /* fewer layers than pieces: there is no uniform split */
            fprintf(out, "%5d  %10s  %10.3f\n", p, "-", 1e3 * chosen[p]);
    }
}
