/* train/generator.c -- weights in one array, and a model over them that is made anew when the text
 * has outgrown it. */
#include "train/generator.h"
#include "model/model.h"
#include "train/setup.h"
#include <stdlib.h>
#include <string.h>

enum { LEAST_LENGTH = 16 };

struct tv_generator {
    struct tv_model_config config;
    struct tv_param_table table;
    struct tv_comm *comm; /* of this rank alone */
    struct tv_device *device;
    struct tv_stream *stream;
    const struct tv_kernels *kernels;
    struct tv_local_params locals;
    struct tv_buffer weights; /* [locals.count] */
    struct tv_unit_store lender;
    int length;             /* tokens of the model below; 0: there is none */
    struct tv_model *model; /* without weights of its own */
    int32_t *ids, *targets; /* [length]; nothing is a target */
};

/* Where a unit's weights begin, and the table that it shares with another unit. */
static tv_status_t lend(void *context, int unit, int next, tv_unit_use_t use,
                        struct tv_unit_memory *memory_out)
{
    const struct tv_generator *g = context;
    const float *weights = g->weights.data;
    struct tv_unit_memory memory = {0};
    (void)next;
    if (use != TV_USE_FORWARD)
        return TV_ERR(TV_INTERNAL, "unit %d: a generator has no gradients", unit);
    for (int i = g->locals.num - 1; i >= 0; i--) {
        const struct tv_local_param *local = &g->locals.params[i];
        if (local->param->unit == unit)
            memory.params = weights + local->first;
        if (local->param->tied_unit == unit)
            memory.tied_params = weights + local->first;
    }
    *memory_out = memory;
    return TV_OK;
}

static tv_status_t take_back(void *context, int unit, tv_unit_use_t use)
{
    (void)context;
    (void)unit;
    (void)use;
    return TV_OK;
}

static struct tv_model_args args_of(const struct tv_generator *g, int length,
                                    const struct tv_model_chunk *chunk)
{
    return (struct tv_model_args){
        .config = g->config,
        .axis = {.comm = g->comm, .stream = g->stream, .kernels = g->kernels},
        .micro_batch = 1,
        .seq_length = length,
        .num_chunks = 1,
        .chunks = chunk,
        .recompute = TV_RECOMPUTE_NONE,
        .store = &g->lender};
}

static struct tv_model_chunk whole_model(const struct tv_generator *g)
{
    return (struct tv_model_chunk){.num_units = g->config.num_layers + 2, .num_slots = 1};
}

/* A model of at least `length` tokens. */
static tv_status_t fit(struct tv_generator *g, int64_t length)
{
    if (g->length >= length)
        return TV_OK;
    int64_t wanted = LEAST_LENGTH;
    while (wanted < length)
        wanted *= 2;
    if (wanted > g->config.max_positions)
        wanted = g->config.max_positions;
    const struct tv_model_chunk chunk = whole_model(g);
    const struct tv_model_args args = args_of(g, (int)wanted, &chunk);
    tv_model_destroy(g->model);
    g->model = NULL;
    g->length = 0;
    free(g->ids);
    g->ids = calloc((size_t)wanted, sizeof(*g->ids));
    if (g->ids == NULL)
        return TV_ERR(TV_NO_MEMORY, "%lld tokens", (long long)wanted);
    TV_TRY(tv_model_create(&args, &g->model));
    g->length = (int)wanted;
    return TV_OK;
}

static tv_status_t keep_rows(void *context, const struct tv_param *param, int64_t first,
                             int64_t num, const float *numbers)
{
    struct tv_generator *g = context;
    for (int i = 0; i < g->locals.num; i++) {
        const struct tv_local_param *local = &g->locals.params[i];
        if (strcmp(local->param->name, param->name) != 0)
            continue;
        TV_TRY(tv_stream_copy(g->stream,
                              (float *)g->weights.data + local->first + first * param->shape[1],
                              numbers, (size_t)(num * param->shape[1]) * sizeof(float)));
        return tv_stream_synchronize(g->stream);
    }
    return TV_ERR(TV_INTERNAL, "%s has no place", param->name);
}

static tv_status_t open_device(struct tv_generator *g, int num_threads)
{
    int threads = 1;
    TV_TRY(tv_comm_self_create(&g->comm));
    TV_TRY(tv_fair_threads(g->comm, num_threads, &threads));
    TV_TRY(tv_device_open(TV_DEVICE_CPU, threads, &g->device));
    TV_TRY(tv_stream_create(g->device, &g->stream));
    return tv_kernels_open(g->device, TV_F32, &g->kernels);
}

static tv_status_t load(struct tv_generator *g, const struct tv_saved_model *saved)
{
    const struct tv_model_chunk chunk = whole_model(g);
    const struct tv_model_args args = args_of(g, 1, &chunk);
    const struct tv_saved_model_visitor keep = {g, keep_rows};
    TV_TRY(tv_model_param_table(&g->config, &g->table));
    TV_TRY(tv_model_place_params(&args, &g->table, 1, &g->locals));
    TV_TRY(tv_buffer_create(g->device, (size_t)g->locals.count * sizeof(float), TV_MEM_PARAMS,
                            &g->weights));
    return tv_saved_model_stream(saved, &keep);
}

tv_status_t tv_generator_create(const struct tv_saved_model *saved, int num_threads,
                                struct tv_generator **generator_out)
{
    struct tv_generator *g = calloc(1, sizeof(*g));
    if (g == NULL)
        return TV_ERR(TV_NO_MEMORY, "%zu bytes", sizeof(*g));
    g->config = saved->config;
    g->lender = (struct tv_unit_store){g, lend, take_back};
    tv_status_t status = open_device(g, num_threads);
    if (status == TV_OK)
        status = load(g, saved);
    if (status == TV_OK)
        *generator_out = g;
    else
        tv_generator_destroy(g);
    return status;
}

void tv_generator_destroy(struct tv_generator *g)
{
    if (g == NULL)
        return;
    tv_model_destroy(g->model);
    free(g->ids);
    tv_buffer_destroy(&g->weights);
    tv_local_params_destroy(&g->locals);
    tv_param_table_destroy(&g->table);
    tv_stream_destroy(g->stream);
    tv_device_close(g->device);
    tv_comm_destroy(g->comm);
    free(g);
}

const struct tv_model_config *tv_generator_config(const struct tv_generator *g)
{
    return &g->config;
}

tv_status_t tv_generator_next(struct tv_generator *g, const int32_t *ids, int64_t count,
                              float *scores_out)
{
    const int64_t context = g->config.max_positions;
    const int64_t num = count < context ? count : context;
    if (count < 1)
        return TV_ERR(TV_INVALID, "nothing follows %lld tokens", (long long)count);
    for (int64_t i = count - num; i < count; i++) {
        if (ids[i] < 0 || ids[i] >= g->config.vocab_size)
            return TV_ERR(TV_INVALID, "token %lld is %d, beyond the vocabulary of %lld",
                          (long long)i, ids[i], (long long)g->config.vocab_size);
    }
    TV_TRY(fit(g, num));
    /* What stands behind the text changes nothing before it: attention is causal. */
    memset(g->ids, 0, (size_t)g->length * sizeof(*g->ids));
    memcpy(g->ids, ids + count - num, (size_t)num * sizeof(*g->ids));
    const struct tv_model_call call = {.ids = g->ids};
    TV_TRY(tv_model_forward(g->model, &call));
    return tv_model_read_logits(g->model, &call, num - 1, scores_out);
}
