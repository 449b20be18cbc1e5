/* train/profile.c -- a model of three units, each a chunk of its own, on every rank: timed, averaged, kept in a
 * file. */
#include "train/profile.h"
#include "base/clock.h"
#include "train/files.h"
#include "train/run_device.h"
#include "train/setup.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { MIN_ROUNDS = 5, MAX_ROUNDS = 50 };
static const double enough_seconds = 0.3; /* per sort of unit */

static const char *const sort_names[TV_NUM_UNIT_SORTS] = {"embedding", "layer", "head"};

enum tv_unit_sort tv_unit_sort_of(const struct tv_run *run, int unit)
{
    if (unit == 0)
        return TV_UNIT_EMBEDDING;
    return unit <= run->model.num_layers ? TV_UNIT_LAYER : TV_UNIT_HEAD;
}

double tv_unit_seconds(struct tv_unit_times times)
{
    return times.forward + times.backward_input + times.backward_weight;
}

/* costs_out [3, positions]: forward, input part and weight part of a backward */
static void costs_of_pieces(const struct tv_run *run, int positions, double *costs_out)
{
    for (int p = 0; p < positions; p++) {
        const struct tv_unit_range piece = run->pieces[p];
        double *forward = &costs_out[p], *input = forward + positions, *weight = input + positions;
        for (int unit = piece.first; unit < piece.first + piece.num; unit++) {
            const struct tv_unit_times times = run->profile.of[tv_unit_sort_of(run, unit)];
            *forward += times.forward;
            *input += times.backward_input;
            *weight += times.backward_weight;
        }
    }
}

tv_status_t tv_run_simulate(const struct tv_run *run, const double *costs,
                            struct tv_schedule_timing *timing_out)
{
    const int positions = run->extent.at[TV_PIPE] * run->num_chunks;
    const struct tv_schedule_costs by_kind = {.forward = costs,
                                              .backward_input = costs + positions,
                                              .backward_weight = costs + 2 * positions};
    return tv_schedule_simulate(&run->schedule, &by_kind, timing_out);
}

tv_status_t tv_profile_window(const struct tv_run *run, double *seconds_out)
{
    const int positions = run->extent.at[TV_PIPE] * run->num_chunks;
    double *costs = calloc(3 * (size_t)positions, sizeof(*costs));
    struct tv_schedule_timing timing = {0};
    if (costs == NULL)
        return TV_ERR(TV_NO_MEMORY, "costs of %d positions", positions);
    costs_of_pieces(run, positions, costs);
    const tv_status_t status = tv_run_simulate(run, costs, &timing);
    *seconds_out = timing.makespan;
    tv_schedule_timing_destroy(&timing);
    free(costs);
    return status;
}

struct bench {
    struct tv_mesh *mesh;
    struct tv_device *device;
    struct tv_stream *stream;
    struct tv_model *model;
    tv_dtype_t dtype;
    struct tv_buffer messages; /* x, y, dy, dx: [4, B S C] */
    int32_t *tokens;           /* [B S] */
};

static void bench_destroy(struct bench *b)
{
    tv_model_destroy(b->model);
    tv_buffer_destroy(&b->messages);
    tv_stream_destroy(b->stream);
    tv_device_close(b->device);
    tv_mesh_destroy(b->mesh);
    free(b->tokens);
}

static tv_status_t bench_local(struct bench *b, struct tv_comm *world, const struct tv_run *run,
                               int num_threads)
{
    const int64_t rows = run->micro_batch * run->seq_length;
    const struct tv_model_chunk chunks[TV_NUM_UNIT_SORTS] = {
        {0, 1, 1, 1}, {1, 1, 1, 1}, {run->model.num_layers + 1, 1, 1, 1}};
    const struct tv_kernels *kernels;
    TV_TRY(tv_run_open_device(world, run, num_threads, &b->device));
    TV_TRY(tv_stream_create(b->device, &b->stream));
    TV_TRY(tv_kernels_open(b->device, run->dtype, &kernels));
    b->dtype = run->dtype;
    TV_TRY(tv_buffer_create(b->device,
                            (size_t)(4 * tv_run_message_count(run)) * tv_dtype_bytes(run->dtype),
                            TV_MEM_BUFFERS, &b->messages));
    b->tokens = calloc((size_t)rows, sizeof(*b->tokens));
    if (b->tokens == NULL)
        return TV_ERR(TV_NO_MEMORY, "profile: %" PRId64 " tokens", rows);
    for (int64_t r = 0; r < rows; r++)
        b->tokens[r] = (int32_t)(r % run->model.vocab_size);
    struct tv_model_args args = tv_run_args_of(run, TV_NUM_UNIT_SORTS, chunks);
    args.resets_positions = args.resets_attention = 0; /* its sequences are whole */
    args.axis = (struct tv_tensor_axis){
        .comm = tv_mesh_comm(b->mesh, TV_TENSOR), .stream = b->stream, .kernels = kernels};
    return tv_model_create(&args, &b->model);
}

static tv_status_t bench_create(struct bench *b, struct tv_comm *world, const struct tv_run *run,
                                int *num_threads_out)
{
    int first_failed, num_threads;
    TV_TRY(tv_run_mesh_create(world, run, &b->mesh));
    TV_TRY(tv_fair_threads(tv_mesh_world(b->mesh), run->options.num_threads, &num_threads));
    *num_threads_out = num_threads;
    return tv_comm_agree(world, bench_local(b, world, run, num_threads), &first_failed);
}

/* One forward, I and W of a sort of unit. */
static tv_status_t time_once(struct bench *b, enum tv_unit_sort sort, int64_t count,
                             struct tv_unit_times *times)
{
    double loss;
    void *message = b->messages.data;
    struct tv_model_call call = {.chunk = (int)sort, .step = 1, .loss_sum_out = &loss};
    call.ids = sort == TV_UNIT_EMBEDDING ? b->tokens : NULL;
    call.targets = sort == TV_UNIT_HEAD ? b->tokens : NULL;
    call.x = sort == TV_UNIT_EMBEDDING ? NULL : message;
    call.y = sort == TV_UNIT_HEAD ? NULL : tv_at(message, count, b->dtype);
    const double start = tv_clock_seconds();
    TV_TRY(tv_model_forward(b->model, &call));
    TV_TRY(tv_stream_synchronize(b->stream));
    const double forward = tv_clock_seconds();
    call.dy = sort == TV_UNIT_HEAD ? NULL : tv_at(message, 2 * count, b->dtype);
    call.dx = sort == TV_UNIT_EMBEDDING ? NULL : tv_at(message, 3 * count, b->dtype);
    TV_TRY(tv_model_backward_input(b->model, &call));
    TV_TRY(tv_stream_synchronize(b->stream));
    const double input = tv_clock_seconds();
    TV_TRY(tv_model_backward_weight(b->model, &call));
    TV_TRY(tv_stream_synchronize(b->stream));
    const double weight = tv_clock_seconds();
    *times = (struct tv_unit_times){forward - start, input - forward, weight - input};
    return TV_OK;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int num)
{
    qsort(values, (size_t)num, sizeof(*values), ascending);
    return values[num / 2];
}

/* All ranks do the same number of rounds: those of the tensor axis have to. */
static tv_status_t time_sort(struct bench *b, struct tv_comm *world, enum tv_unit_sort sort,
                             int64_t count, struct tv_unit_times *times_out)
{
    double forward[MAX_ROUNDS], input[MAX_ROUNDS], weight[MAX_ROUNDS];
    struct tv_unit_times times;
    TV_TRY(time_once(b, sort, count, &times)); /* warms caches and memory */
    TV_TRY(time_once(b, sort, count, &times));
    double slowest = tv_unit_seconds(times);
    TV_TRY(tv_comm_all_reduce_now(world, &slowest, 1, TV_F64, TV_MAX));
    int rounds = MIN_ROUNDS;
    while (rounds < MAX_ROUNDS && rounds * slowest < enough_seconds)
        rounds++;
    for (int i = 0; i < rounds; i++) {
        TV_TRY(time_once(b, sort, count, &times));
        forward[i] = times.forward;
        input[i] = times.backward_input;
        weight[i] = times.backward_weight;
    }
    double sums[3] = {median(forward, rounds), median(input, rounds), median(weight, rounds)};
    TV_TRY(tv_comm_all_reduce_now(world, sums, 3, TV_F64, TV_SUM));
    const double n = tv_comm_size(world);
    *times_out = (struct tv_unit_times){sums[0] / n, sums[1] / n, sums[2] / n};
    return TV_OK;
}

tv_status_t tv_profile_measure(struct tv_comm *world, const struct tv_run *run,
                               struct tv_profile *profile_out)
{
    struct bench b = {0};
    struct tv_profile profile = {0};
    tv_status_t status = bench_create(&b, world, run, &profile.num_threads);
    for (int sort = 0; sort < TV_NUM_UNIT_SORTS && status == TV_OK; sort++)
        status = time_sort(&b, world, (enum tv_unit_sort)sort, tv_run_message_count(run),
                           &profile.of[sort]);
    bench_destroy(&b);
    if (status == TV_OK)
        *profile_out = profile;
    return status;
}

/* What the times depend on. */
static json_t *sizes_json(const struct tv_run *run)
{
    const struct tv_model_config *c = &run->model;
    return json_pack(
        "{s:s, s:s, s:i, s:i, s:i, s:i, s:I, s:I, s:I, s:i, s:s, s:b, s:b, s:b}", "model",
        tv_model_family_name(c->family), "precision", tv_precision_name(run->dtype), "hidden_size",
        c->hidden_size, "num_attention_heads", c->num_heads, "num_query_groups", c->num_kv_heads,
        "ffn_hidden_size", c->ffn_size, "vocab_size", (json_int_t)c->vocab_size, "micro_batch_size",
        (json_int_t)run->micro_batch, "seq_length", (json_int_t)run->seq_length, "tp",
        run->extent.at[TV_TENSOR], "recompute", tv_recompute_name(run->recompute),
        "sequence_parallel", run->options.is_sequence_parallel, "attention_dropout",
        run->options.attention_dropout > 0, "hidden_dropout", run->options.hidden_dropout > 0);
}

tv_status_t tv_profile_save(const char *path, const struct tv_run *run,
                            const struct tv_profile *profile)
{
    json_t *seconds = json_object();
    for (int sort = 0; sort < TV_NUM_UNIT_SORTS; sort++) {
        const struct tv_unit_times t = profile->of[sort];
        json_object_set_new(seconds, sort_names[sort],
                            json_pack("{s:f, s:f, s:f}", "forward", t.forward, "backward_input",
                                      t.backward_input, "backward_weight", t.backward_weight));
    }
    json_t *root = json_pack("{s:o, s:i, s:o}", "sizes", sizes_json(run), "threads",
                             profile->num_threads, "seconds", seconds);
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(root);
    if (text == NULL)
        return TV_ERR(TV_NO_MEMORY, "--save-profile %s", path);
    struct tv_new_file file = {0};
    tv_status_t status = tv_folder_make_parent(path);
    if (status == TV_OK)
        status = tv_new_file_open(path, &file);
    if (status == TV_OK)
        status = tv_new_file_write(&file, text, strlen(text));
    if (status == TV_OK)
        status = tv_new_file_write(&file, "\n", 1);
    if (status == TV_OK)
        status = tv_new_file_finish(&file);
    tv_new_file_abandon(&file);
    free(text);
    return status;
}

/* The first size that differs, by name, or NULL. */
static const char *differing_size(json_t *stored, json_t *wanted)
{
    const char *name;
    json_t *value;
    json_object_foreach(wanted, name, value)
    {
        if (!json_equal(json_object_get(stored, name), value))
            return name;
    }
    return NULL;
}

static tv_status_t read_times(const char *path, json_t *root, const char *sort,
                              struct tv_unit_times *times)
{
    if (json_unpack(root, "{s:{s:{s:F, s:F, s:F}}}", "seconds", sort, "forward", &times->forward,
                    "backward_input", &times->backward_input, "backward_weight",
                    &times->backward_weight) != 0 ||
        times->forward < 0 || times->backward_input < 0 || times->backward_weight < 0)
        return TV_ERR(TV_BAD_FILE, "--load-profile %s: no times of the %s", path, sort);
    return TV_OK;
}

/* Other numbers of threads change what units cost beside each other; a default is not known here. */
static tv_status_t check_threads(const char *path, const struct tv_run *run, int num_threads)
{
    const int asked = run->options.num_threads;
    if (asked <= 0 || num_threads <= 0 || asked == num_threads)
        return TV_OK;
    return TV_ERR(TV_INVALID,
                  "--load-profile %s was measured with %d thread(s) per rank, --threads is %d; "
                  "measure again with --save-profile",
                  path, num_threads, asked);
}

tv_status_t tv_profile_load(const char *path, const struct tv_run *run,
                            struct tv_profile *profile_out)
{
    json_t *root;
    struct tv_profile profile = {0};
    TV_TRY(tv_file_read_json(path, 1 << 20, &root));
    json_t *stored = json_object_get(root, "sizes"), *wanted = sizes_json(run);
    const char *differs = differing_size(stored, wanted);
    tv_status_t status = TV_OK;
    if (!json_is_object(stored))
        status = TV_ERR(TV_BAD_FILE, "--load-profile %s: no sizes", path);
    else if (differs != NULL)
        status = TV_ERR(TV_INVALID,
                        "--load-profile %s was measured for another %s; measure again with "
                        "--save-profile",
                        path, differs);
    json_decref(wanted);
    for (int sort = 0; sort < TV_NUM_UNIT_SORTS && status == TV_OK; sort++)
        status = read_times(path, root, sort_names[sort], &profile.of[sort]);
    profile.num_threads = (int)json_integer_value(json_object_get(root, "threads"));
    json_decref(root);
    if (status == TV_OK)
        status = check_threads(path, run, profile.num_threads);
    if (status == TV_OK)
        *profile_out = profile;
    return status;
}
