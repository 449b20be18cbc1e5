/* train/command_sample.c -- `trivet sample`: tokens from a saved model, one after the other. */
#include "train/commands.h"
#include "train/generator.h"
#include "train/ranks.h"
#include "train/sample_text.h"
#include "train/sampler.h"
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

struct job {
    const struct tv_sample_options *options;
    const struct tv_sample_text *text;
    struct tv_generator *generator;
    int64_t num_prompt, vocab_size;
    int32_t *ids;  /* the prompt, then room for what is drawn */
    float *scores; /* [vocab_size] */
    struct tv_candidate *room;
};

static json_t *json_ids(const int32_t *ids, int64_t count)
{
    json_t *array = json_array();
    for (int64_t i = 0; i < count; i++)
        json_array_append_new(array, json_integer(ids[i]));
    return array;
}

static void print_json(const struct job *job, int64_t sample, int64_t count)
{
    json_t *line = json_pack("{s:I, s:o, s:o}", "sample", (json_int_t)sample, "prompt_ids",
                             json_ids(job->ids, job->num_prompt), "ids",
                             json_ids(job->ids + job->num_prompt, count - job->num_prompt));
    if (line != NULL)
        json_dumpf(line, stdout, JSON_COMPACT);
    json_decref(line);
}

static void print_tokens(const struct job *job, int64_t from, int64_t to)
{
    for (int64_t i = from; i < to && !job->options->is_json; i++)
        job->text->put(job->ids[i], i == 0, stdout);
    fflush(stdout); /* people watch */
}

static tv_status_t draw(const struct job *job, int64_t sample, int64_t count, int32_t *id_out)
{
    const struct tv_sample_options *o = job->options;
    const struct tv_sampler_args args = {.temperature = o->temperature,
                                         .top_k = o->top_k,
                                         .top_p = o->top_p,
                                         .seed = (uint64_t)o->seed,
                                         .stream = sample};
    TV_TRY(tv_generator_next(job->generator, job->ids, count, job->scores));
    return tv_sample(&args, count - job->num_prompt, job->scores, job->vocab_size, job->room,
                     id_out);
}

static tv_status_t sample_once(const struct job *job, int64_t sample)
{
    const int64_t end = job->num_prompt + job->options->max_new_tokens;
    int64_t count = job->num_prompt;
    print_tokens(job, 0, count);
    while (count < end) {
        int32_t id = 0;
        TV_TRY(draw(job, sample, count, &id));
        if (id == job->options->stop_id)
            break;
        job->ids[count++] = id;
        print_tokens(job, count - 1, count);
    }
    if (job->options->is_json)
        print_json(job, sample, count);
    fputc('\n', stdout);
    if (fflush(stdout) != 0 || ferror(stdout))
        return TV_ERR(TV_IO, "standard output cannot be written: %s", strerror(errno));
    return TV_OK;
}

/* The prompt with room for what is drawn, and what a draw needs. */
static tv_status_t prepare(struct job *job)
{
    int32_t *prompt = NULL;
    TV_TRY(job->text->read_prompt(job->options, &prompt, &job->num_prompt));
    const int64_t most = job->num_prompt + job->options->max_new_tokens;
    job->ids = realloc(prompt, (size_t)most * sizeof(*prompt));
    job->scores = malloc((size_t)job->vocab_size * sizeof(*job->scores));
    job->room = malloc((size_t)job->vocab_size * sizeof(*job->room));
    if (job->ids == NULL) {
        free(prompt);
        return TV_ERR(TV_NO_MEMORY, "%lld tokens", (long long)most);
    }
    if (job->scores == NULL || job->room == NULL)
        return TV_ERR(TV_NO_MEMORY, "scores of %lld ids", (long long)job->vocab_size);
    for (int64_t i = 0; i < job->num_prompt; i++) {
        if (job->ids[i] >= job->vocab_size)
            return TV_ERR(TV_INVALID,
                          "the prompt's token %lld is %d, beyond the vocabulary of %lld",
                          (long long)i, job->ids[i], (long long)job->vocab_size);
    }
    if (job->num_prompt > tv_generator_config(job->generator)->max_positions)
        tv_log(TV_LOG_WARN, "the prompt has %lld tokens, the model sees the last %d",
               (long long)job->num_prompt, tv_generator_config(job->generator)->max_positions);
    return TV_OK;
}

static tv_status_t sample_all(struct job *job)
{
    tv_status_t status = prepare(job);
    for (int64_t s = 0; s < job->options->num_samples && status == TV_OK; s++)
        status = sample_once(job, s);
    free(job->ids);
    free(job->scores);
    free(job->room);
    return status;
}

static tv_status_t sample(const struct tv_sample_options *options)
{
    struct tv_saved_model model;
    struct job job = {.options = options};
    TV_TRY(tv_saved_model_open(options->model, options->config, &model));
    job.vocab_size = model.config.vocab_size;
    tv_status_t status = tv_sample_text_choose(options, job.vocab_size, &job.text);
    if (status == TV_OK)
        status = tv_generator_create(&model, options->num_threads, &job.generator);
    tv_saved_model_close(&model);
    if (status == TV_OK)
        status = sample_all(&job);
    tv_generator_destroy(job.generator);
    return status;
}

static tv_status_t check_alone(void)
{
    const long num = tv_launched_processes();
    if (num > 1)
        return TV_ERR(TV_INVALID,
                      "sample runs on one rank and the launcher started %ld: the next token needs "
                      "all before it, so ranks would wait for each other; start it without one",
                      num);
    return TV_OK;
}

int tv_command_sample(int argc, char **argv)
{
    struct tv_sample_options options;
    tv_log_level_t level = TV_LOG_INFO;
    tv_status_t status = tv_sample_options_parse(argc, argv, &options);
    if (status == TV_OK)
        status = tv_log_level_parse(options.log_level, &level);
    if (status == TV_OK && !options.wants_help)
        status = check_alone();
    if (status != TV_OK)
        return tv_refuse_flags(status);
    tv_log_set_level(level);
    if (options.wants_help) {
        if (tv_is_first_process())
            tv_options_help(&tv_sample_option_table, stdout);
        return 0;
    }
    status = sample(&options);
    if (status != TV_OK)
        tv_print_error();
    return tv_status_exit_code(status);
}
