/* data/optimizer.c -- the update rules over ranges of a rank's flat arrays. */
#include "data/optimizer.h"
#include "data/muon.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct tv_optimizer {
    struct tv_optimizer_args args; /* its ranges are owned */
    struct tv_optimizer_range *ranges;
    /* Moments, fp32: m [count]; v as long, less the ranges that muon takes. */
    struct tv_buffer m, v;
    struct tv_buffer work; /* muon's */
    const struct tv_param **matrices;
    int num_matrices;
    struct tv_adamw_weight *adamw; /* [num_ranges] those of a step that AdamW takes, all at once */
    int num_adamw;
};

static const char *const kind_names[] = {[TV_OPTIMIZER_ADAM] = "adam",
                                         [TV_OPTIMIZER_SGD] = "sgd",
                                         [TV_OPTIMIZER_LION] = "lion",
                                         [TV_OPTIMIZER_MUON] = "muon"};

tv_status_t tv_optimizer_kind_parse(const char *word, tv_optimizer_kind_t *kind_out)
{
    for (int i = 0; i <= TV_OPTIMIZER_MUON; i++) {
        if (strcmp(word, kind_names[i]) == 0) {
            *kind_out = (tv_optimizer_kind_t)i;
            return TV_OK;
        }
    }
    return TV_ERR(TV_INVALID, "optimizer '%s' is not one of adam, sgd, lion, muon", word);
}

double tv_clip_factor(double norm, double max_norm)
{
    if (max_norm == 0)
        return 1;
    const double factor = max_norm / (norm + 1e-6);
    return factor < 1 ? factor : 1;
}

/* Elements of the second moment. */
static int64_t second_count(tv_optimizer_kind_t kind, int64_t count, int T, int num_matrices,
                            const struct tv_param *const *matrices)
{
    if (kind == TV_OPTIMIZER_SGD || kind == TV_OPTIMIZER_LION)
        return 0;
    for (int i = 0; kind == TV_OPTIMIZER_MUON && i < num_matrices; i++)
        count -= tv_param_local_count(matrices[i], T);
    return count;
}

int64_t tv_optimizer_state_bytes(tv_optimizer_kind_t kind, int64_t count, int T, int num_matrices,
                                 const struct tv_param *const *matrices)
{
    return (count + second_count(kind, count, T, num_matrices, matrices)) * (int64_t)sizeof(float);
}

int64_t tv_optimizer_work_bytes(tv_optimizer_kind_t kind, int T, int num_matrices,
                                const struct tv_param *const *matrices)
{
    int64_t most = 0;
    for (int i = 0; kind == TV_OPTIMIZER_MUON && i < num_matrices; i++) {
        const int64_t count = tv_muon_work_count(matrices[i], T);
        most = count > most ? count : most;
    }
    return most * (int64_t)sizeof(float);
}

static int takes_muon(const struct tv_optimizer *optimizer, const struct tv_optimizer_range *range)
{
    return optimizer->args.config.kind == TV_OPTIMIZER_MUON && range->matrix != NULL;
}

static tv_status_t check_ranges(int64_t count, int num_ranges,
                                const struct tv_optimizer_range *ranges)
{
    int64_t end = 0;
    for (int i = 0; i < num_ranges; i++) {
        if (ranges[i].state < end || ranges[i].count < 0 ||
            ranges[i].count > count - ranges[i].state)
            return TV_ERR(TV_INTERNAL,
                          "optimizer range %d: [%" PRId64 ", +%" PRId64
                          ") overlaps its predecessor or leaves [0, %" PRId64 ")",
                          i, ranges[i].state, ranges[i].count, count);
        end = ranges[i].state + ranges[i].count;
    }
    return TV_OK;
}

static tv_status_t copy_ranges(struct tv_optimizer *optimizer)
{
    const size_t num = (size_t)optimizer->args.num_ranges;
    const int T = optimizer->args.tensor != NULL ? tv_comm_size(optimizer->args.tensor) : 1;
    optimizer->ranges = calloc(num + 1, sizeof(*optimizer->ranges));
    optimizer->matrices = calloc(num + 1, sizeof(*optimizer->matrices));
    optimizer->adamw = calloc(num + 1, sizeof(*optimizer->adamw));
    if (optimizer->ranges == NULL || optimizer->matrices == NULL || optimizer->adamw == NULL)
        return TV_ERR(TV_NO_MEMORY, "optimizer: %zu ranges", num);
    for (size_t i = 0; i < num; i++) {
        const struct tv_optimizer_range *range = &optimizer->args.ranges[i];
        optimizer->ranges[i] = *range;
        if (!takes_muon(optimizer, range))
            continue;
        if (range->count != tv_param_local_count(range->matrix, T))
            return TV_ERR(TV_INTERNAL, "%s: a range of %" PRId64 " elements", range->matrix->name,
                          range->count);
        optimizer->matrices[optimizer->num_matrices++] = range->matrix;
    }
    optimizer->args.ranges = optimizer->ranges;
    return TV_OK;
}

static tv_status_t create_buffers(struct tv_optimizer *optimizer)
{
    const struct tv_optimizer_args *args = &optimizer->args;
    struct tv_device *device = tv_stream_device(args->stream);
    const int T = args->tensor != NULL ? tv_comm_size(args->tensor) : 1,
              num = optimizer->num_matrices;
    const tv_optimizer_kind_t kind = args->config.kind;
    const size_t second =
        (size_t)second_count(kind, args->count, T, num, optimizer->matrices) * sizeof(float);
    const size_t work = (size_t)tv_optimizer_work_bytes(kind, T, num, optimizer->matrices);
    TV_TRY(tv_buffer_create(device, (size_t)args->count * sizeof(float), TV_MEM_OPTIMIZER,
                            &optimizer->m));
    if (second > 0)
        TV_TRY(tv_buffer_create(device, second, TV_MEM_OPTIMIZER, &optimizer->v));
    if (work > 0)
        TV_TRY(tv_buffer_create(device, work, TV_MEM_OPTIMIZER, &optimizer->work));
    return TV_OK;
}

tv_status_t tv_optimizer_create(const struct tv_optimizer_args *args,
                                struct tv_optimizer **optimizer_out)
{
    TV_TRY(check_ranges(args->count, args->num_ranges, args->ranges));
    struct tv_optimizer *optimizer = calloc(1, sizeof(*optimizer));
    if (optimizer == NULL)
        return TV_ERR(TV_NO_MEMORY, "optimizer: %zu bytes", sizeof(*optimizer));
    optimizer->args = *args;
    tv_status_t status = copy_ranges(optimizer);
    if (status == TV_OK)
        status = create_buffers(optimizer);
    if (status != TV_OK) {
        tv_optimizer_destroy(optimizer);
        return status;
    }
    *optimizer_out = optimizer;
    return TV_OK;
}

void tv_optimizer_destroy(struct tv_optimizer *optimizer)
{
    if (optimizer == NULL)
        return;
    tv_buffer_destroy(&optimizer->m);
    tv_buffer_destroy(&optimizer->v);
    tv_buffer_destroy(&optimizer->work);
    free(optimizer->ranges);
    free(optimizer->matrices);
    free(optimizer->adamw);
    free(optimizer);
}

float *tv_optimizer_moment(struct tv_optimizer *optimizer, int range, int moment)
{
    int64_t first = optimizer->ranges[range].state;
    if (moment == 0)
        return (float *)optimizer->m.data + first;
    if (optimizer->v.data == NULL || takes_muon(optimizer, &optimizer->ranges[range]))
        return NULL;
    for (int i = 0; i < range; i++)
        first -= takes_muon(optimizer, &optimizer->ranges[i]) ? optimizer->ranges[i].count : 0;
    return (float *)optimizer->v.data + first;
}

/* What a rule needs to know about one range. */
struct update {
    int64_t count;
    float *param, *m, *v;
    const float *grad;
    void *rounded; /* or NULL */
    double lr, weight_decay, grad_scale;
};

static tv_status_t add_adamw(struct tv_optimizer *optimizer, const struct update *u)
{
    optimizer->adamw[optimizer->num_adamw++] =
        (struct tv_adamw_weight){.count = u->count,
                                 .param = u->param,
                                 .m = u->m,
                                 .v = u->v,
                                 .grad = u->grad,
                                 .lr = u->lr,
                                 .weight_decay = u->weight_decay,
                                 .rounded = u->rounded};
    return TV_OK;
}

static tv_status_t step_adamw(struct tv_optimizer *optimizer, double grad_scale, int64_t step)
{
    const struct tv_optimizer_config *config = &optimizer->args.config;
    const struct tv_adamw_args args = {
        .num = optimizer->num_adamw,
        .of = optimizer->adamw,
        .beta1 = config->beta1,
        .beta2 = config->beta2,
        .eps = config->eps,
        .grad_scale = grad_scale,
        .step = step,
    };
    if (args.num == 0)
        return TV_OK;
    return optimizer->args.kernels->adamw(optimizer->args.stream, &args);
}

static tv_status_t step_sgd(struct tv_optimizer *optimizer, const struct update *u)
{
    const struct tv_optimizer_args *o = &optimizer->args;
    const int64_t n = u->count;
    const struct tv_axpby_args momentum = {1,       n,   n, n, u->grad_scale, o->config.momentum,
                                           u->grad, u->m};
    const struct tv_axpby_args param = {1,    n,       n, n, -u->lr, 1 - u->lr * u->weight_decay,
                                        u->m, u->param};
    TV_TRY(o->kernels->axpby(o->stream, &momentum));
    return o->kernels->axpby(o->stream, &param);
}

static tv_status_t step_lion(struct tv_optimizer *optimizer, const struct update *u)
{
    const struct tv_optimizer_config *config = &optimizer->args.config;
    const struct tv_lion_args args = {
        .count = u->count,
        .param = u->param,
        .m = u->m,
        .grad = u->grad,
        .lr = u->lr,
        .beta1 = config->beta1,
        .beta2 = config->beta2,
        .weight_decay = u->weight_decay,
        .grad_scale = u->grad_scale,
    };
    return optimizer->args.kernels->lion(optimizer->args.stream, &args);
}

static tv_status_t step_muon(struct tv_optimizer *optimizer, const struct tv_param *matrix,
                             const struct update *u)
{
    const struct tv_optimizer_args *o = &optimizer->args;
    const struct tv_muon_args args = {
        .stream = o->stream,
        .kernels = o->kernels,
        .tensor = o->tensor,
        .matrix = matrix,
        .param = u->param,
        .m = u->m,
        .grad = u->grad,
        .lr = u->lr,
        .momentum = o->config.momentum,
        .weight_decay = u->weight_decay,
        .grad_scale = u->grad_scale,
        .work = optimizer->work.data,
    };
    return tv_muon_step(&args);
}

static tv_status_t step_alone(struct tv_optimizer *optimizer, const struct tv_param *matrix,
                              const struct update *u)
{
    switch (optimizer->args.config.kind) {
    case TV_OPTIMIZER_SGD:
        return step_sgd(optimizer, u);
    case TV_OPTIMIZER_LION:
        return step_lion(optimizer, u);
    case TV_OPTIMIZER_MUON:
        return step_muon(optimizer, matrix, u);
    case TV_OPTIMIZER_ADAM:
        break;
    }
    return TV_ERR(TV_INTERNAL, "optimizer %d", (int)optimizer->args.config.kind);
}

static tv_status_t step_range(struct tv_optimizer *optimizer,
                              const struct tv_optimizer_range *range, const struct update *u)
{
    const struct tv_optimizer_args *o = &optimizer->args;
    const struct tv_to_bf16_args round = {u->count, u->param, u->rounded};
    if (o->config.kind == TV_OPTIMIZER_ADAM ||
        (o->config.kind == TV_OPTIMIZER_MUON && range->matrix == NULL))
        return add_adamw(optimizer, u);
    TV_TRY(step_alone(optimizer, range->matrix, u));
    return u->rounded != NULL ? o->kernels->to_bf16(o->stream, &round) : TV_OK;
}

tv_status_t tv_optimizer_step(struct tv_optimizer *optimizer, float *params, void *rounded,
                              const float *grads, const double *lr, double grad_scale, int64_t step)
{
    if (step < 1)
        return TV_ERR(TV_INTERNAL, "optimizer step %" PRId64 ": steps count from 1", step);
    optimizer->num_adamw = 0;
    for (int i = 0; i < optimizer->args.num_ranges; i++) {
        const struct tv_optimizer_range *range = &optimizer->ranges[i];
        const struct update update = {
            .count = range->count,
            .param = params + range->param,
            .m = tv_optimizer_moment(optimizer, i, 0),
            .v = tv_optimizer_moment(optimizer, i, 1),
            .grad = grads + range->grad,
            .rounded = rounded != NULL ? tv_at(rounded, range->rounded, TV_BF16) : NULL,
            .lr = lr[range->lr_group],
            .weight_decay = range->has_decay ? optimizer->args.config.weight_decay : 0,
            .grad_scale = grad_scale,
        };
        TV_TRY(step_range(optimizer, range, &update));
    }
    return step_adamw(optimizer, grad_scale, step);
}
